//! Requests between submit and the scheduler's next look: a stack that is taken whole.
//!
//! A push is one compare-and-swap; the scheduler swaps the whole stack out and turns it round, which
//! restores the order of the pushes. (R. K. Treiber, "Systems programming: coping with parallelism",
//! IBM RJ 5118, 1986; taking everything at once leaves no node to be reused under a reader, so the
//! ABA problem of a pop does not arise.) The links lie in the requests: nothing is allocated.
//!
//! Orderings. The push's swap is `SeqCst`: as a release it publishes the request and its link to the
//! drain's acquiring swap; as part of the single order it stands before the pusher's load of
//! [`need`](super::need), against the slot's store of need before `is_empty`.

use crate::border::Border;
use crate::request::{Handle, Request};
use crate::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Relaxed, SeqCst},
};
use crate::sync::{latest, store_load_order};
use std::ptr::null_mut;

/// The stack.
pub(crate) struct Intake<B: Border> {
    newest: AtomicPtr<Request<B>>,
}

impl<B: Border> Intake<B> {
    pub(crate) fn new() -> Self {
        Self {
            newest: AtomicPtr::new(null_mut()),
        }
    }

    /// Adds one request; from any thread.
    #[inline]
    pub(crate) fn push(&self, request: Handle<B>) {
        let node = request.into_raw();
        let mut newest = latest!(self.newest, null_mut(), Relaxed);
        loop {
            // SAFETY: `node` came from `into_raw` just above and is not published yet: its count of
            // one is ours, so it is alive.
            unsafe { (*node).reply.link.store(newest.cast(), Relaxed) };
            match self
                .newest
                .compare_exchange_weak(newest, node, SeqCst, Relaxed)
            {
                Ok(_) => break,
                Err(seen) => newest = seen,
            }
        }
        store_load_order();
    }

    /// True when nothing was pushed since the last drain.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        store_load_order();
        self.newest.load(SeqCst).is_null()
    }

    /// Takes everything, oldest push first.
    pub(crate) fn drain(&self, mut each: impl FnMut(Handle<B>)) {
        // Also the second access of a close, which has set its flag: a push that this look misses
        // must see the flag.
        if self.is_empty() {
            return;
        }
        let mut newest = self.newest.swap(null_mut(), AcqRel);
        let mut oldest = null_mut::<Request<B>>();
        while !newest.is_null() {
            // SAFETY: the swap took the chain out of reach of every other thread, and each node in
            // it holds the count that its push gave up.
            let older = unsafe { (*newest).reply.link.load(Relaxed) }.cast();
            // SAFETY: as above.
            unsafe { (*newest).reply.link.store(oldest.cast(), Relaxed) };
            oldest = newest;
            newest = older;
        }
        while !oldest.is_null() {
            // SAFETY: as above; `from_raw` takes back the count that `push` gave up, once per node,
            // and the link is read before the handle goes to `each`, which may drop it.
            let (newer, request) = unsafe {
                (
                    (*oldest).reply.link.load(Relaxed).cast(),
                    Handle::from_raw(oldest),
                )
            };
            each(request);
            oldest = newer;
        }
    }
}

impl<B: Border> Drop for Intake<B> {
    fn drop(&mut self) {
        self.drain(drop);
    }
}
