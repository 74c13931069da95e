//! The state machine between a request and its caller.
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
//! A claimed request may be given steps before its answer. The first one makes it a stream: CLAIMED
//! becomes CLAIMED|STREAM (OPENING in between), and every state after that carries the mark. The
//! arrows stay what they are. The steps lie in a buffer of their own ([`steps`](crate::steps)), the
//! answer joins them there, and so a reply without steps has nothing of this but a pointer.
//!
//! Orderings. `publish` stores ANSWERED with release after `deliver` wrote the answer; `take` and
//! `next` load with acquire before anyone reads it. The claim, cancel and expire swaps are
//! acquire/release, and so is the reclaim, so that the payload written before the request was queued is
//! visible to whoever wins it. The swap that sets STREAM releases the buffer to every acquiring load
//! that sees the mark.

use std::ptr::null_mut;
use std::task::Waker;

use crate::count::Count;
use crate::place::Place;
use crate::steps::Steps;
use crate::sync::atomic::{
    AtomicPtr, AtomicU8,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sync::latest;

pub use crate::steps::Unstored;

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
/// On the way from CLAIMED to a stream.
const OPENING: u8 = 10;
/// FORSAKEN, and the claimer has taken the payload out.
const GONE: u8 = 11;
/// The mark of a reply that was given a step.
const STREAM: u8 = 16;
const STREAMING: u8 = CLAIMED | STREAM;
const ANSWERED_STREAM: u8 = ANSWERED | STREAM;

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

/// What a look at a reply found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<A> {
    /// One of its steps; there may be more.
    Step(A),
    /// Its answer, a result or an error; nothing comes after it.
    Last(A),
    /// Nothing that has not been taken. Whoever waits for it will be told of the next.
    Nothing,
}

/// State of one request, with its payload and answer.
pub struct Reply<P, A> {
    state: AtomicU8,
    /// How many handles the request has; it lies here because there is room beside the state.
    #[cfg_attr(loom, allow(dead_code, reason = "handles are loom's own there"))]
    pub(crate) handles: Count,
    /// Between push and drain the next older request of the intake. Once the state has the mark STREAM
    /// the steps and the answer after them, a `Box<Steps<A>>`.
    pub(crate) link: AtomicPtr<()>,
    place: Place<P, A>,
}

// SAFETY: the place is reached by one thread at a time. The payload in it by the thread that won the
// claim, cancel or reclaim swap; the answer by the one that moved the state to ANSWERING, then by the
// one that moved it from ANSWERED to TAKEN; no other access exists while the reply is shared. The steps
// are behind a lock. So sharing a reply only ever moves a `P` or an `A` between threads.
unsafe impl<P: Send, A: Send> Sync for Reply<P, A> {}

