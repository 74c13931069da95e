//! The methods of a future, and those of a coroutine that are more than waiting.

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

use super::waiting::{Step, asyncio_error, cancelled_error, entered, new_ref, step};
use super::{Awaitable, Callback, CoreTicket, Done, State, track, wakeup};
use crate::port::{Port, Ready};

/// The arguments of a fast call: positional ones, then by keyword.
pub(super) struct Arguments<'py> {
    positional: &'py [*mut ffi::PyObject],
    names: Option<Bound<'py, pyo3::types::PyTuple>>,
    by_name: &'py [*mut ffi::PyObject],
}

/// # Safety
/// Attached; the three are what CPython hands to a fast call with keywords.
pub(super) unsafe fn arguments<'py>(
    py: Python<'py>,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<Arguments<'py>> {
    // SAFETY: by contract: `count` positional arguments, then one per name. A null pointer comes with
    // no arguments at all.
    unsafe {
        let names = Bound::from_borrowed_ptr_or_opt(py, names)
            .map(|names| names.cast_into::<pyo3::types::PyTuple>())
            .transpose()?;
        let extra = names.as_ref().map_or(0, pyo3::types::PyTupleMethods::len);
        let count = count as usize;
        let all = if count + extra == 0 {
            &[][..]
        } else {
            std::slice::from_raw_parts(args, count + extra)
        };
        let (positional, by_name) = all.split_at(count);
        Ok(Arguments {
            positional,
            names,
            by_name,
        })
    }
}

impl<'py> Arguments<'py> {
    /// The argument at `position` or called `name`.
    fn get(&self, position: usize, name: &str) -> PyResult<Option<*mut ffi::PyObject>> {
        if let Some(&found) = self.positional.get(position) {
            return Ok(Some(found));
        }
        let Some(names) = &self.names else {
            return Ok(None);
        };
        for (at, known) in names.iter().enumerate() {
            if known.extract::<&str>()? == name {
                return Ok(Some(self.by_name[at]));
            }
        }
        Ok(None)
    }
}

pub(super) unsafe extern "C" fn throw(
    _this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a fast call with keywords, attached.
    unsafe {
        entered(null_mut(), |py| {
            let given = arguments(py, args, count, names)?;
            let Some(&kind) = given.positional.first() else {
                return Err(PyTypeError::new_err("throw needs an exception"));
            };
            let kind = Bound::from_borrowed_ptr(py, kind);
            let value = given
                .positional
                .get(1)
                .map(|&value| Bound::from_borrowed_ptr(py, value));
            let value = value.filter(|value| !value.is_none());
            let error = if ffi::PyExceptionInstance_Check(kind.as_ptr()) != 0 {
                kind
            } else {
                match value {
                    Some(value) if value.is_instance(&kind)? => value,
                    Some(value) => kind.call1((value,))?,
                    None => kind.call0()?,
                }
            };
            if let Some(&trace) = given.positional.get(2) {
                if trace != ffi::Py_None() {
                    ffi::PyException_SetTraceback(error.as_ptr(), trace);
                }
            }
            Err(PyErr::from_value(error))
        })
    }
}

pub(super) unsafe extern "C" fn close(
    _this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: attached; None is immortal enough.
    unsafe { new_ref(ffi::Py_None()) }
}

pub(super) unsafe extern "C" fn done(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython, attached, with an object of this type that is alive.
    unsafe { ffi::PyBool_FromLong(((*this.cast::<Awaitable>()).state != State::Pending).into()) }
}

pub(super) unsafe extern "C" fn cancelled(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe { ffi::PyBool_FromLong(((*this.cast::<Awaitable>()).state == State::Cancelled).into()) }
}

pub(super) unsafe extern "C" fn result(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe {
        if (*this.cast::<Awaitable>()).state == State::Pending {
            return entered(null_mut(), |py| {
                Err(asyncio_error(
                    py,
                    "InvalidStateError",
                    "the result is not there yet",
                ))
            });
        }
        match step(this.cast()) {
            Step::Return(value) => value,
            Step::Yield | Step::Raise => null_mut(),
        }
    }
}

