//! Slots on event loops: a batcher whose handler runs on its callers' loops.
//!
//! Each loop that has submitted keeps a pump per batcher. A pump is idle, scheduled (a call of it is
//! on its way), timed (the loop calls it when the oldest request is due) or parked (every slot is
//! taken). A submit schedules an idle pump, and a timed one if the batch became full. The end of a
//! batch wakes the parked ones. Every loop keeps its own timer (an exact one where it can: see
//! [`alarm`](crate::alarm)), so a loop that stops blocks nobody;
//! a batch in flight on a loop that has stopped is abandoned by the next pump that needs its slot.

use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::guard::intern;
use carpool_core::{Nanos, Pulled};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

#[cfg(target_os = "linux")]
use crate::alarm::Alarm;
use crate::batch::Batch;
use crate::call::Call;
use crate::clock;
use crate::guard::{Inside, insist};
use crate::port::Port;
use crate::shared::Shared;

const IDLE: u8 = 0;
const SCHEDULED: u8 = 1;
const TIMED: u8 = 2;
const PARKED: u8 = 3;

/// How long a parked pump trusts the loop of another to be running, in seconds. A loop that stops
/// tells nobody.
const TRUST: f64 = 0.1;

/// The pumps of one batcher, and the batches in flight on its loops.
#[derive(Default)]
pub(crate) struct Pumps {
    all: Mutex<Vec<Py<Pump>>>,
    running: Mutex<Vec<(Py<Port>, Py<PyWeakrefReference>)>>,
}

/// The pump that was last asked for on a loop, and its engine's number. Borrowed: it is good for as long as that
/// engine lives, which owns its pumps, and the loop, whose pump it keeps. The GIL keeps the two together.
pub(crate) struct LastPump {
    engine: AtomicU64,
    pump: AtomicPtr<ffi::PyObject>,
}

impl Default for LastPump {
    fn default() -> Self {
        Self {
            engine: AtomicU64::new(u64::MAX),
            pump: AtomicPtr::new(std::ptr::null_mut()),
        }
    }
}

fn unpoisoned<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pumps {
    /// The pump of a loop.
    #[inline]
    pub(crate) fn of<'py>(
        &self,
        py: Python<'py>,
        engine: &Arc<Shared>,
        port: &Py<Port>,
    ) -> PyResult<Bound<'py, Pump>> {
        let last = port.get().last_pump();
        if !cfg!(Py_GIL_DISABLED) && last.engine.load(Ordering::Relaxed) == engine.number {
            // SAFETY: attached. The engine is alive, and it drops a pump of its own only once its loop is
            // gone: this one runs, it is asking. No two engines have one number.
            let pump = unsafe {
                Borrowed::from_ptr(py, last.pump.load(Ordering::Relaxed)).cast_unchecked::<Pump>()
            };
            return Ok(pump.to_owned());
        }
        self.look_up(py, engine, port)
    }

    #[inline(never)]
    fn look_up<'py>(
        &self,
        py: Python<'py>,
        engine: &Arc<Shared>,
        port: &Py<Port>,
    ) -> PyResult<Bound<'py, Pump>> {
        let last = port.get().last_pump();
        let pump = self.find(py, engine, port)?.into_bound(py);
        last.engine.store(engine.number, Ordering::Relaxed);
        last.pump.store(pump.as_ptr(), Ordering::Relaxed);
        Ok(pump)
    }

    fn find(&self, py: Python<'_>, engine: &Arc<Shared>, port: &Py<Port>) -> PyResult<Py<Pump>> {
        let known = unpoisoned(&self.all);
        if let Some(pump) = known.iter().find(|pump| pump.get().port.is(port)) {
            return Ok(pump.clone_ref(py));
        }
        drop(known);
        let pump = Py::new(
            py,
            Pump {
                engine: Arc::downgrade(engine),
                port: port.clone_ref(py),
                state: AtomicU8::new(IDLE),
                timer: Mutex::new(None),
            },
        )?;
        let mut known = unpoisoned(&self.all);
        let (live, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut *known)
            .into_iter()
            .partition(|pump| pump.get().port.get().event_loop(py).is_some());
        *known = live;
        known.push(pump.clone_ref(py));
        drop(known);
        drop(gone);
        Ok(pump)
    }

    fn each(&self, py: Python<'_>, which: impl Fn(u8) -> bool) {
        let known = unpoisoned(&self.all);
        let chosen: Vec<_> = known
            .iter()
            .filter(|pump| which(pump.get().state.load(Ordering::Acquire)))
            .map(|pump| pump.clone_ref(py))
            .collect();
        drop(known);
        for pump in chosen {
            Pump::schedule(pump.bind(py));
        }
    }

    /// A slot is free: who waits for one looks again.
    pub(crate) fn wake_parked(&self, py: Python<'_>) {
        self.each(py, |state| state == PARKED);
    }

    /// Everything may be due: a flush, a close.
    pub(crate) fn wake_all(&self, py: Python<'_>) {
        self.each(py, |state| state == PARKED || state == TIMED);
    }

    /// Notes a batch in flight; forgets those that have ended.
    pub(crate) fn note(&self, py: Python<'_>, port: Py<Port>, batch: &Py<Batch>) -> PyResult<()> {
        batch.get().runs_at(port.clone_ref(py));
        let reference = PyWeakrefReference::new(batch.bind(py).as_any())?.unbind();
        let mut running = unpoisoned(&self.running);
        running.push((port, reference));
        if running.len() > 8 {
            let all = std::mem::take(&mut *running);
            drop(running);
            let live = all
                .into_iter()
                .filter(|(_, reference)| in_flight(py, reference).is_some());
            let mut live: Vec<_> = live.collect();
            unpoisoned(&self.running).append(&mut live);
        }
        Ok(())
    }

    /// Abandons batches on loops that have stopped. How many, and whether a running loop other than
    /// `own` has one.
    fn check_homes(&self, py: Python<'_>, own: &Py<Port>) -> (usize, bool) {
        let running = std::mem::take(&mut *unpoisoned(&self.running));
        let (mut kept, mut foreign, mut abandoned) = (Vec::new(), false, 0);
        for (port, reference) in running {
            let Some(batch) = in_flight(py, &reference) else {
                continue;
            };
            if !port.is(own) {
                if !port.get().is_running(py) {
                    batch.get().abandon(py);
                    abandoned += 1;
                    continue;
                }
                foreign = true;
            }
            kept.push((port, reference));
        }
        unpoisoned(&self.running).append(&mut kept);
        (abandoned, foreign)
    }
}

