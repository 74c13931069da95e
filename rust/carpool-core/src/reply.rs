//! The one-shot state machine between a request and its caller.
//!
//! ```text
//!            admit            claim             deliver            take
//!   LOBBY ──────────▶ PENDING ───────▶ CLAIMED ─────────▶ ANSWERED ─────▶ TAKEN
//!     │ cancel           │ cancel         │ cancel   (ANSWERING until published)
//!     ▼                  ▼                ▼
//!  CANCELLED         CANCELLED        FORSAKEN   (its answer goes back to the giver)
//!     │ expire           │ expire    reclaim
//!     └──────────────────┴─▶ OVERDUE ───────▶ EXPIRED
//! ```
//!
//! Every arrow is one compare-and-swap, so of a cancel and a claim exactly one happens. Whoever made
//! an arrow owns what it opens: the canceller and the reclaimer own the payload, the claimer owns the
//! payload and the right to answer, the taker owns the answer. The expirer owns nothing: it may be a
//! thread that must not drop the payload, so that stays until whoever was told reclaims it.
//!
//! Orderings. `publish` stores ANSWERED with release after `deliver` wrote the answer; `take` (and
//! `is_answered`) load with acquire before anyone reads it. The claim, cancel and expire swaps are
//! acquire/release, and so is the reclaim, so that the payload written before the request was queued is
//! visible to whoever wins it.

use crate::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire, Release},
};
use crate::sync::{UnsafeCell, latest};

const LOBBY: u8 = 0;
const PENDING: u8 = 1;
const CLAIMED: u8 = 2;
const ANSWERING: u8 = 3;
const ANSWERED: u8 = 4;
const TAKEN: u8 = 5;
const CANCELLED: u8 = 6;
const EXPIRED: u8 = 7;
const FORSAKEN: u8 = 8;
const OVERDUE: u8 = 9;

/// What a cancel met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It had not been let into the queue yet.
    InLobby,
    /// It was pending: it will never reach the handler.
    Pending,
    /// It is with the handler: only its caller stops waiting, the answer will be dropped.
    InFlight,
    /// Too late: answered, or ended in another way.
    TooLate,
}

/// State and answer of one request.
#[derive(Debug)]
pub struct Reply<A> {
    state: AtomicU8,
    answer: UnsafeCell<Option<A>>,
}

// SAFETY: the answer is reached by one thread at a time: written by the thread that moved the state
// to ANSWERING, read by the one that moved it from ANSWERED to TAKEN; no other access exists while
// the reply is shared. So sharing a reply only ever moves an `A` between threads.
unsafe impl<A: Send> Sync for Reply<A> {}

impl<A> Reply<A> {
    /// A reply in the queue, or still in front of it.
    pub fn new(in_lobby: bool) -> Self {
        Self {
            state: AtomicU8::new(if in_lobby { LOBBY } else { PENDING }),
            answer: UnsafeCell::new(None),
        }
    }

    #[inline]
    fn go(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, AcqRel, Acquire)
            .is_ok()
    }

    /// Lets a request that waited for room into the queue; false when it ended meanwhile.
    #[inline]
    pub fn admit(&self) -> bool {
        self.go(LOBBY, PENDING)
    }

    /// Takes a pending request for a batch; false when it ended meanwhile.
    #[inline]
    pub fn claim(&self) -> bool {
        self.go(PENDING, CLAIMED)
    }

    /// Ends a pending request whose deadline has passed.
    #[inline]
    pub fn expire(&self) -> bool {
        self.go(PENDING, OVERDUE)
    }

    /// Ends a request whose deadline has passed while it waited for room.
    #[inline]
    pub fn expire_in_lobby(&self) -> bool {
        self.go(LOBBY, OVERDUE)
    }

    /// Takes over what an expired request leaves behind; true for the first who asks.
    #[inline]
    pub fn reclaim(&self) -> bool {
        self.go(OVERDUE, EXPIRED)
    }

    /// Ends the caller's interest, as far as that is still possible.
    pub fn cancel(&self) -> Cancelled {
        loop {
            let (from, to, met) = match latest!(self.state, LOBBY, Acquire) {
                LOBBY => (LOBBY, CANCELLED, Cancelled::InLobby),
                PENDING => (PENDING, CANCELLED, Cancelled::Pending),
                CLAIMED => (CLAIMED, FORSAKEN, Cancelled::InFlight),
                _ => return Cancelled::TooLate,
            };
            if self.go(from, to) {
                return met;
            }
        }
    }

    /// Ends the caller's interest only if the request is not in a batch yet.
    pub fn withdraw(&self) -> Cancelled {
        if self.go(PENDING, CANCELLED) {
            Cancelled::Pending
        } else if self.go(LOBBY, CANCELLED) {
            Cancelled::InLobby
        } else if self.go(PENDING, CANCELLED) {
            // It was let in between the two looks.
            Cancelled::Pending
        } else {
            Cancelled::TooLate
        }
    }

    /// Stores the answer of a claimed request, unseen until `publish`; gives it back when nobody
    /// wants it any more. In between the answers of a whole batch can be counted.
    #[inline]
    pub fn deliver(&self, answer: A) -> Result<(), A> {
        if !self.go(CLAIMED, ANSWERING) {
            return Err(answer);
        }
        // SAFETY: only the thread that made CLAIMED -> ANSWERING is here, and nobody reads before
        // ANSWERED is seen.
        self.answer.with_mut(|cell| unsafe { *cell = Some(answer) });
        Ok(())
    }

    /// Lets a delivered answer be seen; does nothing in any other state.
    #[inline]
    pub fn publish(&self) {
        // Nobody but the deliverer leaves ANSWERING, so a look and a store are enough.
        if self.state.load(Acquire) == ANSWERING {
            self.state.store(ANSWERED, Release);
        }
    }

    /// Takes the answer; the first caller gets it, every other one nothing.
    #[inline]
    pub fn take(&self) -> Option<A> {
        if self.state.load(Acquire) != ANSWERED || !self.go(ANSWERED, TAKEN) {
            return None;
        }
        // SAFETY: only the thread that made ANSWERED -> TAKEN is here; the writer was done before it
        // stored ANSWERED, which the swap above has acquired.
        self.answer.with_mut(|cell| unsafe { (*cell).take() })
    }

    /// Pending: in the queue, claimable.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.state.load(Acquire) == PENDING
    }

    /// Still in front of the queue, waiting for room.
    #[inline]
    pub fn is_in_lobby(&self) -> bool {
        self.state.load(Acquire) == LOBBY
    }

    /// Nothing more to wait for: an answer is there (or was, and has been taken), or it expired.
    #[inline]
    pub fn is_over(&self) -> bool {
        matches!(
            self.state.load(Acquire),
            ANSWERED | TAKEN | OVERDUE | EXPIRED
        )
    }

    /// Sealed into a batch, answered or not.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        matches!(
            self.state.load(Acquire),
            CLAIMED | ANSWERING | ANSWERED | TAKEN | FORSAKEN
        )
    }

    /// Its deadline passed before it was sealed.
    #[inline]
    pub fn is_expired(&self) -> bool {
        matches!(self.state.load(Acquire), OVERDUE | EXPIRED)
    }
}
