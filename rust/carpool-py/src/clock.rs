//! The clock of all batchers of the process: the machine's, or one that stands still until a test moves it.
//!
//! While it stands, no thread and no loop sleeps by a timer for what the core decides: whoever moves it has every
//! batcher look ([`Engine::_clock_moved`](crate::engine)), which wakes whom that concerns. Who was on the way to
//! sleep meanwhile looks once more ([`has_come`]): it has joined the line before that look, and the clock was moved
//! before the batchers were told. Limits of waits that a caller states (`timeout=`) go by the machine's clock.

use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use carpool_core::{Clock, Nanos, SystemClock};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Whether it was ever stopped. Until then it is the machine's, and whoever asks pays for this look alone.
static IS_OURS: AtomicBool = AtomicBool::new(false);
/// Where it stands; 0 while it runs.
static STANDS: AtomicU64 = AtomicU64::new(0);
/// How far it is ahead of the machine's while it runs: by what it was moved while it stood. It never goes back.
static AHEAD: AtomicU64 = AtomicU64::new(0);

/// The clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PyClock;

#[inline]
fn stands() -> Option<Nanos> {
    // An ordinary load on every machine that matters.
    match STANDS.load(SeqCst) {
        0 => None,
        moment => Some(moment),
    }
}

#[inline]
fn running() -> Nanos {
    SystemClock.now() + AHEAD.load(Relaxed)
}

/// A moment of this clock on the machine's, as far as that can be known while it runs.
pub(crate) fn on_machine(moment: Nanos) -> Nanos {
    moment.saturating_sub(AHEAD.load(Relaxed))
}

/// How far Python's monotonic clock is ahead of [`SystemClock`], which may have another origin.
static ORIGIN: AtomicI64 = AtomicI64::new(0);

/// Learns where Python's clock begins; on Linux the two are one.
pub(crate) fn learn_origin(py: Python<'_>) -> PyResult<()> {
    if !cfg!(target_os = "linux") {
        let theirs: i64 = py.import("time")?.call_method0("monotonic_ns")?.extract()?;
        ORIGIN.store(theirs.saturating_sub_unsigned(SystemClock.now()), Relaxed);
    }
    Ok(())
}

/// A moment in seconds, on the clock of `time.monotonic()`.
pub(crate) fn seconds(moment: Nanos) -> f64 {
    moment.saturating_add_signed(ORIGIN.load(Relaxed)) as f64 / 1e9
}

impl Clock for PyClock {
    #[inline]
    fn now(&self) -> Nanos {
        if is_ours() {
            our_now()
        } else {
            SystemClock.now()
        }
    }

    #[inline]
    fn tick(&self) -> u64 {
        if is_ours() {
            our_now()
        } else {
            SystemClock.tick()
        }
    }

    #[inline]
    fn since_tick(&self, tick: u64) -> Nanos {
        if is_ours() {
            our_now().saturating_sub(tick)
        } else {
            SystemClock.since_tick(tick)
        }
    }
}

#[inline]
fn is_ours() -> bool {
    IS_OURS.load(SeqCst)
}

#[cold]
fn our_now() -> Nanos {
    stands().unwrap_or_else(running)
}

/// Whether it stands.
#[inline]
pub(crate) fn is_still() -> bool {
    stands().is_some()
}

/// How long a thread may sleep until `moment`; None: until it is woken.
#[inline]
pub(crate) fn rest(moment: Option<Nanos>) -> Option<Nanos> {
    match (moment, stands()) {
        (Some(moment), None) => Some(moment.saturating_sub(running())),
        _ => None,
    }
}

/// Whether a clock that stands has been moved as far as `moment`: for who is about to sleep until then.
#[inline]
pub(crate) fn has_come(moment: Option<Nanos>) -> bool {
    matches!((moment, stands()), (Some(moment), Some(now)) if now >= moment)
}

/// Stops the clock of all batchers where it is.
#[pyfunction]
pub(crate) fn stop_clock() -> PyResult<()> {
    IS_OURS.store(true, SeqCst);
    let now = running().max(1);
    STANDS
        .compare_exchange(0, now, SeqCst, SeqCst)
        .map(drop)
        .map_err(|_| PyRuntimeError::new_err("the clock of this process stands still already"))
}

/// Moves the clock that stands on, and says where it stands then, in seconds; the batchers are to be told.
#[pyfunction]
pub(crate) fn move_clock(nanos: u64) -> PyResult<f64> {
    let on = |stands: Nanos| (stands != 0).then(|| stands.saturating_add(nanos));
    match STANDS.fetch_update(SeqCst, SeqCst, on) {
        Ok(before) => Ok(seconds(before.saturating_add(nanos))),
        Err(_) => Err(PyRuntimeError::new_err("the clock of this process runs")),
    }
}

/// Lets the clock run by itself again, from where it stands.
#[pyfunction]
pub(crate) fn run_clock() {
    if let Some(moment) = stands() {
        // It has stood behind the machine's, unless it was moved further than time has gone.
        AHEAD.store(moment.saturating_sub(SystemClock.now()), Relaxed);
        STANDS.store(0, SeqCst);
    }
}
