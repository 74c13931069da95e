//! A thread that waits: parked by itself, woken through a `Waker`, with timers as exact as the
//! machine allows.

use std::task::Waker;
#[cfg(not(loom))]
use std::time::Duration;

use crate::clock::Nanos;

#[cfg(not(loom))]
use std::thread::{Thread, current, park, park_timeout};

struct Unpark(Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

/// The present thread's own parking place.
pub struct Parker {
    waker: Waker,
    #[cfg(loom)]
    thread: Thread,
}

impl Parker {
    /// For the calling thread; must not leave it.
    pub fn here() -> Self {
        let thread = current();
        Self {
            #[cfg(loom)]
            thread: thread.clone(),
            waker: std::sync::Arc::new(Unpark(thread)).into(),
        }
    }

    /// Wakes the thread this was made on.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until woken or `nanos` have passed; may return early for no reason.
    #[cfg(not(loom))]
    pub fn park(&self, nanos: Option<Nanos>) {
        match nanos {
            None => park(),
            Some(nanos) => {
                let _exact = ExactTimers::on_this_thread();
                park_timeout(Duration::from_nanos(nanos));
            }
        }
    }

    /// In a model time stands still: no limit is ever over, only a wake helps.
    #[cfg(loom)]
    pub fn park(&self, _nanos: Option<Nanos>) {
        self.thread.park();
    }
}

/// Loom's own `unpark` is lost on a thread that waits for a lock; std's is not.
#[cfg(loom)]
#[derive(Clone)]
struct Thread(std::sync::Arc<(loom::sync::Mutex<bool>, loom::sync::Condvar)>);

#[cfg(loom)]
impl Thread {
    fn unpark(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }

    fn park(&self) {
        let mut woken = self.0.0.lock().unwrap();
        while !std::mem::take(&mut *woken) {
            woken = self.0.1.wait(woken).unwrap();
        }
    }
}

#[cfg(loom)]
fn current() -> Thread {
    Thread(std::sync::Arc::default())
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
