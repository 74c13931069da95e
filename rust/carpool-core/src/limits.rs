//! What a batcher was asked to keep to; checked once, at construction.

use crate::clock::Nanos;

/// What happens to a request that meets a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The value goes back to its giver at once.
    Raise,
    /// The request waits for room in front of the queue, in order of arrival.
    Wait,
}

/// The limits of one batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most requests in one batch; at least 1.
    pub max_batch_size: usize,
    /// Most cost in one batch; `u64::MAX` for no limit.
    pub max_batch_cost: u64,
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
}
