//! Ending an await from CPython 3.12 on: there it is an exception that carries the value, even where nobody
//! but the interpreter sees it. One is used over and over.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;

/// The exception; owned, or null before the first. The GIL protects it.
static SPARE: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());

/// Nobody but `SPARE` refers to the exception, and nothing was noted in it.
///
/// # Safety
/// Attached; `spare` is alive and exactly a StopIteration.
#[inline]
unsafe fn is_free(spare: *mut ffi::PyObject) -> bool {
    let object = spare.cast::<ffi::PyStopIterationObject>();
    // SAFETY: by contract.
    unsafe {
        ffi::Py_REFCNT(spare) == 1
            && (*object).value.is_null()
            && (*object).traceback.is_null()
            && (*object).context.is_null()
            && (*object).cause.is_null()
            && (*object).dict.is_null()
    }
}

/// Raises a StopIteration with `value`, which it takes over. False: it did not, and took nothing.
///
/// # Safety
/// Attached; `value` is alive.
pub(super) unsafe fn raise(value: *mut ffi::PyObject) -> bool {
    // SAFETY: by contract. The exception is written to only while nobody else refers to it; raising it hands
    // out a reference of its own.
    unsafe {
        let_go();
        let mut spare = SPARE.load(Ordering::Relaxed);
        if spare.is_null() {
            spare = ffi::PyObject_CallNoArgs(ffi::PyExc_StopIteration);
            if spare.is_null() {
                ffi::PyErr_Clear();
                return false;
            }
            // A StopIteration without arguments has None for its value.
            let none = std::mem::replace(
                &mut (*spare.cast::<ffi::PyStopIterationObject>()).value,
                null_mut(),
            );
            ffi::Py_XDECREF(none);
            SPARE.store(spare, Ordering::Relaxed);
        }
        if !is_free(spare) {
            // Somebody keeps it: it is theirs now.
            SPARE.store(null_mut(), Ordering::Relaxed);
            ffi::Py_DECREF(spare);
            return false;
        }
        (*spare.cast::<ffi::PyStopIterationObject>()).value = value;
        ffi::Py_INCREF(spare);
        ffi::PyErr_SetRaisedException(spare);
        true
    }
}

/// Lets go of the value that was carried last, once the interpreter has it.
///
/// # Safety
/// Attached, with no exception set.
#[inline]
pub(super) unsafe fn let_go() {
    // SAFETY: by contract. The value is moved out before it is released, which may run any code.
    unsafe {
        let spare = SPARE.load(Ordering::Relaxed);
        if spare.is_null() || ffi::Py_REFCNT(spare) != 1 {
            return;
        }
        let object = spare.cast::<ffi::PyStopIterationObject>();
        let value = std::mem::replace(&mut (*object).value, null_mut());
        ffi::Py_XDECREF(value);
    }
}
