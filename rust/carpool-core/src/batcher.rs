//! The handle that holds the way together: submit on one side, slots on the other, and the end.

use std::task::Waker;

use crate::alone::Alone;
#[cfg(doc)]
use crate::batch::Batch;
use crate::border::Border;
use crate::clock::{Clock, NEVER, Nanos};
use crate::error::Refused;
use crate::limits::{BadLimit, Limits};
use crate::many::{Convoy, How, Item, Many, RefusedMany, Told, submit_many};
use crate::request::Terms;
use crate::scheduler::learned::{Learned, Learning};
use crate::scheduler::{Phase, Shared};
use crate::slot::{Pulled, Seat, pull_own, try_pull};
use crate::stats::{Snapshot, since};
use crate::submit::{Announce, Ticket, submit};
use crate::sync::Arc;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::watch::Due;

/// One batcher. Clones are the same one.
pub struct Batcher<B: Border> {
    shared: Arc<Shared<B>>,
}

impl<B: Border> Clone for Batcher<B> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<B: Border> Batcher<B> {
    /// A batcher that keeps to `limits` and reads `clock`. Starts nothing.
    pub fn new(limits: Limits, clock: B::Clock) -> Result<Self, BadLimit> {
        Self::learning(limits, Learning::default(), clock)
    }

    /// The same for one that learns from the batches that ran.
    pub fn learning(limits: Limits, learning: Learning, clock: B::Clock) -> Result<Self, BadLimit> {
        limits.check()?;
        let limits = learning.limit(limits)?;
        Ok(Self {
            shared: Arc::new(Shared::new(limits, learning, clock)),
        })
    }

    pub(crate) fn of(shared: Arc<Shared<B>>) -> Self {
        Self { shared }
    }

    #[cfg(not(loom))]
    pub(crate) fn shared(&self) -> &Arc<Shared<B>> {
        &self.shared
    }

    /// Whether it refuses requests that would be late.
    pub fn refuses_late(&self) -> bool {
        self.shared.learning.refuse_late
    }

    /// Its clock.
    pub fn clock(&self) -> &B::Clock {
        &self.shared.clock
    }

    /// What it keeps to now.
    pub fn limits(&self) -> Limits {
        self.shared.locked(|state, _| Limits {
            max_batch_size: state.asked.0,
            max_batch_cost: state.asked.1,
            ..state.limits
        })
    }

    /// Keeps to other limits from the next decision on: all of them or, where one cannot be kept or is settled for
    /// good, none. What is pending stays; what was let in under other limits still runs.
    pub fn configure(&self, limits: Limits) -> Result<(), BadLimit> {
        self.reconfigure(limits, None)
    }

    /// The same, and another latency target (or none) with them. What was learned stays known.
    pub fn configure_aiming(&self, limits: Limits, target: Option<Nanos>) -> Result<(), BadLimit> {
        self.reconfigure(limits, Some(target))
    }

    fn reconfigure(&self, limits: Limits, target: Option<Option<Nanos>>) -> Result<(), BadLimit> {
        let now = self.now();
        let shared = &self.shared;
        shared.locked(|state, out| {
            state
                .limits
                .check_change(shared.posted.counts_cost, &limits)?;
            let limits = shared.learning.limit(limits)?;
            state.keep_to(shared, limits);
            if let Some(target) = target {
                Learned::aim(&mut state.learned, target, &shared.learning, &limits);
            }
            state.settle(shared, now, out);
            Ok(())
        })
    }

    /// Most requests in one batch, no more than its handler has memory for (see [`Batch::was_too_large`]), as far as
    /// known without the scheduler's lock.
    #[inline]
    pub fn max_batch_size(&self) -> usize {
        self.shared.posted.max_batch_size()
    }

    /// What one request may cost at most: less than a batch, where that is padded and filled up to a size.
    pub fn most_of_one(&self) -> u64 {
        self.shared.posted.most_of_one()
    }

    /// Most batches in flight at once, in the same way.
    pub fn slots(&self) -> usize {
        self.shared.posted.slots()
    }

