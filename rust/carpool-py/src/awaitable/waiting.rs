//! What happens while an awaitable is awaited: it yields itself, then returns or raises.

use std::ptr::null_mut;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::{Awaitable, State};
use crate::errors;
#[cfg(Py_3_12)]
use crate::port::Port;

/// Makes a new reference of a borrowed one.
///
/// # Safety
/// Attached; `object` is alive.
pub(super) unsafe fn new_ref(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: by contract.
    unsafe { ffi::Py_INCREF(object) };
    object
}

/// Runs the body of a function of the type: with the GIL token, and no panic beyond it.
///
/// # Safety
/// Attached: CPython calls the functions of a type that way.
pub(crate) unsafe fn entered<R>(failed: R, body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // Attached already; but references that are dropped in here are released at once only where PyO3 knows it.
    // SAFETY: by contract.
    Python::attach(|_| unsafe { caught(failed, body) })
}

/// The same, where PyO3 knows already that the thread is attached.
///
/// # Safety
/// Attached.
#[inline]
pub(crate) unsafe fn caught<R>(failed: R, body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: by contract.
    let py = unsafe { Python::assume_attached() };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        body(py).map_err(|error| error.restore(py))
    }));
    match outcome {
        Ok(Ok(value)) => value,
        Ok(Err(())) => failed,
        Err(_) => {
            PyRuntimeError::new_err("carpool: a bug in the core (panic)").restore(py);
            failed
        }
    }
}

/// Raises the stored exception, without the traces of those who raised it before.
///
/// # Safety
/// Attached; `this` is alive and in state `Error`.
pub(super) unsafe fn raise_error(this: *mut Awaitable) {
    // SAFETY: by contract; the outcome of an object in state `Error` is an exception object.
    unsafe {
        (*this).seen = (*this).seen.received();
        let error = (*this).outcome;
        ffi::PyException_SetTraceback(error, ffi::Py_None());
        ffi::PyErr_SetObject(ffi::Py_TYPE(error).cast(), error);
    }
}

pub(super) fn asyncio_error(py: Python<'_>, name: &str, text: &str) -> PyErr {
    let class = py
        .import("asyncio")
        .and_then(|asyncio| asyncio.getattr(name));
    match class.and_then(|class| class.call1((text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// # Safety
/// Attached; `this` is alive.
pub(super) unsafe fn cancelled_error(
    py: Python<'_>,
    this: *mut Awaitable,
) -> PyResult<Bound<'_, PyAny>> {
    let class = py.import("asyncio")?.getattr("CancelledError")?;
    // SAFETY: by contract; what it was cancelled with is owned by the object.
    let message = unsafe {
        let message = Bound::from_borrowed_ptr_or_opt(py, (*this).outcome);
        message.filter(|_| (*this).state == State::Cancelled)
    };
    match message {
        Some(message) => class.call1((message,)),
        None => class.call0(),
    }
}

/// What a step finds.
pub(super) enum Step {
    Yield,
    Return(*mut ffi::PyObject),
    Raise,
}

/// One step of waiting: yields while pending, else the value (a new reference) or a raised error.
///
/// # Safety
/// Attached; `this` is alive.
pub(super) unsafe fn step(this: *mut Awaitable) -> Step {
    // SAFETY: by contract.
    unsafe {
        match (*this).state {
            State::Value => Step::Return(new_ref((*this).outcome)),
            State::Pending if (*this).is_ours() => {
                (*this).blocking = true;
                Step::Yield
            }
            State::Pending => {
                let py = Python::assume_attached();
                let text = "the request was submitted by the parent process, before the fork";
                errors::raise(py, "BatchAbandoned", text.into()).restore(py);
                Step::Raise
            }
            State::Error => {
                raise_error(this);
                Step::Raise
            }
            State::Cancelled => {
                entered((), |py| Err(PyErr::from_value(cancelled_error(py, this)?)));
                Step::Raise
            }
        }
    }
}

pub(super) unsafe extern "C" fn itself(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by CPython, attached, with an object that is alive.
    unsafe { new_ref(this) }
}

pub(super) unsafe extern "C" fn am_send(
    this: *mut ffi::PyObject,
    _sent: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: called by CPython, attached, with an object of this type that is alive, and a place for
    // the result.
    unsafe {
        match step(this.cast()) {
            Step::Yield => {
                *result = new_ref(this);
                ffi::PySendResult::PYGEN_NEXT
            }
            Step::Return(value) => {
                *result = value;
                ffi::PySendResult::PYGEN_RETURN
            }
            Step::Raise => {
                *result = null_mut();
                ffi::PySendResult::PYGEN_ERROR
            }
        }
    }
}

pub(super) unsafe extern "C" fn next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as for `am_send`.
    unsafe {
        match step(this.cast()) {
            Step::Yield => new_ref(this),
            Step::Return(value) => {
                stop(value);
                null_mut()
            }
            Step::Raise => null_mut(),
        }
    }
}

/// Ends an iteration with a value, which it takes over.
///
/// # Safety
/// Attached; `value` is an owned reference.
pub(super) unsafe fn stop(value: *mut ffi::PyObject) {
    // SAFETY: by contract. `PyErr_SetObject` would spread a tuple over the arguments and raise an
    // exception object itself, so those two are wrapped by hand; None needs no exception at all.
    unsafe {
        if value == ffi::Py_None() {
            ffi::Py_DECREF(value);
            return;
        }
        if ffi::PyTuple_Check(value) != 0 || ffi::PyExceptionInstance_Check(value) != 0 {
            let wrapped = ffi::PyObject_CallOneArg(ffi::PyExc_StopIteration, value);
            if !wrapped.is_null() {
                ffi::PyErr_SetObject(ffi::PyExc_StopIteration, wrapped);
                ffi::Py_DECREF(wrapped);
            }
        } else {
            // Only in a task that is woken: others may keep what they catch, and look at it.
            #[cfg(Py_3_12)]
            if Port::is_waking() && super::ending::raise(value) {
                return;
            }
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value);
        }
        ffi::Py_DECREF(value);
    }
}

pub(super) unsafe extern "C" fn send(
    this: *mut ffi::PyObject,
    _sent: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `am_send`. Unlike `next`, a method must raise StopIteration also for None.
    unsafe {
        match step(this.cast()) {
            Step::Yield => new_ref(this),
            Step::Return(value) if value == ffi::Py_None() => {
                ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value);
                ffi::Py_DECREF(value);
                null_mut()
            }
            Step::Return(value) => {
                stop(value);
                null_mut()
            }
            Step::Raise => null_mut(),
        }
    }
}
