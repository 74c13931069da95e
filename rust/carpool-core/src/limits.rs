//! What a batcher was asked to keep to: checked at construction and at every change.
//!
//! Decisions read the [`Limits`] under the scheduler's lock, so each sees all of one set or all of another.
//! Whoever comes without the lock reads what is [`Posted`].

use crate::clock::Nanos;
use crate::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Release},
};

/// What happens to a request that meets a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The value goes back to its giver at once.
    Raise,
    /// The request waits for room in front of the queue, in order of arrival.
    Wait,
    /// Of what is pending and the request one gives way: of the least urgent level, of that with the latest
    /// deadline, of those the newest.
    Shed,
}

/// The limits of one batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most requests in one batch; at least 1.
    pub max_batch_size: usize,
    /// Most cost in one batch; `u64::MAX` for no limit.
    pub max_batch_cost: u64,
    /// The cost of a batch is as many times the largest as it has requests, not the sum.
    pub padded: bool,
    /// How many requests behind the first that does not fit the cost are looked at for some that do; 0 for none.
    pub look_ahead: usize,
    /// Of as many times `size` requests those of similar length leave together; 0 for none.
    pub length_window: usize,
    /// How long, in nanoseconds from its arrival, a request may be passed over for its length.
    pub length_age: Nanos,
    /// Longest time, in nanoseconds, that the oldest request is held for company.
    pub wait: Nanos,
    /// Most pending requests; at least 1.
    pub max_queue: usize,
    /// What happens beyond `max_queue`.
    pub overflow: Overflow,
    /// Most batches in flight at once; at least 1.
    pub slots: usize,
    /// Most steps of one reply that its caller has not taken; at least 1.
    pub steps: usize,
    /// A caller that runs its own batch may wait for those who were there last time (see
    /// `scheduler::company`); only where `wait` is 0.
    pub gather: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_batch_size: 32,
            max_batch_cost: u64::MAX,
            padded: false,
            look_ahead: 0,
            length_window: 0,
            length_age: 0,
            wait: 0,
            max_queue: 10_000,
            overflow: Overflow::Raise,
            slots: usize::MAX,
            steps: 16,
            gather: true,
        }
    }
}

/// Largest `max_queue`: the top bits of the admission counter are flags.
pub const LARGEST_QUEUE: usize = usize::MAX >> 4;

/// A limit that cannot be kept, named with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLimit {
    /// The field of [`Limits`].
    pub name: &'static str,
    /// The value it was given.
    pub value: u64,
}

impl std::fmt::Display for BadLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} out of range: {}", self.name, self.value)
    }
}

impl std::error::Error for BadLimit {}

impl Limits {
    /// Refuses what no batcher could keep to.
    pub fn check(&self) -> Result<(), BadLimit> {
        let positive = [
            ("max_batch_size", self.max_batch_size as u64),
            ("max_batch_cost", self.max_batch_cost),
            ("max_queue", self.max_queue as u64),
            ("slots", self.slots as u64),
            ("steps", self.steps as u64),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(BadLimit { name, value });
            }
        }
        if self.max_queue > LARGEST_QUEUE {
            return Err(BadLimit {
                name: "max_queue",
                value: self.max_queue as u64,
            });
        }
        Ok(())
    }

    /// What one request may cost, that alone counts as `lone`.
    fn most_of_one(&self, lone: u64) -> u64 {
        match self.max_batch_cost {
            u64::MAX => u64::MAX,
            most => most / lone,
        }
    }

    /// Refuses a change to `next` of what is settled for good: whether costs are counted, and what is no
    /// number.
    pub(crate) fn check_change(&self, counts_cost: bool, next: &Self) -> Result<(), BadLimit> {
        next.check()?;
        let for_good = [
            // What came before was not counted.
            (
                "max_batch_cost",
                next.max_batch_cost != u64::MAX && !counts_cost,
                next.max_batch_cost,
            ),
            (
                "overflow",
                next.overflow != self.overflow,
                next.overflow as u64,
            ),
            ("padded", next.padded != self.padded, u64::from(next.padded)),
            ("gather", next.gather != self.gather, u64::from(next.gather)),
        ];
        match for_good.into_iter().find(|&(_, changed, _)| changed) {
            Some((name, _, value)) => Err(BadLimit { name, value }),
            None => Ok(()),
        }
    }
}

/// What those read of the limits who do not hold the scheduler's lock.
///
/// Orderings: a change is stored under the lock, and whatever follows from it is settled there; a reader that
/// sees the old number acts as if it had come before. `Release` and `Acquire` so that whoever acts by a new
/// number also sees what was settled before it was posted; on the usual machines that costs what plain accesses do.
#[derive(Debug)]
pub(crate) struct Posted {
    max_batch_size: AtomicUsize,
    /// What one request may cost at most.
    most_of_one: AtomicU64,
    wait: AtomicU64,
    slots: AtomicUsize,
    /// As how many requests a lone one counts against the budget; for good.
    lone: u64,
    /// Whether there is a budget, so that costs are counted; for good.
    pub(crate) counts_cost: bool,
    /// For good.
    pub(crate) overflow: Overflow,
    steps: AtomicUsize,
}

impl Posted {
    pub(crate) fn new(limits: &Limits, lone: u64) -> Self {
        Self {
            max_batch_size: AtomicUsize::new(limits.max_batch_size),
            most_of_one: AtomicU64::new(limits.most_of_one(lone)),
            lone,
            wait: AtomicU64::new(limits.wait),
            slots: AtomicUsize::new(limits.slots),
            counts_cost: limits.max_batch_cost != u64::MAX,
            overflow: limits.overflow,
            steps: AtomicUsize::new(limits.steps),
        }
    }

    /// Under the scheduler's lock.
    pub(crate) fn post(&self, limits: &Limits) {
        self.max_batch_size.store(limits.max_batch_size, Release);
        self.most_of_one
            .store(limits.most_of_one(self.lone), Release);
        self.wait.store(limits.wait, Release);
        self.slots.store(limits.slots, Release);
        self.steps.store(limits.steps, Release);
    }

    #[inline]
    pub(crate) fn max_batch_size(&self) -> usize {
        self.max_batch_size.load(Acquire)
    }

    #[inline]
    pub(crate) fn most_of_one(&self) -> u64 {
        self.most_of_one.load(Acquire)
    }

    #[inline]
    pub(crate) fn wait(&self) -> Nanos {
        self.wait.load(Acquire)
    }

    pub(crate) fn steps(&self) -> usize {
        self.steps.load(Acquire)
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.load(Acquire)
    }
}
