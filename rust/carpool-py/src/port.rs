//! One event loop, as wakes see it: a list of awaitables that became done, and one scheduled call
//! that wakes all of their tasks.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::guard::intern;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyWeakrefMethods, PyWeakrefReference};

#[cfg(target_os = "linux")]
use crate::alarm::Alarm;
use crate::awaitable::Done;
use crate::bell::Bell;
use crate::guard::{self, Inside, insist};
use crate::pump::LastPump;
use crate::running::running_loop;

/// What is to be called from the loop.
pub(crate) enum Ready {
    /// The callbacks of an awaitable that became done.
    Done(Done),
    /// A callable without arguments.
    Call(Py<PyAny>),
}

impl Ready {
    fn call(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Done(done) => done.wake(py),
            Self::Call(callable) => callable.call0(py).map(drop),
        }
    }
}

/// How often another thread wakes a loop in the loop's own way before it hangs up a bell: many loops are short-lived.
const OFTEN: u32 = 8;

/// How many tasks one scheduled call wakes before it lets the loop do other things.
const AT_ONCE: usize = 1024;

/// An event loop in use. Holds the loop weakly: a port must not keep a loop alive.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Port {
    event_loop: Py<PyWeakrefReference>,
    context: Py<PyDict>,
    ready: Mutex<Vec<Ready>>,
    /// A call of this object is on its way into the loop, or whoever runs there will make one.
    scheduled: AtomicBool,
    /// The thread that last called from inside the loop; 0 before.
    thread: AtomicU64,
    /// For other threads; hung up at need.
    bell: Mutex<Option<Arc<Bell>>>,
    /// How often another thread had to wake the loop without it.
    woken: AtomicU32,
    pump: LastPump,
    /// For exact timers; made at need.
    #[cfg(target_os = "linux")]
    alarm: Mutex<Option<Arc<Alarm>>>,
}

thread_local! {
    /// The port that this thread last asked for.
    static LAST: RefCell<Option<Py<Port>>> = const { RefCell::new(None) };
    /// The port whose tasks this thread is waking just now: its loop is the running one, for sure.
    /// Borrowed from the [`Waking`] that put it here; null while it wakes none.
    static WAKING: Cell<*mut ffi::PyObject> = const { Cell::new(std::ptr::null_mut()) };
}

/// While it lives, this thread wakes the tasks of a port.
struct Waking<'a> {
    before: *mut ffi::PyObject,
    _port: PhantomData<&'a Port>,
}

impl<'a> Waking<'a> {
    fn of(port: &'a Bound<'_, Port>) -> Self {
        Self {
            before: WAKING.replace(port.as_ptr()),
            _port: PhantomData,
        }
    }
}

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        WAKING.set(self.before);
    }
}

fn this_thread() -> u64 {
    // SAFETY: has no preconditions; never fails.
    unsafe { ffi::PyThread_get_thread_ident() as u64 }
}

/// Whether this thread is inside a running event loop.
pub(crate) fn inside_loop(py: Python<'_>) -> PyResult<bool> {
    Ok(running_loop(py)?.is_some())
}

fn ports(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static PORTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let ports = guard::once(&PORTS, py, || {
        Ok::<_, PyErr>(
            py.import("weakref")?
                .getattr("WeakKeyDictionary")?
                .call0()?
                .unbind(),
        )
    })?;
    Ok(ports.bind(py))
}

/// The keyword arguments that have a loop call in a context of ours: empty, and the loop's own, since two
/// loops cannot be inside one context at the same time.
fn own_context(py: Python<'_>) -> PyResult<Py<PyDict>> {
    let kwargs = PyDict::new(py);
    let context = py.import("contextvars")?.getattr("Context")?.call0()?;
    kwargs.set_item("context", context)?;
    Ok(kwargs.unbind())
}

impl Port {
    /// The port of the loop that runs in this thread, if one does.
    #[inline]
    pub(crate) fn current(py: Python<'_>) -> PyResult<Option<Py<Port>>> {
        // Asking asyncio costs more than all else here, so those who are woken do not ask.
        if let Some(port) = Self::waking(py) {
            return Ok(Some(port.to_owned().unbind()));
        }
        Self::ask(py)
    }

