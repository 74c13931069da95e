//! What a thread that never attaches leaves to one of Python's: telling futures, dropping what nobody else
//! can take, calling back.
//!
//! The thread is made by Python code (`carpool._errands`) when the first request with a deadline is
//! submitted, sleeps detached until there is something, and ends before the process does.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::guard::intern;
use carpool_core::request::Handle;
use pyo3::prelude::*;

use crate::border::PyBorder;
use crate::guard::Inside;
use crate::overdue;
use crate::seat::{Callback, with_parker};
use crate::shared::epoch;

/// Something to be done attached.
pub(crate) enum Errand {
    /// Tell the callers of overdue requests.
    Tell(Vec<Handle<PyBorder>>),
    Call(Arc<Callback>),
}

impl Errand {
    fn run(self, py: Python<'_>) {
        match self {
            Self::Tell(requests) => overdue::tell_attached(py, &requests),
            Self::Call(callback) => callback.call(py),
        }
    }
}

#[derive(Default)]
struct Letters {
    errands: Vec<Errand>,
    sleeper: Option<Waker>,
    ended: bool,
}

/// The letter box of this process; null before first use. Never freed: a forked child leaves that of its
/// parent alone, whose lock may be held by a thread that does not exist in it.
static LETTERS: AtomicPtr<Mutex<Letters>> = AtomicPtr::new(null_mut());

/// One more than the epoch in which the thread was started.
static STARTED: AtomicU64 = AtomicU64::new(0);

fn letters() -> MutexGuard<'static, Letters> {
    let mut known = LETTERS.load(Ordering::Acquire);
    if known.is_null() {
        let made = Box::into_raw(Box::<Mutex<Letters>>::default());
        known =
            match LETTERS.compare_exchange(null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => made,
                Err(other) => {
                    // SAFETY: it came from `into_raw` just above and was never shared.
                    drop(unsafe { Box::from_raw(made) });
                    other
                }
            };
    }
    // SAFETY: what stands in `LETTERS` came from `Box::into_raw` and is never freed.
    let letters = unsafe { &*known };
    letters.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves an errand, from any thread.
pub(crate) fn post(errand: Errand) {
    let mut letters = letters();
    letters.errands.push(errand);
    let sleeper = letters.sleeper.take();
    drop(letters);
    if let Some(sleeper) = sleeper {
        sleeper.wake();
    }
}

/// Makes sure that the thread runs.
#[inline]
pub(crate) fn start(py: Python<'_>) -> PyResult<()> {
    if STARTED.load(Ordering::Relaxed) == epoch() + 1 {
        return Ok(());
    }
    let module = py.import("carpool._errands")?;
    module.call_method0(intern!(py, "start"))?;
    STARTED.store(epoch() + 1, Ordering::Relaxed);
    Ok(())
}

/// A forked child has its own.
pub(crate) fn forked() {
    LETTERS.store(null_mut(), Ordering::Relaxed);
}

/// Waits for errands and runs them; False when there will be no more.
#[pyfunction]
pub(crate) fn run_errands(py: Python<'_>) -> bool {
    let (errands, goes_on) = with_parker(|parker| {
        py.detach(|| {
            loop {
                let mut letters = letters();
                let errands = std::mem::take(&mut letters.errands);
                if !errands.is_empty() || letters.ended {
                    return (errands, !letters.ended);
                }
                letters.sleeper = Some(parker.waker().clone());
                drop(letters);
                parker.park(None);
            }
        })
    });
    let _inside = Inside::go_on();
    for errand in errands {
        errand.run(py);
    }
    goes_on
}

/// Has the thread end once it has run what there is.
#[pyfunction]
pub(crate) fn end_errands() {
    let mut letters = letters();
    letters.ended = true;
    let sleeper = letters.sleeper.take();
    drop(letters);
    if let Some(sleeper) = sleeper {
        sleeper.wake();
    }
}
