//! The handler's end of streams: steps for the rows of a batch.

use std::time::{Duration, Instant};

use carpool_core::AnswerError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::batch::Batch;
use crate::border::Answer;
use crate::guard::{self, Inside};
use crate::seat::{Watch, callback_waker, with_parker};

/// What stands in the place of a row that is finished.
fn stop(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static STOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let stop = guard::once(&STOP, py, || {
        Ok::<_, PyErr>(
            py.import("carpool._streams.stop")?
                .getattr("STOP")?
                .unbind(),
        )
    })?;
    Ok(stop.bind(py))
}

/// Gives steps to the requests of a batch.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Giver {
    batch: Py<Batch>,
}

impl Giver {
    fn answer(&self, py: Python<'_>, index: usize, answer: Answer) {
        let batch = self.batch.get();
        let answered = batch.core().answer(index, answer);
        match answered {
            Ok(outgoing) => batch.send(py, outgoing),
            // It has ended before; whatever the handler still has for it goes nowhere.
            Err(refused) => drop(refused),
        }
    }

    /// Gives steps; those whose readers have no room.
    fn give_all(&self, py: Python<'_>, steps: Vec<(usize, Py<PyAny>)>) -> Vec<usize> {
        let batch = self.batch.get();
        let steps = steps
            .into_iter()
            .map(|(index, step)| (index, Answer::Value(step)));
        let (outgoing, refused) = batch.core().steps(steps);
        batch.send(py, outgoing);
        let mut full = Vec::new();
        for (why, step) in refused {
            match why {
                AnswerError::Full { index } => full.push(index),
                // Its reader has gone: the row is free.
                AnswerError::Gone { index } => self.end(py, index),
                AnswerError::Answered { .. }
                | AnswerError::OutOfRange { .. }
                | AnswerError::WrongLength { .. } => {}
            }
            drop(step);
        }
        full
    }

    fn end(&self, py: Python<'_>, index: usize) {
        self.answer(py, index, Answer::Value(py.None()));
    }
}

#[pymethods]
impl Giver {
    #[new]
    fn new(batch: Py<Batch>) -> Self {
        Self { batch }
    }

    /// Gives each row its step of `rows`: STOP ends a row, an exception fails it. The places and steps of those whose
    /// readers have no room. A wrong number or kind fails all and raises.
    fn step(&self, py: Python<'_>, rows: &Bound<'_, PyAny>) -> PyResult<Vec<(usize, Py<PyAny>)>> {
        let _inside = Inside::go_on();
        let batch = self.batch.get();
        let rows = batch.rows(py, rows)?;
        let stop = stop(py)?;
        let (mut steps, mut ends) = (Vec::with_capacity(rows.len()), Vec::new());
        for (index, row) in rows.iter().take(batch.len()).enumerate() {
            if row.is(stop) {
                ends.push((index, Answer::Value(py.None())));
                continue;
            }
            match Batch::answer(row) {
                Answer::Value(step) => steps.push((index, step)),
                failed => ends.push((index, failed)),
            }
        }
        let full = self.give_all(py, steps);
        for (index, end) in ends {
            self.answer(py, index, end);
        }
        let mut left = Vec::with_capacity(full.len());
        for index in full {
            left.push((index, rows.get_item(index)?.unbind()));
        }
        Ok(left)
    }

    /// Gives one row a step; False where its reader has no room.
    fn give(&self, py: Python<'_>, index: usize, step: Py<PyAny>) -> bool {
        let _inside = Inside::go_on();
        self.give_all(py, vec![(index, step)]).is_empty()
    }

    /// Waits in this thread until a row has room, or nobody reads it any more; False after `timeout_ns`.
    #[pyo3(signature = (index, timeout_ns))]
    fn wait_room(&self, py: Python<'_>, index: usize, timeout_ns: Option<u64>) -> PyResult<bool> {
        let _inside = Inside::go_on();
        let batch = self.batch.get();
        let end = timeout_ns.map(|timeout| Instant::now() + Duration::from_nanos(timeout));
        with_parker(|parker| {
            let watch = Watch::new(py)?;
            loop {
                if batch.core().poll_room(index, parker.waker()) {
                    return Ok(true);
                }
                if end.is_some_and(|end| Instant::now() >= end) {
                    return Ok(false);
                }
                let rest = end.map(|end| {
                    let rest = end.saturating_duration_since(Instant::now()).as_nanos();
                    u64::try_from(rest).unwrap_or(u64::MAX)
                });
                watch.park_for(py, parker, rest)?;
            }
        })
    }

    /// Whether a row has room, or nobody reads it any more; if not, `callback()` comes when that is so, from any
    /// thread. The caller keeps it alive meanwhile.
    fn poll_room(&self, index: usize, callback: Py<PyAny>) -> bool {
        let waker = callback_waker(callback);
        let batch = self.batch.get();
        batch.core().poll_room(index, &waker)
    }

    /// Calls `callback()`, from any thread, when a reader of any stream of this batcher gives up. What `is_wanted` says
    /// after this misses nobody.
    fn watch(&self, callback: Py<PyAny>) {
        self.batch.get().engine().leaving.watch(callback);
    }

    /// Calls it no longer.
    #[allow(clippy::needless_pass_by_value)]
    fn unwatch(&self, callback: Py<PyAny>) {
        self.batch.get().engine().leaving.unwatch(&callback);
    }

    /// Whether anybody still reads.
    fn is_wanted(&self) -> bool {
        let core = self.batch.get().core();
        (0..core.len()).any(|index| core.is_wanted(index))
    }

    /// Whether anybody still reads; ends the rows that nobody does.
    fn sweep(&self, py: Python<'_>) -> bool {
        let _inside = Inside::go_on();
        let batch = self.batch.get();
        let gone: Vec<_> = {
            let core = batch.core();
            (0..core.len())
                .filter(|&index| core.is_open(index) && !core.is_wanted(index))
                .collect()
        };
        for index in gone {
            self.end(py, index);
        }
        !batch.ended()
    }

    /// Ends every row that has not ended.
    fn finish(&self, py: Python<'_>) {
        let _inside = Inside::go_on();
        let batch = self.batch.get();
        let outgoing = batch.core().answer_rest(|_| Answer::Value(py.None()));
        batch.send(py, outgoing);
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.batch)
    }
}