pub(super) unsafe extern "C" fn exception(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe {
        let object = this.cast::<Awaitable>();
        match (*object).state {
            State::Pending => entered(null_mut(), |py| {
                Err(asyncio_error(
                    py,
                    "InvalidStateError",
                    "the exception is not there yet",
                ))
            }),
            State::Value => new_ref(ffi::Py_None()),
            State::Error => {
                (*object).seen = (*object).seen.received();
                new_ref((*object).outcome)
            }
            State::Cancelled => entered(null_mut(), |py| {
                Err(PyErr::from_value(cancelled_error(py, object)?))
            }),
        }
    }
}

pub(super) unsafe extern "C" fn make_cancelled_error(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe {
        entered(null_mut(), |py| {
            Ok(cancelled_error(py, this.cast())?.into_ptr())
        })
    }
}

pub(super) unsafe extern "C" fn get_loop(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe {
        entered(null_mut(), |py| {
            let link = (*this.cast::<Awaitable>()).link();
            match link.and_then(|link| link.port.get().event_loop(py)) {
                Some(event_loop) => Ok(event_loop.into_ptr()),
                None => Err(PyRuntimeError::new_err("the event loop is gone")),
            }
        })
    }
}

pub(super) unsafe extern "C" fn cancel(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a fast call with keywords, attached, with a live object of this
    // type; the caller holds a reference for the whole call.
    unsafe {
        entered(null_mut(), |py| {
            let object = this.cast::<Awaitable>();
            if (*object).state != State::Pending {
                return Ok(ffi::PyBool_FromLong(0));
            }
            let message = arguments(py, args, count, names)?.get(0, "msg")?;
            (*object).state = State::Cancelled;
            if let Some(message) = message.filter(|&message| message != ffi::Py_None()) {
                (*object).outcome = new_ref(message);
            }
            if !(*object).held {
                track(object);
            }
            let ticket = (*object).ticket.clone();
            let payload = ticket.as_ref().map(CoreTicket::cancel);
            // The tasks that wait learn of it from the loop, never from inside this call: one of them
            // may be what runs now.
            if let Some(ready) = (*object).take_hold(NonNull::new_unchecked(object)) {
                if let Some(link) = (*object).link() {
                    let port = link.port.clone_ref(py);
                    if port.get().push(vec![Ready::Done(ready)]) {
                        Port::schedule(port.bind(py));
                    }
                }
            }
            drop(payload);
            if let Some(link) = (*object).link() {
                link.engine.get().0.tell_due(py);
            }
            Ok(ffi::PyBool_FromLong(1))
        })
    }
}

/// `("context",)`, as asyncio's tasks give it: every task of theirs hands over the same tuple.
static CONTEXT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(null_mut());

/// Whether these are the names of a task's own call; from the first on it knows the tuple, which is kept.
///
/// # Safety
/// Attached; `names` is null or a tuple of strings.
#[inline]
unsafe fn only_context(names: *mut ffi::PyObject) -> bool {
    // SAFETY: by contract.
    unsafe {
        if names == CONTEXT.load(Ordering::Relaxed) {
            return !names.is_null();
        }
        if names.is_null() || ffi::PyTuple_GET_SIZE(names) != 1 {
            return false;
        }
        let name = ffi::PyTuple_GET_ITEM(names, 0);
        if ffi::PyUnicode_CompareWithASCIIString(name, c"context".as_ptr()) != 0 {
            return false;
        }
        if CONTEXT.load(Ordering::Relaxed).is_null() {
            CONTEXT.store(new_ref(names), Ordering::Relaxed);
        }
        true
    }
}

