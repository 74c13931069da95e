//! A worker thread's end of its engine.
//!
//! Handlers are called from the thread's Python loop, never from in here: CPython ends a daemon thread that
//! still runs when the process ends by unwinding its stack, which must not meet a frame of Rust. So each
//! batch takes two calls, one that brings the handler and its arguments, one that takes what it returned.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::guard::intern;
use carpool_core::Pulled;
use pyo3::prelude::*;

use crate::bare::{self, Told};
use crate::batch::Batch;
use crate::border::PyBorder;
use crate::call::handler_of;
use crate::desk::{Desk, Entered};
use crate::effort::Effort;
use crate::guard::Inside;
use crate::seat::{Watch, with_parker};
use crate::shared::Shared;

/// A worker thread's end of its engine.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Worker {
    engine: Arc<Shared>,
    desk: Py<Desk>,
    state: Mutex<State>,
}

struct State {
    /// Its place in line; `None` while it is in use.
    seat: Option<carpool_core::Seat<PyBorder>>,
    /// The callers of its last batch, who are to be woken when it has let go of the interpreter.
    told: Told,
    /// What it runs.
    batch: Option<(carpool_core::Batch<PyBorder>, Entered)>,
    effort: Effort,
}

impl Worker {
    pub(crate) fn new(engine: Arc<Shared>, desk: Py<Desk>) -> Self {
        let state = State {
            seat: Some(engine.core.seat()),
            told: Told::default(),
            batch: None,
            effort: Effort::default(),
        };
        Self {
            engine,
            desk,
            state: Mutex::new(state),
        }
    }

    /// The batch in hand, to be found by the handler's code no more.
    fn take_batch(&self) -> Option<(carpool_core::Batch<PyBorder>, Entered)> {
        let mut state = self.state();
        if let Some((_, entered)) = &mut state.batch {
            entered.hide();
        }
        state.batch.take()
    }

    /// Never locked while Python code runs.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Worker {
    /// Blocks for a batch: a function to call and its arguments, or None once closed and drained. What it
    /// returned is to be told by `answered` or `failed`.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let _inside = Inside::go_on();
        let (seat, mut told, goes_on) = {
            let mut state = self.state();
            let waits = state.effort.end();
            (state.seat.take(), std::mem::take(&mut state.told), waits)
        };
        let followed = told.take_followed();
        if followed.is_some() || self.engine.core.is_due() {
            // The callers first.
            py.detach(|| drop(std::mem::take(&mut told)));
            self.engine.tell_watchers(py, followed);
        }
        let mut seat = seat.unwrap_or_else(|| self.engine.core.seat());
        let pulled = with_parker(|parker| {
            if goes_on && told.wakes_nobody() && self.engine.core.pending() > 0 {
                // The slot comes back first.
                drop(std::mem::take(&mut told));
                let due = seat.poll(parker.waker(), usize::MAX);
                if !matches!(due, Pulled::Wait(_)) {
                    return Ok(due);
                }
            }
            Watch::new(py)?.pull(py, &mut seat, parker, usize::MAX, None, told)
        });
        {
            let mut state = self.state();
            state.seat = Some(seat);
            state.effort.begin();
        }
        let Pulled::Batch(mut batch) = pulled? else {
            return Ok(None);
        };
        let owner = batch.payload(0).map(|payload| payload.owner.clone_ref(py));
        let owner = owner.unwrap_or_else(|| py.None()).into_bound(py);
        let desk = self.desk.bind(py);
        if let Some(handler) = handler_of(&owner).filter(|handler| handler.is_ready_at(desk.get()))
        {
            let call = handler.call_of(py, bare::items(py, &batch)?)?;
            let entered = Desk::enter(desk, self.engine.number, bare::origins(&batch))?;
            batch.start();
            let mut state = self.state();
            // Shown from where it stays until the handler has ended.
            let (batch, entered) = state.batch.insert((batch, entered));
            entered.show(batch);
            drop(state);
            return Ok(Some(call));
        }
        let batch = Batch::wrap(py, &self.engine, batch)?;
        let run = owner.getattr(intern!(py, "_run_on_worker"))?;
        let call = (run, (batch, desk)).into_pyobject(py)?;
        Ok(Some(call.into_any()))
    }

    /// The function returned.
    fn answered(&self, py: Python<'_>, results: Bound<'_, PyAny>) {
        let _inside = Inside::go_on();
        let batch = self.take_batch();
        if let Some((mut batch, entered)) = batch {
            drop(entered);
            let told = bare::deliver(py, &self.engine, &mut batch, results);
            self.state().told = told;
        }
    }

    /// Drops what it has in hand, which fails its callers: something reached into the thread.
    fn let_go(&self) {
        let _inside = Inside::go_on();
        let batch = self.take_batch();
        let told = std::mem::take(&mut self.state().told);
        // The context first.
        drop(batch.map(|(batch, entered)| {
            drop(entered);
            batch
        }));
        drop(told);
    }

    /// The function raised.
    fn failed(&self, py: Python<'_>, error: Py<PyAny>) {
        let _inside = Inside::go_on();
        let batch = self.take_batch();
        if let Some((mut batch, entered)) = batch {
            drop(entered);
            self.engine.handler_failed(py, error.bind(py));
            let told = bare::fail(py, &mut batch, &error);
            self.state().told = told;
        }
    }
}
