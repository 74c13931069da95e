//! The awaitable once more, in ordinary PyO3: what [`awaitable`](crate::awaitable) is where the raw type
//! cannot be had (stable ABI, free-threaded builds, PyPy), and something to read the raw type against.
//!
//! The same object to its users, and tested by the same tests (`make test-plain`); it costs a few times
//! more. Nothing here relies on the GIL: what changes stands behind a lock that is never held while
//! Python code, drops or wakes run.
//!
//! Who owns whom is as there: the object owns its ticket, the request points back weakly, and once a
//! callback was added the request holds the object until it has ended.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::guard::{self, intern};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyType, PyWeakrefMethods, PyWeakrefReference};

use crate::border::{Answer, PyBorder, Waiter};
use crate::engine::Engine;
use crate::errors;
use crate::port::{Port, Ready};
use crate::shared;
use crate::ticket::Ticket;
use crate::watching;

type CoreTicket = carpool_core::Ticket<PyBorder>;

/// The type.
pub(crate) fn type_object(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = guard::once(&TYPE, py, || {
        Ok::<_, PyErr>(py.get_type::<Awaitable>().unbind())
    })?;
    Ok(class.bind(py))
}

/// The request's way back to the awaitable.
pub(crate) struct Link {
    awaitable: Py<PyWeakrefReference>,
    /// The awaitable itself while somebody waits for it.
    held: Mutex<Option<Py<Awaitable>>>,
    pub(crate) port: Py<Port>,
    pub(crate) engine: Py<Engine>,
}

impl Link {
    /// Gives the awaitable its answer. Returns it if somebody is to be woken.
    pub(crate) fn settle(&self, py: Python<'_>, answer: Answer) -> Option<Done> {
        let outcome = errors::outcome(py, &self.engine.get().0, answer);
        let held = unpoisoned(&self.held).take();
        let object = match &held {
            Some(object) => object.bind(py).clone(),
            None => self.awaitable.bind(py).upgrade_as::<Awaitable>().ok()??,
        };
        let mut inner = object.get().inner();
        if !matches!(inner.state, State::Pending) {
            return None;
        }
        inner.state = match outcome {
            Ok(value) => State::Value(value),
            Err(error) => State::Error(error),
        };
        drop(inner);
        held.map(Done)
    }
}

enum State {
    Pending,
    Value(Py<PyAny>),
    Error(Py<PyAny>),
    Cancelled,
}

/// A callback and the context it is called in.
struct Callback {
    call: Py<PyAny>,
    context: Py<PyAny>,
}

struct Inner {
    state: State,
    /// What `cancel(msg)` was given.
    message: Option<Py<PyAny>>,
    callbacks: Vec<Callback>,
    blocking: bool,
    /// Somebody has seen the error.
    received: bool,
}

fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to come of one request: a future and coroutine-like object.
#[pyclass(frozen, weakref, module = "carpool._core")]
pub(crate) struct Awaitable {
    inner: Mutex<Inner>,
    /// Set before anybody else can see the object.
    ticket: OnceLock<CoreTicket>,
    epoch: u64,
}

/// An awaitable that became done and has callbacks.
pub(crate) struct Done(Py<Awaitable>);

