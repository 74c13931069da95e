//! Submitting from Python: three ways of calling, one queue.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use carpool_core::submit::Announce;
use carpool_core::{Batcher, Clock, Learning, Limits, Nanos, Overflow, Pulled, Sizes, SystemClock};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::asks::Asks;
use crate::awaiting::call_awaiting;
use crate::bare::Told;
use crate::batch::Batch;
use crate::border::{FutureEnd, Held, Payload, Waiter};
use crate::calling::call_blocking;
use crate::clock::PyClock;
use crate::desk::Desk;
use crate::effort;
use crate::guard::Inside;
use crate::leaving::Leaving;
use crate::port::Port;
use crate::pump::{Pump, Pumps};
use crate::reader::Steps;
use crate::run::{self, Chain, Run};
use crate::seat::{Seat, Watch, with_parker};
use crate::shared::{ENGINES, Executor, Shared, epoch};
use crate::terms::Standing;
use crate::ticket::Ticket;
use crate::waits::{Waiting, Waits};
use crate::watching::Watchers;
use crate::window::{AskedOfMany, Convoy, Window, call_many};
use crate::worker::Worker;

/// One batcher of the core, in this process.
#[pyclass(frozen, weakref, module = "carpool._core")]
pub(crate) struct Engine(pub(crate) Arc<Shared>);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, name, max_batch_size, wait_ns, max_queue, overflow, slots, executor,
                        max_batch_cost=None, padded_cost=false, look_ahead=0, length_window=0,
                        gather=true, timeout_ns=None, age_ns=0,
                        batch_sizes=None, refuse_late=false, target_ns=None, on_request=None, sample_rate=1.0, slow_ns=None,
                        keep_timings=false, steps=16, inline=false))]
    #[allow(clippy::too_many_arguments, reason = "one per option, all by keyword")]
    fn new(
        name: String,
        max_batch_size: usize,
        wait_ns: u64,
        max_queue: usize,
        overflow: &str,
        slots: Option<usize>,
        executor: &str,
        max_batch_cost: Option<u64>,
        padded_cost: bool,
        look_ahead: usize,
        length_window: usize,
        gather: bool,
        timeout_ns: Option<Nanos>,
        age_ns: Nanos,
        batch_sizes: Option<Vec<usize>>,
        refuse_late: bool,
        target_ns: Option<Nanos>,
        on_request: Option<Py<PyAny>>,
        sample_rate: f64,
        slow_ns: Option<Nanos>,
        keep_timings: bool,
        steps: usize,
        inline: bool,
    ) -> PyResult<Self> {
        let overflow = match overflow {
            "raise" => Overflow::Raise,
            "wait" => Overflow::Wait,
            "shed" => Overflow::Shed,
            other => return Err(PyValueError::new_err(format!("overflow: {other:?}"))),
        };
        let executor = match executor {
            "thread" => Executor::Thread,
            "loop" => Executor::Loop,
            "caller" => Executor::Caller,
            other => return Err(PyValueError::new_err(format!("executor: {other:?}"))),
        };
        let limits = Limits {
            max_batch_size,
            max_batch_cost: max_batch_cost.unwrap_or(u64::MAX),
            padded: padded_cost,
            look_ahead,
            length_window,
            length_age: age_ns,
            wait: wait_ns,
            max_queue,
            overflow,
            slots: slots.unwrap_or(usize::MAX),
            gather,
            steps,
        };
        let learning = Learning {
            sizes: batch_sizes.as_deref().and_then(Sizes::new),
            target: target_ns,
            refuse_late,
        };
        let core = Batcher::learning(limits, learning, PyClock)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let watchers = Watchers { hook: on_request };
        watchers.ask(&core, sample_rate, slow_ns);
        if keep_timings {
            core.keep_times();
        }
        Ok(Self(Arc::new(Shared {
            core,
            name,
            executor,
            epoch: epoch(),
            number: ENGINES.fetch_add(1, Ordering::Relaxed),
            pumps: Pumps::default(),
            standing: Standing::new(timeout_ns, age_ns),
            dead: Mutex::new(None),
            keys: Arc::default(),
            watchers,
            keeps_timings: keep_timings,
            leaving: Leaving::default(),
            inline,
            waits: Waits::default(),
        })))
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it belongs to this process.
    #[getter]
    fn is_ours(&self) -> bool {
        self.0.epoch == epoch()
    }

    /// Whether it takes no more requests.
    #[getter]
    fn closed(&self) -> bool {
        self.0.core.is_closed()
    }

    /// Who runs the handler: "thread", "loop" or "caller".
    #[getter]
    fn executor(&self) -> &'static str {
        match self.0.executor {
            Executor::Thread => "thread",
            Executor::Loop => "loop",
            Executor::Caller => "caller",
        }
    }

    /// Whether whoever submits runs the handler.
    #[getter]
    fn inline(&self) -> bool {
        self.0.inline
    }

    /// Whether nothing is pending and nothing in flight.
    #[getter]
    fn idle(&self) -> bool {
        self.0.core.is_idle()
    }

    /// How many requests are pending.
    #[getter]
    fn pending(&self) -> usize {
        self.0.core.pending()
    }

    /// How many different keys its requests have.
    #[getter]
    fn keys(&self) -> usize {
        self.0.keys.len()
    }

    /// The answer to `item`; blocks.
    #[pyo3(signature = (owner, item, *, asks=None, deadline_ns=None, cost=1, urgency_ns=0, key=None))]
    #[allow(clippy::too_many_arguments, reason = "one per term, all by keyword")]
    fn call(
        &self,
        py: Python<'_>,
        owner: Py<PyAny>,
        item: Py<PyAny>,
        asks: Option<&Bound<'_, Asks>>,
        deadline_ns: Option<Nanos>,
        cost: u64,
        urgency_ns: i64,
        key: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(py)?;
        let asked = match asks {
            Some(asks) => asks.get().of(py, &self.0, &item)?,
            None => self.0.asked(deadline_ns, cost, urgency_ns, key),
        };
        call_blocking(&self.0, py, owner, item, &asked)
    }

    /// An awaitable of the answer to `item`.
    #[pyo3(signature = (owner, item, *, asks=None, deadline_ns=None, cost=1, urgency_ns=0, key=None))]
    #[allow(clippy::too_many_arguments, reason = "one per term, all by keyword")]
    fn acall(
        slf: &Bound<'_, Self>,
        owner: Py<PyAny>,
        item: Py<PyAny>,
        asks: Option<&Bound<'_, Asks>>,
        deadline_ns: Option<Nanos>,
        cost: u64,
        urgency_ns: i64,
        key: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let _inside = Inside::enter(py)?;
        let asked = match asks {
            Some(asks) => asks.get().of(py, &slf.get().0, &item)?,
            None => slf.get().0.asked(deadline_ns, cost, urgency_ns, key),
        };
        call_awaiting(slf.as_borrowed(), py, owner, item, &asked, None)
    }

    /// Submits `item`; the outcome goes to `future._resolve(value)` or `future._reject(error)`.
    #[pyo3(signature = (owner, item, future, *, asks=None, deadline_ns=None, cost=1, urgency_ns=0,
                        key=None))]
    #[allow(clippy::too_many_arguments, reason = "one per term, all by keyword")]
    fn submit(
        &self,
        py: Python<'_>,
        owner: Py<PyAny>,
        item: Py<PyAny>,
        future: Py<PyAny>,
        asks: Option<&Bound<'_, Asks>>,
        deadline_ns: Option<Nanos>,
        cost: u64,
        urgency_ns: i64,
        key: Option<Py<PyAny>>,
    ) -> PyResult<Ticket> {
        let _inside = Inside::enter(py)?;
        let shared = &self.0;
        let pump = match (shared.executor, Port::current(py)?) {
            (Executor::Loop, None) => return Err(shared.no_loop()),
            (Executor::Loop, Some(port)) => Some(shared.pumps.of(py, shared, &port)?),
            _ => None,
        };
        let origin = shared.origin(py, false)?;
        let inside = origin.clone();
        let announce = if pump.is_some() {
            Announce::No
        } else {
            Announce::Yes
        };
        let asked = match asks {
            Some(asks) => asks.get().of(py, shared, &item)?,
            None => shared.asked(deadline_ns, cost, urgency_ns, key),
        };
        let payload = Payload {
            item,
            owner,
            extra: None,
        };
        with_parker(|parker| {
            let let_in = parker.waker().clone();
            let waiter = Waiter::Future(Box::new(FutureEnd {
                future: Held::new(future),
                let_in,
                engine: shared.clone(),
                moments: OnceLock::new(),
            }));
            shared.core.keep_times();
            let ticket = shared.submit(py, payload, origin, waiter, announce, &asked)?;
            if let Some(pump) = pump {
                Pump::nudge(&pump, shared)?;
            }
            let reply = ticket.request().reply();
            if reply.is_in_lobby() {
                let waited = (|| {
                    shared.check_wait(py, "a submit that waits for room")?;
                    let _waiting = Waiting::note(shared, inside.as_ref(), ticket.request());
                    Watch::new(py)?.wait(py, parker, || !reply.is_in_lobby())
                })();
                if let Err(error) = waited {
                    drop((ticket.cancel(), ticket.request().reclaim()));
                    shared.tell_due(py);
                    return Err(error);
                }
            }
            Ok(Ticket {
                ticket: ticket.clone(),
                engine: shared.clone(),
            })
        })
    }

    /// Submits `item` for whoever reads its steps. `blocks`: this thread may wait for room in the queue.
    #[pyo3(signature = (owner, item, *, blocks, asks=None))]
    fn stream(
        &self,
        py: Python<'_>,
        owner: Py<PyAny>,
        item: Py<PyAny>,
        blocks: bool,
        asks: Option<&Bound<'_, Asks>>,
    ) -> PyResult<Steps> {
        let _inside = Inside::enter(py)?;
        let asked = match asks {
            Some(asks) => asks.get().of(py, &self.0, &item)?,
            None => self.0.asked(None, 1, 0, None),
        };
        Steps::submit(&self.0, py, owner, item, blocks, &asked)
    }

    /// The outcome of each of `items`, in order: its result, or the exception in its place. Blocks.
    #[pyo3(signature = (owner, items, *, together=false, asks=None, deadline_ns=None, cost=1,
                        urgency_ns=0, key=None))]
    #[allow(clippy::too_many_arguments, reason = "one per term, all by keyword")]
    fn call_many(
        &self,
        py: Python<'_>,
        owner: Py<PyAny>,
        items: &Bound<'_, PyAny>,
        together: bool,
        asks: Option<&Bound<'_, Asks>>,
        deadline_ns: Option<Nanos>,
        cost: u64,
        urgency_ns: i64,
        key: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyList>> {
        let _inside = Inside::enter(py)?;
        let asked = match asks {
            Some(asks) => AskedOfMany::Measured(asks.get()),
            None => AskedOfMany::Alike(self.0.asked(deadline_ns, cost, urgency_ns, key)),
        };
        call_many(&self.0, py, &owner, items, &asked, together)
    }

    /// Submits `items`; `callback()` comes when all have their outcomes, or whenever some more have.
    #[pyo3(signature = (owner, items, callback, *, per_step=false, asks=None, convoy=None, deadline_ns=None,
                        cost=1, urgency_ns=0, key=None))]
    #[allow(clippy::too_many_arguments, reason = "one per term, all by keyword")]
    fn submit_many(
        &self,
        py: Python<'_>,
        owner: Py<PyAny>,
        items: &Bound<'_, PyAny>,
        callback: Py<PyAny>,
        per_step: bool,
        asks: Option<&Bound<'_, Asks>>,
        convoy: Option<&Bound<'_, Convoy>>,
        deadline_ns: Option<Nanos>,
        cost: u64,
        urgency_ns: i64,
        key: Option<Py<PyAny>>,
    ) -> PyResult<Window> {
        let _inside = Inside::enter(py)?;
        let asked = match asks {
            Some(asks) => AskedOfMany::Measured(asks.get()),
            None => AskedOfMany::Alike(self.0.asked(deadline_ns, cost, urgency_ns, key)),
        };
        let convoy = convoy.map(Bound::get);
        Window::submit(
            &self.0, py, &owner, items, callback, per_step, &asked, convoy,
        )
    }

    /// Blocks for a batch. None: nothing now (`block=False`), the time is over, or closed and drained.
    #[pyo3(signature = (max_size=None, timeout_ns=None))]
    fn next_batch(
        &self,
        py: Python<'_>,
        max_size: Option<usize>,
        timeout_ns: Option<u64>,
    ) -> PyResult<Option<Py<Batch>>> {
        let _inside = Inside::go_on();
        let size = max_size.unwrap_or(usize::MAX);
        let pulled = if timeout_ns == Some(0) {
            self.0.core.try_pull(size)
        } else {
            let until = timeout_ns.map(|timeout| SystemClock.now().saturating_add(timeout));
            let core = &self.0.core;
            let due = || {
                let pulled = (core.pending() > 0).then(|| core.try_pull(size))?;
                matches!(pulled, Pulled::Batch(_)).then_some(Ok(pulled))
            };
            let wait = || {
                let mut seat = core.seat();
                with_parker(|parker| {
                    Watch::new(py)?.pull(py, &mut seat, parker, size, until, Told::default())
                })
            };
            effort::next(due, wait)?
        };
        match pulled {
            Pulled::Batch(batch) => Ok(Some(Batch::wrap(py, &self.0, batch)?)),
            Pulled::Wait(_) | Pulled::Closed => Ok(None),
        }
    }

    /// A worker thread's end of this engine.
    fn worker(&self, desk: Py<Desk>) -> Worker {
        Worker::new(self.0.clone(), desk)
    }

    /// A place to wait for batches without blocking.
    fn seat(&self) -> Seat {
        Seat::new(self.0.clone())
    }

    /// Refuses (WouldDeadlock) a wait that could never end.
    fn check_wait(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        self.0.check_wait(py, what)
    }

    /// Refuses (WouldDeadlock) a wait for the handler inside which this is called.
    fn check_chain(&self, py: Python<'_>) -> PyResult<()> {
        match run::current(py) {
            Some(chain) => self.0.check_chain(py, &chain),
            None => Ok(()),
        }
    }

    /// Refuses (WouldDeadlock) to wait inside a handler until all batches have ended.
    fn check_end(&self, py: Python<'_>) -> PyResult<()> {
        self.0.check_end(py)
    }

    /// What a worker thread of this engine sets `running` to: whoever waits there waits for itself.
    fn on_worker(&self) -> Run {
        Run::new(Chain::worker(self.0.number), None)
    }

    /// Other numbers, all of them or none, from the next decision on. ValueError: one cannot be kept to.
    #[pyo3(signature = (*, max_batch_size, wait_ns, max_queue, slots, max_batch_cost=None,
                        look_ahead=0, length_window=0, timeout_ns=None,
                        age_ns=0,
                        sample_rate=1.0, slow_ns=None, target_ns=None, steps=16))]
    #[allow(clippy::too_many_arguments, reason = "one per option, all by keyword")]
    fn configure(
        &self,
        py: Python<'_>,
        max_batch_size: usize,
        wait_ns: u64,
        max_queue: usize,
        slots: Option<usize>,
        max_batch_cost: Option<u64>,
        look_ahead: usize,
        length_window: usize,
        timeout_ns: Option<Nanos>,
        age_ns: Nanos,
        sample_rate: f64,
        slow_ns: Option<Nanos>,
        target_ns: Option<Nanos>,
        steps: usize,
    ) -> PyResult<()> {
        let core = &self.0.core;
        let limits = Limits {
            max_batch_size,
            max_batch_cost: max_batch_cost.unwrap_or(u64::MAX),
            look_ahead,
            length_window,
            length_age: age_ns,
            wait: wait_ns,
            max_queue,
            slots: slots.unwrap_or(usize::MAX),
            steps,
            ..core.limits()
        };
        core.configure_aiming(limits, target_ns)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.0.standing.change(timeout_ns, age_ns);
        self.0.watchers.ask(core, sample_rate, slow_ns);
        // Loops look at their timers and for slots by themselves.
        self.0.pumps.wake_all(py);
        Ok(())
    }

    /// Makes everything pending leave as soon as a slot is free.
    fn flush(&self, py: Python<'_>) {
        self.0.core.flush();
        self.0.pumps.wake_all(py);
    }

    /// Takes no more requests; what is pending runs (`drain`) or fails. Does not wait.
    fn close(&self, py: Python<'_>, drain: bool) {
        self.0.core.close(drain);
        self.0.pumps.wake_all(py);
        self.0.tell_due(py);
    }

    /// Closes for ever: pending and later callers get a copy of `error`.
    fn die(&self, py: Python<'_>, error: Py<PyAny>) {
        self.0.die(py, error);
    }

    /// Blocks until a closed batcher has ended; False when the time was over.
    #[pyo3(signature = (timeout_ns=None))]
    fn wait_ended(&self, py: Python<'_>, timeout_ns: Option<u64>) -> PyResult<bool> {
        let core = &self.0.core;
        // As real as who waits, also where the batchers' clock stands.
        let until = timeout_ns.map(|timeout| SystemClock.now().saturating_add(timeout));
        with_parker(|parker| {
            let watch = Watch::new(py)?;
            loop {
                if core.poll_ended(parker.waker()) {
                    return Ok(true);
                }
                let rest = until.map(|until| until.saturating_sub(SystemClock.now()));
                if rest == Some(0) {
                    return Ok(false);
                }
                watch.park_for(py, parker, rest)?;
            }
        })
    }

    /// Whether a closed batcher has ended; if not, `callback()` is called when it has, from any thread.
    fn poll_ended(&self, callback: Py<PyAny>) -> bool {
        self.0
            .core
            .poll_ended(&crate::seat::callback_waker(callback))
    }

    /// All figures, raw: counts by name, reasons by name, and three histograms in nanoseconds.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = self.0.core.snapshot();
        let stats = PyDict::new(py);
        for (name, value) in [
            ("submitted", snapshot.submitted),
            ("answered", snapshot.answered),
            ("failed", snapshot.failed),
            ("cancelled", snapshot.cancelled),
            ("rejected", snapshot.rejected),
            ("shed", snapshot.shed),
            ("expired", snapshot.expired),
            ("slow", snapshot.slow),
            ("pending", snapshot.pending),
            ("in_flight", snapshot.in_flight),
            ("batches", snapshot.batches),
        ] {
            stats.set_item(name, value)?;
        }
        let reasons = PyDict::new(py);
        for (reason, count) in carpool_core::Reason::ALL.iter().zip(snapshot.reasons) {
            reasons.set_item(reason.name(), count)?;
        }
        stats.set_item("reasons", reasons)?;
        let slots = Some(snapshot.slots).filter(|&slots| slots != usize::MAX);
        stats.set_item("slots", slots)?;
        stats.set_item("open_ns", snapshot.open)?;
        stats.set_item("oldest_ns", snapshot.oldest.unwrap_or(0))?;
        stats.set_item("padding", snapshot.padding)?;
        for (name, histogram) in [
            ("inside", &snapshot.inside),
            ("batch_sizes", &snapshot.sizes),
            ("wait_ns", &snapshot.waits),
            ("run_ns", &snapshot.runs),
        ] {
            let figures = (
                histogram.count(),
                histogram.mean(),
                histogram.min(),
                histogram.max(),
                histogram.buckets(),
            );
            stats.set_item(name, figures)?;
        }
        Ok(stats)
    }

    /// The clock has been moved, or runs again: whatever is due by now is to be seen to.
    fn _clock_moved(&self, py: Python<'_>, runs: bool) {
        let core = &self.0.core;
        core.expire_due();
        if runs {
            core.rearm();
            // Nothing is to be held by a moment of the clock that stood.
            core.flush();
        } else {
            core.look();
        }
        self.0.pumps.wake_all(py);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.0.watchers.hook)
    }

    /// Monotonic nanoseconds of the core's clock.
    fn now(&self) -> Nanos {
        self.0.core.now()
    }

    fn __repr__(&self) -> String {
        format!("<carpool engine {}>", self.0.name)
    }
}

/// Items of several parameters, or given by keyword, are bound in the caller's thread.
pub(crate) fn bind(
    py: Python<'_>,
    binder: &Py<PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyAny>> {
    match kwargs {
        None => binder.call1(py, (args, PyDict::new(py))),
        Some(kwargs) => binder.call1(py, (args, kwargs)),
    }
}
