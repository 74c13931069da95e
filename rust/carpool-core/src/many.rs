//! Many at once: a list of requests that belongs to one waiter, a *window*.
//!
//! A list may be longer than the queue, and must not stand in the way of single calls. So of each window
//! only so many requests are pending at a time (two batches), the rest waits in a backlog of its own, and
//! the scheduler lets the next in as earlier ones are sealed, in order, behind whoever came meanwhile.
//! What waits in a backlog is not counted yet: it is submitted when it is let in, or ends.
//!
//! The waiter is told once, when the last request has its outcome, or at each step that brings some.
//! Each step counts down what it ended (`left`); whoever takes it to nothing tells. Outcomes are published before
//! the countdown and collected after it was seen: its swap releases, the waiter's load acquires.
//!
//! Ownership. A request refers to its window (waiter and countdown), the ticket and the backlog to the
//! list of requests that were made, so nothing goes in a circle. Payloads that never became requests
//! end up with the ticket: they are dropped where the waiter can.

use std::collections::VecDeque;

use crate::border::{Border, Failure};
use crate::clock::NEVER;
use crate::error::Refusal;
use crate::reply::Cancelled;
use crate::request::{Handle, Terms};
use crate::scheduler::{Phase, Shared};
use crate::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
};
use crate::sync::{Arc, Mutex, lock};
use crate::watch::End;

/// One of many: a payload, and what its request may differ in from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<P> {
    /// The caller's value.
    pub payload: P,
    /// What it counts against `max_batch_cost`.
    pub cost: u64,
    /// Requests share a batch only where their keys are equal.
    pub key: u64,
    /// What is padded to the longest of a batch.
    pub length: u64,
}

impl<P> Item<P> {
    /// A plain one.
    pub fn of(payload: P) -> Self {
        Self {
            payload,
            cost: 1,
            key: 0,
            length: 0,
        }
    }
}

/// When the waiter of a window is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Once, when all have their outcomes.
    AtTheEnd,
    /// Also at each step in which some got theirs: once per batch, as a rule.
    PerStep,
}

/// Many that were refused, untouched.
pub struct RefusedMany<P, W> {
    /// Why.
    pub why: Refusal,
    /// What was to be submitted.
    pub items: Vec<Item<P>>,
    /// Who would have waited.
    pub waiter: W,
}

impl<P, W> std::fmt::Debug for RefusedMany<P, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefusedMany")
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

/// What all requests of a list share.
pub(crate) struct Window<B: Border> {
    pub(crate) waiter: B::Waiter,
    told: Told,
    /// Without an outcome.
    left: AtomicUsize,
    /// How many are pending while the backlog lasts; touched under the scheduler's lock only.
    pub(crate) ahead: AtomicUsize,
    /// What a batch holds of it is to leave together.
    pub(crate) together: bool,
}

impl<B: Border> Window<B> {
    /// `n` more have their outcomes, published.
    pub(crate) fn count_down(&self, n: usize) {
        let before = self.left.fetch_sub(n, AcqRel);
        debug_assert!(before >= n, "an outcome was counted twice");
        if before == n || self.told == Told::PerStep {
            B::wake_window(&self.waiter);
        }
    }
}

/// The requests that were made of a list, in its order, and what became of the rest.
pub(crate) struct List<B: Border> {
    pub(crate) made: Vec<Handle<B>>,
    /// Why the rest will never be let in, and its payloads.
    pub(crate) rest: Option<(Failure, Vec<B::Payload>)>,
}

/// What of a window has not been let in yet.
pub(crate) struct Backlog<B: Border> {
    pub(crate) window: Arc<Window<B>>,
    pub(crate) list: Arc<Mutex<List<B>>>,
    pub(crate) terms: Terms,
    pub(crate) waiting: VecDeque<Item<B::Payload>>,
}

impl<B: Border> Backlog<B> {
    /// Ends the rest; how many that were.
    pub(crate) fn end(&mut self, why: Failure) -> usize {
        let payloads: Vec<_> = self.waiting.drain(..).map(|item| item.payload).collect();
        let n = payloads.len();
        lock(&self.list).rest = Some((why, payloads));
        n
    }
}

/// The caller's end of a window. Dropping it changes nothing.
pub struct Many<B: Border> {
    shared: Arc<Shared<B>>,
    window: Arc<Window<B>>,
    list: Arc<Mutex<List<B>>>,
    len: usize,
}

impl<B: Border> Many<B> {
    /// How many requests it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// It never had any.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many have no outcome yet.
    pub fn left(&self) -> usize {
        self.window.left.load(Acquire)
    }

    /// Whether all have their outcomes.
    pub fn is_over(&self) -> bool {
        self.left() == 0
    }

    /// The outcome of request `index`, once there; to the first who asks.
    pub fn take(&self, index: usize) -> Option<B::Answer> {
        if index >= self.len {
            return None;
        }
        let list = lock(&self.list);
        let Some(request) = list.made.get(index).cloned() else {
            let (why, _) = list.rest.as_ref()?;
            return Some(B::failure(*why));
        };
        drop(list);
        outcome(&request)
    }

