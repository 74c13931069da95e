//! Which handlers the present code runs in.
//!
//! A context variable holds the innermost [`Run`]: one execution of one batcher's handler. A request
//! remembers the run it arose in, and a run remembers those of its requests, so that a call can see the
//! whole chain of handlers that wait for it: A calls B, whose handler calls A again. A run that is
//! over counts no longer: code that outlives its handler (a task it started) may call freely.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyAny;

use crate::batch::Batch;
use crate::border::PyBorder;
use crate::guard;

/// How many runs are active in this process: without any, no context need be asked for its own. Whoever is
/// inside one has seen it counted.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// What a run is at work on.
#[derive(Clone, Copy)]
pub(crate) enum Subject {
    /// Nothing: no handler runs, or its batch is gone.
    Nothing,
    /// One call that nobody else sees: there is no request.
    Alone,
    /// A batch, which stays where it is and as it is while this stands in a [`Spot`].
    Bare(*const carpool_core::Batch<PyBorder>),
    /// A batch in Python's hands, which takes itself out of the spot when it goes.
    Wrapped(*const Batch),
}

/// Where a run's code finds what it is at work on. Whoever looks holds the lock while it does, and so does
/// whoever takes a batch out. Nothing else is locked after it but the batch.
pub(crate) struct Spot(Mutex<Subject>);

// SAFETY: the pointers are only followed under the lock, as long as their batches stand here (see `show`), and
// batches may be looked at from any thread.
unsafe impl Send for Spot {}
// SAFETY: as above.
unsafe impl Sync for Spot {}

impl Spot {
    pub(crate) fn of(subject: Subject) -> Self {
        Self(Mutex::new(subject))
    }

    /// Puts `subject` there; a batch must be taken out again before it moves, changes or goes.
    pub(crate) fn show(&self, subject: Subject) {
        *self.lock() = subject;
    }

