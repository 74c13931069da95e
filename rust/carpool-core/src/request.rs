//! One caller's request: payload, terms, reply and waiter in one cell, queued by handle.

use crate::border::Border;
use crate::clock::{NEVER, Nanos};
#[cfg(not(loom))]
use crate::count::Count;
use crate::many::Window;
use crate::reply::{Reply, Unstored};
use crate::sync::Arc;

pub use crate::handle::Handle;

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
    /// What is padded to the longest of a batch; 0 where nobody asks.
    pub length: u64,
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

    /// How much later than its arrival it stands in the order: the same for all of one priority.
    #[inline]
    pub const fn level(&self) -> i64 {
        self.urgency.wrapping_sub(self.arrival) as i64
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
            length: 0,
        }
    }
}

/// Whom a request belongs to.
pub(crate) enum Who<B: Border> {
    One(B::Waiter),
    Many(Arc<Window<B>>),
}

/// The cell.
pub struct Request<B: Border> {
    /// What the scheduler may know.
    pub terms: Terms,
    /// State, payload and answer.
    pub(crate) reply: Reply<B::Payload, B::Answer>,
    who: Who<B>,
}

impl<B: Border> Request<B> {
    #[inline]
    pub(crate) fn new(payload: B::Payload, who: Who<B>, terms: Terms, lobby: bool) -> Self {
        Self {
            terms,
            reply: Reply::new(payload, lobby),
            who,
        }
    }

    /// Undoes `new` for a value that was never shared.
    pub(crate) fn into_parts(self) -> (Option<B::Payload>, Who<B>) {
        (self.reply.withdraw().1, self.who)
    }

    /// How many handles there are.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn handles(&self) -> &Count {
        &self.reply.handles
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
    pub fn reply(&self) -> &Reply<B::Payload, B::Answer> {
        &self.reply
    }

    /// The payload of an expired request, to the first who asks: to be dropped where that may run code
    /// of the border.
    pub fn reclaim(&self) -> Option<B::Payload> {
        self.reply.reclaim()
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

    /// The payload, until the answer.
    #[inline]
    pub(crate) fn payload(&self) -> Option<&B::Payload> {
        // SAFETY: one `Claimed` exists per request (only the winner of the claim swap makes one, and it is
        // not `Clone`), so this is the holder of the claim; `answer` needs `&mut self`.
        unsafe { self.0.reply.payload() }
    }

    /// Delivers the answer; the payload comes back, and the answer if nobody wants it.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        answer: B::Answer,
    ) -> (Option<B::Payload>, Result<(), B::Answer>) {
        // SAFETY: the holder of the claim, as above; `&mut self` excludes looks at the payload.
        unsafe { self.0.reply.deliver(answer) }
    }
}
