//! What `await f.acall(x)` gets: a future and coroutine-like object, as lean as CPython allows.
//!
//! A raw type from `PyType_FromSpec`, because its cost is that of every awaited request: no dict, no
//! method binding on the way of an `await`, its own iterator (sending to it is stateless: pending, it
//! yields itself with `_asyncio_future_blocking` set, as asyncio's tasks expect; done, it returns),
//! and its callbacks are called directly, each in its own context, in one scheduled call per batch.
//!
//! Everything here is protected by the GIL: functions of the type are called attached, and [`Link`]
//! touches the object attached only. This module is the one place of the crate that relies on it.
//!
//! Who owns whom. The object owns its [`Ticket`]; the request points back through [`Link`] without
//! owning, so that dropping an awaitable nobody waits for cancels its request. Once a callback is
//! added the request keeps the object alive (`held`) until it is answered or cancelled.
//!
//! The collector knows the object only from when it could be part of a circle: with an outcome or a message, and no
//! hold on it from outside of Python's heap. Most go before that.
//!
//! [`kind`] makes the type; [`waiting`] is what happens while it is awaited, [`attributes`] the names a task
//! asks for at every wait, [`wakeup`] what wakes it, [`methods`] the rest of a future; [`memory`] lets go.

mod attributes;
#[cfg(Py_3_12)]
mod ending;
mod kind;
mod memory;
mod methods;
mod waiting;
mod wakeup;

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::border::{Answer, PyBorder, Waiter};
use crate::engine::Engine;
use crate::errors;
use crate::port::Port;
use crate::shared;
use crate::ticket::Ticket;
use attributes::vectorcall;
pub(crate) use kind::type_object;
pub(crate) use waiting::{caught, entered};

type CoreTicket = carpool_core::Ticket<PyBorder>;

/// The request's way back to the awaitable.
pub(crate) struct Link {
    /// Null once the awaitable is gone.
    awaitable: AtomicPtr<Awaitable>,
    pub(crate) port: Py<Port>,
    pub(crate) engine: Py<Engine>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Value,
    Error,
    Cancelled,
}

impl Seen {
    /// Somebody sees the error now.
    fn received(self) -> Self {
        match self {
            Self::Nothing => Self::Received,
            other => other,
        }
    }
}

/// A callback and the context it is called in; both owned.
struct Callback {
    call: *mut ffi::PyObject,
    context: *mut ffi::PyObject,
}

/// The object.
#[repr(C)]
pub(crate) struct Awaitable {
    object: ffi::PyObject,
    /// What a call of the object does: see `getattro`.
    vectorcall: ffi::vectorcallfunc,
    weak_references: *mut ffi::PyObject,
    /// Always there once the object can be seen from Python.
    ticket: Option<CoreTicket>,
    /// The result or the exception, or, cancelled, what `cancel(msg)` was given; owned or null, null while pending.
    outcome: *mut ffi::PyObject,
    /// Most awaitables get one callback: the wakeup of one task.
    first: Option<Callback>,
    #[allow(clippy::box_collection, reason = "one word where there are none")]
    more: Option<Box<Vec<Callback>>>,
    /// The low half: no process has that many ancestors.
    epoch: u32,
    state: State,
    blocking: bool,
    held: bool,
    seen: Seen,
}

/// What has been done about an awaitable that nobody may look at any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// Somebody has seen the error.
    Received,
    /// The collector has called `finalize`, which it does once; the error, if it is one, was shown.
    Finalized,
}

/// An awaitable that became done and has callbacks; keeps it alive.
pub(crate) struct Done(NonNull<Awaitable>);

// SAFETY: only moved between threads; opened (`wake`) attached, and `drop` attaches.
unsafe impl Send for Done {}

impl Drop for Done {
    fn drop(&mut self) {
        // SAFETY: a `Done` owns one reference; `attach` makes sure that this thread may drop it.
        Python::attach(|_| unsafe { let_go(self.0.as_ptr()) });
    }
}

