//! The steps of one reply between their giver and their reader: a bounded buffer, made by the first step.
//!
//! Each step is taken once, in the order in which they were given, and the last answer after them. A
//! full buffer is the giver's to deal with: it gets the step back, and may leave a waker for when there
//! is room. So a slow reader holds up nobody but who chooses to wait for it.
//!
//! **Who wakes whom.** A reader that found nothing has said so (`waits`) under the lock that every
//! step goes through, so either it saw the step, or the giver's look after that step (`must_tell`)
//! sees that it waits. A reader that has been told and has not looked since is not told again: it
//! looks until it finds nothing. In the other direction the same: the giver leaves its waker under the
//! lock where it saw no room, and whoever makes room takes it.
//!
//! Nothing of the border's is dropped or woken under the lock.

use std::collections::VecDeque;
use std::task::Waker;

use crate::sync::{Mutex, lock};

/// Why a step was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstored {
    /// The reader has not taken as many as there may be.
    Full,
    /// Nobody waits for it any more.
    Gone,
}

/// The buffer of one reply.
#[derive(Debug)]
pub(crate) struct Steps<A>(Mutex<Buffer<A>>);

#[derive(Debug)]
struct Buffer<A> {
    given: VecDeque<A>,
    last: Option<A>,
    /// The reader found nothing when it looked last, and has not been told since.
    waits: bool,
    /// The reader has stopped.
    closed: bool,
    /// Woken when there is room.
    room: Option<Waker>,
}

impl<A> Steps<A> {
    /// Empty, with a reader that has seen nothing yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Buffer {
            given: VecDeque::new(),
            last: None,
            waits: true,
            closed: false,
            room: None,
        }))
    }

    /// Adds a step where less than `bound` are there.
    pub(crate) fn give(&self, step: A, bound: usize) -> Result<(), (Unstored, A)> {
        let mut buffer = lock(&self.0);
        if buffer.closed {
            Err((Unstored::Gone, step))
        } else if buffer.given.len() >= bound {
            Err((Unstored::Full, step))
        } else {
            buffer.given.push_back(step);
            Ok(())
        }
    }

    /// Whether the reader has to be told of what is there; it will be, then.
    pub(crate) fn must_tell(&self) -> bool {
        let mut buffer = lock(&self.0);
        !buffer.given.is_empty() && std::mem::take(&mut buffer.waits)
    }

    /// Whether less than `bound` are there, or nobody will ever take one; if not, `waker` will be woken
    /// when that is so.
    pub(crate) fn poll_room(&self, bound: usize, waker: &Waker) -> bool {
        let mut buffer = lock(&self.0);
        if buffer.closed || buffer.given.len() < bound {
            return true;
        }
        let known = buffer.room.as_ref().is_some_and(|one| one.will_wake(waker));
        let before = if known {
            None
        } else {
            buffer.room.replace(waker.clone())
        };
        drop(buffer);
        drop(before);
        false
    }

    /// Stores what comes after the last step.
    pub(crate) fn finish(&self, last: A) {
        let mut buffer = lock(&self.0);
        buffer.last = Some(last);
        let room = buffer.room.take();
        drop(buffer);
        drop(room);
    }

    /// The next step.
    pub(crate) fn take(&self) -> Option<A> {
        let mut buffer = lock(&self.0);
        let Some(step) = buffer.given.pop_front() else {
            buffer.waits = true;
            return None;
        };
        let room = buffer.room.take();
        drop(buffer);
        if let Some(giver) = room {
            giver.wake();
        }
        Some(step)
    }

    /// What comes after the last step; steps that nobody took are dropped.
    pub(crate) fn take_last(&self) -> Option<A> {
        let mut buffer = lock(&self.0);
        let untaken = std::mem::take(&mut buffer.given);
        let last = buffer.last.take();
        drop(buffer);
        drop(untaken);
        last
    }

    /// Takes no more steps, and drops those that are there; a giver that waits for room is told.
    pub(crate) fn close(&self) {
        let mut buffer = lock(&self.0);
        buffer.closed = true;
        let untaken = std::mem::take(&mut buffer.given);
        let room = buffer.room.take();
        drop(buffer);
        drop(untaken);
        if let Some(giver) = room {
            giver.wake();
        }
    }
}
