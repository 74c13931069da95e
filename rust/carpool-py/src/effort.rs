//! Whether a handler computes, or waits for something else to: a device, a socket, a sleep.
//!
//! One that waits lets go of the interpreter at once. So a worker that has its next batch already may go straight
//! on: the callers of the last one are called back meanwhile. If it let go of the interpreter for them first it would get
//! it back when they are through, and the device would stand idle that long with a batch due. A handler that
//! computes may hold the interpreter: there the callers come first.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Of a run that is shorter, callers hardly notice whether it comes before them.
const SHORT: Duration = Duration::from_micros(100);

/// The runs of one worker's handler, of which some are measured: asking for a thread's time is a system call.
#[derive(Default)]
pub(crate) struct Effort {
    runs: u32,
    /// When the present run began, by the clock and by what the thread had computed; where it is measured.
    began: Option<(Instant, Duration)>,
    waits: bool,
}

impl Effort {
    /// A run begins.
    pub(crate) fn begin(&mut self) {
        // The first ones, which may differ from the rest, and later now and then.
        let measured = self.runs.is_power_of_two() || self.runs % 16 == 0;
        self.runs = self.runs.wrapping_add(1);
        self.began = if measured {
            computed().map(|computed| (Instant::now(), computed))
        } else {
            None
        };
    }

    /// It has ended. Whether runs of this handler wait, as far as is known.
    pub(crate) fn end(&mut self) -> bool {
        if let Some((began, before)) = self.began.take() {
            let took = began.elapsed();
            let computed = computed().map_or(took, |now| now.saturating_sub(before));
            self.waits = took < SHORT || computed * 2 < took;
        }
        self.waits
    }
}

thread_local! {
    /// Of a thread that takes batches in a loop of its own.
    static OWN: RefCell<Effort> = RefCell::default();
}

/// Takes the next batch of a thread in a loop of its own: with `at_once`, where what it did with the last was waiting.
pub(crate) fn next<R>(at_once: impl FnOnce() -> Option<R>, wait: impl FnOnce() -> R) -> R {
    let waits = OWN.with_borrow_mut(Effort::end);
    let next = if waits { at_once() } else { None };
    let next = next.unwrap_or_else(wait);
    OWN.with_borrow_mut(Effort::begin);
    next
}

/// How long this thread has computed; none where that is not told.
fn computed() -> Option<Duration> {
    #[cfg(unix)]
    {
        let mut time = std::mem::MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the pointer is valid for one `timespec`, which is filled where zero is returned.
        let time = unsafe {
            if libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) != 0 {
                return None;
            }
            time.assume_init()
        };
        let seconds = u64::try_from(time.tv_sec).ok()?;
        Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
    }
    #[cfg(not(unix))]
    None
}
