//! Passes time at work, for a handler that stands for a device: see `workloads/device.py`.

use std::time::{Duration, Instant};

/// Returns after so many nanoseconds, without ever letting go of the core.
#[unsafe(no_mangle)]
pub extern "C" fn spin(nanoseconds: u64) {
    let begin = Instant::now();
    let length = Duration::from_nanos(nanoseconds);
    while begin.elapsed() < length {
        std::hint::spin_loop();
    }
}