impl Done {
    /// Calls the callbacks, each in its context. The error of the last that raised is returned.
    pub(crate) fn wake(self, py: Python<'_>) -> PyResult<()> {
        let callbacks = std::mem::take(&mut self.0.get().inner().callbacks);
        let mut failed = None;
        for Callback { call, context } in callbacks {
            if let Err(error) = context.call_method1(py, intern!(py, "run"), (call, &self.0)) {
                if let Some(before) = failed.replace(error) {
                    PyErr::write_unraisable(before, py, None);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Submits through `submit`, which is handed the waiter, and returns the awaitable.
pub(crate) fn make(
    py: Python<'_>,
    engine: Borrowed<'_, '_, Engine>,
    port: Py<Port>,
    submit: impl FnOnce(Waiter) -> PyResult<CoreTicket>,
) -> PyResult<Py<PyAny>> {
    let made = Bound::new(
        py,
        Awaitable {
            inner: Mutex::new(Inner {
                state: State::Pending,
                message: None,
                callbacks: Vec::new(),
                blocking: false,
                received: false,
            }),
            ticket: OnceLock::new(),
            epoch: engine.get().0.epoch,
        },
    )?;
    let link = Link {
        awaitable: PyWeakrefReference::new(made.as_any())?.unbind(),
        held: Mutex::new(None),
        port,
        engine: engine.to_owned().unbind(),
    };
    let keeps_moments = engine.get().0.keeps_timings;
    let ticket = submit(Waiter::of_awaitable(link, keeps_moments))?;
    drop(made.get().ticket.set(ticket));
    Ok(made.into_any().unbind())
}

/// What a step of waiting finds.
enum Step {
    Yield,
    Return(Py<PyAny>),
}

impl Awaitable {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        unpoisoned(&self.inner)
    }

    fn link(&self) -> Option<&Link> {
        self.ticket.get()?.request().waiter().link()
    }

    /// Has its loop call the callbacks; `object` is kept alive until then.
    fn call_back_soon(&self, py: Python<'_>, object: Py<Awaitable>) {
        if let Some(link) = self.link() {
            if link.port.get().push(vec![Ready::Done(Done(object))]) {
                Port::schedule(link.port.bind(py));
            }
        }
    }

    fn cancelled_error(&self, py: Python<'_>) -> PyErr {
        let message = self.inner().message.as_ref().map(|one| one.clone_ref(py));
        let class = asyncio(py, "CancelledError");
        let made = class.and_then(|class| match message {
            Some(message) => class.call1((message,)),
            None => class.call0(),
        });
        match made {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    }

    /// One step of waiting: yields while pending, else the value or the error.
    fn step(&self, py: Python<'_>) -> PyResult<Step> {
        let mut inner = self.inner();
        match &inner.state {
            State::Value(value) => Ok(Step::Return(value.clone_ref(py))),
            State::Pending if self.epoch == shared::epoch() => {
                inner.blocking = true;
                Ok(Step::Yield)
            }
            State::Pending => {
                drop(inner);
                let text = "the request was submitted by the parent process, before the fork";
                Err(errors::raise(py, "BatchAbandoned", text.into()))
            }
            State::Error(error) => {
                let error = error.clone_ref(py).into_bound(py);
                inner.received = true;
                drop(inner);
                // Without the traces of those who raised it before, also where the class refuses assignments.
                let error = PyErr::from_value(error);
                error.set_traceback(py, None);
                Err(error)
            }
            State::Cancelled => {
                drop(inner);
                Err(self.cancelled_error(py))
            }
        }
    }
}

fn asyncio<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("asyncio")?.getattr(name)
}

fn not_there_yet(py: Python<'_>, what: &str) -> PyErr {
    let class = asyncio(py, "InvalidStateError");
    match class.and_then(|class| class.call1((format!("the {what} is not there yet"),))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        match slf.get().step(slf.py())? {
            Step::Yield => Ok(slf.clone().into_any().unbind()),
            Step::Return(value) => Err(PyStopIteration::new_err((value,))),
        }
    }

    /// Go on as a coroutine would.
    #[pyo3(signature = (_value, /))]
    fn send(slf: &Bound<'_, Self>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Self::__next__(slf)
    }

    /// Raise the given exception here.
    #[pyo3(signature = (typ, val=None, tb=None, /))]
    fn throw(
        slf: &Bound<'_, Self>,
        typ: &Bound<'_, PyAny>,
        val: Option<Bound<'_, PyAny>>,
        tb: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let base = py.get_type::<pyo3::exceptions::PyBaseException>();
        let error = if typ.is_instance(&base)? {
            typ.clone()
        } else {
            match val {
                Some(value) if value.is_instance(typ)? => value,
                Some(value) => typ.call1((value,))?,
                None => typ.call0()?,
            }
        };
        let error = PyErr::from_value(error);
        if let Some(trace) = tb {
            error.set_traceback(py, Some(trace.cast_into()?));
        }
        Err(error)
    }

    /// Nothing to clean up.
    fn close(&self) {}

    /// Whether it has ended.
    fn done(&self) -> bool {
        !matches!(self.inner().state, State::Pending)
    }

    /// Whether it was cancelled.
    fn cancelled(&self) -> bool {
        matches!(self.inner().state, State::Cancelled)
    }

    /// The result, or its exception raised.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if !self.done() {
            return Err(not_there_yet(py, "result"));
        }
        match self.step(py)? {
            Step::Return(value) => Ok(value),
            Step::Yield => Err(not_there_yet(py, "result")),
        }
    }

    /// The exception, or None.
    fn exception(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut inner = self.inner();
        match &inner.state {
            State::Value(_) => Ok(None),
            State::Error(error) => {
                let error = error.clone_ref(py);
                inner.received = true;
                Ok(Some(error))
            }
            State::Pending => {
                drop(inner);
                Err(not_there_yet(py, "exception"))
            }
            State::Cancelled => {
                drop(inner);
                Err(self.cancelled_error(py))
            }
        }
    }

    /// Give up; False when it has ended already.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> bool {
        let this = slf.get();
        {
            let mut inner = this.inner();
            if !matches!(inner.state, State::Pending) {
                return false;
            }
            inner.state = State::Cancelled;
            inner.message = msg;
        }
        let payload = this.ticket.get().map(CoreTicket::cancel);
        // The tasks that wait learn of it from the loop, never from inside this call: one of them may be
        // what runs now.
        let held = this.link().and_then(|link| unpoisoned(&link.held).take());
        if let Some(object) = held {
            this.call_back_soon(slf.py(), object);
        }
        drop(payload);
        if let Some(link) = this.link() {
            link.engine.get().0.tell_due(slf.py());
        }
        true
    }

    /// Call back at the end.
    #[pyo3(signature = (r#fn, *, context=None))]
    fn add_done_callback(
        slf: &Bound<'_, Self>,
        r#fn: Bound<'_, PyAny>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        if !r#fn.is_callable() {
            return Err(PyTypeError::new_err("a callable is needed as callback"));
        }
        let context = match context {
            Some(context) => context,
            None => {
                let copy = py.import("contextvars")?.getattr("copy_context")?;
                copy.call0()?.unbind()
            }
        };
        let this = slf.get();
        let pending = {
            let mut inner = this.inner();
            let call = r#fn.unbind();
            inner.callbacks.push(Callback { call, context });
            matches!(inner.state, State::Pending)
        };
        let Some(link) = this.link() else {
            return Ok(());
        };
        if pending {
            let before = unpoisoned(&link.held).replace(slf.clone().unbind());
            drop(before);
        }
        // Done already, or since the look above: the loop calls back, as asyncio's futures have it.
        if this.done() {
            let held = unpoisoned(&link.held).take();
            drop(held);
            this.call_back_soon(py, slf.clone().unbind());
        }
        Ok(())
    }

