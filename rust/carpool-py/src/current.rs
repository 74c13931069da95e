//! What a handler may know of the batch it runs: size, reason, and of each request its caller's context, its
//! priority, its deadline and whether its caller has given up.
//!
//! Nothing is noted for this while a batch is made or runs, but where it lies ([`Spot`](crate::run::Spot)): who
//! never asks does not pay.

use carpool_core::clock::NEVER;
use carpool_core::request::Handle;
use carpool_core::{Clock, Nanos, Reason};
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::border::PyBorder;
use crate::clock::{PyClock, seconds};
use crate::run::{self, Subject};

type Core = carpool_core::Batch<PyBorder>;

/// What is known of one request.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct CurrentRequest {
    /// None for a call that runs alone: it has no cell.
    handle: Option<Handle<PyBorder>>,
    level: i32,
    context: Option<Py<PyAny>>,
}

impl CurrentRequest {
    fn deadline_ns(&self) -> Option<Nanos> {
        let deadline = self.handle.as_ref()?.terms.deadline;
        (deadline != NEVER).then_some(deadline)
    }
}

#[pymethods]
impl CurrentRequest {
    /// The context of its caller, where contexts are kept.
    #[getter]
    fn context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.context.as_ref().map(|context| context.clone_ref(py))
    }

    /// Smaller is more urgent.
    #[getter]
    fn priority(&self) -> i32 {
        self.level
    }

    /// When its time is over, in seconds on the clock of `time.monotonic()`; None without a limit.
    #[getter]
    fn deadline(&self) -> Option<f64> {
        self.deadline_ns().map(seconds)
    }

    /// Milliseconds until its deadline, negative after it; None without a limit.
    #[getter]
    fn left_ms(&self) -> Option<f64> {
        let deadline = self.deadline_ns()?;
        Some((deadline as f64 - PyClock.now() as f64) / 1e6)
    }

    /// Whether its caller has given up since it left.
    #[getter]
    fn cancelled(&self) -> bool {
        let handle = self.handle.as_ref();
        handle.is_some_and(|handle| handle.reply().is_forsaken())
    }

    fn __repr__(&self) -> String {
        let deadline = match self.left_ms() {
            Some(left) => format!(", {left:.1} ms left"),
            None => String::new(),
        };
        let cancelled = if self.cancelled() { ", cancelled" } else { "" };
        format!(
            "<carpool.CurrentRequest of priority {}{deadline}{cancelled}>",
            self.level
        )
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.context)
    }
}

/// The batch that a handler runs.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct CurrentBatch {
    size: usize,
    reason: &'static str,
    waited: Nanos,
    requests: Py<PyTuple>,
}

/// What a look at a batch found. Objects are made of it with nothing locked: making them may run the collector,
/// and with it any code.
pub(crate) struct Look {
    size: usize,
    reason: Reason,
    waited: Nanos,
    requests: Vec<CurrentRequest>,
}

impl Look {
    /// Looks at a batch.
    pub(crate) fn at(py: Python<'_>, core: &Core) -> Self {
        Self {
            size: core.len(),
            reason: core.reason(),
            waited: core.waited(),
            requests: requests(py, core),
        }
    }

    /// A call that nobody else sees.
    fn alone() -> Self {
        let request = CurrentRequest {
            handle: None,
            level: 0,
            context: None,
        };
        Self {
            size: 1,
            reason: Reason::Idle,
            waited: 0,
            requests: vec![request],
        }
    }
}

/// What is known of the requests of a batch.
pub(crate) fn requests(py: Python<'_>, core: &Core) -> Vec<CurrentRequest> {
    let requests = core.requests().enumerate().map(|(index, handle)| {
        let extra = core
            .payload(index)
            .and_then(|payload| payload.extra.as_ref());
        CurrentRequest {
            handle: Some(handle.clone()),
            level: extra.map_or(0, |extra| extra.level),
            context: extra
                .and_then(|extra| extra.context.as_ref())
                .map(|context| context.clone_ref(py)),
        }
    });
    requests.collect()
}

/// Objects of them.
pub(crate) fn tuple(py: Python<'_>, known: Vec<CurrentRequest>) -> PyResult<Bound<'_, PyTuple>> {
    PyTuple::new(py, known)
}

#[pymethods]
impl CurrentBatch {
    /// How many requests it holds.
    #[getter]
    fn size(&self) -> usize {
        self.size
    }

    /// Why it left.
    #[getter]
    fn reason(&self) -> &'static str {
        self.reason
    }

    /// How long the oldest request had waited when the batch was sealed, in milliseconds.
    #[getter]
    fn waited_ms(&self) -> f64 {
        self.waited as f64 / 1e6
    }

    /// What is known of each request, in the order of the items.
    #[getter]
    fn requests(&self, py: Python<'_>) -> Py<PyTuple> {
        self.requests.clone_ref(py)
    }

    fn __len__(&self) -> usize {
        self.size
    }

    fn __repr__(&self) -> String {
        format!("<carpool.CurrentBatch of {}, {}>", self.size, self.reason)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.requests)
    }
}

/// The handler that runs here was given so much (elements, rows), of which so much was of use, the rest padding.
#[pyfunction]
pub(crate) fn note_padding(py: Python<'_>, useful: u64, given: u64) {
    let Some(run) = run::innermost(py) else {
        return;
    };
    let subject = run.get().spot().lock();
    match *subject {
        // A call that runs alone is not padded.
        Subject::Nothing | Subject::Alone => {}
        // SAFETY: it is in its place and alive while it stands in the spot, which is locked.
        Subject::Bare(core) => unsafe { &*core }.padded(useful, given),
        // SAFETY: as above.
        Subject::Wrapped(batch) => unsafe { &*batch }.core().padded(useful, given),
    }
}

/// The batch that the handler runs which this is called in.
#[pyfunction]
pub(crate) fn current_batch(py: Python<'_>) -> PyResult<CurrentBatch> {
    let looked = run::innermost(py).and_then(|run| {
        let subject = run.get().spot().lock();
        match *subject {
            Subject::Nothing => None,
            Subject::Alone => Some(Look::alone()),
            // SAFETY: it is in its place and alive while it stands in the spot, which is locked.
            Subject::Bare(core) => Some(Look::at(py, unsafe { &*core })),
            // SAFETY: as above.
            Subject::Wrapped(batch) => Some(unsafe { &*batch }.look(py)),
        }
    });
    let Some(look) = looked else {
        return Err(PyRuntimeError::new_err(
            "carpool.current_batch() is for the code of a handler while that runs; no batch runs here \
             (a thread that a handler starts needs a copy of its context)",
        ));
    };
    Ok(CurrentBatch {
        size: look.size,
        reason: look.reason.name(),
        waited: look.waited,
        requests: tuple(py, look.requests)?.unbind(),
    })
}