impl<P, A> Reply<P, A> {
    /// A reply in the queue, or still in front of it.
    #[inline]
    pub fn new(payload: P, in_lobby: bool) -> Self {
        Self {
            state: AtomicU8::new(if in_lobby { LOBBY } else { PENDING }),
            handles: Count::of(1),
            link: AtomicPtr::new(null_mut()),
            place: Place::new(payload),
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

    /// Takes over what an expired request leaves behind: its payload, to the first who asks.
    #[inline]
    pub fn reclaim(&self) -> Option<P> {
        let first = self.go(OVERDUE, EXPIRED);
        // SAFETY: only this thread won the swap that only an expired request goes through: it was never
        // claimed or cancelled, so the payload is there, and EXPIRED says that it is not any more.
        first.then(|| unsafe { self.place.take_payload() })
    }

    /// Ends the caller's interest, as far as that is still possible. Before sealing the payload comes
    /// back; after it, steps that nobody took are dropped.
    pub fn cancel(&self) -> (Cancelled, Option<P>) {
        loop {
            let (from, to, met) = match latest!(self.state, LOBBY, Acquire) {
                LOBBY | PENDING => match self.withdraw() {
                    (Cancelled::TooLate, _) => continue,
                    ended => return ended,
                },
                CLAIMED => (CLAIMED, FORSAKEN, Cancelled::InFlight),
                OPENING => (OPENING, FORSAKEN, Cancelled::InFlight),
                STREAMING => (STREAMING, FORSAKEN | STREAM, Cancelled::InFlight),
                _ => return (Cancelled::TooLate, None),
            };
            if self.go(from, to) {
                if from == STREAMING {
                    // SAFETY: the swap has acquired the mark.
                    unsafe { self.steps() }.close();
                }
                return (met, None);
            }
        }
    }

    /// Ends the caller's interest only if the request is not in a batch yet; then the payload comes
    /// back.
    pub fn withdraw(&self) -> (Cancelled, Option<P>) {
        let met = if self.go(PENDING, CANCELLED) {
            Cancelled::Pending
        } else if self.go(LOBBY, CANCELLED) {
            Cancelled::InLobby
        } else if self.go(PENDING, CANCELLED) {
            // It was let in between the two looks.
            Cancelled::Pending
        } else {
            return (Cancelled::TooLate, None);
        };
        // SAFETY: only this thread won the swap away from a claimable state: no claimer, no other
        // canceller and no expirer owns the payload, and CANCELLED says that it is taken.
        (met, Some(unsafe { self.place.take_payload() }))
    }

    /// The payload of a claimed request, until the answer.
    ///
    /// # Safety
    ///
    /// The caller holds the claim, and delivers no answer while the reference lives.
    #[inline]
    pub unsafe fn payload(&self) -> Option<&P> {
        let there = Self::is_with_claimer(self.state.load(Relaxed));
        // SAFETY: in these states the payload belongs to the holder of the claim, and only its own
        // delivery takes it out.
        there.then(|| unsafe { self.place.payload() })
    }

    /// Whether the payload of a claimed request has not been taken out.
    #[inline]
    fn is_with_claimer(state: u8) -> bool {
        matches!(state & !STREAM, CLAIMED | OPENING | FORSAKEN)
    }

    /// Gives a step of a claimed request, which can be taken from now on; gives it back when as many as
    /// `bound` are there, or nobody wants it any more.
    pub fn step(&self, step: A, bound: usize) -> Result<(), (Unstored, A)> {
        let is_stream = match latest!(self.state, LOBBY, Acquire) {
            STREAMING => true,
            CLAIMED => self.open(),
            _ => false,
        };
        if !is_stream {
            return Err((Unstored::Gone, step));
        }
        // SAFETY: this thread has set the mark, or acquired it.
        unsafe { self.steps() }.give(step, bound)
    }

    /// Makes a stream of a claimed request; false when it is claimed no longer.
    #[cold]
    fn open(&self) -> bool {
        let steps = Box::into_raw(Box::new(Steps::<A>::new()));
        if self.go(CLAIMED, OPENING) {
            self.link.store(steps.cast(), Relaxed);
            if self.go(OPENING, STREAMING) {
                return true;
            }
        }
        // SAFETY: made above; without the mark nobody has looked at it, or ever will.
        drop(unsafe { Box::from_raw(steps) });
        false
    }

    /// The buffer of a stream.
    ///
    /// # Safety
    ///
    /// The caller has seen the mark STREAM, acquiring.
    unsafe fn steps(&self) -> &Steps<A> {
        // SAFETY: the swap that set the mark released the pointer to a living box; only the drop of the
        // reply, which excludes `&self`, frees it.
        unsafe { &*self.link.load(Relaxed).cast() }
    }

    /// The buffer, if it is a stream.
    fn stream(&self) -> Option<&Steps<A>> {
        let is_stream = latest!(self.state, LOBBY, Acquire) & STREAM != 0;
        // SAFETY: the mark was seen.
        is_stream.then(|| unsafe { self.steps() })
    }

    /// Whether whoever waits for a stream must be told of its steps; it will be, then.
    pub fn must_tell(&self) -> bool {
        self.stream().is_some_and(Steps::must_tell)
    }

    /// Whether there are less steps than `bound`, or nobody will ever take one; if not, `waker` will be
    /// woken when that is so.
    pub fn poll_room(&self, bound: usize, waker: &Waker) -> bool {
        self.stream()
            .is_none_or(|steps| steps.poll_room(bound, waker))
    }

    /// Stores the answer of a claimed request, unseen until `publish`, in the place of its payload, which
    /// comes back; so does the answer when nobody wants it any more, or there is one already. In between
    /// the answers of a whole batch can be counted.
    ///
    /// # Safety
    ///
    /// The caller holds the claim: nobody else delivers, or looks at the payload.
    #[inline(always)]
    pub unsafe fn deliver(&self, answer: A) -> (Option<P>, Result<(), A>) {
        if !self.go(CLAIMED, ANSWERING) {
            return self.deliver_otherwise(answer);
        }
        // SAFETY: only the thread that made CLAIMED -> ANSWERING is here, and nobody reads before
        // ANSWERED is seen. The payload was there: only this takes it from a claimer.
        let payload = unsafe { self.place.take_payload() };
        // SAFETY: as above, and the payload is out.
        unsafe { self.place.put_answer(answer) };
        (Some(payload), Ok(()))
    }

    /// To a stream, or to nobody.
    #[cold]
    #[inline(never)]
    fn deliver_otherwise(&self, answer: A) -> (Option<P>, Result<(), A>) {
        let stored = if self.go(STREAMING, ANSWERING | STREAM) {
            // SAFETY: the swap has acquired the mark.
            unsafe { self.steps() }.finish(answer);
            Ok(())
        } else {
            let state = self.state.load(Acquire);
            if state & !STREAM != FORSAKEN {
                return (None, Err(answer));
            }
            // Nobody but the claimer leaves this state.
            self.state.store(GONE | (state & STREAM), Release);
            Err(answer)
        };
        // SAFETY: the holder of the claim, which still had the payload, has gone on to a state that says
        // that it is out; nobody else looks for one.
        (Some(unsafe { self.place.take_payload() }), stored)
    }

    /// Lets a delivered answer be seen; does nothing in any other state.
    #[inline]
    pub fn publish(&self) {
        // Nobody but the deliverer leaves ANSWERING, so a look and a store are enough.
        let state = self.state.load(Acquire);
        if state & !STREAM == ANSWERING {
            self.state.store(state + (ANSWERED - ANSWERING), Release);
        }
    }

    /// Takes the answer; the first caller gets it, every other one nothing. Steps before it that nobody
    /// took are dropped: who wants them asks with [`next`](Self::next).
    #[inline]
    pub fn take(&self) -> Option<A> {
        match self.state.load(Acquire) {
            ANSWERED => self.take_answer(),
            ANSWERED_STREAM => self.take_last(),
            _ => None,
        }
    }

    /// Takes the next step, or the answer after all of them; each goes to the first who asks.
    pub fn next(&self) -> Next<A> {
        let state = latest!(self.state, LOBBY, Acquire);
        if state & STREAM == 0 {
            let answer = (state == ANSWERED).then(|| self.take_answer());
            return answer.flatten().map_or(Next::Nothing, Next::Last);
        }
        // SAFETY: the mark was seen.
        if let Some(step) = unsafe { self.steps() }.take() {
            return Next::Step(step);
        }
        // No step comes after the answer, and that was there before the look for one.
        let answer = (state == ANSWERED_STREAM).then(|| self.take_last());
        answer.flatten().map_or(Next::Nothing, Next::Last)
    }

    #[inline]
    fn take_answer(&self) -> Option<A> {
        if !self.go(ANSWERED, TAKEN) {
            return None;
        }
        // SAFETY: only the thread that made ANSWERED -> TAKEN is here, which says that it is taken; the
        // writer was done before it stored ANSWERED, which the swap above has acquired.
        Some(unsafe { self.place.take_answer() })
    }

    /// The answer of a stream, whose state stays ANSWERED.
    #[cold]
    #[inline(never)]
    fn take_last(&self) -> Option<A> {
        self.stream()?.take_last()
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
            self.state.load(Acquire) & !STREAM,
            ANSWERED | TAKEN | OVERDUE | EXPIRED
        )
    }

    /// Sealed into a batch, answered or not.
    #[inline]
    pub fn is_sealed(&self) -> bool {
        matches!(
            self.state.load(Acquire) & !STREAM,
            CLAIMED | OPENING | ANSWERING | ANSWERED | TAKEN | FORSAKEN | GONE
        )
    }

    /// With a handler, and its caller still waits.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        let state = self.state.load(Acquire) & !STREAM;
        matches!(state, CLAIMED | OPENING)
    }

