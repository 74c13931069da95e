//! One caller's request: payload, terms, reply and waiter in one cell, queued by handle.

use crate::border::Border;
use crate::clock::{NEVER, Nanos};
use crate::many::Window;
use crate::reply::{Cancelled, Reply, Unstored};
use crate::sync::atomic::AtomicPtr;
use crate::sync::{Arc, UnsafeCell};

/// What the scheduler knows of a request. Numbers only: Python's `__eq__` cannot run in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When it was submitted.
    pub arrival: Nanos,
    /// Arrival + level × ageing, fixed at submit; the smaller, the sooner. See [`Terms::urgency`].
    pub urgency: Nanos,
    /// What it counts against `max_batch_cost`.
    pub cost: u64,
    /// Requests share a batch only where their keys are equal.
    pub key: u64,
    /// The moment it expires while pending.
    pub deadline: Nanos,
}

/// Where the urgency of one that arrives at moment 0 stands: more urgent ones stand before it, also where the clock
/// has only just begun.
const ORIGIN: Nanos = 1 << 62;

impl Terms {
    /// The urgency of a request that stands `by` later (sooner, negative) in the order than its arrival says.
    #[inline]
    pub const fn urgency(arrival: Nanos, by: i64) -> Nanos {
        ORIGIN.saturating_add(arrival).saturating_add_signed(by)
    }

    /// A plain request that arrives now.
    #[inline]
    pub fn at(arrival: Nanos) -> Self {
        Self {
            arrival,
            urgency: Self::urgency(arrival, 0),
            cost: 1,
            key: 0,
            deadline: NEVER,
        }
    }
}

/// How queues, batches and callers hold a request.
pub type Handle<B> = Arc<Request<B>>;

/// Whom a request belongs to.
pub(crate) enum Who<B: Border> {
    One(B::Waiter),
    Many(Arc<Window<B>>),
}

/// The cell.
pub struct Request<B: Border> {
    /// What the scheduler may know.
    pub terms: Terms,
    /// State and answer.
    pub(crate) reply: Reply<B::Answer>,
    payload: UnsafeCell<Option<B::Payload>>,
    who: Who<B>,
    /// The next older request of the intake; used between push and drain only.
    pub(crate) next: AtomicPtr<Request<B>>,
}

// SAFETY: `payload` is reached only by the thread that won the reply's claim, cancel or reclaim swap
// (see `reply`), one at a time; everything else is `Sync` by itself.
unsafe impl<B: Border> Sync for Request<B> {}
// SAFETY: payload, answer and waiter are all `Send` by `Border`'s bounds; `next` is only a link.
unsafe impl<B: Border> Send for Request<B> {}

impl<B: Border> Request<B> {
    pub(crate) fn new(payload: B::Payload, who: Who<B>, terms: Terms, lobby: bool) -> Self {
        Self {
            terms,
            reply: Reply::new(lobby),
            payload: UnsafeCell::new(Some(payload)),
            who,
            next: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Undoes `new` for a value that was never shared.
    pub(crate) fn into_parts(self) -> (Option<B::Payload>, Who<B>) {
        // SAFETY: `self` is owned: nobody else can reach the cell.
        let payload = self.payload.with_mut(|cell| unsafe { (*cell).take() });
        (payload, self.who)
    }

    /// Who waits for the reply.
    #[inline]
    pub fn waiter(&self) -> &B::Waiter {
        match &self.who {
            Who::One(waiter) => waiter,
            Who::Many(window) => &window.waiter,
        }
    }

    /// The window it is one of many of.
    #[inline]
    pub(crate) fn window(&self) -> Option<&Arc<Window<B>>> {
        match &self.who {
            Who::One(_) => None,
            Who::Many(window) => Some(window),
        }
    }

    /// The reply's state and, once, its answer.
    #[inline]
    pub fn reply(&self) -> &Reply<B::Answer> {
        &self.reply
    }

    /// Ends the caller's interest, in flight too if `forsake`; with it, the payload where the request
    /// never reached a batch.
    pub(crate) fn cancel(&self, forsake: bool) -> (Cancelled, Option<B::Payload>) {
        let met = if forsake {
            self.reply.cancel()
        } else {
            self.reply.withdraw()
        };
        let payload = if matches!(met, Cancelled::InLobby | Cancelled::Pending) {
            // SAFETY: this thread won the swap away from a claimable state: no claimer, no other
            // canceller and no expirer can own the payload.
            self.payload.with_mut(|cell| unsafe { (*cell).take() })
        } else {
            None
        };
        (met, payload)
    }

    /// The payload of an expired request, to the first who asks: to be dropped where that may run code
    /// of the border.
    pub fn reclaim(&self) -> Option<B::Payload> {
        if !self.reply.reclaim() {
            return None;
        }
        // SAFETY: this thread won the swap that only an expired request goes through: it was never
        // claimed or cancelled, and nobody else reclaims it.
        self.payload.with_mut(|cell| unsafe { (*cell).take() })
    }
}

/// A request that was claimed for a batch: the only way to its payload and to answering it.
pub(crate) struct Claimed<B: Border>(Handle<B>);

impl<B: Border> Claimed<B> {
    /// Claims `handle`, or gives it back when the request ended meanwhile.
    #[inline]
    pub(crate) fn claim(handle: Handle<B>) -> Result<Self, Handle<B>> {
        if handle.reply.claim() {
            Ok(Self(handle))
        } else {
            Err(handle)
        }
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle<B> {
        &self.0
    }

    /// Gives its caller a step.
    pub(crate) fn step(
        &mut self,
        step: B::Answer,
        bound: usize,
    ) -> Result<(), (Unstored, B::Answer)> {
        self.0.reply.step(step, bound)
    }

    /// When it was submitted.
    #[inline]
    pub(crate) fn arrival(&self) -> Nanos {
        self.0.terms.arrival
    }

    /// The request alone, once it needs no more than its answer.
    #[inline]
    pub(crate) fn into_handle(self) -> Handle<B> {
        self.0
    }

    /// The payload, until it is released.
    #[inline]
    pub(crate) fn payload(&self) -> Option<&B::Payload> {
        // SAFETY: one `Claimed` exists per request (only the winner of the claim swap makes one, and
        // it is not `Clone`), and it owns the payload; `&self` allows readers only.
        self.0.payload.with(|cell| unsafe { (*cell).as_ref() })
    }

    /// Gives the payload up.
    #[inline]
    pub(crate) fn release(&mut self) -> Option<B::Payload> {
        // SAFETY: as above, and `&mut self` excludes readers.
        self.0.payload.with_mut(|cell| unsafe { (*cell).take() })
    }
}
