//! A thread that waits: parked by itself, woken through a `Waker`, with timers as exact as the
//! machine allows.

use std::task::Waker;
use std::time::Duration;

use crate::clock::Nanos;

#[cfg(loom)]
use loom::thread;
#[cfg(not(loom))]
use std::thread;

struct Unpark(thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

/// The present thread's own parking place.
pub struct Parker(Waker);

impl Parker {
    /// For the calling thread; must not leave it.
    pub fn here() -> Self {
        Self(std::sync::Arc::new(Unpark(thread::current())).into())
    }

    /// Wakes the thread this was made on.
    pub fn waker(&self) -> &Waker {
        &self.0
    }

    /// Sleeps until woken or `nanos` have passed; may return early for no reason.
    #[cfg(not(loom))]
    pub fn park(&self, nanos: Option<Nanos>) {
        match nanos {
            None => thread::park(),
            Some(nanos) => {
                let _exact = ExactTimers::on_this_thread();
                thread::park_timeout(Duration::from_nanos(nanos));
            }
        }
    }

    /// Loom knows no time: every wait with a limit may be over at once.
    #[cfg(loom)]
    pub fn park(&self, nanos: Option<Nanos>) {
        match nanos.map(Duration::from_nanos) {
            None => thread::park(),
            Some(_) => thread::yield_now(),
        }
    }
}

/// Linux may delay a thread's timers by 50 µs to save wake-ups; while a batch is due that is too much.
/// The thread belongs to the user, so the old value is put back.
#[cfg(all(not(loom), target_os = "linux"))]
struct ExactTimers(Option<libc::c_ulong>);

#[cfg(all(not(loom), target_os = "linux"))]
impl ExactTimers {
    fn on_this_thread() -> Self {
        // SAFETY: prctl with these options reads and sets a number of the calling thread only.
        let before = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) };
        if before <= 1 {
            return Self(None);
        }
        // SAFETY: as above.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
        Self(Some(before as libc::c_ulong))
    }
}

#[cfg(all(not(loom), target_os = "linux"))]
impl Drop for ExactTimers {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, before) };
        }
    }
}

#[cfg(all(not(loom), not(target_os = "linux")))]
struct ExactTimers;

#[cfg(all(not(loom), not(target_os = "linux")))]
impl ExactTimers {
    fn on_this_thread() -> Self {
        Self
    }
}
