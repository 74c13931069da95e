//! Waiting in Python's threads: detached from the interpreter, yet open to signals; and seats for
//! event loops, which are told through a callback.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use carpool_core::park::Parker;
use carpool_core::{Batcher, Clock, Nanos, Pulled, SystemClock, timer};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::bare::Told;
use crate::batch::Batch;
use crate::border::PyBorder;
use crate::clock;
use crate::errands::{self, Errand};
use crate::guard;
use crate::shared::{Shared, epoch};

/// How often the main thread looks for signals while it waits. A signal between the look and the sleep
/// would otherwise be noticed only when the wait ends.
const SIGNALS: Nanos = 50_000_000;

thread_local! {
    static PARKER: Parker = Parker::here();
}

/// Runs `f` with the parking place of this thread.
pub(crate) fn with_parker<R>(f: impl FnOnce(&Parker) -> R) -> R {
    PARKER.with(f)
}

/// A wait that signals can end, where the interpreter handles signals in this thread.
pub(crate) struct Watch {
    main: bool,
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    static MAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let main = guard::once(&MAIN, py, || {
        Ok::<_, PyErr>(py.import("threading")?.getattr("main_thread")?.unbind())
    })?;
    let ident: u64 = main.bind(py).call0()?.getattr("ident")?.extract()?;
    // SAFETY: has no preconditions.
    Ok(ident == unsafe { pyo3::ffi::PyThread_get_thread_ident() } as u64)
}

impl Watch {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        thread_local! {
            static KNOWN: std::cell::Cell<Option<(u64, bool)>> = const { std::cell::Cell::new(None) };
        }
        // A thread that forks becomes the main one of the child.
        let main = match KNOWN.get() {
            Some((at, main)) if at == epoch() => main,
            _ => {
                // An interrupt that hits this very call must get out.
                let main = is_main_thread(py)?;
                KNOWN.set(Some((epoch(), main)));
                main
            }
        };
        Ok(Self { main })
    }

    /// Waits as a caller that may run its own batch: for that batch, or until there is nothing more to wait
    /// for.
    pub(crate) fn run(
        &self,
        py: Python<'_>,
        core: &Batcher<PyBorder>,
        parker: &Parker,
        ticket: &carpool_core::Ticket<PyBorder>,
    ) -> PyResult<Option<carpool_core::Batch<PyBorder>>> {
        let is_over = || ticket.request().reply().is_over();
        let mut pulled = core.pull_own(ticket);
        while let Pulled::Wait(until) = pulled {
            if is_over() {
                return Ok(None);
            }
            if self.main {
                self.park(py, parker, until)?;
                pulled = core.pull_own(ticket);
                continue;
            }
            // Those who only keep the time, or are woken for nothing, do without the interpreter.
            pulled = py.detach(|| {
                let mut pulled = Pulled::Wait(until);
                while let Pulled::Wait(until) = pulled {
                    if is_over() {
                        break;
                    }
                    if !clock::has_come(until) {
                        parker.park(clock::rest(until));
                    }
                    pulled = match is_over() {
                        true => Pulled::Wait(None),
                        false => core.pull_own(ticket),
                    };
                }
                pulled
            });
        }
        Ok(match pulled {
            Pulled::Batch(batch) => Some(batch),
            Pulled::Wait(_) | Pulled::Closed => None,
        })
    }

    /// Sleeps once, no longer than to `until`; may return early.
    pub(crate) fn park(
        &self,
        py: Python<'_>,
        parker: &Parker,
        until: Option<Nanos>,
    ) -> PyResult<()> {
        if clock::has_come(until) {
            return Ok(());
        }
        self.park_for(py, parker, clock::rest(until))
    }

    /// Sleeps once, at most so long; may return early.
    pub(crate) fn park_for(
        &self,
        py: Python<'_>,
        parker: &Parker,
        rest: Option<Nanos>,
    ) -> PyResult<()> {
        if self.main {
            py.detach(|| parker.park(Some(rest.unwrap_or(SIGNALS).min(SIGNALS))));
            py.check_signals()
        } else {
            py.detach(|| parker.park(rest));
            Ok(())
        }
    }

    /// Sleeps until `done`, which whoever makes it true follows with a wake.
    pub(crate) fn wait(
        &self,
        py: Python<'_>,
        parker: &Parker,
        done: impl Fn() -> bool + Sync,
    ) -> PyResult<()> {
        while !done() {
            let slice = self.main.then_some(SIGNALS);
            py.detach(|| {
                while !done() {
                    parker.park(slice);
                    if slice.is_some() {
                        break;
                    }
                }
            });
            if self.main {
                py.check_signals()?;
            }
        }
        Ok(())
    }

    /// Waits for a batch in a seat, no longer than to `until` on the machine's clock; wakes those who have been
    /// `told` first.
    pub(crate) fn pull(
        &self,
        py: Python<'_>,
        seat: &mut carpool_core::Seat<PyBorder>,
        parker: &Parker,
        size: usize,
        until: Option<Nanos>,
        told: Told,
    ) -> PyResult<Pulled<PyBorder>> {
        let mut told = Some(told);
        loop {
            let slice = self.main.then(|| SystemClock.now().saturating_add(SIGNALS));
            let limit = [slice, until].into_iter().flatten().min();
            let pulled = py.detach(|| {
                drop(told.take());
                pull(seat, parker, size, limit)
            });
            match pulled {
                Pulled::Wait(_) if until.is_none_or(|until| SystemClock.now() < until) => {
                    py.check_signals()?;
                }
                other => return Ok(other),
            }
        }
    }
}

