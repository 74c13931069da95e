//! The type itself: its slots, methods and members.

use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::guard;

use super::Awaitable;
use super::attributes::{
    get_blocking, get_cancel_message, get_timing, getattro, intern_names, note_methods,
    set_blocking, setattro,
};
use super::memory::{clear, dealloc, finalize, traverse};
use super::methods::{
    add_done_callback, cancel, cancelled, close, done, exception, get_loop, make_cancelled_error,
    remove_done_callback, repr, result, throw,
};
use super::waiting::{am_send, itself, next, send};

/// The type.
pub(crate) fn type_object(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = guard::once(&TYPE, py, || {
        intern_names(py);
        // SAFETY: attached; the spec and the tables it points to fit `Awaitable`, and live as long as
        // CPython needs them: for ever (the tables are leaked once) or for the call (the spec).
        unsafe { make_type(py) }
    })?;
    Ok(class.bind(py))
}

/// The type, where it is known already with one load.
#[inline]
pub(super) fn raw(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    static KNOWN: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
    let known = KNOWN.load(Ordering::Relaxed);
    if !known.is_null() {
        return Ok(known);
    }
    let class = type_object(py)?.as_type_ptr();
    KNOWN.store(class, Ordering::Relaxed);
    Ok(class)
}

/// # Safety
/// Attached.
pub(super) unsafe fn make_type(py: Python<'_>) -> PyResult<Py<PyType>> {
    let keywords = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
    let fast = |function: ffi::PyCFunctionFastWithKeywords| ffi::PyMethodDefPointer {
        PyCFunctionFastWithKeywords: function,
    };
    let plain = |function: ffi::PyCFunction| ffi::PyMethodDefPointer {
        PyCFunction: function,
    };
    let method = |name: &'static std::ffi::CStr, meth, flags, doc: &'static std::ffi::CStr| {
        ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: meth,
            ml_flags: flags,
            ml_doc: doc.as_ptr(),
        }
    };
    let methods = vec![
        method(
            c"send",
            plain(send),
            ffi::METH_O,
            c"Go on as a coroutine would.",
        ),
        method(
            c"throw",
            fast(throw),
            keywords,
            c"Raise the given exception here.",
        ),
        method(
            c"close",
            plain(close),
            ffi::METH_NOARGS,
            c"Nothing to clean up.",
        ),
        method(
            c"done",
            plain(done),
            ffi::METH_NOARGS,
            c"Whether it has ended.",
        ),
        method(
            c"cancelled",
            plain(cancelled),
            ffi::METH_NOARGS,
            c"Whether it was cancelled.",
        ),
        method(
            c"result",
            plain(result),
            ffi::METH_NOARGS,
            c"The result, or its exception raised.",
        ),
        method(
            c"exception",
            plain(exception),
            ffi::METH_NOARGS,
            c"The exception, or None.",
        ),
        method(
            c"cancel",
            fast(cancel),
            keywords,
            c"Give up; False when it has ended already.",
        ),
        method(
            c"add_done_callback",
            fast(add_done_callback),
            keywords,
            c"Call back at the end.",
        ),
        method(
            c"remove_done_callback",
            plain(remove_done_callback),
            ffi::METH_O,
            c"Do not.",
        ),
        method(
            c"get_loop",
            plain(get_loop),
            ffi::METH_NOARGS,
            c"The event loop it belongs to.",
        ),
        method(
            c"_make_cancelled_error",
            plain(make_cancelled_error),
            ffi::METH_NOARGS,
            c"The CancelledError of a cancelled one.",
        ),
        ffi::PyMethodDef::zeroed(),
    ];
    let table = methods.leak().as_mut_ptr();
    // SAFETY: attached; the table ends with a definition of zeroes, and is leaked.
    unsafe { note_methods(py, table) };
    let properties = vec![
        ffi::PyGetSetDef {
            name: c"_asyncio_future_blocking".as_ptr(),
            get: Some(get_blocking),
            set: Some(set_blocking),
            doc: c"asyncio's mark of a future that was yielded to a task.".as_ptr(),
            closure: null_mut(),
        },
        ffi::PyGetSetDef {
            name: c"timing".as_ptr(),
            get: Some(get_timing),
            set: None,
            doc: c"When its request went through the stations of its way, with keep_timings=True."
                .as_ptr(),
            closure: null_mut(),
        },
        ffi::PyGetSetDef {
            name: c"_cancel_message".as_ptr(),
            get: Some(get_cancel_message),
            set: None,
            doc: c"What it was cancelled with, for asyncio.".as_ptr(),
            closure: null_mut(),
        },
        ffi::PyGetSetDef::default(),
    ];
    let members = vec![
        ffi::PyMemberDef {
            name: c"__weaklistoffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: std::mem::offset_of!(Awaitable, weak_references) as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: null(),
        },
        ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: std::mem::offset_of!(Awaitable, vectorcall) as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: null(),
        },
        ffi::PyMemberDef::default(),
    ];
    let doc = c"The answer to come of one request: a future and coroutine-like object.";
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_finalize, finalize as *mut c_void),
        slot(ffi::Py_tp_iter, itself as *mut c_void),
        slot(ffi::Py_am_await, itself as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_am_send, am_send as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_tp_getattro, getattro as *mut c_void),
        slot(ffi::Py_tp_setattro, setattro as *mut c_void),
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_methods, table.cast()),
        slot(ffi::Py_tp_getset, properties.leak().as_mut_ptr().cast()),
        slot(ffi::Py_tp_members, members.leak().as_mut_ptr().cast()),
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
        slot(0, null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
        | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    let mut spec = ffi::PyType_Spec {
        name: c"carpool._core.Awaitable".as_ptr(),
        basicsize: std::mem::size_of::<Awaitable>() as c_int,
        itemsize: 0,
        flags: flags as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: attached; see `type_object`.
    unsafe {
        let class = ffi::PyType_FromSpec(&raw mut spec);
        let class = Bound::from_owned_ptr_or_err(py, class)?;
        Ok(class.cast_into::<PyType>()?.unbind())
    }
}