    /// Its caller gave up while it was with a handler.
    #[inline]
    pub fn is_forsaken(&self) -> bool {
        matches!(self.state.load(Acquire) & !STREAM, FORSAKEN | GONE)
    }

    /// Its deadline passed before it was sealed.
    #[inline]
    pub fn is_expired(&self) -> bool {
        matches!(self.state.load(Acquire), OVERDUE | EXPIRED)
    }
}

impl<P, A> Drop for Reply<P, A> {
    #[inline]
    fn drop(&mut self) {
        if self.state.load(Relaxed) != TAKEN {
            self.drop_rest();
        }
    }
}

impl<P, A> Reply<P, A> {
    /// Drops what lies in there according to the state.
    #[cold]
    #[inline(never)]
    fn drop_rest(&mut self) {
        let state = self.state.load(Relaxed);
        match state & !STREAM {
            LOBBY | PENDING | OVERDUE | CLAIMED | OPENING | FORSAKEN => {
                // SAFETY: in these states the payload has not been taken, and `&mut self` excludes its
                // owner; this is the drop, so it is the only time.
                drop(unsafe { self.place.take_payload() });
            }
            ANSWERING | ANSWERED if state & STREAM == 0 => {
                // SAFETY: as above for the answer, which is there before ANSWERING can be seen by who has
                // the reply alone.
                drop(unsafe { self.place.take_answer() });
            }
            _ => {}
        }
        if state & STREAM != 0 {
            let steps = self.link.load(Relaxed).cast::<Steps<A>>();
            // SAFETY: the state has the mark, so it is the box that `open` made; `&mut self` excludes
            // everybody who could hold a reference into it.
            drop(unsafe { Box::from_raw(steps) });
        }
    }
}
