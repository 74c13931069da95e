//! A caller that finds nobody: it runs the handler itself, at once, and needs no request for that.
//!
//! What a request is made for, others seeing it, does not happen here. The lease counts as a batch of
//! one from the moment it is taken: it holds a slot, a close waits for it, and it is in the statistics.
//! Whoever comes meanwhile finds the slot taken and goes the ordinary way.

use crate::border::Border;
use crate::clock::Clock;
use crate::scheduler::policy::Reason;
use crate::scheduler::{Phase, Shared};
use crate::sync::{Arc, lock};

/// The lease of a slot for one call that nobody else sees. Dropping it counts the call as failed.
#[must_use = "the slot is taken until it is dropped"]
pub struct Alone<'a, B: Border> {
    shared: &'a Arc<Shared<B>>,
    began: u64,
    answered: bool,
}

impl<'a, B: Border> Alone<'a, B> {
    /// The lease, where a plain request that arrives now would leave now, by itself, with its caller:
    /// open, a slot free, nothing held for company, nobody pending, in line or expected back.
    #[inline]
    pub(crate) fn take(shared: &'a Arc<Shared<B>>) -> Option<Self> {
        if shared.posted.wait() != 0 {
            return None;
        }
        let mut state = lock(&shared.state);
        let quiet = state.free_slots > 0
            && state.phase == Phase::Open
            && shared.admission.is_quiet()
            && state.lobby.is_empty()
            && state.slots.front_size().is_none()
            && state.learned.is_none()
            && !state.company.may_come(|| shared.now());
        if !quiet {
            return None;
        }
        state.free_slots -= 1;
        let counters = &mut state.counters;
        counters.in_flight += 1;
        if counters.in_flight > 1 {
            counters.inside.add(counters.in_flight);
        }
        counters.batches += 1;
        counters.reasons[Reason::Idle as usize] += 1;
        counters.sizes.add(1);
        counters.waits.add(0);
        drop(state);
        Some(Self {
            shared,
            began: shared.clock.tick(),
            answered: false,
        })
    }

    /// The handler gave its result: gives the slot back.
    #[inline]
    pub fn answered(mut self) {
        self.answered = true;
    }

    /// The handler failed: gives the slot back.
    #[inline]
    pub fn failed(self) {}
}

impl<B: Border> Drop for Alone<'_, B> {
    #[inline]
    fn drop(&mut self) {
        let shared = self.shared;
        let took = shared.clock.since_tick(self.began);
        let mut state = lock(&shared.state);
        let counters = &mut state.counters;
        counters.in_flight -= 1;
        counters.answered += u64::from(self.answered);
        counters.failed += u64::from(!self.answered);
        counters.runs.add(took);
        state.give_slot_back();
        let pending = shared.admission.count();
        state.company.was_alone(|| shared.now(), took, pending);
        // Nobody saw the slot taken, and nobody waits for the end: nobody has to be told.
        let quiet = pending == 0
            && state.lobby.is_empty()
            && state.slots.front_size().is_none()
            && state.phase == Phase::Open;
        drop(state);
        shared.watch.ran(took, || shared.now());
        if !quiet {
            shared.settle_now();
        }
    }
}
