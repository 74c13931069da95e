//! How many handles a request has.
//!
//! Orderings. As in `Arc`: adding needs none, since it is done from a living handle; letting go releases what
//! the thread did with the request, and the last one acquires all of it before it frees the cell.

use crate::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// The count.
#[derive(Debug)]
pub struct Count(AtomicU32);

impl Count {
    /// Of so many.
    #[inline]
    pub fn of(n: u32) -> Self {
        Self(AtomicU32::new(n))
    }

    /// Sets it, before anybody shares it.
    #[inline]
    pub fn set(&self, n: u32) {
        self.0.store(n, Relaxed);
    }

    /// At the moment.
    #[inline]
    pub fn get(&self) -> usize {
        self.0.load(Relaxed) as usize
    }

    /// True while there is but one, which is the caller's: nobody can add another.
    pub fn is_one(&self) -> bool {
        self.0.load(Acquire) == 1
    }

    /// One more.
    #[inline]
    pub fn add(&self) {
        if self.0.fetch_add(1, Relaxed) > u32::MAX / 2 {
            // Only handles that were leaked can be so many. A count that came round would free a
            // request in use.
            std::process::abort();
        }
    }

    /// One less; true for the last, which sees what all others did before.
    #[inline]
    pub fn let_go(&self) -> bool {
        if self.0.fetch_sub(1, Release) != 1 {
            return false;
        }
        fence(Acquire);
        true
    }
}
