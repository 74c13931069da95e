//! What keeps calls into Python safe where an exception or the end of the process would do harm.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use crate::errors;

/// Calls into Python that must not be left half done. Ctrl-C may interrupt any of them in the main
/// thread; then it is called again (`call` has to bear that), and the interrupt is raised afterwards, in
/// the user's code.
pub(crate) fn insist<T>(py: Python<'_>, call: impl Fn() -> PyResult<T>) -> PyResult<T> {
    let mut result = call();
    let mut interrupted = false;
    for _ in 0..8 {
        match &result {
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => interrupted = true,
            _ => break,
        }
        result = call();
    }
    if interrupted {
        // SAFETY: may be called from any thread at any time.
        unsafe { pyo3::ffi::PyErr_SetInterrupt() };
    }
    result
}

/// What is made once per process, at first use.
///
/// `PyOnceLock::get_or_try_init` runs `make` under its lock. `make` may let the interpreter go, another thread
/// fork, and the child wait for ever for a thread it does not have. So it runs outside: two threads may both
/// make one, and the first is kept.
pub(crate) fn once<'a, T>(
    place: &'a PyOnceLock<T>,
    py: Python<'_>,
    make: impl FnOnce() -> PyResult<T>,
) -> PyResult<&'a T> {
    if let Some(known) = place.get(py) {
        return Ok(known);
    }
    let made = make()?;
    // What another thread was faster with is dropped out here.
    let refused = place.set(py, made);
    drop(refused);
    place
        .get(py)
        .ok_or_else(|| PyRuntimeError::new_err("carpool: a bug in the border (set, but not there)"))
}

/// A str that is made once, for names of attributes; as PyO3's `intern!`, but made as by [`once`].
macro_rules! intern {
    ($py:expr, $text:expr) => {{
        static PLACE: ::pyo3::sync::PyOnceLock<::pyo3::Py<::pyo3::types::PyString>> =
            ::pyo3::sync::PyOnceLock::new();
        $crate::guard::word(&PLACE, $py, $text)
    }};
}
pub(crate) use intern;

/// What stands in `place`, or `text`, which is put there.
#[inline]
pub(crate) fn word<'py>(
    place: &'static PyOnceLock<Py<PyString>>,
    py: Python<'py>,
    text: &str,
) -> &'py Bound<'py, PyString> {
    match place.get(py) {
        Some(known) => known.bind(py),
        None => {
            // Whoever was faster has made the same.
            drop(place.set(py, PyString::intern(py, text).unbind()));
            place
                .get_or_init(py, || PyString::intern(py, text).unbind())
                .bind(py)
        }
    }
}

/// Threads that are inside this extension and may call Python from there.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The process is about to end.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Presence inside the extension.
///
/// CPython up to 3.13 ends a daemon thread that asks for the interpreter during its finalization by
/// unwinding its stack, which Rust answers by aborting the process. So the end of the process waits for a
/// moment until nobody is inside, and calls that come later from other threads are refused before they
/// reach anything that could ask for the interpreter.
pub(crate) struct Inside(());

/// Counts who is inside. Whoever comes and whoever leaves is attached, and with a GIL that is one thread at
/// a time: no need for a locked addition.
#[inline]
fn count(more: isize) {
    if cfg!(Py_GIL_DISABLED) {
        INSIDE.fetch_add(more as usize, Ordering::Relaxed);
    } else {
        let inside = INSIDE.load(Ordering::Relaxed);
        INSIDE.store(inside.wrapping_add_signed(more), Ordering::Relaxed);
    }
}

impl Inside {
    /// Enters with a call, which is refused once the process is ending.
    #[inline]
    pub(crate) fn enter(py: Python<'_>) -> PyResult<Self> {
        if ENDING.load(Ordering::Relaxed) {
            Self::unless_elsewhere(py)?;
        }
        Ok(Self::go_on())
    }

    /// Once the process is ending.
    #[cold]
    #[inline(never)]
    fn unless_elsewhere(py: Python<'_>) -> PyResult<()> {
        if ENDS_HERE.get() {
            return Ok(());
        }
        let text = "the process is ending".into();
        Err(errors::raise(py, "BatcherClosed", text))
    }

    /// Enters with what is under way already; attached, as everybody who calls this is.
    #[inline]
    pub(crate) fn go_on() -> Self {
        count(1);
        Self(())
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        count(-1);
    }
}

thread_local! {
    /// This is the thread that ends the process.
    static ENDS_HERE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Refuses calls of other threads from now on, and waits until those inside have left, at most
/// `timeout_ms`. For the end of the process.
#[pyfunction]
pub(crate) fn keep_out(py: Python<'_>, timeout_ms: u64) -> bool {
    // What refusing needs is imported now: later that could run Python code.
    drop(errors::make(py, "BatcherClosed", String::new()));
    ENDS_HERE.set(true);
    ENDING.store(true, Ordering::SeqCst);
    let end = Instant::now() + Duration::from_millis(timeout_ms);
    while INSIDE.load(Ordering::SeqCst) > 0 {
        if Instant::now() >= end {
            return false;
        }
        // They need the interpreter to leave.
        py.detach(|| std::thread::sleep(Duration::from_micros(200)));
    }
    true
}

/// A forked child begins with nobody inside but its only thread, which is outside by now.
pub(crate) fn forget_others() {
    INSIDE.store(0, Ordering::Relaxed);
    ENDING.store(false, Ordering::Relaxed);
}
