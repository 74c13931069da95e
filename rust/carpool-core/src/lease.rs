//! The lease on a slot: held by a batch, or by all the parts it was split into.

use crate::clock::Nanos;
use crate::scheduler::learned::Load;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One part's share of the lease on a slot; of a whole batch, all of it.
///
/// Orderings: none are needed. A share is added by the holder of another, so the number is never zero
/// before the last share ends; and shares end under the scheduler's lock.
pub(crate) struct Lease {
    sealed: Nanos,
    /// Of a batch that runs once.
    load: Option<Load>,
    /// How many shares there are; made by the first split.
    shares: Option<Arc<AtomicUsize>>,
}

impl Lease {
    /// Of a batch that was sealed at this moment.
    pub(crate) fn new(sealed: Nanos, load: Load) -> Self {
        Self {
            sealed,
            load: Some(load),
            shares: None,
        }
    }

    /// Another share of the same.
    pub(crate) fn share(&mut self) -> Self {
        let shares = self
            .shares
            .get_or_insert_with(|| Arc::new(AtomicUsize::new(1)));
        shares.fetch_add(1, Relaxed);
        Self {
            sealed: self.sealed,
            load: self.load,
            shares: Some(shares.clone()),
        }
    }

    /// Its batch runs once more: how long it took says nothing of its size.
    pub(crate) fn runs_again(&mut self) {
        self.load = None;
    }

    /// Ends this share, under the scheduler's lock: what there is to know of the batch, if it was the last.
    pub(crate) fn end(self) -> Option<Ended> {
        let whole = self.shares.is_none();
        let last = self
            .shares
            .is_none_or(|shares| shares.fetch_sub(1, Relaxed) == 1);
        last.then_some(Ended {
            sealed: self.sealed,
            load: self.load.filter(|_| whole),
        })
    }
}

/// Of a batch whose last answer is there.
pub(crate) struct Ended {
    /// When it was sealed.
    pub(crate) sealed: Nanos,
    /// What it brought to its handler; not of one that ran more than once, whole or in parts.
    pub(crate) load: Option<Load>,
}
