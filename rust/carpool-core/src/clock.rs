//! Time is an argument: monotonic nanoseconds from a clock that the border names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Monotonic nanoseconds since an origin that is fixed per process.
pub type Nanos = u64;

/// No such moment: later than every real one.
pub const NEVER: Nanos = Nanos::MAX;

/// A source of monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Nanos;

    /// A mark to measure a short time from; on some machines much cheaper than a moment.
    #[inline]
    fn tick(&self) -> u64 {
        self.now()
    }

    /// The time that has passed since a mark.
    #[inline]
    fn since_tick(&self, tick: u64) -> Nanos {
        self.now().saturating_sub(tick)
    }
}

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The origin is the machine's own: a submit reads the clock, and turning two moments into a distance
/// would cost it a tenth of its time.
#[cfg(target_os = "linux")]
impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Nanos {
        let mut moment = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the call writes one timespec to the place it is given; this clock cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut moment) };
        // 584 years fit; neither part is negative.
        moment.tv_sec as Nanos * 1_000_000_000 + moment.tv_nsec as Nanos
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn tick(&self) -> u64 {
        crate::tick::tick(|| self.now())
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn since_tick(&self, tick: u64) -> Nanos {
        crate::tick::since(tick, || self.now())
    }
}

#[cfg(not(target_os = "linux"))]
impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Nanos {
        use std::time::Instant;
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        // 584 years fit; the cast cannot lose anything that matters.
        ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as Nanos
    }
}

/// A clock that moves only when told to, for tests and simulations. Clones share the moment.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Moves to `moment`; a clock never goes back, so an earlier one changes nothing.
    pub fn set(&self, moment: Nanos) {
        self.0.fetch_max(moment, Ordering::AcqRel);
    }

    /// Moves on by `nanos`.
    pub fn advance(&self, nanos: Nanos) {
        self.0.fetch_add(nanos, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Nanos {
        self.0.load(Ordering::Acquire)
    }
}