/// The batch behind a reference, while it is unanswered.
fn in_flight<'py>(
    py: Python<'py>,
    reference: &Py<PyWeakrefReference>,
) -> Option<Bound<'py, Batch>> {
    let batch = reference.bind(py).upgrade_as::<Batch>().ok().flatten()?;
    (!batch.get().ended()).then_some(batch)
}

/// One loop's slot in one batcher; what the loop calls.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Pump {
    /// The engine owns its pumps.
    engine: Weak<Shared>,
    port: Py<Port>,
    state: AtomicU8,
    timer: Mutex<Option<Py<PyAny>>>,
}

impl Pump {
    /// After a submit from this loop.
    #[inline]
    pub(crate) fn nudge(slf: &Bound<'_, Self>, engine: &Shared) -> PyResult<()> {
        let pump = slf.get();
        let wake = match pump.state.load(Ordering::Acquire) {
            IDLE => true,
            TIMED => engine.core.pending() >= engine.core.max_batch_size(),
            _ => false,
        };
        if wake {
            Self::schedule(slf);
        }
        Ok(())
    }

    /// Has the loop call the pump; a closed loop runs nothing any more.
    fn schedule(slf: &Bound<'_, Self>) {
        let (py, pump) = (slf.py(), slf.get());
        if pump.state.swap(SCHEDULED, Ordering::AcqRel) != IDLE {
            Self::drop_timer(slf);
        }
        if insist(py, || pump.port.get().call_soon(py, slf.as_any())).is_err() {
            pump.state.store(IDLE, Ordering::Release);
        }
    }