    /// Do not.
    #[pyo3(signature = (r#fn, /))]
    fn remove_done_callback(&self, r#fn: &Bound<'_, PyAny>) -> PyResult<usize> {
        // Comparing runs Python code, so the callbacks are moved out meanwhile and what is added in
        // between stays behind them.
        let known = std::mem::take(&mut self.inner().callbacks);
        let (mut kept, mut removed, mut failed) =
            (Vec::with_capacity(known.len()), Vec::new(), None);
        for callback in known {
            let same = match failed {
                None => callback.call.bind(r#fn.py()).eq(r#fn),
                Some(_) => Ok(false),
            };
            match same {
                Ok(true) => removed.push(callback),
                Ok(false) => kept.push(callback),
                Err(error) => {
                    failed = Some(error);
                    kept.push(callback);
                }
            }
        }
        {
            let mut inner = self.inner();
            kept.append(&mut inner.callbacks);
            inner.callbacks = kept;
        }
        failed.map_or(Ok(removed.len()), Err)
    }

    /// The event loop it belongs to.
    fn get_loop(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let found = self.link().and_then(|link| link.port.get().event_loop(py));
        found
            .map(Bound::unbind)
            .ok_or_else(|| PyRuntimeError::new_err("the event loop is gone"))
    }

    /// The CancelledError of a cancelled one.
    #[pyo3(name = "_make_cancelled_error")]
    fn make_cancelled_error(&self, py: Python<'_>) -> Py<PyAny> {
        self.cancelled_error(py).into_value(py).into_any()
    }

    /// asyncio's mark of a future that was yielded to a task.
    #[getter(_asyncio_future_blocking)]
    fn blocking(&self) -> bool {
        self.inner().blocking
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, value: bool) {
        self.inner().blocking = value;
    }

    /// When its request went through the stations of its way, where that is kept and it has its answer.
    #[getter]
    fn timing(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let answered = matches!(self.inner().state, State::Value(_) | State::Error(_));
        match self.ticket.get() {
            Some(ticket) if answered => watching::timing(py, ticket.request()),
            _ => Ok(py.None()),
        }
    }

    /// What it was cancelled with, for asyncio.
    #[getter(_cancel_message)]
    fn cancel_message(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.inner().message.as_ref().map(|one| one.clone_ref(py))
    }

    fn __repr__(&self) -> String {
        let name = self
            .link()
            .map_or("", |link| link.engine.get().0.name.as_str());
        let state = match self.inner().state {
            State::Pending => "pending",
            State::Value(_) => "answered",
            State::Error(_) => "failed",
            State::Cancelled => "cancelled",
        };
        format!("<carpool.Awaitable of {name}, {state}>")
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let alias = cls.py().import("types")?.getattr("GenericAlias")?;
        alias.call1((cls, item))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A lock that is held just now hides what it guards until the next collection.
        let Ok(inner) = self.inner.try_lock() else {
            return Ok(());
        };
        for Callback { call, context } in &inner.callbacks {
            visit.call(call)?;
            visit.call(context)?;
        }
        match &inner.state {
            State::Value(object) | State::Error(object) => visit.call(object)?,
            State::Pending | State::Cancelled => {}
        }
        visit.call(&inner.message)
    }

    fn __clear__(&self) {
        let (callbacks, state, message) = {
            let mut inner = self.inner();
            let state = match inner.state {
                State::Pending => State::Pending,
                // What was cleared must not be handed out any more.
                _ => std::mem::replace(&mut inner.state, State::Cancelled),
            };
            let callbacks = std::mem::take(&mut inner.callbacks);
            (callbacks, state, inner.message.take())
        };
        drop((callbacks, state, message));
    }
}

impl Drop for Awaitable {
    fn drop(&mut self) {
        // Nobody holds the awaitable any more: cancels the request, or says that an error was lost.
        let Some(ticket) = self.ticket.get() else {
            return;
        };
        let (pending, lost) = {
            let mut inner = self.inner();
            let pending = matches!(inner.state, State::Pending);
            let unseen = matches!(inner.state, State::Error(_)) && !inner.received;
            let ended = unseen.then(|| std::mem::replace(&mut inner.state, State::Cancelled));
            let lost = match ended {
                Some(State::Error(error)) => Some(error),
                _ => None,
            };
            (pending, lost)
        };
        if pending && self.epoch == shared::epoch() {
            drop(ticket.cancel());
            if let Some(link) = self.link() {
                Python::attach(|py| link.engine.get().0.tell_due(py));
            }
        }
        if let (Some(error), Some(link)) = (lost, self.link()) {
            Python::attach(|py| Ticket::say_lost(py, &link.engine.get().0, error.bind(py)));
        }
    }
}