    /// All outcomes, in order, once it is over; then it holds nothing any more. Drops the payloads of
    /// those that never ran.
    pub fn take_all(&self) -> Vec<B::Answer> {
        if !self.is_over() {
            return Vec::new();
        }
        let mut list = lock(&self.list);
        let (made, rest) = (std::mem::take(&mut list.made), list.rest.take());
        drop(list);
        let mut answers: Vec<_> = made.iter().filter_map(outcome).collect();
        if let Some((why, payloads)) = rest {
            answers.extend(payloads.iter().map(|_| B::failure(why)));
        }
        answers
    }

    /// Gives up on all of them: what is not sealed never reaches the handler, the answers of the rest are
    /// dropped, and nobody is told any more. The payloads come back to be dropped wherever the caller
    /// of this can.
    pub fn cancel(&self) -> Vec<B::Payload> {
        let shared = &self.shared;
        let mut payloads = Vec::new();
        let now = shared.now();
        shared.locked(|state, out| {
            let own = |backlog: &Backlog<B>| Arc::ptr_eq(&backlog.window, &self.window);
            if let Some(at) = state.backlogs.iter().position(own) {
                if let Some(mut backlog) = state.backlogs.remove(at) {
                    let waiting = backlog.waiting.len();
                    shared.cancelled.fetch_add(waiting as u64, Relaxed);
                    if shared.watch.samples() {
                        let arrival = backlog.terms.arrival;
                        shared
                            .watch
                            .ended_many(waiting, arrival, End::Cancelled, now);
                    }
                    payloads.extend(backlog.waiting.drain(..).map(|item| item.payload));
                    out.backlogs.push((backlog, 0));
                }
            }
            for request in &lock(&self.list).made {
                let (met, payload) = request.reply.cancel();
                if met == Cancelled::Pending {
                    shared.dead.fetch_add(1, SeqCst);
                    shared.cancelled.fetch_add(1, Relaxed);
                    let arrival = request.terms.arrival;
                    shared.watch.ended(arrival, End::Cancelled, || now);
                    shared.leave_queue(1, request.terms.cost);
                }
                payloads.extend(payload.or_else(|| request.reclaim()));
            }
            state.settle(shared, now, out);
        });
        let rest = lock(&self.list).rest.take();
        payloads.extend(rest.into_iter().flat_map(|(_, payloads)| payloads));
        payloads
    }
}

fn outcome<B: Border>(request: &Handle<B>) -> Option<B::Answer> {
    request.reply.take().or_else(|| {
        let payload = request.reclaim();
        let expired = payload.is_some();
        drop(payload);
        expired.then(|| B::failure(Failure::Expired))
    })
}

/// Submits a list under the terms of all; arrival is that of each when it is let in. `flushes`: what is pending
/// by then leaves as soon as a slot is free.
pub(crate) fn submit_many<B: Border>(
    shared: &Arc<Shared<B>>,
    items: Vec<Item<B::Payload>>,
    waiter: B::Waiter,
    terms: Terms,
    told: Told,
    flushes: bool,
) -> Result<Many<B>, RefusedMany<B::Payload, B::Waiter>> {
    let len = items.len();
    let refuse = |why, items, waiter| {
        shared.rejected.fetch_add(len as u64, Relaxed);
        if shared.watch.samples() {
            shared
                .watch
                .ended_many(len, terms.arrival, End::Refused, shared.now());
        }
        Err(RefusedMany { why, items, waiter })
    };
    let most = shared.posted.max_batch_cost();
    if items.iter().any(|item| item.cost > most) {
        return refuse(Refusal::TooLarge, items, waiter);
    }
    let now = shared.now();
    let submitted = shared.locked(|state, out| {
        if state.phase != Phase::Open {
            return Err((items, waiter));
        }
        let window = Arc::new(Window {
            waiter,
            told,
            left: AtomicUsize::new(len),
            ahead: AtomicUsize::new(0),
            together: flushes,
        });
        let list = Arc::new(Mutex::new(List {
            made: Vec::with_capacity(len),
            rest: None,
        }));
        if len > 0 {
            state.backlogs.push_back(Backlog {
                window: window.clone(),
                list: list.clone(),
                terms,
                waiting: items.into(),
            });
            if flushes {
                state.flushed = Some(now);
            }
            state.settle(shared, now, out);
        }
        Ok((window, list))
    });
    let (window, list) = match submitted {
        Ok(made) => made,
        Err((items, waiter)) => return refuse(Refusal::Closed, items, waiter),
    };
    if terms.deadline != NEVER && len > 0 {
        Shared::keep_deadline(shared, terms.deadline);
    }
    Ok(Many {
        shared: shared.clone(),
        window,
        list,
        len,
    })
}

/// Tells those who wait for one request by `tell`, and counts down the windows of the others.
pub(crate) fn tell_each<B: Border>(mut requests: Vec<Handle<B>>, tell: fn(Vec<Handle<B>>)) {
    let mut windows: Vec<(Arc<Window<B>>, usize)> = Vec::new();
    if requests.iter().any(|request| request.window().is_some()) {
        requests.retain(|request| {
            let Some(window) = request.window() else {
                return true;
            };
            let known = windows.iter_mut().rev();
            match known
                .into_iter()
                .find(|(known, _)| Arc::ptr_eq(known, window))
            {
                Some((_, n)) => *n += 1,
                None => windows.push((window.clone(), 1)),
            }
            false
        });
    }
    if !requests.is_empty() {
        tell(requests);
    }
    for (window, n) in windows {
        window.count_down(n);
    }
}
