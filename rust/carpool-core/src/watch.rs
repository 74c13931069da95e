//! What is noted for those who watch: when a batch went through its stations, which of its requests somebody
//! wants to hear of, and handlers that took too long.
//!
//! Nothing is noted until somebody asks. Nobody waits for what is in here, and nothing is decided by it, so its
//! atomics are relaxed and no model needs to know them.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, PoisonError};

use crate::border::Failure;
use crate::clock::{NEVER, Nanos};
use crate::scheduler::policy::Reason;

/// When the requests of a batch, or of a part of one, went through its stations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moments {
    /// It was closed.
    pub sealed: Nanos,
    /// Its handler was called; as sealed, where nobody said so.
    pub started: Nanos,
    /// The answers were there.
    pub finished: Nanos,
    /// The callers were about to be told.
    pub delivered: Nanos,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// With a result.
    Answered,
    /// In a batch, with an error.
    Failed,
    /// Its caller had given up, in a batch or before.
    Cancelled,
    /// Its time was over before it was in a batch.
    Expired,
    /// It gave way at a full queue, pending or when it came.
    Shed,
    /// It was pending when the batcher was closed, and not to be run.
    Closed,
    /// It was not let in.
    Refused,
}

impl End {
    /// How one ended that failed without a batch.
    pub(crate) fn of(why: Failure) -> Self {
        match why {
            Failure::Expired => Self::Expired,
            Failure::Shed => Self::Shed,
            Failure::Closed => Self::Closed,
            Failure::Abandoned => Self::Failed,
        }
    }
}

/// A request that somebody wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When it was submitted.
    pub arrival: Nanos,
    /// How it ended.
    pub end: End,
}

/// Requests that ended together, as far as somebody wants to hear of them.
#[derive(Debug, Clone)]
pub struct Followed {
    /// When what happened; of those that never were in a batch the last of it alone.
    pub moments: Moments,
    /// Why their batch left, and how many requests it held, or its part; none for those that never were in one.
    pub batch: Option<(Reason, usize)>,
    /// They themselves.
    pub requests: Vec<Ended>,
}

/// What is to be told to those who watch, and has not been.
#[derive(Debug, Default)]
pub struct Due {
    /// Of slow runs.
    pub slow: Option<Said>,
    /// Requests that ended where nobody asked for them: all those that never were in a batch, and those of
    /// batches that were dropped.
    pub ended: Vec<Followed>,
}

/// How long it is before the same is said again.
pub const MINUTE: Nanos = 60_000_000_000;

/// Says things at most once a minute: the first at once, what comes within a minute with the first after it.
#[derive(Debug, Clone, Default)]
pub struct Seldom {
    said: Option<Nanos>,
    count: u64,
    worst: Nanos,
}

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// How many there were since it was said last, this one included.
    pub count: u64,
    /// The worst of them.
    pub worst: Nanos,
}

impl Seldom {
    /// Notes one; what is to be said now, if anything.
    pub fn note(&mut self, value: Nanos, now: Nanos) -> Option<Said> {
        self.count += 1;
        self.worst = self.worst.max(value);
        if self
            .said
            .is_some_and(|said| now.saturating_sub(said) < MINUTE)
        {
            return None;
        }
        self.said = Some(now);
        let said = Said {
            count: self.count,
            worst: self.worst,
        };
        (self.count, self.worst) = (0, 0);
        Some(said)
    }
}

/// Whether the `number`th of all is in a sample of `rate` (of 2⁶⁴). Scattered, so that it is not always the
/// first of a batch; and the same each time (the finalizer of S. Vigna's SplitMix64).
pub fn is_sampled(number: u64, rate: u64) -> bool {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    rate == u64::MAX || mixed < rate
}

/// A share of all, from 0.0 to 1.0, as [`is_sampled`] counts it.
pub fn rate_of(share: f64) -> u64 {
    if share >= 1.0 {
        u64::MAX
    } else {
        // Saturates; nothing below 0 is asked for.
        (share * 2_f64.powi(64)) as u64
    }
}

/// What one batcher notes.
#[derive(Debug)]
pub(crate) struct Watch {
    is_timed: AtomicBool,
    rate: AtomicU64,
    number: AtomicU64,
    /// From when on a run is slow.
    slow: AtomicU64,
    /// There is something in `saying` to be said.
    is_due: AtomicBool,
    saying: Mutex<Saying>,
    /// Of what handlers were given, how much was of use; in whatever unit they count.
    useful: AtomicU64,
    given: AtomicU64,
}

#[derive(Debug, Default)]
struct Saying {
    seldom: Seldom,
    due: Due,
    slow: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            is_timed: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            number: AtomicU64::new(0),
            slow: AtomicU64::new(NEVER),
            is_due: AtomicBool::new(false),
            saying: Mutex::default(),
            useful: AtomicU64::new(0),
            given: AtomicU64::new(0),
        }
    }
}