    /// Has the loop call the pump at `until`.
    fn wait_until(slf: &Bound<'_, Self>, until: Nanos, now: Nanos) -> PyResult<()> {
        if clock::is_still() {
            // Whoever moves the clock schedules those who are timed, as this one is by now.
            if clock::has_come(Some(until)) {
                Self::schedule(slf);
            }
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        if Alarm::of(slf.get().port.bind(slf.py()))?.set(until, slf) {
            return Ok(());
        }
        Self::call_later(slf, until.saturating_sub(now) as f64 / 1e9)
    }

    fn drop_timer(slf: &Bound<'_, Self>) {
        let py = slf.py();
        #[cfg(target_os = "linux")]
        if let Some(alarm) = slf.get().port.get().alarm() {
            alarm.forget(slf);
        }
        let timer = unpoisoned(&slf.get().timer).take();
        if let Some(timer) = timer {
            // Cancelling a handle of the loop only marks it, from whatever thread.
            if let Err(error) = timer.call_method0(py, intern!(py, "cancel")) {
                error.write_unraisable(py, None);
            }
        }
    }

    fn call_later(slf: &Bound<'_, Self>, seconds: f64) -> PyResult<()> {
        let timer = slf
            .get()
            .port
            .get()
            .call_later(slf.py(), seconds, slf.as_any())?;
        let before = unpoisoned(&slf.get().timer).replace(timer.unbind());
        drop(before);
        Ok(())
    }

    /// Runs a batch on this loop if one of its requests came from here, else on a running loop that
    /// owns one; if there is none (all have stopped), here.
    fn start(slf: &Bound<'_, Self>, engine: &Shared, batch: Py<Batch>) -> PyResult<()> {
        let py = slf.py();
        let here = &slf.get().port;
        if batch.get().begins_on(here) && Self::start_directly(slf, engine, &batch)? {
            return Ok(());
        }
        let owners = batch.get().ports(py);
        if !owners.is_empty() && !owners.iter().any(|port| port.is(here)) {
            for port in owners {
                if !port.get().is_running(py) {
                    continue;
                }
                let run = batch
                    .get()
                    .owner(py)
                    .getattr(py, intern!(py, "_run_on_loop"))?;
                let Some(event_loop) = port.get().event_loop(py) else {
                    continue;
                };
                let partial = py.import("functools")?.getattr("partial")?;
                let call = partial.call1((run, &batch, event_loop))?;
                if port.get().call_soon(py, &call).is_ok() {
                    engine.pumps.note(py, port, &batch)?;
                    return Ok(());
                }
            }
        }
        engine.pumps.note(py, here.clone_ref(py), &batch)?;
        // Whatever a synchronous handler makes ready is woken by this very call.
        let Some(event_loop) = here.get().event_loop(py) else {
            return Ok(());
        };
        let held = here.get().hold();
        let run = batch.get().owner(py).call_method1(
            py,
            intern!(py, "_run_on_loop"),
            (batch, event_loop),
        );
        let flushed = if held {
            Port::flush(here.bind(py))
        } else {
            Ok(())
        };
        run?;
        flushed
    }

    /// Runs a batch here with no more ado, if its handler allows that. False: nothing was done.
    fn start_directly(slf: &Bound<'_, Self>, engine: &Shared, batch: &Py<Batch>) -> PyResult<bool> {
        let py = slf.py();
        let here = &slf.get().port;
        let owner = batch.get().owner(py).into_bound(py);
        let Some(direct) = owner
            .cast::<Call>()
            .ok()
            .and_then(|call| call.get().direct())
        else {
            return Ok(false);
        };
        let Some(event_loop) = here.get().event_loop(py) else {
            return Ok(false);
        };
        let held = here.get().hold();
        let run = direct.run(batch.bind(py), &event_loop);
        let noted = if matches!(run, Ok(true)) && !batch.get().ended() {
            engine.pumps.note(py, here.clone_ref(py), batch)
        } else {
            Ok(())
        };
        let flushed = if held {
            Port::flush(here.bind(py))
        } else {
            Ok(())
        };
        let run = run?;
        noted?;
        flushed.map(|()| run)
    }

    /// Takes a batch if one is due, else waits for what makes one due.
    pub(crate) fn pull(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let pump = slf.get();
        let Some(engine) = pump.engine.upgrade() else {
            return Ok(());
        };
        let core = &engine.core;
        // Scheduled, so that submits made meanwhile do not schedule it again.
        pump.state.store(SCHEDULED, Ordering::Release);
        let mut pulled = core.try_pull(usize::MAX);
        let mut foreign = false;
        if matches!(pulled, Pulled::Wait(None)) && core.pending() > 0 {
            let (abandoned, others) = engine.pumps.check_homes(py, &pump.port);
            foreign = others;
            if abandoned > 0 {
                pulled = core.try_pull(usize::MAX);
            }
        }
        match pulled {
            Pulled::Batch(batch) => {
                let batch = Batch::wrap(py, &engine, batch);
                let started = batch.and_then(|batch| Self::start(slf, &engine, batch));
                // The next batch in the next round of the loop: others have their turn in between.
                if core.pending() > 0 {
                    Self::schedule(slf);
                } else {
                    pump.state.store(IDLE, Ordering::Release);
                }
                started
            }
            Pulled::Wait(Some(until)) => {
                Self::drop_timer(slf);
                pump.state.store(TIMED, Ordering::Release);
                Self::wait_until(slf, until, core.now())
            }
            Pulled::Wait(None) => {
                let parked = if core.pending() > 0 { PARKED } else { IDLE };
                pump.state.store(parked, Ordering::Release);
                if foreign {
                    Self::call_later(slf, TRUST)
                } else {
                    Ok(())
                }
            }
            Pulled::Closed => {
                pump.state.store(IDLE, Ordering::Release);
                Ok(())
            }
        }
    }
}

#[pymethods]
impl Pump {
    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _inside = Inside::go_on();
        Self::pull(slf)
    }

    fn __repr__(&self) -> String {
        let engine = self.engine.upgrade();
        let name = engine.as_ref().map_or("nothing", |engine| &engine.name);
        format!("<carpool pump of {name}>")
    }
}
