//! The event loop that runs in this thread.
//!
//! Up to CPython 3.11, asking asyncio costs a system call (it compares process ids on every question), which
//! is more than all the rest of a call. There the answer is read where asyncio keeps it: in the thread's dict,
//! as an object of two fields. Whether it lies there as expected is found out once, by asking as well.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::guard;

/// Asks asyncio.
fn ask(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let get = guard::once(&GET, py, || {
        Ok::<_, PyErr>(
            py.import("asyncio.events")?
                .getattr("_get_running_loop")?
                .unbind(),
        )
    })?;
    let found = get.bind(py).call0()?;
    Ok((!found.is_none()).then_some(found))
}

/// The event loop that runs in this thread, if one does.
#[cfg(any(Py_3_12, plain))]
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    ask(py)
}

/// The event loop that runs in this thread, if one does.
#[cfg(not(any(Py_3_12, plain)))]
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    if let Some(event_loop) = kept::look(py) {
        return Ok(Some(event_loop));
    }
    let found = ask(py)?;
    if let Some(event_loop) = &found {
        kept::learn(event_loop);
    }
    Ok(found)
}

#[cfg(not(any(Py_3_12, plain)))]
mod kept {
    use std::ffi::c_int;
    use std::ptr::null_mut;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

    use pyo3::ffi;
    use pyo3::prelude::*;

    use crate::guard::intern;
    use crate::shared::epoch;

    /// What asyncio's C part keeps: `PyRunningLoopHolder`.
    #[repr(C)]
    struct Holder {
        object: ffi::PyObject,
        event_loop: *mut ffi::PyObject,
        process: c_int,
    }

    /// The type of holders, once one was found to be as described; null before.
    static KIND: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
    /// None was: it is always asked then.
    static OTHERWISE: AtomicBool = AtomicBool::new(false);
    /// This process, as holders have it, and its epoch, one more: 0 is none.
    static PROCESS: AtomicU64 = AtomicU64::new(0);
    static AT: AtomicU64 = AtomicU64::new(0);

    fn process() -> c_int {
        if AT.load(Ordering::Relaxed) != epoch() + 1 {
            PROCESS.store(u64::from(std::process::id()), Ordering::Relaxed);
            AT.store(epoch() + 1, Ordering::Relaxed);
        }
        PROCESS.load(Ordering::Relaxed) as c_int
    }

    /// The holder of this thread, borrowed; null without one.
    fn holder(py: Python<'_>) -> *mut ffi::PyObject {
        let name = intern!(py, "__asyncio_running_event_loop__");
        // SAFETY: attached; the dict is borrowed from the thread, or null, and what it holds from the dict. A
        // look-up by a str can fail only for want of memory, and is none then.
        unsafe {
            let dict = ffi::PyThreadState_GetDict();
            if dict.is_null() {
                return null_mut();
            }
            let found = ffi::PyDict_GetItemWithError(dict, name.as_ptr());
            if found.is_null() {
                ffi::PyErr_Clear();
            }
            found
        }
    }

    /// The running loop. None: not known here.
    pub(super) fn look(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
        let kind = KIND.load(Ordering::Relaxed);
        if kind.is_null() {
            return None;
        }
        let holder = holder(py);
        // SAFETY: attached. An object of this very type is laid out as `Holder`: `learn` has seen one. Its loop
        // is a live object that it owns.
        unsafe {
            if holder.is_null() || ffi::Py_TYPE(holder) != kind {
                return None;
            }
            let holder = holder.cast::<Holder>();
            let event_loop = Bound::from_borrowed_ptr_or_opt(py, (*holder).event_loop)?;
            // The child of a fork is in no loop, whatever its parent was in.
            (!event_loop.is_none() && (*holder).process == process()).then_some(event_loop)
        }
    }

    /// Compares what lies in this thread's dict with what asyncio has said.
    pub(super) fn learn(said: &Bound<'_, PyAny>) {
        if OTHERWISE.load(Ordering::Relaxed) || !KIND.load(Ordering::Relaxed).is_null() {
            return;
        }
        let holder = holder(said.py());
        // SAFETY: attached; the fields are looked at only in an object of the size they need.
        unsafe {
            let kind = if holder.is_null() {
                null_mut()
            } else {
                ffi::Py_TYPE(holder)
            };
            let as_described = !kind.is_null()
                && std::ffi::CStr::from_ptr((*kind).tp_name) == c"_RunningLoopHolder"
                && (*kind).tp_basicsize == size_of::<Holder>() as ffi::Py_ssize_t
                && (*holder.cast::<Holder>()).event_loop == said.as_ptr()
                && (*holder.cast::<Holder>()).process == process();
            if as_described {
                KIND.store(kind, Ordering::Relaxed);
            } else {
                OTHERWISE.store(true, Ordering::Relaxed);
            }
        }
    }
}
