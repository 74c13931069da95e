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

use std::ffi::{c_char, c_int, c_void};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use crate::border::{Answer, PyBorder, Waiter};
use crate::engine::{self, Shared, Ticket};
use crate::errors;
use crate::port::{Port, Ready};

type CoreTicket = carpool_core::Ticket<PyBorder>;

/// The request's way back to the awaitable.
pub(crate) struct Link {
    /// Null once the awaitable is gone.
    awaitable: AtomicPtr<Awaitable>,
    pub(crate) port: Py<Port>,
    engine: Arc<Shared>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Value,
    Error,
    Cancelled,
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
    /// The result or the exception; owned, null while pending.
    outcome: *mut ffi::PyObject,
    /// What `cancel(msg)` was given; owned or null.
    message: *mut ffi::PyObject,
    /// Most awaitables get one callback: the wakeup of one task.
    first: Option<Callback>,
    more: Vec<Callback>,
    epoch: u64,
    state: State,
    blocking: bool,
    held: bool,
    /// Somebody has seen the error.
    received: bool,
}

/// An awaitable that became done and has callbacks; keeps it alive.
pub(crate) struct Done(NonNull<Awaitable>);

// SAFETY: only moved between threads; opened (`wake`) attached, and `drop` attaches.
unsafe impl Send for Done {}

impl Drop for Done {
    fn drop(&mut self) {
        // SAFETY: a `Done` owns one reference; `attach` makes sure that this thread may drop it.
        Python::attach(|_| unsafe { ffi::Py_DECREF(self.0.as_ptr().cast()) });
    }
}

impl Done {
    /// Calls the callbacks. Stops at the first that raises; the rest is lost with the object only if
    /// the caller drops this, so the caller reports and goes on.
    pub(crate) fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let this = self.0.as_ptr();
        // SAFETY: attached, and this `Done` keeps the object alive. Callbacks are moved out before
        // any of them runs, so code that comes back here finds none.
        let (first, more) = unsafe { ((*this).first.take(), std::mem::take(&mut (*this).more)) };
        let mut failed = None;
        for callback in first.into_iter().chain(more) {
            // SAFETY: as above; the callback is owned and released by `run`.
            let result = unsafe { run(py, callback, this) };
            if let Err(error) = result {
                if let Some(before) = failed.replace(error) {
                    before.write_unraisable(py, None);
                }
            }
        }
        failed.map_or(Ok(()), Err)
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
            let returned = ffi::PyObject_CallOneArg(call, this.cast());
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
        let outcome = errors::outcome(py, &self.engine, answer);
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
        object.take_hold(this)
    }
}

impl Awaitable {
    /// Turns the request's hold on the object into one of the caller, if there are callbacks.
    fn take_hold(&mut self, this: NonNull<Awaitable>) -> Option<Done> {
        if !self.held {
            return None;
        }
        self.held = false;
        Some(Done(this))
    }

    fn link(&self) -> Option<&Link> {
        match self.ticket.as_ref()?.request().waiter() {
            Waiter::Loop(link) => Some(link),
            _ => None,
        }
    }
}

/// Submits through `submit`, which is handed the waiter, and returns the awaitable.
pub(crate) fn make(
    py: Python<'_>,
    engine: &Arc<Shared>,
    port: Py<Port>,
    submit: impl FnOnce(Waiter) -> PyResult<CoreTicket>,
) -> PyResult<Py<PyAny>> {
    let class = type_object(py)?.as_type_ptr();
    // SAFETY: attached; the type has no items. The new object is not tracked by the collector yet, so
    // nobody sees it before every field is written; `ptr::write` does not read what was there.
    let this = unsafe {
        let this: *mut Awaitable = ffi::PyObject_GC_New(class);
        if this.is_null() {
            return Err(PyErr::fetch(py));
        }
        (&raw mut (*this).vectorcall).write(vectorcall);
        (&raw mut (*this).weak_references).write(null_mut());
        (&raw mut (*this).ticket).write(None);
        (&raw mut (*this).outcome).write(null_mut());
        (&raw mut (*this).message).write(null_mut());
        (&raw mut (*this).first).write(None);
        (&raw mut (*this).more).write(Vec::new());
        (&raw mut (*this).epoch).write(engine.epoch);
        (&raw mut (*this).state).write(State::Pending);
        (&raw mut (*this).blocking).write(false);
        (&raw mut (*this).held).write(false);
        (&raw mut (*this).received).write(false);
        this
    };
    // SAFETY: a new reference to an object whose fields are all valid; if `submit` fails it is freed
    // like any other.
    let owned = unsafe { Bound::from_owned_ptr(py, this.cast()) };
    let link = Link {
        awaitable: AtomicPtr::new(this),
        port,
        engine: engine.clone(),
    };
    let ticket = submit(Waiter::Loop(link))?;
    // SAFETY: attached; `owned` keeps the object alive.
    unsafe {
        (*this).ticket = Some(ticket);
        ffi::PyObject_GC_Track(this.cast());
    }
    Ok(owned.unbind())
}

