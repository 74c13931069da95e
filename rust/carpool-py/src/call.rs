//! The callable that a decorated function is made of: binds the arguments in the caller's thread and
//! goes the shortest way into the engine.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use std::sync::OnceLock;

use crate::guard::intern;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::asks::Asks;
use crate::awaiting::call_awaiting;
use crate::bare::{self, Bare, Handler};
use crate::calling::call_blocking;
use crate::engine::{Engine, bind};
use crate::guard::Inside;
use crate::port::Port;
use crate::shared::{Executor, epoch, generation};
use crate::step::Direct;
use crate::terms::Asked;
#[cfg(not(plain))]
use crate::vectorcall;

/// Base class of decorated functions, and of methods bound to an instance.
///
/// `binder(args, kwargs)` gives the item of a call; with `simple`, one positional argument is the item
/// itself. `awaits` says whether calling the object awaits (handlers made with `async def`) or blocks. `asks`
/// holds the terms of each call; without it they are plain.
/// Subclasses offer `_open()`, which returns the engine of this process, and `_run_as_caller(batch)`.
#[pyclass(frozen, subclass, weakref, module = "carpool._core")]
pub(crate) struct Call {
    binder: Py<PyAny>,
    simple: bool,
    awaits: bool,
    /// The handler, where it needs nothing around it, and the instance it is called on.
    bare: Option<Py<Bare>>,
    instance: Option<Py<PyAny>>,
    asks: Option<Py<Asks>>,
    /// One plain positional argument is the item, and its terms are plain.
    #[cfg(not(plain))]
    plain: bool,
    /// Calls come with the instance in front: `Class.m(obj, x)`.
    method: AtomicBool,
    /// An `Engine`, owned; null before first use. Only ever set attached.
    engine: AtomicPtr<ffi::PyObject>,
    /// The generation it was asked for in.
    generation: AtomicU64,
    /// How loops may run the handler.
    direct: OnceLock<Direct>,
    /// Where CPython looks for it: see [`vectorcall`].
    #[cfg(not(plain))]
    pub(crate) vectorcall: ffi::vectorcallfunc,
}

impl Drop for Call {
    fn drop(&mut self) {
        let engine = *self.engine.get_mut();
        // SAFETY: the pointer came from `into_ptr`, and its reference belongs to this object, which is freed
        // attached like every object.
        drop(unsafe { Bound::from_owned_ptr_or_opt(Python::assume_attached(), engine) });
    }
}

impl Call {
    /// The engine, opened at first use and anew after a fork.
    #[inline]
    pub(crate) fn engine<'a, 'py>(
        slf: &'a Bound<'py, Self>,
    ) -> PyResult<Borrowed<'a, 'py, Engine>> {
        let py = slf.py();
        let known = slf.get().engine.load(Ordering::Acquire);
        if !known.is_null() && slf.get().generation.load(Ordering::Relaxed) == generation() {
            // SAFETY: attached. A stored engine is replaced only by `open` below: after a fork, when the old one is
            // leaked (its locks may be held by threads that do not exist here), and in another mode, when the
            // station keeps it, which this object keeps. So what `known` points to lives as long as this
            // object; and it is an `Engine`.
            return Ok(unsafe { Borrowed::from_ptr(py, known).cast_unchecked::<Engine>() });
        }
        Self::open(slf)
    }

    #[cold]
    fn open<'a, 'py>(slf: &'a Bound<'py, Self>) -> PyResult<Borrowed<'a, 'py, Engine>> {
        let py = slf.py();
        let asked_in = generation();
        let engine = slf
            .call_method0(intern!(py, "_open"))?
            .cast_into::<Engine>()?;
        if engine.get().0.epoch != epoch() {
            return Err(PyRuntimeError::new_err(
                "the engine belongs to another process",
            ));
        }
        let raw = engine.clone().into_ptr();
        let before = slf.get().engine.swap(raw, Ordering::AcqRel);
        slf.get().generation.store(asked_in, Ordering::Relaxed);
        // SAFETY: the pointer came from `into_ptr`, of an `Engine`. One of this process is released, one
        // of another leaked. Nobody uses it without a reference of his own.
        unsafe {
            if let Some(before) = Bound::from_owned_ptr_or_opt(py, before) {
                let before = before.cast_into_unchecked::<Engine>();
                if before.get().0.epoch != epoch() {
                    std::mem::forget(before);
                }
            }
            // As above: it is stored now, and an `Engine`.
            Ok(Borrowed::from_ptr(py, raw).cast_unchecked::<Engine>())
        }
    }