pub(super) unsafe extern "C" fn add_done_callback(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a fast call with keywords, attached, with a live object of this
    // type: `count` arguments and one more per name, which the caller owns. References stored are made here, and
    // released by `run`, `clear` or `dealloc`.
    unsafe {
        let object = this.cast::<Awaitable>();
        if (*object).state == State::Pending
            && (*object).first.is_none()
            && count == 1
            && (names.is_null() || only_context(names))
        {
            // The way of every task that waits here alone, and of `gather`.
            let call = *args;
            let context = if names.is_null() {
                ffi::PyContext_CopyCurrent()
            } else {
                new_ref(*args.add(1))
            };
            if context.is_null() {
                return null_mut();
            }
            if ffi::PyContext_CheckExact(context) == 0
                || ffi::PyCallable_Check(call) == 0
                || (*object).state != State::Pending
                || (*object).first.is_some()
            {
                // Making a context may have run the collector, and so any code.
                ffi::Py_DECREF(context);
            } else {
                (*object).first = Some(Callback {
                    call: new_ref(call),
                    context,
                });
                if !(*object).held {
                    (*object).held = true;
                    ffi::Py_INCREF(this);
                }
                wakeup::learn(Python::assume_attached(), call);
                return new_ref(ffi::Py_None());
            }
        }
        entered(null_mut(), |py| {
            let object = this.cast::<Awaitable>();
            let given = arguments(py, args, count, names)?;
            let call = given.get(0, "fn")?;
            let Some(call) = call.filter(|&call| ffi::PyCallable_Check(call) != 0) else {
                return Err(PyTypeError::new_err("a callable is needed as callback"));
            };
            let context = match given.get(1, "context")? {
                Some(context) if context != ffi::Py_None() => new_ref(context),
                _ => {
                    let copy = ffi::PyContext_CopyCurrent();
                    if copy.is_null() {
                        return Err(PyErr::fetch(py));
                    }
                    copy
                }
            };
            let callback = Callback {
                call: new_ref(call),
                context,
            };
            if (*object).first.is_none() {
                (*object).first = Some(callback);
            } else {
                (*object).more.get_or_insert_default().push(callback);
            }
            if (*object).state == State::Pending {
                if !(*object).held {
                    (*object).held = true;
                    ffi::Py_INCREF(this);
                }
            } else if let Some(link) = (*object).link() {
                // Done already: the loop calls back, as asyncio's futures have it.
                ffi::Py_INCREF(this);
                let port = link.port.clone_ref(py);
                if port
                    .get()
                    .push(vec![Ready::Done(Done(NonNull::new_unchecked(object)))])
                {
                    Port::schedule(port.bind(py));
                }
            }
            Ok(new_ref(ffi::Py_None()))
        })
    }
}

pub(super) unsafe extern "C" fn remove_done_callback(
    this: *mut ffi::PyObject,
    call: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`. Comparing runs Python code, so the callbacks are moved out meanwhile and
    // what is added in between stays behind them.
    unsafe {
        entered(null_mut(), |py| {
            let object = this.cast::<Awaitable>();
            let known = (*object).first.take().into_iter();
            let known: Vec<_> = known.chain((*object).take_more()).collect();
            let mut removed = 0;
            let mut kept = Vec::with_capacity(known.len());
            let mut failed = None;
            for callback in known {
                let same = match failed {
                    None => ffi::PyObject_RichCompareBool(callback.call, call, ffi::Py_EQ),
                    Some(_) => 0,
                };
                if same < 0 {
                    failed = Some(PyErr::fetch(py));
                }
                if same > 0 {
                    removed += 1;
                    ffi::Py_DECREF(callback.call);
                    ffi::Py_DECREF(callback.context);
                } else {
                    kept.push(callback);
                }
            }
            kept.extend((*object).first.take());
            kept.extend((*object).take_more());
            let mut kept = kept.into_iter();
            (*object).first = kept.next();
            let rest: Vec<_> = kept.collect();
            (*object).more = (!rest.is_empty()).then(|| Box::new(rest));
            match failed {
                Some(error) => Err(error),
                None => Ok(ffi::PyLong_FromLong(removed)),
            }
        })
    }
}

pub(super) unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe {
        entered(null_mut(), |py| {
            let object = &*this.cast::<Awaitable>();
            let name = object
                .link()
                .map_or("", |link| link.engine.get().0.name.as_str());
            let state = match object.state {
                State::Pending => "pending",
                State::Value => "answered",
                State::Error => "failed",
                State::Cancelled => "cancelled",
            };
            let text = format!("<carpool.Awaitable of {name}, {state}>");
            Ok(pyo3::types::PyString::new(py, &text).into_any().into_ptr())
        })
    }
}
