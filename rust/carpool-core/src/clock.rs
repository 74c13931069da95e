//! Time is an argument: monotonic nanoseconds from a clock that the border names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Monotonic nanoseconds since an origin that is fixed per process.
pub type Nanos = u64;

/// No such moment: later than every real one.
pub const NEVER: Nanos = Nanos::MAX;

/// A source of monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Nanos;
}

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Nanos {
        // 584 years fit; the cast cannot lose anything that matters.
        origin().elapsed().as_nanos() as Nanos
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
