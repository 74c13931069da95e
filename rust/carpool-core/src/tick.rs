//! Short times at a third of the price of a clock: the processor's own counter, where it is fit for that.
//!
//! A call that runs its handler itself costs less than two looks at the clock. What its run took is wanted
//! for the statistics, within some per cent; for that the counter is read directly, and its rate is found
//! by comparing it with the clock once. Moments and deadlines never come from here.
//!
//! A mark is odd if it is the counter's and even if it is the clock's, so that one that was taken before the
//! rate was known is still understood.

use std::arch::x86_64::{__cpuid, _rdtsc};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Nanos;

/// Nanoseconds per tick in units of 2⁻³²; 0 while unknown.
static RATE: AtomicU64 = AtomicU64::new(0);
/// Where the comparison began, and whether the counter is fit: of one rate, whatever the processor does.
static START: OnceLock<Option<(u64, Nanos)>> = OnceLock::new();

/// The comparison takes this long: what a look at the clock costs is then a small part of it.
const LONG_ENOUGH: Nanos = 10_000_000;
/// Both were read within this time of each other, or something came between.
const TOGETHER: Nanos = 1_000;

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and the clock's own reading rests on it.
    unsafe { _rdtsc() }
}

/// A mark to measure from.
#[inline]
pub(crate) fn tick(now: impl Fn() -> Nanos) -> u64 {
    if RATE.load(Relaxed) == 0 && !compare(&now) {
        return now() & !1;
    }
    counter() | 1
}

/// The time since a mark.
#[inline]
pub(crate) fn since(tick: u64, now: impl Fn() -> Nanos) -> Nanos {
    if tick & 1 == 0 {
        return now().saturating_sub(tick);
    }
    // The counters of two processors may differ by a few ticks.
    let ticks = counter().saturating_sub(tick);
    ((u128::from(ticks) * u128::from(RATE.load(Relaxed))) >> 32) as Nanos
}

/// Finds the rate, if it is time to; true once it is known.
#[cold]
fn compare(now: impl Fn() -> Nanos) -> bool {
    let read = || {
        let before = now();
        let counted = counter();
        (now() - before <= TOGETHER).then_some((counted, before))
    };
    let start = START.get_or_init(|| {
        // Advanced power management information; bit 8: invariant TSC. (AMD64 Architecture Programmer's
        // Manual, volume 3, appendix E.4; the same on Intel.)
        const POWER: u32 = 0x8000_0007;
        let known = __cpuid(0x8000_0000).eax >= POWER;
        let fit = known && __cpuid(POWER).edx & (1 << 8) != 0;
        fit.then(&read).flatten()
    });
    let (Some((first, began)), Some((counted, moment))) = (start, read()) else {
        return false;
    };
    let (took, ticks) = (
        moment.saturating_sub(*began),
        counted.saturating_sub(*first),
    );
    if took < LONG_ENOUGH || ticks == 0 {
        return false;
    }
    let rate = (u128::from(took) << 32) / u128::from(ticks);
    RATE.store(u64::try_from(rate).unwrap_or(0), Relaxed);
    rate != 0
}

#[cfg(test)]
mod tests {
    use crate::clock::{Clock, SystemClock};

    #[test]
    fn the_counter_agrees_with_the_clock() {
        let clock = SystemClock;
        let began = clock.now();
        // Long enough for the rate to become known in the midst of it.
        while clock.now() - began < 30_000_000 {
            // Looks at the clock around both ends: whatever comes between them, the time lies between.
            let (before, tick, marked) = (clock.now(), clock.tick(), clock.now());
            while clock.now() - marked < 200_000 {}
            let (ending, took, after) = (clock.now(), clock.since_tick(tick), clock.now());
            let (least, most) = (ending - marked, after - before);
            assert!(took <= most * 17 / 16 + 100, "{took} of at most {most}");
            assert!(took + 100 >= least * 15 / 16, "{took} of at least {least}");
        }
    }
}