    #[inline(never)]
    fn ask(py: Python<'_>) -> PyResult<Option<Py<Port>>> {
        let Some(event_loop) = running_loop(py)? else {
            return Ok(None);
        };
        let last = LAST.with_borrow(|last| last.as_ref().map(|port| port.clone_ref(py)));
        if let Some(port) = last {
            if port
                .get()
                .event_loop(py)
                .is_some_and(|known| known.is(&event_loop))
            {
                // A loop may have run in another thread in between.
                port.get().thread.store(this_thread(), Ordering::Relaxed);
                return Ok(Some(port));
            }
        }
        let ports = ports(py)?;
        let found = ports.call_method1(intern!(py, "get"), (&event_loop,))?;
        let port = if found.is_none() {
            let port = Py::new(
                py,
                Port {
                    event_loop: PyWeakrefReference::new(&event_loop)?.unbind(),
                    context: own_context(py)?,
                    ready: Mutex::new(Vec::new()),
                    scheduled: AtomicBool::new(false),
                    thread: AtomicU64::new(0),
                    pump: LastPump::default(),
                    bell: Mutex::new(None),
                    woken: AtomicU32::new(0),
                    #[cfg(target_os = "linux")]
                    alarm: Mutex::new(None),
                },
            )?;
            ports.set_item(&event_loop, &port)?;
            port
        } else {
            found.cast_into::<Port>()?.unbind()
        };
        port.get().thread.store(this_thread(), Ordering::Relaxed);
        let before = LAST.with_borrow_mut(|last| last.replace(port.clone_ref(py)));
        drop(before);
        Ok(Some(port))
    }

    /// The exact timer, if one was made.
    #[cfg(target_os = "linux")]
    pub(crate) fn alarm(&self) -> Option<Arc<Alarm>> {
        let alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        alarm.clone()
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn set_alarm(&self, alarm: Arc<Alarm>) {
        let mut known = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.replace(alarm);
        drop(known);
        drop(before);
    }

    /// The bell, if one was hung up.
    pub(crate) fn bell(&self) -> Option<Arc<Bell>> {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        bell.clone()
    }

    pub(crate) fn set_bell(&self, bell: Arc<Bell>) {
        let mut known = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.replace(bell);
        drop(known);
        drop(before);
    }

    /// The port whose tasks this thread is waking just now, if it is.
    #[inline]
    pub(crate) fn waking(py: Python<'_>) -> Option<Borrowed<'_, '_, Port>> {
        let waking = WAKING.get();
        if waking.is_null() {
            return None;
        }
        // SAFETY: attached. A port stands here while the `Waking` that put it here lives, which borrows
        // it, on this thread: while whoever asks runs, who was called from there.
        Some(unsafe { Borrowed::from_ptr(py, waking).cast_unchecked::<Port>() })
    }

    /// Whether this thread is waking the tasks of a port. Then PyO3 knows that it is attached.
    #[cfg(not(plain))]
    #[inline]
    pub(crate) fn is_waking() -> bool {
        !WAKING.get().is_null()
    }

    /// The pump that was last asked for on this loop.
    pub(crate) fn last_pump(&self) -> &LastPump {
        &self.pump
    }

    /// The weak reference to the loop; called, it returns the loop.
    #[cfg(not(plain))]
    pub(crate) fn loop_reference(&self) -> &Py<PyWeakrefReference> {
        &self.event_loop
    }

    /// The loop, while it lives.
    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.event_loop.bind(py).upgrade()
    }

    /// Whether the loop runs just now, in whatever thread.
    pub(crate) fn is_running(&self, py: Python<'_>) -> bool {
        self.event_loop(py).is_some_and(|event_loop| {
            let running = event_loop.call_method0(intern!(py, "is_running"));
            running.is_ok_and(|running| running.is_truthy().unwrap_or(false))
        })
    }

    /// Whether this thread is the loop's.
    pub(crate) fn is_here(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == this_thread()
    }