    /// How loops may run the handler.
    pub(crate) fn direct(&self) -> Option<&Direct> {
        self.direct.get()
    }

    /// One plain call, its item known.
    #[inline]
    fn go(
        slf: &Bound<'_, Self>,
        item: Py<PyAny>,
        waking: Option<Borrowed<'_, '_, Port>>,
    ) -> PyResult<Py<PyAny>> {
        let engine = Self::engine(slf)?;
        let shared = &engine.get().0;
        if shared.executor == Executor::Caller {
            if let Some(handler) = slf.get().handler() {
                if let Some(result) = bare::alone(slf.py(), shared, handler, &item) {
                    return result;
                }
            }
        }
        if shared.standing.timeout().is_some() {
            return Self::go_limited(slf, engine, item);
        }
        let owner = slf.clone().into_any().unbind();
        if slf.get().awaits {
            call_awaiting(engine, slf.py(), owner, item, &Asked::NOTHING, waking)
        } else {
            call_blocking(shared, slf.py(), owner, item, &Asked::NOTHING)
        }
    }

    /// One call that asks for nothing itself, of a batcher that limits the time of all.
    #[inline(never)]
    fn go_limited(
        slf: &Bound<'_, Self>,
        engine: Borrowed<'_, '_, Engine>,
        item: Py<PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let shared = &engine.get().0;
        let asked = shared.asked(None, 1, 0, None);
        let owner = slf.clone().into_any().unbind();
        if slf.get().awaits {
            call_awaiting(engine, slf.py(), owner, item, &asked, None)
        } else {
            call_blocking(shared, slf.py(), owner, item, &asked)
        }
    }

    /// One call that asks for something. Apart from the plain ones, which take a shorter way.
    #[inline(never)]
    fn go_asking(slf: &Bound<'_, Self>, item: Py<PyAny>, asks: &Py<Asks>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let engine = Self::engine(slf)?;
        let shared = &engine.get().0;
        let asked = asks.get().of(py, shared, &item)?;
        let owner = slf.clone().into_any().unbind();
        if slf.get().awaits {
            call_awaiting(engine, py, owner, item, &asked, None)
        } else {
            call_blocking(shared, py, owner, item, &asked)
        }
    }

    /// One plain `acall`, its item known.
    #[cfg(not(plain))]
    #[inline]
    fn ago_plain(
        slf: &Bound<'_, Self>,
        item: Py<PyAny>,
        waking: Option<Borrowed<'_, '_, Port>>,
    ) -> PyResult<Py<PyAny>> {
        let engine = Self::engine(slf)?;
        let shared = &engine.get().0;
        if shared.executor == Executor::Caller || shared.standing.timeout().is_some() {
            return Self::ago(slf, item, None);
        }
        let owner = slf.clone().into_any().unbind();
        call_awaiting(engine, slf.py(), owner, item, &Asked::NOTHING, waking)
    }

    /// One `acall`, its item known.
    #[inline(never)]
    fn ago(slf: &Bound<'_, Self>, item: Py<PyAny>, asks: Option<&Py<Asks>>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let engine = Self::engine(slf)?;
        let asked = match asks {
            None if engine.get().0.standing.timeout().is_none() => Asked::NOTHING,
            None => engine.get().0.asked(None, 1, 0, None),
            Some(asks) => asks.get().of(py, &engine.get().0, &item)?,
        };
        if engine.get().0.executor == Executor::Caller {
            // Somebody has to run what no blocked caller can.
            slf.call_method0(intern!(py, "_before_waiting"))?;
        }
        let owner = slf.clone().into_any().unbind();
        let runs_here = engine.get().0.inline && engine.get().0.executor == Executor::Caller;
        let made = call_awaiting(engine, py, owner, item, &asked, None)?;
        if runs_here {
            slf.call_method0(intern!(py, "_run_here"))?;
        }
        Ok(made)
    }

