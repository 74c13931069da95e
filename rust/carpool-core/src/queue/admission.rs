//! How many requests are pending, and whether more may come: one counter with a flag.
//!
//! The count covers everything submitted and neither sealed nor ended: what lies in the intake, what
//! the scheduler has seen, and what a submitter has announced but not pushed yet. A close sets the
//! flag; a submit either counted itself before the flag (and will be answered, since a drain waits
//! for the count) or sees it and is refused. Both are read-modify-writes of one word, so there is no
//! third case.

use crate::limits::LARGEST_QUEUE;
use crate::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
};
use crate::sync::{latest, store_load_order};

const CLOSED: usize = 1 << (usize::BITS - 1);
const COUNT: usize = CLOSED - 1;

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The queue is at its bound.
    Full,
    /// No more requests are taken.
    Closed,
}

/// The counter.
#[derive(Debug)]
pub struct Admission {
    word: AtomicUsize,
    bound: AtomicUsize,
}

impl Admission {
    /// Admits at most `bound` at a time.
    pub fn new(bound: usize) -> Self {
        assert!(
            bound <= LARGEST_QUEUE,
            "bound {bound} leaves no room for the flag"
        );
        Self {
            word: AtomicUsize::new(0),
            bound: AtomicUsize::new(bound),
        }
    }

    /// Admits at most `bound` at a time from now on; who is in stays. Only under the scheduler's lock: whoever
    /// was refused by the old bound and waits for room is let in from there.
    ///
    /// `Relaxed`: the bound guards no data, and those who wait for room are let in under that lock.
    pub fn change(&self, bound: usize) {
        assert!(
            bound <= LARGEST_QUEUE,
            "bound {bound} leaves no room for the flag"
        );
        self.bound.store(bound, Relaxed);
    }

    /// Counts one request in, unless the queue is full or closed.
    #[inline]
    pub fn enter(&self) -> Result<(), NotAdmitted> {
        // Not fetch_add and undo: a count that overshoots for a moment could be the last thing a
        // close waits for, with nobody left to tell it.
        let mut word = latest!(self.word, 0, Acquire);
        loop {
            if word >= self.bound.load(Relaxed) {
                let closed = word & CLOSED != 0;
                return Err(if closed {
                    NotAdmitted::Closed
                } else {
                    NotAdmitted::Full
                });
            }
            match self
                .word
                .compare_exchange_weak(word, word + 1, AcqRel, Acquire)
            {
                Ok(_) => return Ok(()),
                Err(seen) => word = seen,
            }
        }
    }

    /// Counts in up to `wanted` requests that waited for room, also while closing; how many.
    pub fn enter_waiting(&self, wanted: usize) -> usize {
        // Who waits for room has made its number known before: either this sees the place that a
        // cancel frees, or the cancel sees the number.
        store_load_order();
        let mut word = self.word.load(SeqCst);
        loop {
            let room = self
                .bound
                .load(Relaxed)
                .saturating_sub(word & COUNT)
                .min(wanted);
            if room == 0 {
                return 0;
            }
            match self
                .word
                .compare_exchange_weak(word, word + room, AcqRel, Acquire)
            {
                Ok(_) => return room,
                Err(seen) => word = seen,
            }
        }
    }

    /// Counts `n` requests out: sealed, cancelled, expired or failed.
    #[inline]
    pub fn leave(&self, n: usize) {
        self.word.fetch_sub(n, SeqCst);
        store_load_order();
    }

    /// Refuses everything from now on; true for the call that closed.
    pub fn close(&self) -> bool {
        self.word.fetch_or(CLOSED, SeqCst) & CLOSED == 0
    }

    /// How many are counted in.
    #[inline]
    pub fn count(&self) -> usize {
        self.word.load(SeqCst) & COUNT
    }

    /// Whether nobody is counted in, and more may come.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.word.load(SeqCst) == 0
    }

    /// Whether it was closed.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.word.load(SeqCst) & CLOSED != 0
    }
}
