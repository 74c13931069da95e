//! The callable that a decorated function is made of: binds the arguments in the caller's thread and
//! goes the shortest way into the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::awaiting::call_awaiting;
use crate::calling::call_blocking;
use crate::engine::{Engine, bind};
use crate::guard::Inside;
use crate::shared::{Executor, Shared, epoch};

/// Base class of decorated functions, and of methods bound to an instance.
///
/// `binder(args, kwargs)` gives the item of a call; with `simple`, one positional argument is the item
/// itself. `awaits` says whether calling the object awaits (handlers made with `async def`) or blocks.
/// Subclasses offer `_open()`, which returns the engine of this process, and `_run_as_caller(batch)`.
#[pyclass(frozen, subclass, weakref, module = "carpool._core")]
pub(crate) struct Call {
    binder: Py<PyAny>,
    simple: bool,
    awaits: bool,
    /// Calls come with the instance in front: `Class.m(obj, x)`.
    method: AtomicBool,
    /// An `Arc<Shared>` as a raw pointer; null before first use. Only ever set attached.
    engine: AtomicPtr<Shared>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let engine = *self.engine.get_mut();
        if !engine.is_null() {
            // SAFETY: the pointer came from `Arc::into_raw`, and its count belongs to this object.
            unsafe { drop(Arc::from_raw(engine)) };
        }
    }
}

impl Call {
    /// The engine, opened at first use and anew after a fork.
    #[inline]
    fn engine(slf: &Bound<'_, Self>) -> PyResult<Arc<Shared>> {
        let known = slf.get().engine.load(Ordering::Acquire);
        if !known.is_null() {
            // SAFETY: attached. A stored engine is replaced only by `open` below, after a fork, and
            // the old one is leaked then (its locks may be held by threads that do not exist here), so
            // the count behind `known` is never given up while this object lives.
            let shared = unsafe {
                Arc::increment_strong_count(known);
                Arc::from_raw(known)
            };
            if shared.epoch == epoch() {
                return Ok(shared);
            }
            std::mem::forget(shared);
        }
        Self::open(slf)
    }

    #[cold]
    fn open(slf: &Bound<'_, Self>) -> PyResult<Arc<Shared>> {
        let py = slf.py();
        let engine = slf
            .call_method0(intern!(py, "_open"))?
            .cast_into::<Engine>()?;
        let shared = engine.get().0.clone();
        if shared.epoch != epoch() {
            return Err(PyRuntimeError::new_err(
                "the engine belongs to another process",
            ));
        }
        let raw = Arc::into_raw(shared.clone()).cast_mut();
        let before = slf.get().engine.swap(raw, Ordering::AcqRel);
        if !before.is_null() {
            // SAFETY: the pointer came from `Arc::into_raw`; one of this process is released, one of
            // another leaked. Nobody uses it without a count of his own.
            unsafe {
                if (*before).epoch == epoch() {
                    drop(Arc::from_raw(before));
                }
            }
        }
        Ok(shared)
    }

    #[cold]
    fn of_instance<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        if args.is_empty() {
            let text = format!("{slf}: a method called on its class needs an instance in front");
            return Err(PyTypeError::new_err(text));
        }
        let bound = slf.call_method1(intern!(slf.py(), "__get__"), (args.get_item(0)?,))?;
        Ok((bound, args.get_slice(1, args.len())))
    }

    #[inline]
    fn item(
        &self,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        if self.simple && kwargs.is_none() && args.len() == 1 {
            return Ok(args.get_item(0)?.unbind());
        }
        bind(args.py(), &self.binder, args, kwargs)
    }
}

#[pymethods]
impl Call {
    #[new]
    #[pyo3(signature = (binder, simple, awaits, *_args, **_kwargs))]
    fn new(
        binder: Py<PyAny>,
        simple: bool,
        awaits: bool,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> Self {
        Self {
            binder,
            simple,
            awaits,
            method: AtomicBool::new(false),
            engine: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// One result: awaited for handlers made with `async def`, else the caller blocks.
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__(
        slf: &Bound<'_, Self>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(slf.py())?;
        if slf.get().method.load(Ordering::Relaxed) {
            let (bound, rest) = Self::of_instance(slf, args)?;
            return bound.call(rest, kwargs).map(Bound::unbind);
        }
        let item = slf.get().item(args, kwargs)?;
        let engine = Self::engine(slf)?;
        let owner = slf.clone().into_any().unbind();
        if slf.get().awaits {
            call_awaiting(&engine, slf.py(), owner, item)
        } else {
            call_blocking(&engine, slf.py(), owner, item)
        }
    }

    /// An awaitable of one result, from any event loop.
    #[pyo3(signature = (*args, **kwargs))]
    fn acall(
        slf: &Bound<'_, Self>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(slf.py())?;
        if slf.get().method.load(Ordering::Relaxed) {
            let (bound, rest) = Self::of_instance(slf, args)?;
            let acall = bound.getattr(intern!(slf.py(), "acall"))?;
            return acall.call(rest, kwargs).map(Bound::unbind);
        }
        let item = slf.get().item(args, kwargs)?;
        let engine = Self::engine(slf)?;
        if engine.executor == Executor::Caller {
            slf.call_method0(intern!(slf.py(), "_before_waiting"))?;
        }
        let owner = slf.clone().into_any().unbind();
        call_awaiting(&engine, slf.py(), owner, item)
    }

    /// Makes it a method: unbound calls take the instance as their first argument.
    fn _become_method(&self) {
        self.method.store(true, Ordering::Relaxed);
    }

    /// The method bound to the first of `args`, and the rest of them.
    #[pyo3(signature = (args, /))]
    fn _of_instance<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        Self::of_instance(slf, args)
    }

    /// The item that a call with these arguments submits.
    #[pyo3(signature = (*args, **kwargs))]
    fn _bind(
        &self,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        self.item(args, kwargs)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.binder)
    }
}
