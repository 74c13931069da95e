//! Atomics, cells and locks: `std` in the product, `loom` in the models.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex, MutexGuard, atomic},
};

#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, atomic};

/// `std`'s cell behind loom's closure interface, so that the models see every access.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Locks, and carries on when a panic elsewhere has poisoned the lock: the state behind it is kept
/// consistent at every point that can unwind, and a batcher that refused all work after one panic
/// would leave its callers hanging.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// The load that a compare-and-swap loop, or a look at a stream, begins with.
///
/// In the models a swap that changes nothing. Loom (0.7) keeps only the last access to a place: once
/// a thread has loaded it, loom has forgotten that another had looked before, and does not try this
/// thread's swap ahead of that look. A stale value would only make the first round of the loop fail, or be
/// an earlier look.
macro_rules! latest {
    ($place:expr, $guess:expr, $order:expr) => {{
        #[cfg(not(loom))]
        {
            $place.load($order)
        }
        #[cfg(loom)]
        match $place.compare_exchange($guess, $guess, $order, $order) {
            Ok(value) | Err(value) => value,
        }
    }};
}
pub(crate) use latest;

/// The order between two threads that each write one place and then read the other's ("store, then
/// load"). The accesses themselves are `SeqCst` in the product, which orders them at no cost beyond
/// the read-modify-write that is there anyway. Loom treats `SeqCst` accesses as acquire/release and
/// orders only fences, so the models say the same with a fence.
#[inline(always)]
pub(crate) fn store_load_order() {
    #[cfg(loom)]
    atomic::fence(atomic::Ordering::SeqCst);
}
