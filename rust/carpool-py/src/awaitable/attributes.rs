//! The names that a task asks for at every wait, answered without a look-up.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::methods::{add_done_callback, result};
use super::waiting::{entered, new_ref};
use super::{Awaitable, State};
use crate::watching;

/// The names that a task asks for at every wait, interned and kept for ever; null until [`intern_names`].
static ADD_DONE_CALLBACK: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());
static RESULT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());
static GET_LOOP: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());
static BLOCKING: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());

/// What `gather` asks every one of its futures for, and the methods that these are.
static CLASS: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());
static METHODS: [Method; 3] = [Method::new(), Method::new(), Method::new()];

/// A method that is bound without being looked up.
struct Method {
    name: AtomicPtr<ffi::PyObject>,
    definition: AtomicPtr<ffi::PyMethodDef>,
}

impl Method {
    const fn new() -> Self {
        Self {
            name: AtomicPtr::new(null_mut()),
            definition: AtomicPtr::new(null_mut()),
        }
    }
}

/// Takes note of methods of the type.
///
/// # Safety
/// Attached; `table` is the type's: it ends with a definition that has no name, and stays where it is for ever.
pub(super) unsafe fn note_methods(py: Python<'_>, table: *mut ffi::PyMethodDef) {
    let mut definition = table;
    // SAFETY: by contract; names are C strings.
    unsafe {
        while !(*definition).ml_name.is_null() {
            let own = std::ffi::CStr::from_ptr((*definition).ml_name);
            for (place, name) in METHODS.iter().zip(["done", "cancelled", "exception"]) {
                if own.to_bytes() == name.as_bytes() {
                    let interned = PyString::intern(py, name).into_ptr();
                    place.name.store(interned, Ordering::Relaxed);
                    place.definition.store(definition, Ordering::Relaxed);
                }
            }
            definition = definition.add(1);
        }
    }
}

/// Before there is an object that could be asked.
pub(super) fn intern_names(py: Python<'_>) {
    for (place, name) in [
        (&ADD_DONE_CALLBACK, "add_done_callback"),
        (&RESULT, "result"),
        (&GET_LOOP, "get_loop"),
        (&BLOCKING, "_asyncio_future_blocking"),
        (&CLASS, "__class__"),
    ] {
        let interned = PyString::intern(py, name);
        place.store(interned.into_ptr(), Ordering::Relaxed);
    }
}

#[inline]
fn is(name: *mut ffi::PyObject, known: &AtomicPtr<ffi::PyObject>) -> bool {
    name == known.load(Ordering::Relaxed)
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
        if is(name, &BLOCKING) {
            return get_blocking(this, null_mut());
        }
        if is(name, &ADD_DONE_CALLBACK) || is(name, &RESULT) {
            return new_ref(this);
        }
        if is(name, &GET_LOOP) {
            if let Some(link) = (*this.cast::<Awaitable>()).link() {
                return new_ref(link.port.get().loop_reference().as_ptr());
            }
        }
        if is(name, &CLASS) {
            return new_ref(ffi::Py_TYPE(this).cast());
        }
        for method in &METHODS {
            if is(name, &method.name) {
                let definition = method.definition.load(Ordering::Relaxed);
                return ffi::PyCFunction_NewEx(definition, this, null_mut());
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
        if is(name, &BLOCKING) {
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
    unsafe {
        new_ref(if (*this.cast::<Awaitable>()).blocking {
            ffi::Py_True()
        } else {
            ffi::Py_False()
        })
    }
}

/// When its request went through the stations of its way, where that is kept and it has its answer.
pub(super) unsafe extern "C" fn get_timing(
    this: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe {
        entered(null_mut(), |py| {
            let object = &*this.cast::<Awaitable>();
            let answered = matches!(object.state, State::Value | State::Error);
            let timing = match &object.ticket {
                Some(ticket) if answered => watching::timing(py, ticket.request())?,
                _ => py.None(),
            };
            Ok(timing.into_ptr())
        })
    }
}

/// What it was cancelled with: `gather` asks for that with `return_exceptions`.
pub(super) unsafe extern "C" fn get_cancel_message(
    this: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`; a message is owned by the object.
    unsafe {
        let object = this.cast::<Awaitable>();
        let message = (*object).outcome;
        if (*object).state != State::Cancelled || message.is_null() {
            return new_ref(ffi::Py_None());
        }
        new_ref(message)
    }
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
        let truth = if value == ffi::Py_False() {
            0
        } else {
            ffi::PyObject_IsTrue(value)
        };
        if truth >= 0 {
            (*this.cast::<Awaitable>()).blocking = truth != 0;
        }
        truth.min(0)
    }
}