/// Has the collector look after the object from now on.
///
/// # Safety
/// Attached; the object is alive.
unsafe fn track(this: *mut Awaitable) {
    // SAFETY: by contract; every field is valid from `make` on, and none is tracked twice.
    unsafe {
        if ffi::PyObject_GC_IsTracked(this.cast()) == 0 {
            ffi::PyObject_GC_Track(this.cast());
        }
    }
}

/// Gives back the reference that was the hold on it.
///
/// # Safety
/// Attached; the reference is the caller's own, and used no more.
#[inline]
unsafe fn let_go(this: *mut Awaitable) {
    // SAFETY: by contract. Whoever else has a reference may have it from what the object itself refers to.
    unsafe {
        if ffi::Py_REFCNT(this.cast()) > 1 {
            track(this);
        }
        ffi::Py_DECREF(this.cast());
    }
}

impl Done {
    /// Calls the callbacks. The error of the last that raised is returned.
    pub(crate) fn wake(self, py: Python<'_>) -> PyResult<()> {
        let this = self.0.as_ptr();
        // Attached here: the reference is released below, not by `drop`.
        std::mem::forget(self);
        // SAFETY: attached, and the reference that this `Done` owned keeps the object alive to the end.
        // Callbacks are moved out before any of them runs, so code that comes back here finds none; each
        // is owned, and released by `run`.
        unsafe {
            let first = (*this).first.take();
            let more = (*this).take_more();
            let mut result = match first {
                Some(callback) => run(py, callback, this),
                None => Ok(()),
            };
            for callback in more {
                if let Err(error) = run(py, callback, this) {
                    if let Err(before) = std::mem::replace(&mut result, Err(error)) {
                        before.write_unraisable(py, None);
                    }
                }
            }
            let_go(this);
            #[cfg(Py_3_12)]
            ending::let_go();
            result
        }
    }
}

/// Calls `callback(awaitable)` in its context and releases it.
///
/// # Safety
/// Attached; `this` is alive for the whole call; the callback's references are owned.
unsafe fn run(py: Python<'_>, callback: Callback, this: *mut Awaitable) -> PyResult<()> {
    let Callback { call, context } = callback;
    // SAFETY: by contract. `PyContext_Enter` fails when the context is entered already; then the
    // callback is not called, and the error is the caller's.
    unsafe {
        let result = if ffi::PyContext_Enter(context) < 0 {
            Err(PyErr::fetch(py))
        } else {
            let stand_in = if (*this).state == State::Value {
                wakeup::stand_in(call)
            } else {
                null_mut()
            };
            let argument = if stand_in.is_null() {
                this.cast()
            } else {
                stand_in
            };
            let returned = ffi::PyObject_CallOneArg(call, argument);
            let error = if returned.is_null() {
                Some(PyErr::fetch(py))
            } else {
                None
            };
            ffi::Py_XDECREF(returned);
            let left = ffi::PyContext_Exit(context);
            match error {
                Some(error) => Err(error),
                None if left < 0 => Err(PyErr::fetch(py)),
                None => Ok(()),
            }
        };
        ffi::Py_DECREF(call);
        ffi::Py_DECREF(context);
        result
    }
}

impl Link {
    /// Gives the awaitable its answer. Returns it if somebody is to be woken.
    pub(crate) fn settle(&self, py: Python<'_>, answer: Answer) -> Option<Done> {
        let this = self.awaitable.load(Ordering::Relaxed);
        if this.is_null() {
            return None;
        }
        // Making the exception may run code that drops the awaitable: look again afterwards.
        let outcome = match answer {
            Answer::Value(value) => Ok(value),
            other => errors::outcome(py, &self.engine.get().0, other),
        };
        let this = NonNull::new(self.awaitable.load(Ordering::Relaxed))?;
        // SAFETY: attached, and a non-null link means that the object is alive: its deallocation
        // clears the link, attached as well.
        let object = unsafe { &mut *this.as_ptr() };
        if object.state != State::Pending {
            return None;
        }
        (object.state, object.outcome) = match outcome {
            Ok(value) => (State::Value, value.into_ptr()),
            Err(error) => (State::Error, error.into_ptr()),
        };
        let done = object.take_hold(this);
        if done.is_none() {
            // SAFETY: as above.
            unsafe { track(this.as_ptr()) };
        }
        done
    }
}