    /// One that is never called.
    #[cfg(not(plain))]
    pub(crate) fn sample(py: Python<'_>) -> PyResult<Bound<'_, Self>> {
        let sample = Self {
            binder: py.None(),
            simple: false,
            awaits: false,
            bare: None,
            instance: None,
            asks: None,
            plain: false,
            method: AtomicBool::new(false),
            engine: AtomicPtr::new(std::ptr::null_mut()),
            generation: AtomicU64::new(0),
            direct: OnceLock::new(),
            vectorcall: vectorcall::call,
        };
        Bound::new(py, sample)
    }

    /// Whether one plain positional argument is the item itself, and nothing else is to be asked.
    #[cfg(not(plain))]
    #[inline]
    pub(crate) fn takes_item(&self) -> bool {
        self.plain && !self.method.load(Ordering::Relaxed)
    }

    /// A call with one plain positional argument.
    #[cfg(not(plain))]
    #[inline]
    pub(crate) fn call_item(
        slf: &Bound<'_, Self>,
        item: Py<PyAny>,
        waking: Option<Borrowed<'_, '_, Port>>,
    ) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(slf.py())?;
        Self::go(slf, item, waking)
    }

    /// `acall` with one plain positional argument.
    #[cfg(not(plain))]
    #[inline]
    pub(crate) fn acall_item(
        slf: &Bound<'_, Self>,
        item: Py<PyAny>,
        waking: Option<Borrowed<'_, '_, Port>>,
    ) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(slf.py())?;
        Self::ago_plain(slf, item, waking)
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

    /// The handler, where it needs nothing around it.
    #[inline]
    pub(crate) fn handler(&self) -> Option<Handler<'_>> {
        Some(Handler {
            bare: self.bare.as_ref()?.get(),
            instance: self.instance.as_ref(),
        })
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

/// The handler of a request's owner, where it needs nothing around it.
pub(crate) fn handler_of<'a>(owner: &'a Bound<'_, PyAny>) -> Option<Handler<'a>> {
    owner.cast::<Call>().ok()?.get().handler()
}

#[pymethods]
impl Call {
    #[new]
    #[classmethod]
    #[pyo3(signature = (binder, simple, awaits, asks=None, *_args, bare=None, instance=None, **_kwargs))]
    #[allow(
        clippy::too_many_arguments,
        reason = "one per part of a call, and what Python passes on"
    )]
    fn new(
        cls: &Bound<'_, PyType>,
        binder: Py<PyAny>,
        simple: bool,
        awaits: bool,
        asks: Option<Py<Asks>>,
        _args: &Bound<'_, PyTuple>,
        bare: Option<Py<Bare>>,
        instance: Option<Py<PyAny>>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> Self {
        #[cfg(not(plain))]
        vectorcall::equip(cls);
        #[cfg(plain)]
        let _ = cls;
        Self {
            binder,
            simple,
            awaits,
            bare: bare.filter(|_| simple),
            instance,
            #[cfg(not(plain))]
            plain: simple && asks.is_none(),
            asks,
            method: AtomicBool::new(false),
            engine: AtomicPtr::new(std::ptr::null_mut()),
            generation: AtomicU64::new(0),
            direct: OnceLock::new(),
            #[cfg(not(plain))]
            vectorcall: vectorcall::call,
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
        let this = slf.get();
        let item = this.item(args, kwargs)?;
        match &this.asks {
            None => Self::go(slf, item, None),
            Some(asks) => Self::go_asking(slf, item, asks),
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
        let this = slf.get();
        Self::ago(slf, this.item(args, kwargs)?, this.asks.as_ref())
    }

    /// Loops may call the function of `handler` directly, with `bound` in front, where the handler's options
    /// allow it.
    fn _run_directly(
        &self,
        handler: &Bound<'_, PyAny>,
        bound: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        if let Some(direct) = Direct::of(handler, bound)? {
            drop(self.direct.set(direct));
        }
        Ok(())
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
        if let Some(direct) = self.direct.get() {
            direct.traverse(&visit)?;
        }
        visit.call(&self.asks)?;
        visit.call(&self.binder)?;
        visit.call(&self.bare)?;
        visit.call(&self.instance)
    }
}
