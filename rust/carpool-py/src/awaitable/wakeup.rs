//! The callback that nearly every awaitable has: the wakeup of one of asyncio's own tasks, recognised.
//!
//! A task that wakes up asks what woke it for its `result`, only to learn whether that raises, and then asks
//! its coroutine for the next step, which asks the awaitable itself. asyncio's C task is quick about it where
//! a plain future of asyncio's woke it, and looks the method up by a string made anew where it was anything
//! else. So a task whose awaitable has a value is woken in the name of one finished future that all share.

use std::ffi::CStr;
use std::ptr::{addr_of_mut, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How the C task defines its wakeup; null until one was seen.
static WAKEUP: AtomicPtr<ffi::PyMethodDef> = AtomicPtr::new(null_mut());
/// The finished future; there once `WAKEUP` is.
static FINISHED: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());

/// What stands for an awaitable with a value towards `callback`: the finished future for the wakeup of a
/// task, else null.
///
/// # Safety
/// Attached; `callback` is alive.
#[inline]
pub(super) unsafe fn stand_in(callback: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: by contract; an object of exactly this type has the layout of a `PyCFunctionObject`.
    unsafe {
        if ffi::Py_TYPE(callback) != addr_of_mut!(ffi::PyCFunction_Type) {
            return null_mut();
        }
        let definition = (*callback.cast::<ffi::PyCFunctionObject>()).m_ml;
        if definition == WAKEUP.load(Ordering::Relaxed) {
            FINISHED.load(Ordering::Relaxed)
        } else {
            null_mut()
        }
    }
}

/// Looks at a callback that was added; from the first wakeup on it knows them all.
///
/// # Safety
/// Attached; `callback` is alive.
#[inline]
pub(super) unsafe fn learn(py: Python<'_>, callback: *mut ffi::PyObject) {
    if WAKEUP.load(Ordering::Relaxed).is_null() {
        // SAFETY: by contract.
        unsafe {
            if ffi::Py_TYPE(callback) == addr_of_mut!(ffi::PyCFunction_Type) {
                look(py, callback);
            }
        }
    }
}

/// # Safety
/// Attached; `callback` is alive and exactly a built-in function.
#[cold]
unsafe fn look(py: Python<'_>, callback: *mut ffi::PyObject) {
    // SAFETY: by contract. The definition of a function outlives it; its name is a C string. This one is
    // static: it belongs to a module that is never unloaded.
    let definition = unsafe {
        let function = callback.cast::<ffi::PyCFunctionObject>();
        let definition = (*function).m_ml;
        let owner = (*function).m_self;
        if owner.is_null()
            || (*definition).ml_flags != ffi::METH_O
            || CStr::from_ptr((*definition).ml_name) != c"task_wakeup"
        {
            return;
        }
        let owner = Bound::from_borrowed_ptr(py, owner);
        let native = py
            .import("_asyncio")
            .and_then(|native| native.getattr("Task"));
        if !native.is_ok_and(|native| owner.get_type().is(&native)) {
            return;
        }
        definition
    };
    if let Ok(finished) = finished(py) {
        FINISHED.store(finished.into_ptr(), Ordering::Relaxed);
        WAKEUP.store(definition, Ordering::Relaxed);
    }
}

/// A finished future of asyncio's own, that belongs to no loop.
fn finished(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let no_loop = PyDict::new(py);
    no_loop.set_item("get_debug", py.get_type::<pyo3::types::PyBool>())?;
    let namespace = py.import("types")?.getattr("SimpleNamespace")?;
    let kwargs = PyDict::new(py);
    kwargs.set_item("loop", namespace.call((), Some(&no_loop))?)?;
    let future = py.import("_asyncio")?.getattr("Future")?;
    let finished = future.call((), Some(&kwargs))?;
    finished.call_method1("set_result", (py.None(),))?;
    Ok(finished)
}