/// Blocks this thread until there is a batch, the batcher is closed and drained, or `limit` has come.
fn pull(
    seat: &mut carpool_core::Seat<PyBorder>,
    parker: &Parker,
    size: usize,
    limit: Option<Nanos>,
) -> Pulled<PyBorder> {
    loop {
        let timer = match seat.poll(parker.waker(), size) {
            Pulled::Wait(timer) => timer,
            other => return other,
        };
        let left = limit.map(|limit| limit.saturating_sub(SystemClock.now()));
        if left == Some(0) {
            seat.leave();
            return Pulled::Wait(timer);
        }
        if !clock::has_come(timer) {
            parker.park([clock::rest(timer), left].into_iter().flatten().min());
        }
    }
}

/// Calls a Python callable; whoever wakes may be detached.
pub(crate) struct Callback(Py<PyAny>);

impl Callback {
    pub(crate) fn call(&self, py: Python<'_>) {
        if let Err(error) = self.0.call0(py) {
            error.write_unraisable(py, Some(self.0.bind(py)));
        }
    }
}

impl Wake for Callback {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if timer::is_here() {
            return errands::post(Errand::Call(self.clone()));
        }
        Python::attach(|py| self.call(py));
    }
}

/// A waker that calls `callback()`.
pub(crate) fn callback_waker(callback: Py<PyAny>) -> Waker {
    Arc::new(Callback(callback)).into()
}

/// A place in the line of those who wait for a batch, for whoever must not block.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Seat {
    engine: Arc<Shared>,
    seat: Mutex<carpool_core::Seat<PyBorder>>,
}

impl Seat {
    pub(crate) fn new(engine: Arc<Shared>) -> Self {
        let seat = Mutex::new(engine.core.seat());
        Self { engine, seat }
    }
}

#[pymethods]
impl Seat {
    /// A Batch; or a float, the seconds after which to poll again; or None, to wait for `callback()`,
    /// which comes from any thread and in both cases; or False, closed and drained.
    fn poll(
        &self,
        py: Python<'_>,
        callback: Py<PyAny>,
        max_size: Option<usize>,
    ) -> PyResult<Py<PyAny>> {
        let waker = callback_waker(callback);
        let pulled = loop {
            let mut seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner);
            match seat.poll(&waker, max_size.unwrap_or(usize::MAX)) {
                Pulled::Wait(until) if clock::has_come(until) => {}
                pulled => break pulled,
            }
        };
        Ok(match pulled {
            Pulled::Batch(batch) => Batch::wrap(py, &self.engine, batch)?.into_any(),
            Pulled::Wait(until) => match clock::rest(until) {
                None => py.None(),
                Some(rest) => {
                    let seconds = rest as f64 / 1e9;
                    seconds.into_pyobject(py)?.into_any().unbind()
                }
            },
            Pulled::Closed => false.into_pyobject(py)?.to_owned().into_any().unbind(),
        })
    }

    /// Stops waiting.
    fn leave(&self) {
        self.seat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leave();
    }
}
