//! Deadlines of pending requests, earliest first, and how the timer thread learns of the next.
//!
//! The index is kept under the scheduler's lock, by those who take requests in, claim and sweep them;
//! a request without a deadline never touches it. A claimed request leaves it at once, a cancelled one
//! with its dead handle, so it holds at most as much as the queue does.
//!
//! *Arming.* `armed` is the moment for which `expire_due` has been asked for, or never. A submitter pushes,
//! then reads it: no later than its deadline, done; else it lowers it, and whoever lowered it asks
//! ([`Border::arm`]). `expire_due` takes it down to never, then drains the intake and looks for the
//! earliest deadline, for which it asks again. Both write first and read second, in one order with
//! each other: a submitter that read the old moment has pushed before the drain.

use std::collections::BTreeMap;

use super::{Outbox, Phase, Shared, State};
use crate::batcher::Batcher;
use crate::border::{Border, Failure};
use crate::clock::{NEVER, Nanos};
use crate::many::Backlog;
use crate::request::Handle;
use crate::sync::Arc;
use crate::sync::atomic::Ordering::SeqCst;
use crate::watch::End;

/// Requests by deadline; where those are equal, by their addresses, which differ while they are kept.
pub(crate) struct Deadlines<B: Border>(BTreeMap<(Nanos, usize), Handle<B>>);

impl<B: Border> Default for Deadlines<B> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

fn place<B: Border>(request: &Handle<B>) -> (Nanos, usize) {
    (request.terms.deadline, &raw const **request as usize)
}

impl<B: Border> Deadlines<B> {
    #[inline(always)]
    pub(crate) fn add(&mut self, request: &Handle<B>) {
        if request.terms.deadline != NEVER {
            self.insert(request);
        }
    }

    // Out of line, so that a plain request pays for the look alone.
    #[cold]
    fn insert(&mut self, request: &Handle<B>) {
        self.0.insert(place(request), request.clone());
    }

    /// For a request that was just taken out of the queue: whoever did so holds it.
    #[inline(always)]
    pub(super) fn forget(&mut self, request: &Handle<B>) {
        if request.terms.deadline != NEVER {
            self.remove(request);
        }
    }

    #[cold]
    fn remove(&mut self, request: &Handle<B>) {
        self.0.remove(&place(request));
    }

    fn first(&self) -> Option<Nanos> {
        self.0.first_key_value().map(|(&(deadline, _), _)| deadline)
    }

    fn take_due(&mut self, now: Nanos) -> Option<Handle<B>> {
        let due = self.first()? <= now;
        due.then(|| self.0.pop_first().map(|(_, request)| request))?
    }

    /// Drops the handles of requests that have ended.
    pub(super) fn compact(&mut self, garbage: &mut Vec<Handle<B>>) {
        self.0.retain(|_, request| {
            let reply = &request.reply;
            let live = reply.is_pending() || reply.is_in_lobby();
            if !live {
                garbage.push(request.clone());
            }
            live
        });
    }

    pub(super) fn clear(&mut self, garbage: &mut Vec<Handle<B>>) {
        garbage.extend(std::mem::take(&mut self.0).into_values());
    }
}

impl<B: Border> State<B> {
    /// Ends what is overdue; its places are free at once.
    #[inline]
    pub(super) fn expire_due(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {
        // Where late ones are refused, who has no chance any more is overdue.
        let due = now.saturating_add(self.lead(shared));
        while let Some(request) = self
            .deadlines
            .take_due(now.saturating_add(self.lead(shared)))
        {
            self.expire(shared, request, out);
        }
        if self.first_of_backlogs().is_some_and(|first| first <= due) {
            let overdue = |backlog: &Backlog<B>| backlog.terms.deadline <= due;
            self.end_backlogs(shared, Failure::Expired, overdue, out);
        }
    }

    fn first_deadline(&self) -> Option<Nanos> {
        let of_backlogs = self.first_of_backlogs().filter(|&first| first != NEVER);
        [self.deadlines.first(), of_backlogs]
            .into_iter()
            .flatten()
            .min()
    }

    fn expire(&mut self, shared: &Shared<B>, request: Handle<B>, out: &mut Outbox<B>) {
        let pending = request.reply.expire();
        if !pending && !request.reply.expire_in_lobby() {
            // Cancelled.
            out.garbage.push(request);
            return;
        }
        self.counters.failed += 1;
        self.counters.expired += 1;
        let arrival = request.terms.arrival;
        shared.watch.ended(arrival, End::Expired, || shared.now());
        // Its handle stays queued until somebody meets it: as in a cancel, the mark comes first.
        shared.dead.fetch_add(1, SeqCst);
        if pending {
            shared.leave_queue(1, request.terms.cost);
            if let Some(window) = request.window() {
                window.leave(&request.terms);
            }
        }
        out.expired.push(request);
    }
}

impl<B: Border> Shared<B> {
    /// Makes sure that `expire_due` is called at `moment`; after the push, or after the look.
    pub(crate) fn keep_deadline(shared: &Arc<Self>, moment: Nanos) {
        let armed = &shared.armed;
        if armed.load(SeqCst) > moment && armed.fetch_min(moment, SeqCst) > moment {
            B::arm(&Batcher::of(shared.clone()), moment);
        }
    }

    /// Ends what is overdue, and asks to be called again for the deadline that comes next.
    pub(crate) fn expire_due(shared: &Arc<Self>) {
        let now = shared.now();
        if shared.armed.load(SeqCst) > now {
            // Asked for more than once: all that is overdue has been met.
            return;
        }
        shared.armed.swap(NEVER, SeqCst);
        let next = shared.locked(|state, out| {
            if state.phase == Phase::Failing {
                // Nothing is left, or its submitter looks after it; failing it here would tell its
                // caller from a thread that must not.
                return None;
            }
            state.settle(shared, now, out);
            state.first_deadline()
        });
        if let Some(next) = next {
            Self::keep_deadline(shared, next);
        }
    }
}