impl Awaitable {
    /// Whether it was made in this process, not in one that was forked from.
    fn is_ours(&self) -> bool {
        self.epoch == shared::epoch() as u32
    }

    /// The callbacks but for the first.
    fn take_more(&mut self) -> Vec<Callback> {
        self.more.take().map_or_else(Vec::new, |more| *more)
    }

    /// Turns the request's hold on the object into one of the caller, if there are callbacks.
    fn take_hold(&mut self, this: NonNull<Awaitable>) -> Option<Done> {
        if !self.held {
            return None;
        }
        self.held = false;
        Some(Done(this))
    }

    fn link(&self) -> Option<&Link> {
        self.ticket.as_ref()?.request().waiter().link()
    }
}

/// Submits through `submit`, which is handed the waiter, and returns the awaitable.
#[inline]
pub(crate) fn make(
    py: Python<'_>,
    engine: Borrowed<'_, '_, Engine>,
    port: Py<Port>,
    submit: impl FnOnce(Waiter) -> PyResult<CoreTicket>,
) -> PyResult<Py<PyAny>> {
    let class = kind::raw(py)?;
    // SAFETY: attached; the type has no items. The new object is not tracked by the collector yet, so
    // nobody sees it before every field is written; `write` does not read what was there.
    let this = unsafe {
        let this = memory::allocate(class);
        if this.is_null() {
            return Err(PyErr::fetch(py));
        }
        (&raw mut (*this).vectorcall).write(vectorcall);
        (&raw mut (*this).weak_references).write(null_mut());
        (&raw mut (*this).ticket).write(None);
        (&raw mut (*this).outcome).write(null_mut());
        (&raw mut (*this).first).write(None);
        (&raw mut (*this).more).write(None);
        (&raw mut (*this).epoch).write(engine.get().0.epoch as u32);
        (&raw mut (*this).state).write(State::Pending);
        (&raw mut (*this).blocking).write(false);
        (&raw mut (*this).held).write(false);
        (&raw mut (*this).seen).write(Seen::Nothing);
        this
    };
    // SAFETY: a new reference to an object whose fields are all valid; if `submit` fails it is freed
    // like any other.
    let owned = unsafe { Bound::from_owned_ptr(py, this.cast()) };
    let link = Link {
        awaitable: AtomicPtr::new(this),
        port,
        engine: engine.to_owned().unbind(),
    };
    let keeps_moments = engine.get().0.keeps_timings;
    let ticket = submit(Waiter::of_awaitable(link, keeps_moments))?;
    // SAFETY: attached; `owned` keeps the object alive.
    unsafe { (*this).ticket = Some(ticket) };
    Ok(owned.unbind())
}

impl Awaitable {
    /// Whether nobody has to be told that the object goes; then its request forgets it.
    fn ended_well(&self) -> bool {
        let ended = match self.state {
            State::Pending => false,
            State::Error => self.seen != Seen::Nothing,
            State::Value | State::Cancelled => true,
        };
        if ended && self.weak_references.is_null() {
            if let Some(link) = self.link() {
                link.awaitable.store(null_mut(), Ordering::Relaxed);
            }
            return true;
        }
        false
    }

    /// Nobody holds the awaitable any more: cancels the request, or says that an error was lost.
    fn give_up(&mut self, py: Python<'_>) {
        let Some(ticket) = self.ticket.as_ref() else {
            return;
        };
        let Some(link) = self.link() else { return };
        link.awaitable.store(null_mut(), Ordering::Relaxed);
        if self.state == State::Pending && self.is_ours() {
            drop(ticket.cancel());
            link.engine.get().0.tell_due(py);
        }
        self.say_lost(py);
    }

    /// Says that an error reached nobody, once.
    fn say_lost(&mut self, py: Python<'_>) {
        if self.state == State::Error && self.seen == Seen::Nothing {
            self.seen = Seen::Received;
            if let Some(link) = self.link() {
                // SAFETY: in state `Error` the outcome is an owned exception object.
                let error = unsafe { Bound::from_borrowed_ptr(py, self.outcome) };
                Ticket::say_lost(py, &link.engine.get().0, &error);
            }
        }
    }
}
