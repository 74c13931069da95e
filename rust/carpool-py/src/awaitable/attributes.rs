//! The names that a task asks for at every wait, answered without a look-up.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use super::Awaitable;
use super::methods::{add_done_callback, result};
use super::waiting::new_ref;

/// The names that a task asks for at every wait, interned.
pub(super) struct Names {
    add_done_callback: Py<PyString>,
    result: Py<PyString>,
    get_loop: Py<PyString>,
    blocking: Py<PyString>,
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

pub(super) fn names(py: Python<'_>) -> &Names {
    NAMES.get_or_init(py, || Names {
        add_done_callback: PyString::intern(py, "add_done_callback").unbind(),
        result: PyString::intern(py, "result").unbind(),
        get_loop: PyString::intern(py, "get_loop").unbind(),
        blocking: PyString::intern(py, "_asyncio_future_blocking").unbind(),
    })
}

/// Attributes, those of every wait first and without making bound methods: `add_done_callback` and
/// `result` are the object itself, which adds a callback if it is called with arguments and returns the
/// result if without; `get_loop` is the weak reference to the loop, which returns it.
pub(super) unsafe extern "C" fn getattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython, attached, with a live object of this type and a str.
    unsafe {
        let py = Python::assume_attached();
        let names = names(py);
        if name == names.blocking.as_ptr() {
            return get_blocking(this, null_mut());
        }
        if name == names.add_done_callback.as_ptr() || name == names.result.as_ptr() {
            return new_ref(this);
        }
        if name == names.get_loop.as_ptr() {
            if let Some(link) = (*this.cast::<Awaitable>()).link() {
                return new_ref(link.port.get().loop_reference().as_ptr());
            }
        }
        // CPython 3.10 and 3.11 ask for `result` with a string that is not interned.
        if ffi::PyUnicode_CheckExact(name) != 0
            && ffi::PyUnicode_GetLength(name) == 6
            && ffi::PyUnicode_CompareWithASCIIString(name, c"result".as_ptr()) == 0
        {
            return new_ref(this);
        }
        ffi::PyObject_GenericGetAttr(this, name)
    }
}

pub(super) unsafe extern "C" fn setattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: as for `getattro`.
    unsafe {
        if name == names(Python::assume_attached()).blocking.as_ptr() {
            return set_blocking(this, value, null_mut());
        }
        ffi::PyObject_GenericSetAttr(this, name, value)
    }
}

pub(super) unsafe extern "C" fn vectorcall(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a vectorcall, attached, with a live object of this type.
    unsafe {
        let count = ffi::PyVectorcall_NARGS(flags);
        if count == 0 && names.is_null() {
            result(this, null_mut())
        } else {
            add_done_callback(this, args, count, names)
        }
    }
}

pub(super) unsafe extern "C" fn get_blocking(
    this: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe { ffi::PyBool_FromLong((*this.cast::<Awaitable>()).blocking.into()) }
}

pub(super) unsafe extern "C" fn set_blocking(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _: *mut c_void,
) -> c_int {
    // SAFETY: as for `done`; a null value asks for deletion, which is refused.
    unsafe {
        if value.is_null() {
            let text: *const c_char = c"cannot be deleted".as_ptr();
            ffi::PyErr_SetString(ffi::PyExc_AttributeError, text);
            return -1;
        }
        let truth = ffi::PyObject_IsTrue(value);
        if truth >= 0 {
            (*this.cast::<Awaitable>()).blocking = truth != 0;
        }
        truth.min(0)
    }
}
