//! Many at once: a list of requests that belongs to one waiter, a *window*.
//!
//! A list may be longer than the queue, and must not stand in the way of single calls. So of each window
//! only so many requests are pending at a time (two batches), the rest waits in a backlog of its own, and
//! the scheduler lets the next in as earlier ones are sealed, in order, behind whoever came meanwhile.
//! What waits in a backlog is not counted yet: it is submitted when it is let in, or ends. Lists that one
//! reader submits one after the other go as a *convoy*: two batches of all of them together.
//!
//! The waiter is told once, when the last request has its outcome, or at each step that brings some.
//! Each step counts down what it ended (`left`); whoever takes it to nothing tells. Outcomes are published before
//! the countdown and collected after it was seen: its swap releases, the waiter's load acquires.
//!
//! Ownership. A request refers to its window (waiter and countdown), the ticket and the backlog to the
//! list of requests that were made, so nothing goes in a circle. Payloads that never became requests
//! end up with the ticket: they are dropped where the waiter can.

mod rest;

use crate::border::{Border, Failure};
use crate::clock::NEVER;
use crate::error::Refusal;
use crate::reply::Cancelled;
use crate::request::{Handle, Terms};
use crate::scheduler::packs::Packs;
use crate::scheduler::{Phase, Shared};
use crate::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
};
use crate::sync::{Arc, Mutex, lock};
use crate::watch::End;
pub(crate) use rest::Rest;

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
    /// What a batch holds of it is to leave together.
    pub(crate) together: bool,
    pub(crate) convoy: Arc<Ahead>,
    /// Whether its requests differ in key or cost, so that their number does not say how many batches they make.
    pub(crate) packed: bool,
}

/// What is pending of lists that go together; touched under the scheduler's lock only.
#[derive(Default)]
pub(crate) struct Ahead {
    pub(crate) count: AtomicUsize,
    /// Of those that differ.
    pub(crate) packs: Mutex<Packs>,
}

/// Lists that one reader submits one after the other: all together they have no more pending than one would.
#[derive(Clone, Default)]
pub struct Convoy(Arc<Ahead>);

impl<B: Border> Window<B> {
    /// `n` more have their outcomes, published.
    pub(crate) fn count_down(&self, n: usize) {
        let before = self.left.fetch_sub(n, AcqRel);
        debug_assert!(before >= n, "an outcome was counted twice");
        if before == n || self.told == Told::PerStep {
            B::wake_window(&self.waiter);
        }
    }

    /// A request with these terms is pending no more.
    pub(crate) fn leave(&self, terms: &Terms) {
        self.convoy.count.fetch_sub(1, Relaxed);
        if self.packed {
            lock(&self.convoy.packs).leave(terms.key);
        }
    }
}

/// What became of one of a list so far.
pub(crate) enum Place<B: Border> {
    Waiting,
    Made(Handle<B>),
    /// It was never let in, and will not be.
    Ended(Failure),
}

/// What became of a list: of each in its order, as far as anything did.
pub(crate) struct List<B: Border> {
    places: Vec<Place<B>>,
    /// Payloads of those that were never let in.
    ended: Vec<B::Payload>,
}

impl<B: Border> List<B> {
    pub(crate) fn put(&mut self, place: usize, what: Place<B>) {
        // In order, as a rule.
        if place >= self.places.len() {
            self.places.resize_with(place, || Place::Waiting);
            self.places.push(what);
        } else {
            self.places[place] = what;
        }
    }

    fn end(&mut self, place: usize, why: Failure, payload: B::Payload) {
        self.put(place, Place::Ended(why));
        self.ended.push(payload);
    }
}

/// What of a window has not been let in yet.
pub(crate) struct Backlog<B: Border> {
    pub(crate) window: Arc<Window<B>>,
    pub(crate) list: Arc<Mutex<List<B>>>,
    pub(crate) terms: Terms,
    pub(crate) waiting: Rest<B::Payload>,
}

impl<B: Border> Backlog<B> {
    /// Ends the rest; how many that were.
    pub(crate) fn end(&mut self, why: Failure) -> usize {
        let all = self.waiting.drain();
        let (n, mut list) = (all.len(), lock(&self.list));
        for (place, item) in all {
            list.end(place, why, item.payload);
        }
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
        let request = match list.places.get(index)? {
            Place::Waiting => return None,
            Place::Made(request) => request.clone(),
            Place::Ended(why) => return Some(B::failure(*why)),
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
        let places = std::mem::take(&mut list.places);
        let ended = std::mem::take(&mut list.ended);
        drop(list);
        drop(ended);
        let answer = |place: &Place<B>| match place {
            Place::Waiting => None,
            Place::Made(request) => outcome(request),
            Place::Ended(why) => Some(B::failure(*why)),
        };
        places.iter().filter_map(answer).collect()
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
                    let rest = backlog.waiting.drain().into_iter();
                    payloads.extend(rest.map(|(_, item)| item.payload));
                    out.backlogs.push((backlog, 0));
                }
            }
            for place in &lock(&self.list).places {
                let Place::Made(request) = place else {
                    continue;
                };
                let (met, payload) = request.reply.cancel();
                if met == Cancelled::Pending {
                    shared.dead.fetch_add(1, SeqCst);
                    shared.cancelled.fetch_add(1, Relaxed);
                    let arrival = request.terms.arrival;
                    shared.watch.ended(arrival, End::Cancelled, || now);
                    shared.leave_queue(1, request.terms.cost);
                    self.window.leave(&request.terms);
                }
                payloads.extend(payload.or_else(|| request.reclaim()));
            }
            state.settle(shared, now, out);
        });
        payloads.append(&mut lock(&self.list).ended);
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

/// How a list is submitted.
pub(crate) struct How<'a> {
    pub(crate) told: Told,
    /// What is pending by then leaves as soon as a slot is free.
    pub(crate) flushes: bool,
    pub(crate) convoy: Option<&'a Convoy>,
}

/// Submits a list under the terms of all; arrival is that of each when it is let in.
pub(crate) fn submit_many<B: Border>(
    shared: &Arc<Shared<B>>,
    mut items: Vec<Item<B::Payload>>,
    waiter: B::Waiter,
    terms: Terms,
    how: &How<'_>,
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
    let most = shared.posted.most_of_one();
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
            told: how.told,
            left: AtomicUsize::new(len),
            together: how.flushes,
            convoy: how.convoy.cloned().unwrap_or_default().0,
            packed: shared.has_budget() || items.iter().any(|item| item.key != 0),
        });
        let mut list = List {
            places: Vec::with_capacity(len),
            ended: Vec::new(),
        };
        let in_time = state.in_time(shared, &terms, &items, now);
        for (place, item) in items.drain(in_time..).enumerate() {
            list.end(in_time + place, Failure::Expired, item.payload);
        }
        let list = Arc::new(Mutex::new(list));
        if !items.is_empty() {
            state.backlogs.push_back(Backlog {
                window: window.clone(),
                list: list.clone(),
                terms,
                waiting: Rest::of(items),
            });
            if how.flushes {
                state.flushed = Some(now);
            }
            state.settle(shared, now, out);
        }
        Ok((window, list, len - in_time))
    });
    let (window, list, late) = match submitted {
        Ok(made) => made,
        Err((items, waiter)) => return refuse(Refusal::Closed, items, waiter),
    };
    if late > 0 {
        shared.rejected.fetch_add(late as u64, Relaxed);
        if shared.watch.samples() {
            shared
                .watch
                .ended_many(late, terms.arrival, End::Refused, now);
        }
        window.count_down(late);
    }
    if terms.deadline != NEVER && late < len {
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