    /// What stands there, as long as the guard lives.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Subject> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One execution of a handler.
pub(crate) struct Chain {
    /// Where its first part is shown.
    spot: Spot,
    /// The engine whose handler it is.
    engine: u64,
    /// How many parts of its batch have not ended; it is active while there are any.
    parts: AtomicUsize,
    /// How many slots wait for it.
    holds: usize,
    has_batch: bool,
    arose_in: Vec<Arc<Chain>>,
}

/// More slots than there are: until its setup has ended, no handler can run.
pub(crate) const ALL_SLOTS: usize = usize::MAX;

impl Chain {
    pub(crate) fn new(engine: u64, arose_in: Vec<Arc<Chain>>) -> Arc<Self> {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            spot: Spot::of(Subject::Nothing),
            engine,
            parts: AtomicUsize::new(1),
            holds: 1,
            has_batch: true,
            arose_in,
        })
    }

    /// Of a worker thread between its batches, where callbacks run.
    pub(crate) fn worker(engine: u64) -> Arc<Self> {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            spot: Spot::of(Subject::Nothing),
            engine,
            parts: AtomicUsize::new(1),
            holds: 1,
            has_batch: false,
            arose_in: Vec::new(),
        })
    }

    /// Of a setup that has begun.
    pub(crate) fn setup(engine: u64, arose_in: Vec<Arc<Chain>>) -> Arc<Self> {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            spot: Spot::of(Subject::Nothing),
            engine,
            parts: AtomicUsize::new(1),
            holds: ALL_SLOTS,
            has_batch: true,
            arose_in,
        })
    }

    /// The batch was split: it is over when one part more has ended.
    pub(crate) fn share(&self) {
        self.parts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn spot(&self) -> &Spot {
        &self.spot
    }

    /// Of a run that has not begun.
    pub(crate) fn idle(engine: u64, arose_in: Vec<Arc<Chain>>) -> Arc<Self> {
        Arc::new(Self {
            spot: Spot::of(Subject::Alone),
            engine,
            parts: AtomicUsize::new(0),
            holds: 1,
            has_batch: true,
            arose_in,
        })
    }

    /// It begins, once more.
    pub(crate) fn begin(&self) {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        self.parts.store(1, Ordering::Release);
    }

    /// A part of the batch has ended.
    pub(crate) fn end(&self) {
        if self.parts.fetch_sub(1, Ordering::Release) == 1 {
            ACTIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.parts.load(Ordering::Acquire) > 0
    }

    /// The runs of `engine` that cannot end before what is called from here has.
    pub(crate) fn runs_of(self: &Arc<Self>, engine: u64) -> Vec<&Arc<Self>> {
        let mut seen: Vec<*const Chain> = Vec::new();
        let mut todo = vec![self];
        let mut runs = Vec::new();
        while let Some(chain) = todo.pop() {
            if seen.contains(&Arc::as_ptr(chain)) || !chain.is_active() {
                continue;
            }
            seen.push(Arc::as_ptr(chain));
            if chain.engine == engine {
                runs.push(chain);
            }
            todo.extend(&chain.arose_in);
        }
        runs
    }

    /// How many slots these runs hold.
    pub(crate) fn held_by(runs: &[&Arc<Self>]) -> usize {
        runs.iter()
            .fold(0, |sum, run| sum.saturating_add(run.holds))
    }

    /// Whether a batch is in flight as long as this lasts.
    pub(crate) fn has_batch(&self) -> bool {
        self.has_batch
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        if self.is_active() {
            ACTIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What the context variable holds.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Run {
    chain: Arc<Chain>,
    /// Where a part of the batch has a spot of its own.
    part: Option<Arc<Spot>>,
}

impl Run {
    pub(crate) fn new(chain: Arc<Chain>, part: Option<Arc<Spot>>) -> Self {
        Self { chain, part }
    }

    /// Where it shows what it is at work on.
    pub(crate) fn spot(&self) -> &Spot {
        self.part.as_deref().unwrap_or(&self.chain.spot)
    }
}

#[pymethods]
impl Run {
    /// The mark of a setup that this run waits for; `end` ends it.
    fn setup(&self) -> Self {
        Self::new(
            Chain::setup(self.chain.engine, vec![self.chain.clone()]),
            None,
        )
    }

    fn end(&self) {
        self.chain.end();
    }

    /// Whether the handler still runs.
    #[getter]
    fn active(&self) -> bool {
        self.chain.is_active()
    }
}

static VARIABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The context variable.
pub(crate) fn variable(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let variable = guard::once(&VARIABLE, py, || {
        // SAFETY: attached; the name is a C string that lives for ever; the result is owned or an
        // error is set.
        unsafe {
            let name = c"carpool.running".as_ptr();
            let made = pyo3::ffi::PyContextVar_New(name, std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, made).map(Bound::unbind)
        }
    })?;
    Ok(variable.bind(py))
}

/// Whether the present context is inside some run, perhaps one that is over.
#[inline]
pub(crate) fn is_inside(py: Python<'_>) -> bool {
    if ACTIVE.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let Some(variable) = VARIABLE.get(py) else {
        return false;
    };
    let mut value = std::ptr::null_mut();
    // SAFETY: as in `current` below.
    let failed = unsafe {
        pyo3::ffi::PyContextVar_Get(variable.as_ptr(), std::ptr::null_mut(), &raw mut value)
    };
    if failed != 0 {
        return true;
    }
    // SAFETY: a non-null value is a new reference.
    unsafe { Bound::from_owned_ptr_or_opt(py, value) }.is_some()
}

/// Whether no handler runs in this process.
#[inline]
pub(crate) fn none() -> bool {
    ACTIVE.load(Ordering::Relaxed) == 0
}

/// The innermost run of the present context, while it is active.
pub(crate) fn current(py: Python<'_>) -> Option<Arc<Chain>> {
    innermost(py).map(|run| run.get().chain.clone())
}

/// The same, with what it is at work on.
#[inline]
pub(crate) fn innermost(py: Python<'_>) -> Option<Bound<'_, Run>> {
    if ACTIVE.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let variable = VARIABLE.get(py)?;
    let mut value = std::ptr::null_mut();
    // SAFETY: attached; `variable` is a context variable; a null default is allowed and leaves `value`
    // null when the variable is unset.
    let failed = unsafe {
        pyo3::ffi::PyContextVar_Get(variable.as_ptr(), std::ptr::null_mut(), &raw mut value)
    };
    if failed != 0 || value.cast::<c_void>().is_null() {
        return None;
    }
    // SAFETY: a non-null value is a new reference.
    let value = unsafe { Bound::from_owned_ptr(py, value) };
    let run = value.cast_into::<Run>().ok()?;
    run.get().chain.is_active().then_some(run)
}

/// A copy of the context that the caller of this runs in.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; the result is owned or an error is set.
    unsafe { Bound::from_owned_ptr_or_err(py, pyo3::ffi::PyContext_CopyCurrent()) }
        .map(Bound::unbind)
}
