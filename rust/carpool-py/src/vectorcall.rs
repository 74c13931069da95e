//! The shortest way into a call: CPython hands over the arguments as they lie on its stack, so that a call
//! with one plain argument makes no tuple and no bound method.
//!
//! PyO3 knows no vectorcall of a class, so it is written into the type: where CPython finds the function in an
//! object ([`Call`] has it as a field), and the flag. Every other call goes through the `__call__` and `acall`
//! that PyO3 made.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::awaitable::{caught, entered};
use crate::call::Call;
use crate::port::Port;

/// `Call.__call__` as PyO3 made it.
static LONG_CALL: AtomicUsize = AtomicUsize::new(0);
/// `Call.acall` as PyO3 made it: a method descriptor.
static LONG_ACALL: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());

/// Puts the short ways into the type; once, before anybody has an instance or a subclass.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Call>();
    let raw = class.as_type_ptr();
    // PyO3 lays the fields out where it likes: an instance shows where.
    let sample = Call::sample(py)?;
    let field = (&raw const sample.get().vectorcall) as usize;
    let offset = field - sample.as_ptr() as usize;
    let long = class.getattr("acall")?;
    let definition = ffi::PyMethodDef {
        ml_name: c"acall".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: acall,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: c"acall($self, /, *args, **kwargs)\n--\n\nAn awaitable of one result, from any event loop."
            .as_ptr(),
    };
    let definition = Box::leak(Box::new(definition));
    // SAFETY: attached. The type is ours, nobody has called an instance yet, and its objects hold a
    // `vectorcallfunc` at this offset from the start on. The definition lives for ever.
    unsafe {
        LONG_CALL.store(
            (*raw).tp_call.map_or(0, |slot| slot as usize),
            Ordering::Relaxed,
        );
        (*raw).tp_vectorcall_offset = offset as ffi::Py_ssize_t;
        LONG_ACALL.store(long.into_ptr(), Ordering::Relaxed);
        let short = ffi::PyDescr_NewMethod(raw, definition);
        class.setattr("acall", Bound::from_owned_ptr_or_err(py, short)?)?;
    }
    equip(&class);
    Ok(())
}

/// Sets the flag of a class of [`Call`]s. Up to CPython 3.11 it is not inherited by classes that can be changed:
/// a `__call__` put into them later would go unnoticed. `call` looks at that itself.
#[inline]
pub(crate) fn equip(class: &Bound<'_, PyType>) {
    let raw = class.as_type_ptr();
    // SAFETY: attached; the type is alive. Subclasses inherit `tp_vectorcall_offset`.
    unsafe {
        let flag = ffi::Py_TPFLAGS_HAVE_VECTORCALL;
        if (*raw).tp_flags & flag == 0 && has_long_call(raw) {
            (*raw).tp_flags |= flag;
            ffi::PyType_Modified(raw);
        }
    }
}

/// Whether calls of the objects of a type have not been redefined.
///
/// # Safety
/// Attached; the type is alive.
#[inline]
unsafe fn has_long_call(class: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: by contract.
    let slot = unsafe { (*class).tp_call };
    slot.map_or(0, |slot| slot as usize) == LONG_CALL.load(Ordering::Relaxed)
}

/// What CPython calls for `f(x)`.
pub(crate) unsafe extern "C" fn call(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a vectorcall, attached, with a live object of a class of `Call`s.
    unsafe {
        let count = ffi::PyVectorcall_NARGS(flags);
        let object = Borrowed::from_ptr(Python::assume_attached(), this);
        let object = object.cast_unchecked::<Call>();
        if count == 1
            && names.is_null()
            && object.get().takes_item()
            && has_long_call(ffi::Py_TYPE(this))
        {
            let waking = Port::waking(object.py());
            let body = |py: Python<'_>| {
                let item = Borrowed::from_ptr(py, *args).to_owned().unbind();
                Call::call_item(&object, item, waking).map(Py::into_ptr)
            };
            return if waking.is_some() {
                caught(null_mut(), body)
            } else {
                entered(null_mut(), body)
            };
        }
        entered(null_mut(), |py| {
            let (tuple, dict) = spread(py, args, count, names)?;
            let dict = dict.map_or(null_mut(), |dict| dict.into_ptr());
            let slot = (*ffi::Py_TYPE(this)).tp_call;
            let result = match slot {
                Some(slot) => slot(this, tuple.as_ptr(), dict),
                None => null_mut(),
            };
            ffi::Py_XDECREF(dict);
            Bound::from_owned_ptr_or_err(py, result).map(Bound::into_ptr)
        })
    }
}

/// What CPython calls for `f.acall(x)`.
unsafe extern "C" fn acall(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a fast call with keywords, attached; the descriptor has made sure that
    // `this` is a `Call`.
    unsafe {
        let object = Borrowed::from_ptr(Python::assume_attached(), this);
        let object = object.cast_unchecked::<Call>();
        if count == 1 && names.is_null() && object.get().takes_item() {
            let waking = Port::waking(object.py());
            let body = |py: Python<'_>| {
                let item = Borrowed::from_ptr(py, *args).to_owned().unbind();
                Call::acall_item(&object, item, waking).map(Py::into_ptr)
            };
            return if waking.is_some() {
                caught(null_mut(), body)
            } else {
                entered(null_mut(), body)
            };
        }
        entered(null_mut(), |py| {
            let (tuple, dict) = spread(py, args, count, names)?;
            let long = Borrowed::from_ptr(py, LONG_ACALL.load(Ordering::Relaxed));
            let bound = long.call_method1("__get__", (object,))?;
            bound.call(tuple, dict.as_ref()).map(Bound::into_ptr)
        })
    }
}

/// The arguments of a fast call as a tuple and, where there are any by name, a dict.
///
/// # Safety
/// Attached; the three are what CPython hands to a fast call with keywords.
#[cold]
unsafe fn spread<'py>(
    py: Python<'py>,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    // SAFETY: by contract: `count` positional arguments, then one per name.
    unsafe {
        let count = count as usize;
        let given = |at: usize| Borrowed::from_ptr(py, *args.add(at));
        let tuple = PyTuple::new(py, (0..count).map(given))?;
        let Some(names) = Bound::from_borrowed_ptr_or_opt(py, names) else {
            return Ok((tuple, None));
        };
        let names = names.cast_into::<PyTuple>()?;
        let dict = PyDict::new(py);
        for (at, name) in names.iter().enumerate() {
            dict.set_item(name, given(count + at))?;
        }
        Ok((tuple, Some(dict)))
    }
}