impl Watch {
    /// Notes moments from now on.
    pub(crate) fn keep_times(&self) {
        if !self.is_timed() {
            self.is_timed.store(true, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.is_timed.load(Relaxed)
    }

    /// Notes the ends of so many of 2⁶⁴ requests from now on.
    pub(crate) fn sample(&self, rate: u64) {
        self.rate.store(rate, Relaxed);
        if rate > 0 {
            self.keep_times();
        }
    }

    #[inline]
    pub(crate) fn samples(&self) -> bool {
        self.rate.load(Relaxed) > 0
    }

    /// Whether the next request is in the sample.
    pub(crate) fn takes_next(&self) -> bool {
        let rate = self.rate.load(Relaxed);
        rate > 0 && is_sampled(self.number.fetch_add(1, Relaxed), rate)
    }

    pub(crate) fn set_slow(&self, from: Nanos) {
        self.slow.store(from, Relaxed);
    }

    pub(crate) fn slow(&self) -> Nanos {
        self.slow.load(Relaxed)
    }

    fn saying(&self) -> std::sync::MutexGuard<'_, Saying> {
        self.saying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run has ended.
    #[inline]
    pub(crate) fn ran(&self, took: Nanos, now: impl FnOnce() -> Nanos) {
        if took >= self.slow.load(Relaxed) {
            self.ran_slowly(took, now());
        }
    }

    #[cold]
    fn ran_slowly(&self, took: Nanos, now: Nanos) {
        let mut saying = self.saying();
        saying.slow += 1;
        if let Some(said) = saying.seldom.note(took, now) {
            saying.due.slow = Some(said);
            self.is_due.store(true, Release);
        }
    }

    /// One that arrived then has ended now, and was in no batch.
    #[inline]
    pub(crate) fn ended(&self, arrival: Nanos, end: End, now: impl FnOnce() -> Nanos) {
        if self.samples() {
            self.ended_many(1, arrival, end, now());
        }
    }

    /// The same of so many.
    #[cold]
    pub(crate) fn ended_many(&self, count: usize, arrival: Nanos, end: End, now: Nanos) {
        let taken = (0..count).filter(|_| self.takes_next()).count();
        if taken > 0 {
            let moments = Moments {
                delivered: now,
                ..Moments::default()
            };
            self.unfollowed(Followed {
                moments,
                batch: None,
                requests: vec![Ended { arrival, end }; taken],
            });
        }
    }

    /// Nobody has asked for these where they ended.
    #[cold]
    pub(crate) fn unfollowed(&self, ended: Followed) {
        self.saying().due.ended.push(ended);
        self.is_due.store(true, Release);
    }

    /// What is to be told, to the first who asks.
    #[inline]
    pub(crate) fn take_due(&self) -> Due {
        if !self.is_due() {
            return Due::default();
        }
        // First: what comes in between raises it again.
        self.is_due.store(false, Relaxed);
        std::mem::take(&mut self.saying().due)
    }

    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_due.load(Acquire)
    }

    /// How many runs were slow.
    pub(crate) fn slow_runs(&self) -> u64 {
        self.saying().slow
    }

    /// A handler was given so much, of which so much was of use.
    pub(crate) fn padded(&self, useful: u64, given: u64) {
        self.useful.fetch_add(useful, Relaxed);
        self.given.fetch_add(given, Relaxed);
    }

    /// What was of use, and what was given.
    pub(crate) fn padding(&self) -> (u64, u64) {
        (self.useful.load(Relaxed), self.given.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_rest_once_a_minute() {
        let mut seldom = Seldom::default();
        let said = |count, worst| Some(Said { count, worst });
        for (value, now, expected) in [
            (7, 5, said(1, 7)),
            (3, 6, None),
            (9, 4 + MINUTE, None),
            (2, 5 + MINUTE, said(3, 9)),
            (1, 6 + MINUTE, None),
            (4, 900 * MINUTE, said(2, 4)),
            (5, 901 * MINUTE - 1, None),
            // A clock that was put back says nothing early.
            (5, 0, None),
        ] {
            assert_eq!(seldom.note(value, now), expected, "{value} at {now}");
        }
    }

    #[test]
    fn a_sample_is_as_large_as_asked_for_and_of_no_place_in_a_batch() {
        assert_eq!(rate_of(0.0), 0);
        assert_eq!(rate_of(1.0), u64::MAX);
        assert!((0..1000).all(|number| is_sampled(number, u64::MAX)));
        assert!(!(0..1000).any(|number| is_sampled(number, 0)));
        assert!(!is_sampled(0, 1 << 40), "not always the very first");
        for share in [0.5, 0.1, 0.01] {
            let rate = rate_of(share);
            let taken: Vec<u64> = (0..100_000).filter(|&n| is_sampled(n, rate)).collect();
            let error = (taken.len() as f64 / 100_000.0 - share).abs();
            assert!(error < share / 10.0, "{share}: {}", taken.len());
            let places = taken.iter().fold(0_u32, |seen, n| seen | 1 << (n % 32));
            assert_eq!(places, u32::MAX, "{share}");
        }
    }
}