    /// Calls `callable` from the loop, soon. The error of a closed loop goes to the caller of this.
    pub(crate) fn call_soon(&self, py: Python<'_>, callable: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(event_loop) = self.event_loop(py) else {
            return Err(PyRuntimeError::new_err("the event loop is gone"));
        };
        // Inside the loop's own thread nobody has to be woken through a pipe.
        let name = if self.is_here() {
            intern!(py, "call_soon")
        } else {
            intern!(py, "call_soon_threadsafe")
        };
        let kwargs = self.context.bind(py);
        event_loop.getattr(name)?.call((callable,), Some(kwargs))?;
        Ok(())
    }

    /// Calls `callable` from the loop in `seconds`; only from the loop's own thread.
    pub(crate) fn call_later<'py>(
        &self,
        py: Python<'py>,
        seconds: f64,
        callable: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(event_loop) = self.event_loop(py) else {
            return Err(PyRuntimeError::new_err("the event loop is gone"));
        };
        let kwargs = self.context.bind(py);
        let later = event_loop.getattr(intern!(py, "call_later"))?;
        later.call((seconds, callable), Some(kwargs))
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, Vec<Ready>> {
        match self.ready.lock() {
            Ok(ready) => ready,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Adds what is to be called; true for the first since the last flush: `schedule` then.
    pub(crate) fn push(&self, mut ready: Vec<Ready>) -> bool {
        let mut known = self.ready();
        if known.is_empty() {
            *known = ready;
        } else {
            known.append(&mut ready);
        }
        drop(known);
        !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Has the loop flush. On a closed loop nobody is left to be told.
    pub(crate) fn schedule(slf: &Bound<'_, Self>) {
        let py = slf.py();
        if !slf.get().is_here() {
            if slf.get().bell().is_some_and(|bell| bell.ring_for_flush()) {
                return;
            }
            slf.get().woken.fetch_add(1, Ordering::Relaxed);
        }
        if insist(py, || slf.get().call_soon(py, slf.as_any())).is_err() {
            slf.get().scheduled.store(false, Ordering::Release);
            let gone = std::mem::take(&mut *slf.get().ready());
            drop(gone);
        }
    }

    /// While it runs, a flush is owed by the caller, who is inside the loop and in no task.
    pub(crate) fn hold(&self) -> bool {
        !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Wakes the tasks whose awaitables became done.
    pub(crate) fn flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let port = slf.get();
        if port.woken.load(Ordering::Relaxed) == OFTEN {
            port.woken.store(OFTEN + 1, Ordering::Relaxed);
            drop(Bell::of(slf)?);
        }
        let mut ready = std::mem::take(&mut *port.ready());
        port.scheduled.store(false, Ordering::Release);
        if ready.len() > AT_ONCE {
            port.put_back(slf, ready.split_off(AT_ONCE));
        }
        let _waking = Waking::of(slf);
        let mut ready = ready.into_iter();
        while let Some(next) = ready.next() {
            let Err(error) = next.call(slf.py()) else {
                continue;
            };
            let py = slf.py();
            if error.is_instance_of::<PyKeyboardInterrupt>(py)
                || error.is_instance_of::<PySystemExit>(py)
            {
                port.put_back(slf, ready.collect());
                return Err(error);
            }
            port.report(py, error)?;
        }
        Ok(())
    }

    /// Puts awaitables back in front of those that came meanwhile, for the next round of the loop.
    fn put_back(&self, slf: &Bound<'_, Self>, mut first: Vec<Ready>) {
        let mut ready = self.ready();
        first.append(&mut ready);
        *ready = first;
        drop(ready);
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            Self::schedule(slf);
        }
    }

    fn report(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let Some(event_loop) = self.event_loop(py) else {
            return Ok(());
        };
        let context = PyDict::new(py);
        context.set_item("message", "an error in a callback of a carpool awaitable")?;
        context.set_item("exception", error.into_value(py))?;
        event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))?;
        Ok(())
    }
}

#[pymethods]
impl Port {
    /// The port of the event loop that runs in this thread; None outside of one.
    #[staticmethod]
    fn here(py: Python<'_>) -> PyResult<Option<Py<Port>>> {
        Self::current(py)
    }

    /// Has `callable()` called from the loop; from any thread. However many come before the loop's next
    /// round, it is woken once. On a closed loop nothing happens.
    fn post(slf: &Bound<'_, Self>, callable: Py<PyAny>) {
        if slf.get().push(vec![Ready::Call(callable)]) {
            Self::schedule(slf);
        }
    }

    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _inside = Inside::go_on();
        Self::flush(slf)
    }

    fn __repr__(&self) -> &'static str {
        "<carpool wake-up>"
    }
}
