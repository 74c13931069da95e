//! What would make the waiting slot leave: the number that submitters compare with.
//!
//! A slot that finds nothing due states how many pending requests (or how much pending cost) would
//! change that, then looks at the intake once more. A submitter pushes, then reads the statement. The
//! two accesses of each side are in one total order, so either the slot sees the push or the
//! submitter sees the statement; and of the submitters that find it met, the one whose swap takes the
//! statement down wakes the slot. With nobody waiting, or nothing met, a submit costs a load.

use crate::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Relaxed, SeqCst},
};
use crate::sync::store_load_order;

/// Nobody waits.
pub const NOBODY: usize = usize::MAX;

/// The statement of the slot that waits first.
#[derive(Debug)]
pub struct Need {
    count: AtomicUsize,
    cost: AtomicU64,
}

impl Default for Need {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(NOBODY),
            cost: AtomicU64::new(u64::MAX),
        }
    }
}

impl Need {
    /// States that `count` pending requests, or `cost` in total, would make a slot leave.
    /// Only under the scheduler's lock. Look at the intake afterwards.
    pub fn state(&self, count: usize, cost: u64) {
        self.cost.store(cost, Relaxed);
        self.count.store(count, SeqCst);
        store_load_order();
    }

    /// Takes the statement down; true for whoever did. That one owes the slot a wake.
    #[inline]
    pub fn withdraw(&self) -> bool {
        let count = self.count.load(Relaxed);
        count != NOBODY
            && self
                .count
                .compare_exchange(count, NOBODY, AcqRel, Relaxed)
                .is_ok()
    }

    /// Whether somebody waits, and for how many: to be read after the push.
    #[inline]
    pub fn stated(&self) -> Option<usize> {
        match self.count.load(SeqCst) {
            NOBODY => None,
            count => Some(count),
        }
    }

    /// The cost that would make the slot leave.
    #[inline]
    pub fn stated_cost(&self) -> u64 {
        self.cost.load(Relaxed)
    }
}
