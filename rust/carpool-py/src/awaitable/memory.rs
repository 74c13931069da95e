//! What the collector visits, and how an object goes.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use super::waiting::entered;
use super::{Awaitable, Seen, State};
use crate::port::Port;

pub(super) unsafe extern "C" fn traverse(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector with an object of this type; no reference is touched. The hold
    // of a pending request is not visited: it is a reference from outside the heap of Python.
    unsafe {
        let object = &*this.cast::<Awaitable>();
        let callbacks = object
            .first
            .iter()
            .chain(object.more.iter().flat_map(|more| more.iter()));
        let all = callbacks.flat_map(|callback| [callback.call, callback.context]);
        let class = ffi::Py_TYPE(this).cast::<ffi::PyObject>();
        for reference in all.chain([object.outcome, class]) {
            if !reference.is_null() {
                let stop = visit(reference, arg);
                if stop != 0 {
                    return stop;
                }
            }
        }
        0
    }
}

pub(super) unsafe extern "C" fn clear(this: *mut ffi::PyObject) -> c_int {
    // SAFETY: called attached with an object of this type that is alive or being freed; everything is
    // moved out before it is released, since releasing may run any code.
    unsafe {
        let object = this.cast::<Awaitable>();
        let first = (*object).first.take();
        let more = (*object).take_more();
        for callback in first.into_iter().chain(more) {
            ffi::Py_DECREF(callback.call);
            ffi::Py_DECREF(callback.context);
        }
        if (*object).state != State::Pending {
            let outcome = std::mem::replace(&mut (*object).outcome, null_mut());
            if (*object).state == State::Value || (*object).state == State::Error {
                // What was cleared must not be handed out any more.
                (*object).state = State::Cancelled;
            }
            ffi::Py_XDECREF(outcome);
        }
        0
    }
}

/// The collector is about to take it with all that it is in a circle with. Now its error can still be shown:
/// later that may have been cleared, and CPython follows a null pointer when asked for the text of such.
pub(super) unsafe extern "C" fn finalize(this: *mut ffi::PyObject) {
    // SAFETY: called attached with a live object of this type. The pending exception of the code around is
    // put aside, since what runs here may raise.
    unsafe {
        let (mut kind, mut value, mut trace) = (null_mut(), null_mut(), null_mut());
        #[allow(deprecated)]
        ffi::PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut trace);
        entered((), |py| {
            let object = this.cast::<Awaitable>();
            (*object).say_lost(py);
            (*object).seen = Seen::Finalized;
            Ok(())
        });
        #[allow(deprecated)]
        ffi::PyErr_Restore(kind, value, trace);
    }
}

pub(super) unsafe extern "C" fn dealloc(this: *mut ffi::PyObject) {
    // SAFETY: called attached, once, with no reference left. The link is cleared first, so that an
    // answer that arrives while the payload is dropped does not reach a dying object. The pending
    // exception of the code around is put aside, since what runs here may raise.
    unsafe {
        let object = this.cast::<Awaitable>();
        if ffi::PyObject_GC_IsTracked(this) != 0 {
            ffi::PyObject_GC_UnTrack(this.cast());
        }
        if (*object).ended_well() {
            // The way of nearly all of them: nothing to cancel, to tell or to warn about.
            if (*object).first.is_none() && (*object).more.is_none() {
                ffi::Py_XDECREF(std::mem::replace(&mut (*object).outcome, null_mut()));
            } else {
                clear(this);
            }
            free(this);
            return;
        }
        let (mut kind, mut value, mut trace) = (null_mut(), null_mut(), null_mut());
        #[allow(deprecated)]
        ffi::PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut trace);
        if !(*object).weak_references.is_null() {
            ffi::PyObject_ClearWeakRefs(this);
        }
        entered((), |py| {
            (*object).give_up(py);
            Ok(())
        });
        clear(this);
        #[allow(deprecated)]
        ffi::PyErr_Restore(kind, value, trace);
        free(this);
    }
}

/// Frees an object that was cleared.
///
/// # Safety
/// Attached; no reference to `this` is left, and it is used no more.
pub(super) unsafe fn free(this: *mut ffi::PyObject) {
    // SAFETY: by contract.
    unsafe {
        let object = this.cast::<Awaitable>();
        let let_go = || {
            std::ptr::drop_in_place(&raw mut (*object).ticket);
            std::ptr::drop_in_place(&raw mut (*object).more);
        };
        if Port::is_waking() {
            let_go();
        } else {
            // For PyO3 to know that references may be released here and now.
            Python::attach(|_| let_go());
        }
        let class = ffi::Py_TYPE(this);
        let kept = KEPT.load(Ordering::Relaxed);
        // What was finalized would never be again.
        if kept < MOST && (*object).seen != Seen::Finalized {
            (*object).outcome = FIRST.load(Ordering::Relaxed);
            FIRST.store(this, Ordering::Relaxed);
            KEPT.store(kept + 1, Ordering::Relaxed);
        } else {
            ffi::PyObject_GC_Del(this.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

/// How many freed objects are kept for the next. A caller that loops frees one per wait, just before the next
/// is made. None where memory is being watched: it must see every use of what is gone.
const MOST: usize = if cfg!(feature = "memcheck") { 0 } else { 128 };
/// The kept ones, each the `outcome` of the one before; the GIL protects them, so plain loads and stores do.
static FIRST: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// The memory of an object, its fields as they come: one that was kept, or a new one. Null: an error is set.
///
/// # Safety
/// Attached; `class` is the type.
#[inline]
pub(super) unsafe fn allocate(class: *mut ffi::PyTypeObject) -> *mut Awaitable {
    // SAFETY: by contract. What was kept was an object of this very type, with the collector's header in
    // front, not tracked any more; `outcome` is its link. `PyObject_Init` makes it an object again, as
    // `PyObject_GC_New` does, and takes the reference to the type that `free` gave up.
    unsafe {
        let kept = FIRST.load(Ordering::Relaxed);
        if kept.is_null() {
            return ffi::PyObject_GC_New(class);
        }
        FIRST.store((*kept.cast::<Awaitable>()).outcome, Ordering::Relaxed);
        KEPT.store(KEPT.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        ffi::PyObject_Init(kept, class).cast()
    }
}
