//! One error per verb. A refused value goes back to its giver.

use std::fmt;

/// Why a submit was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `max_queue` requests are pending.
    Full,
    /// `max_queue` requests are pending, and none of them is less urgent.
    Shed,
    /// The batcher takes no more requests.
    Closed,
    /// The request alone costs more than a batch may.
    TooLarge,
    /// By what batches have taken it would be answered after its deadline.
    Late {
        /// How long it would take, in nanoseconds.
        needs: u64,
        /// How long there is.
        left: u64,
    },
}

/// A refused submit: why, and what was refused.
pub struct Refused<P, W> {
    /// Why.
    pub why: Refusal,
    /// The payload, untouched.
    pub payload: P,
    /// The waiter, untouched.
    pub waiter: W,
}

impl<P, W> fmt::Debug for Refused<P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the queue is full",
            Self::Shed => "the queue is full of requests that are more urgent",
            Self::Closed => "the batcher is closed",
            Self::TooLarge => "the request exceeds the cost of a batch",
            Self::Late { .. } => "the request cannot be answered before its deadline",
        })
    }
}

/// Why a batch did not take an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerError {
    /// No such request in the batch.
    OutOfRange {
        /// The index asked for.
        index: usize,
        /// How many requests the batch holds.
        len: usize,
    },
    /// The request has its answer already.
    Answered {
        /// The index asked for.
        index: usize,
    },
    /// The caller has taken too few of the steps it was given: [`Batch::poll_room`](crate::Batch::poll_room)
    /// says when there is room.
    Full {
        /// The index asked for.
        index: usize,
    },
    /// The caller of the request has stopped waiting.
    Gone {
        /// The index asked for.
        index: usize,
    },
    /// As many answers as unanswered requests are needed.
    WrongLength {
        /// Requests in the batch.
        expected: usize,
        /// Answers given.
        actual: usize,
    },
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { index, len } => {
                write!(f, "index {index} is out of range for a batch of {len}")
            }
            Self::Answered { index } => write!(f, "request {index} has been answered already"),
            Self::Full { index } => write!(f, "request {index} has no room for a step"),
            Self::Gone { index } => write!(f, "the caller of request {index} has stopped waiting"),
            Self::WrongLength { expected, actual } => {
                write!(f, "{actual} answers for a batch of {expected}")
            }
        }
    }
}

impl std::error::Error for AnswerError {}

/// A split that would leave a part without a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitError {
    /// Where the second part was to begin.
    pub at: usize,
    /// How many requests the batch holds.
    pub len: usize,
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, len } = self;
        write!(
            f,
            "a batch of {len} cannot be split at {at}: each part needs a request"
        )
    }
}

impl std::error::Error for SplitError {}