/// The type.
pub(crate) fn type_object(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = TYPE.get_or_try_init(py, || {
        // SAFETY: attached; the spec and the tables it points to fit `Awaitable`, and live as long as
        // CPython needs them: for ever (the tables are leaked once) or for the call (the spec).
        unsafe { make_type(py) }
    })?;
    Ok(class.bind(py))
}

/// # Safety
/// Attached.
unsafe fn make_type(py: Python<'_>) -> PyResult<Py<PyType>> {
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
    let properties = vec![
        ffi::PyGetSetDef {
            name: c"_asyncio_future_blocking".as_ptr(),
            get: Some(get_blocking),
            set: Some(set_blocking),
            doc: c"asyncio's mark of a future that was yielded to a task.".as_ptr(),
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
        slot(ffi::Py_tp_iter, itself as *mut c_void),
        slot(ffi::Py_am_await, itself as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_am_send, am_send as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_tp_getattro, getattro as *mut c_void),
        slot(ffi::Py_tp_setattro, setattro as *mut c_void),
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_methods, methods.leak().as_mut_ptr().cast()),
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

/// The names that a task asks for at every wait, interned.
struct Names {
    add_done_callback: Py<PyString>,
    result: Py<PyString>,
    get_loop: Py<PyString>,
    blocking: Py<PyString>,
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

fn names(py: Python<'_>) -> &Names {
    NAMES.get_or_init(py, || Names {
        add_done_callback: PyString::intern(py, "add_done_callback").unbind(),
        result: PyString::intern(py, "result").unbind(),
        get_loop: PyString::intern(py, "get_loop").unbind(),
        blocking: PyString::intern(py, "_asyncio_future_blocking").unbind(),
    })
}

/// Attributes, those of every wait first and without making bound methods: `add_done_callback` and
/// `result` are the object itself, which adds a callback if it is called with arguments and returns the
/// result if without; `get_loop` is the weak reference to the loop, which returns it.
unsafe extern "C" fn getattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython, attached, with a live object of this type and a str.
    unsafe {
        let py = Python::assume_attached();
        let names = names(py);
        if name == names.blocking.as_ptr() {
            return get_blocking(this, null_mut());
        }
        if name == names.add_done_callback.as_ptr() || name == names.result.as_ptr() {
            return new_ref(this);
        }
        if name == names.get_loop.as_ptr() {
            if let Some(link) = (*this.cast::<Awaitable>()).link() {
                return new_ref(link.port.get().loop_reference().as_ptr());
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

unsafe extern "C" fn setattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: as for `getattro`.
    unsafe {
        if name == names(Python::assume_attached()).blocking.as_ptr() {
            return set_blocking(this, value, null_mut());
        }
        ffi::PyObject_GenericSetAttr(this, name, value)
    }
}

unsafe extern "C" fn vectorcall(
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

/// Makes a new reference of a borrowed one.
///
/// # Safety
/// Attached; `object` is alive.
unsafe fn new_ref(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: by contract.
    unsafe { ffi::Py_INCREF(object) };
    object
}

/// Runs the body of a function of the type: with the GIL token, and no panic beyond it.
///
/// # Safety
/// Attached: CPython calls the functions of a type that way.
unsafe fn entered<R>(failed: R, body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // Attached already; but references that are dropped in here are released at once only where
        // PyO3 knows it.
        Python::attach(|py| body(py).map_err(|error| error.restore(py)))
    }));
    match outcome {
        Ok(Ok(value)) => value,
        Ok(Err(())) => failed,
        Err(_) => {
            // SAFETY: by contract.
            let py = unsafe { Python::assume_attached() };
            PyRuntimeError::new_err("carpool: a bug in the core (panic)").restore(py);
            failed
        }
    }
}

/// Raises the stored exception, without the traces of those who raised it before.
///
/// # Safety
/// Attached; `this` is alive and in state `Error`.
unsafe fn raise_error(this: *mut Awaitable) {
    // SAFETY: by contract; the outcome of an object in state `Error` is an exception object.
    unsafe {
        (*this).received = true;
        let error = (*this).outcome;
        ffi::PyException_SetTraceback(error, ffi::Py_None());
        ffi::PyErr_SetObject(ffi::Py_TYPE(error).cast(), error);
    }
}

fn asyncio_error(py: Python<'_>, name: &str, text: &str) -> PyErr {
    let class = py
        .import("asyncio")
        .and_then(|asyncio| asyncio.getattr(name));
    match class.and_then(|class| class.call1((text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// # Safety
/// Attached; `this` is alive.
unsafe fn cancelled_error(py: Python<'_>, this: *mut Awaitable) -> PyResult<Bound<'_, PyAny>> {
    let class = py.import("asyncio")?.getattr("CancelledError")?;
    // SAFETY: by contract; a message is owned by the object.
    match unsafe { Bound::from_borrowed_ptr_or_opt(py, (*this).message) } {
        Some(message) => class.call1((message,)),
        None => class.call0(),
    }
}

/// What a step finds.
enum Step {
    Yield,
    Return(*mut ffi::PyObject),
    Raise,
}

/// One step of waiting: yields while pending, else the value (a new reference) or a raised error.
///
/// # Safety
/// Attached; `this` is alive.
unsafe fn step(this: *mut Awaitable) -> Step {
    // SAFETY: by contract.
    unsafe {
        match (*this).state {
            State::Value => Step::Return(new_ref((*this).outcome)),
            State::Pending if (*this).epoch == engine::epoch() => {
                (*this).blocking = true;
                Step::Yield
            }
            State::Pending => {
                let py = Python::assume_attached();
                let text = "the request was submitted by the parent process, before the fork";
                errors::raise(py, "BatchAbandoned", text.into()).restore(py);
                Step::Raise
            }
            State::Error => {
                raise_error(this);
                Step::Raise
            }
            State::Cancelled => {
                entered((), |py| Err(PyErr::from_value(cancelled_error(py, this)?)));
                Step::Raise
            }
        }
    }
}

unsafe extern "C" fn itself(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by CPython, attached, with an object that is alive.
    unsafe { new_ref(this) }
}

unsafe extern "C" fn am_send(
    this: *mut ffi::PyObject,
    _sent: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: called by CPython, attached, with an object of this type that is alive, and a place for
    // the result.
    unsafe {
        match step(this.cast()) {
            Step::Yield => {
                *result = new_ref(this);
                ffi::PySendResult::PYGEN_NEXT
            }
            Step::Return(value) => {
                *result = value;
                ffi::PySendResult::PYGEN_RETURN
            }
            Step::Raise => {
                *result = null_mut();
                ffi::PySendResult::PYGEN_ERROR
            }
        }
    }
}

unsafe extern "C" fn next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as for `am_send`.
    unsafe {
        match step(this.cast()) {
            Step::Yield => new_ref(this),
            Step::Return(value) => {
                stop(value);
                null_mut()
            }
            Step::Raise => null_mut(),
        }
    }
}

/// Ends an iteration with a value, which it takes over.
///
/// # Safety
/// Attached; `value` is an owned reference.
unsafe fn stop(value: *mut ffi::PyObject) {
    // SAFETY: by contract. `PyErr_SetObject` would spread a tuple over the arguments and raise an
    // exception object itself, so those two are wrapped by hand; None needs no exception at all.
    unsafe {
        if value == ffi::Py_None() {
            ffi::Py_DECREF(value);
            return;
        }
        if ffi::PyTuple_Check(value) != 0 || ffi::PyExceptionInstance_Check(value) != 0 {
            let wrapped = ffi::PyObject_CallOneArg(ffi::PyExc_StopIteration, value);
            if !wrapped.is_null() {
                ffi::PyErr_SetObject(ffi::PyExc_StopIteration, wrapped);
                ffi::Py_DECREF(wrapped);
            }
        } else {
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value);
        }
        ffi::Py_DECREF(value);
    }
}

unsafe extern "C" fn send(
    this: *mut ffi::PyObject,
    _sent: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `am_send`. Unlike `next`, a method must raise StopIteration also for None.
    unsafe {
        match step(this.cast()) {
            Step::Yield => new_ref(this),
            Step::Return(value) if value == ffi::Py_None() => {
                ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value);
                ffi::Py_DECREF(value);
                null_mut()
            }
            Step::Return(value) => {
                stop(value);
                null_mut()
            }
            Step::Raise => null_mut(),
        }
    }
}

/// The arguments of a fast call: positional ones, then by keyword.
struct Arguments<'py> {
    positional: &'py [*mut ffi::PyObject],
    names: Option<Bound<'py, pyo3::types::PyTuple>>,
    by_name: &'py [*mut ffi::PyObject],
}

/// # Safety
/// Attached; the three are what CPython hands to a fast call with keywords.
unsafe fn arguments<'py>(
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

unsafe extern "C" fn throw(
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

unsafe extern "C" fn close(_this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attached; None is immortal enough.
    unsafe { new_ref(ffi::Py_None()) }
}

unsafe extern "C" fn done(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by CPython, attached, with an object of this type that is alive.
    unsafe { ffi::PyBool_FromLong(((*this.cast::<Awaitable>()).state != State::Pending).into()) }
}

unsafe extern "C" fn cancelled(
    this: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe { ffi::PyBool_FromLong(((*this.cast::<Awaitable>()).state == State::Cancelled).into()) }
}

unsafe extern "C" fn result(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
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

unsafe extern "C" fn exception(
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
                (*object).received = true;
                new_ref((*object).outcome)
            }
            State::Cancelled => entered(null_mut(), |py| {
                Err(PyErr::from_value(cancelled_error(py, object)?))
            }),
        }
    }
}

unsafe extern "C" fn make_cancelled_error(
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

unsafe extern "C" fn get_loop(
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

unsafe extern "C" fn cancel(
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
            if let Some(message) = arguments(py, args, count, names)?.get(0, "msg")? {
                if message != ffi::Py_None() {
                    (*object).message = new_ref(message);
                }
            }
            (*object).state = State::Cancelled;
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
            Ok(ffi::PyBool_FromLong(1))
        })
    }
}

unsafe extern "C" fn add_done_callback(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a fast call with keywords, attached, with a live object of this
    // type. References stored are made here, and released by `run`, `clear` or `dealloc`.
    unsafe {
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
                (*object).more.push(callback);
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

unsafe extern "C" fn remove_done_callback(
    this: *mut ffi::PyObject,
    call: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `done`. Comparing runs Python code, so the callbacks are moved out meanwhile and
    // what is added in between stays behind them.
    unsafe {
        entered(null_mut(), |py| {
            let object = this.cast::<Awaitable>();
            let known = (*object).first.take().into_iter();
            let known: Vec<_> = known.chain(std::mem::take(&mut (*object).more)).collect();
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
            kept.append(&mut (*object).more);
            let mut kept = kept.into_iter();
            (*object).first = kept.next();
            (*object).more = kept.collect();
            match failed {
                Some(error) => Err(error),
                None => Ok(ffi::PyLong_FromLong(removed)),
            }
        })
    }
}

unsafe extern "C" fn get_blocking(this: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe { ffi::PyBool_FromLong((*this.cast::<Awaitable>()).blocking.into()) }
}

unsafe extern "C" fn set_blocking(
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
        let truth = ffi::PyObject_IsTrue(value);
        if truth >= 0 {
            (*this.cast::<Awaitable>()).blocking = truth != 0;
        }
        truth.min(0)
    }
}

unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as for `done`.
    unsafe {
        entered(null_mut(), |py| {
            let object = &*this.cast::<Awaitable>();
            let name = object.link().map_or("", |link| link.engine.name.as_str());
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

unsafe extern "C" fn traverse(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector with an object of this type; no reference is touched. The hold
    // of a pending request is not visited: it is a reference from outside the heap of Python.
    unsafe {
        let object = &*this.cast::<Awaitable>();
        let callbacks = object.first.iter().chain(&object.more);
        let all = callbacks.flat_map(|callback| [callback.call, callback.context]);
        let class = ffi::Py_TYPE(this).cast::<ffi::PyObject>();
        for reference in all.chain([object.outcome, object.message, class]) {
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

unsafe extern "C" fn clear(this: *mut ffi::PyObject) -> c_int {
    // SAFETY: called attached with an object of this type that is alive or being freed; everything is
    // moved out before it is released, since releasing may run any code.
    unsafe {
        let object = this.cast::<Awaitable>();
        let first = (*object).first.take();
        let more = std::mem::take(&mut (*object).more);
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
        let message = std::mem::replace(&mut (*object).message, null_mut());
        ffi::Py_XDECREF(message);
        0
    }
}

unsafe extern "C" fn dealloc(this: *mut ffi::PyObject) {
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
            clear(this);
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
unsafe fn free(this: *mut ffi::PyObject) {
    // SAFETY: by contract.
    unsafe {
        let object = this.cast::<Awaitable>();
        // For PyO3 to know that references may be released here and now.
        Python::attach(|_| {
            std::ptr::drop_in_place(&raw mut (*object).ticket);
            std::ptr::drop_in_place(&raw mut (*object).more);
        });
        let class = ffi::Py_TYPE(this);
        ffi::PyObject_GC_Del(this.cast());
        ffi::Py_DECREF(class.cast());
    }
}

impl Awaitable {
    /// Whether nobody has to be told that the object goes; then its request forgets it.
    fn ended_well(&self) -> bool {
        let ended = match self.state {
            State::Pending => false,
            State::Error => self.received,
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
        match self.state {
            State::Pending if self.epoch == engine::epoch() => drop(ticket.cancel()),
            State::Error if !self.received => {
                // SAFETY: in state `Error` the outcome is an owned exception object.
                let error = unsafe { Bound::from_borrowed_ptr(py, self.outcome) };
                Ticket::say_lost(py, &link.engine, &error);
            }
            _ => {}
        }
    }
}