    /// The present moment of its clock.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.shared.clock.now()
    }

    /// Submits a plain request that arrives now. A refused one comes back whole.
    #[inline]
    pub fn submit(
        &self,
        payload: B::Payload,
        waiter: B::Waiter,
    ) -> Result<Ticket<B>, Refused<B::Payload, B::Waiter>> {
        self.submit_with(payload, waiter, Terms::at(self.now()), Announce::Yes)
    }

    /// Submits with terms of its own. With [`Announce::No`] the caller owes a [`Batcher::pull_own`].
    #[inline]
    pub fn submit_with(
        &self,
        payload: B::Payload,
        waiter: B::Waiter,
        terms: Terms,
        announce: Announce,
    ) -> Result<Ticket<B>, Refused<B::Payload, B::Waiter>> {
        submit(&self.shared, payload, waiter, terms, announce)
    }

    /// Counts a request that is refused by itself, of a list that is not.
    pub fn count_rejected(&self) {
        self.shared.rejected.fetch_add(1, Relaxed);
    }

    /// Submits a list for one waiter, under the terms of all (their arrival is when each is let in): longer
    /// than the queue, if need be, and never in the way of single calls. A refused one comes back whole.
    pub fn submit_many(
        &self,
        items: Vec<Item<B::Payload>>,
        waiter: B::Waiter,
        terms: Terms,
        told: Told,
    ) -> Result<Many<B>, RefusedMany<B::Payload, B::Waiter>> {
        let how = How {
            told,
            flushes: false,
            convoy: None,
        };
        submit_many(&self.shared, items, waiter, terms, &how)
    }

    /// The same for one of several lists, which go together: all of them have no more pending than one would.
    pub fn submit_in(
        &self,
        convoy: &Convoy,
        items: Vec<Item<B::Payload>>,
        waiter: B::Waiter,
        terms: Terms,
        told: Told,
    ) -> Result<Many<B>, RefusedMany<B::Payload, B::Waiter>> {
        let how = How {
            told,
            flushes: false,
            convoy: Some(convoy),
        };
        submit_many(&self.shared, items, waiter, terms, &how)
    }

    /// The same, with a [flush](Self::flush) at the same moment: what of the list is let in at once leaves
    /// together, as far as one batch holds it.
    pub fn submit_together(
        &self,
        items: Vec<Item<B::Payload>>,
        waiter: B::Waiter,
        terms: Terms,
    ) -> Result<Many<B>, RefusedMany<B::Payload, B::Waiter>> {
        let how = How {
            told: Told::AtTheEnd,
            flushes: true,
            convoy: None,
        };
        submit_many(&self.shared, items, waiter, terms, &how)
    }

    /// A place to wait for batches.
    pub fn seat(&self) -> Seat<B> {
        Seat::new(self.shared.clone())
    }

    /// A batch of at most `size` if one is due and a slot is free, else when to ask again. Nothing is
    /// left behind: for slots that are told of new requests and of free slots in another way.
    pub fn try_pull(&self, size: usize) -> Pulled<B> {
        try_pull(&self.shared, size)
    }

    /// How many requests are pending.
    #[inline]
    pub fn pending(&self) -> usize {
        self.shared.admission.count()
    }

    /// Whether nothing is pending and nothing in flight.
    pub fn is_idle(&self) -> bool {
        let shared = &self.shared;
        shared.locked(|state, _| {
            state.counters.in_flight == 0
                && state.nothing_waits_for_room()
                && shared.admission.count() == 0
        })
    }

    /// For a caller that runs batches itself: the batch its own request leaves with, if that is due
    /// and a slot is free.
    pub fn pull_own(&self, own: &Ticket<B>) -> Pulled<B> {
        pull_own(&self.shared, own.request())
    }

    /// Ends the requests whose deadlines have passed: they give their places back at once, never run, and
    /// their callers are told by [`Border::expired`]. To be called when [`Border::arm`] says so.
    pub fn expire_due(&self) {
        Shared::expire_due(&self.shared);
    }

    /// Asks once more to be called for the earliest deadline: what was asked for by another clock is void.
    pub fn rearm(&self) {
        let moment = self.shared.armed.load(SeqCst);
        if moment != NEVER {
            B::arm(self, moment);
        }
    }

    /// Has whoever is to act next know, as by the time: for a clock that was moved.
    pub fn look(&self) {
        self.shared.settle_now();
    }

    /// For a caller that runs batches itself: a slot for its own plain request alone, if that would leave
    /// at once and by itself. Else it must submit.
    #[inline]
    pub fn alone(&self) -> Option<Alone<'_, B>> {
        Alone::take(&self.shared)
    }

    /// Makes everything now pending leave as soon as a slot is free.
    pub fn flush(&self) {
        let now = self.now();
        self.shared.locked(|state, out| {
            state.flushed = Some(now);
            state.settle(&self.shared, now, out);
        });
    }

    /// Takes no more requests. What is pending still runs (`drain`) or fails; may be called again, also
    /// to change a drain into a failure. Does not wait: see [`Batcher::poll_ended`].
    pub fn close(&self, drain: bool) {
        self.shared.admission.close();
        let now = self.now();
        self.shared.locked(|state, out| {
            state.phase = match (state.phase, drain) {
                (Phase::Failing, _) | (_, false) => Phase::Failing,
                (_, true) => Phase::Draining,
            };
            state.settle(&self.shared, now, out);
        });
    }

    /// Whether it takes no more requests.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.admission.is_closed()
    }

    /// Whether a closed batcher has nothing pending and nothing in flight; if not, `waker` will be
    /// called when that is so.
    pub fn poll_ended(&self, waker: &Waker) -> bool {
        self.shared.locked(|state, _| {
            let ended = state.has_ended(&self.shared);
            if !ended && !state.closers.iter().any(|other| other.will_wake(waker)) {
                state.closers.push(waker.clone());
            }
            ended
        })
    }

    /// Notes when batches go through their stations, from now on: see [`Border::note`].
    #[inline]
    pub fn keep_times(&self) {
        self.shared.watch.keep_times();
    }

    /// Notes the ends of a sample of the requests ([`watch::rate_of`](crate::watch::rate_of)), from now on: see
    /// [`Outgoing::follow`](crate::Outgoing::follow), and [`Batcher::take_due`].
    pub fn sample(&self, rate: u64) {
        self.shared.watch.sample(rate);
    }

    /// From when on a run is slow.
    pub fn set_slow(&self, from: Nanos) {
        self.shared.watch.set_slow(from);
    }

    /// From when on that is.
    pub fn slow(&self) -> Nanos {
        self.shared.watch.slow()
    }

    /// What is to be told to those who watch, to the first who asks: slow runs, and the ends that nobody has
    /// [followed](crate::Outgoing::follow).
    #[inline]
    pub fn take_due(&self) -> Due {
        self.shared.watch.take_due()
    }

    /// Whether there is something.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.shared.watch.is_due()
    }

    /// All figures now.
    pub fn snapshot(&self) -> Snapshot {
        let shared = &self.shared;
        let now = self.now();
        // Who waits for room is not in yet: counted once admitted, or given up.
        let (counters, pending, oldest, slots) = shared.locked(|state, out| {
            let oldest = state.oldest(shared, out);
            let slots = state.limits.slots;
            (
                state.counters.clone(),
                shared.admission.count(),
                oldest,
                slots,
            )
        });
        let cancelled = shared.cancelled.load(Relaxed) + counters.forsaken;
        let rejected = shared.rejected.load(Relaxed);
        let pending = pending as u64;
        Snapshot {
            submitted: counters.answered
                + counters.failed
                + cancelled
                + rejected
                + pending
                + counters.in_flight,
            answered: counters.answered,
            failed: counters.failed,
            expired: counters.expired,
            cancelled,
            rejected,
            shed: counters.shed,
            pending,
            in_flight: counters.in_flight,
            batches: counters.batches,
            reasons: counters.reasons,
            sizes: counters.sizes,
            waits: counters.waits,
            runs: counters.runs,
            inside: counters.inside,
            slots,
            open: since(shared.opened, now),
            oldest: oldest.map(|oldest| since(oldest, now)),
            slow: shared.watch.slow_runs(),
            padding: shared.watch.padding(),
        }
    }
}
