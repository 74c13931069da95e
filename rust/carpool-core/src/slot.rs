//! Slots pull: whoever has room to run a batch asks for one, and waits in its own way.
//!
//! A [`Seat`] is polled like a future: it returns a batch (with the lease on the slot inside), or when
//! to ask again, having left a waker. Threads park, event loops arm a timer, a simulation turns its
//! clock: they all drive the same step.

use std::task::Waker;

use crate::batch::Batch;
use crate::border::Border;
use crate::clock::{Clock, Nanos};
use crate::park::Parker;
use crate::request::Handle;
use crate::scheduler::Shared;
use crate::scheduler::policy::Decision;
use crate::sync::Arc;

/// What a poll found.
pub enum Pulled<B: Border> {
    /// A batch to run.
    Batch(Batch<B>),
    /// Nothing yet: the waker will be called, or ask again at the given moment.
    Wait(Option<Nanos>),
    /// Closed, and nothing left to run.
    Closed,
}

/// A place in the line of those who wait for a batch.
pub struct Seat<B: Border> {
    shared: Arc<Shared<B>>,
    number: u64,
}

impl<B: Border> Seat<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>) -> Self {
        let number = shared.locked(|state, _| state.slots.new_seat());
        Self { shared, number }
    }

    /// Asks for a batch of at most `size`.
    pub fn poll(&mut self, waker: &Waker, size: usize) -> Pulled<B> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let pulled = shared.locked(|state, out| {
            let led = state.slots.leave(self.number, &mut out.spent);
            state.take_in(shared, now, out);
            if state.is_drained(shared) {
                state.settle(shared, now, out);
                return Err(None);
            }
            match state.seal_due(shared, size, now, out) {
                Ok(sealed) => {
                    state.settle(shared, now, out);
                    Ok(sealed)
                }
                Err(decision) => {
                    let until = match decision {
                        Decision::Wait { until, .. } => until,
                        Decision::Leave(_) => Some(now),
                    };
                    let timer = state
                        .slots
                        .join(self.number, waker.clone(), size, until, led);
                    state.settle(shared, now, out);
                    Err(Some(timer))
                }
            }
        });
        match pulled {
            Ok(sealed) => Pulled::Batch(Batch::new(shared.clone(), sealed)),
            Err(Some(timer)) => Pulled::Wait(timer),
            Err(None) => Pulled::Closed,
        }
    }

    /// Stops waiting; a wake that was on its way goes to the next in line.
    pub fn leave(&mut self) {
        let now = self.shared.clock.now();
        self.shared.locked(|state, out| {
            state.slots.leave(self.number, &mut out.spent);
            state.settle(&self.shared, now, out);
        });
    }

    /// Blocks this thread until there is a batch, the batcher is closed and drained (`Closed`), the
    /// moment `until` has come, or `stop` says so at a wake-up (`Wait`).
    pub fn pull(
        &mut self,
        parker: &Parker,
        size: usize,
        until: Option<Nanos>,
        mut stop: impl FnMut() -> bool,
    ) -> Pulled<B> {
        loop {
            match self.poll(parker.waker(), size) {
                Pulled::Wait(timer) => {
                    let now = self.shared.clock.now();
                    if stop() || until.is_some_and(|until| now >= until) {
                        self.leave();
                        return Pulled::Wait(timer);
                    }
                    let wake = [timer, until].into_iter().flatten().min();
                    parker.park(wake.map(|wake| wake.saturating_sub(now)));
                }
                other => return other,
            }
        }
    }
}

impl<B: Border> Drop for Seat<B> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A slot whose batch has been answered: given back when this is dropped. Until then the callers that
/// have their answers can be woken, and come back; the next batch is late by that, and fuller.
#[must_use = "the slot is taken until it is dropped"]
pub struct Kept<B: Border> {
    shared: Arc<Shared<B>>,
}

impl<B: Border> Kept<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>) -> Self {
        Self { shared }
    }
}

impl<B: Border> Drop for Kept<B> {
    fn drop(&mut self) {
        let shared = &self.shared;
        let now = shared.clock.now();
        shared.locked(|state, out| {
            state.give_slot_back();
            state.company.ended(now);
            state.settle(shared, now, out);
        });
    }
}

/// Asks once, without a seat.
pub(crate) fn try_pull<B: Border>(shared: &Arc<Shared<B>>, size: usize) -> Pulled<B> {
    let now = shared.clock.now();
    let pulled = shared.locked(|state, out| {
        state.take_in(shared, now, out);
        let closed = state.is_drained(shared);
        let sealed = state.seal_due(shared, size, now, out);
        state.settle(shared, now, out);
        sealed.map_err(|decision| (closed, decision))
    });
    match pulled {
        Ok(sealed) => Pulled::Batch(Batch::new(shared.clone(), sealed)),
        Err((true, _)) => Pulled::Closed,
        Err((false, Decision::Wait { until, .. })) => Pulled::Wait(until),
        Err((false, Decision::Leave(_))) => Pulled::Wait(Some(now)),
    }
}

/// Asks for the batch that `own` leaves with, to be run by its caller. `Wait` also once it was sealed
/// by another; when it keeps the time, with the moment to ask again.
pub(crate) fn pull_own<B: Border>(shared: &Arc<Shared<B>>, own: &Handle<B>) -> Pulled<B> {
    let now = shared.clock.now();
    let pulled = shared.locked(|state, out| {
        let size = state.limits.max_batch_size;
        state.looks_itself(own, out);
        state.take_in(shared, now, out);
        let mut until = None;
        if own.reply.is_pending() {
            match state.seal_own(shared, own, size, now, out) {
                Ok(sealed) => {
                    state.settle(shared, now, out);
                    return Ok(sealed);
                }
                Err(timer) => until = timer,
            }
        }
        state.settle(shared, now, out);
        Err(until)
    });
    match pulled {
        Ok(sealed) => Pulled::Batch(Batch::new(shared.clone(), sealed)),
        Err(timer) => Pulled::Wait(timer),
    }
}
