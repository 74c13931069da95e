//! A closed batch in Python's hands.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use carpool_core::{Fits, Outgoing};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyType};

use crate::bare;
use crate::border::{Answer, Payload, PyBorder};
use crate::current::{self, Look};
use crate::errors;
use crate::guard::Inside;
use crate::port::Port;
use crate::run::{Chain, Run, Spot, Subject};
use crate::shared::{Shared, epoch};
use crate::wakes;

type Core = carpool_core::Batch<PyBorder>;

/// Requests that leave together; closed for ever. Each is answered exactly once; a batch that is
/// dropped before fails the rest with BatchAbandoned.
#[pyclass(frozen, weakref, module = "carpool._core")]
pub(crate) struct Batch {
    engine: Arc<Shared>,
    /// Never locked while Python code, drops or wakes run.
    core: Mutex<ManuallyDrop<Core>>,
    reason: &'static str,
    /// Made at the first look, and again after a split; locked like `core`.
    items: Mutex<Option<Py<PyList>>>,
    owner: Mutex<Option<Py<PyAny>>>,
    chain: Arc<Chain>,
    /// The loop it runs on, where it was taken by one.
    home: OnceLock<Py<Port>>,
    /// Where the handler's code finds it, if it was split from another: that has the one of `chain`.
    part: Option<Arc<Spot>>,
}

impl Batch {
    pub(crate) fn wrap(py: Python<'_>, engine: &Arc<Shared>, core: Core) -> PyResult<Py<Self>> {
        let owner = core.payload(0).map(|payload| payload.owner.clone_ref(py));
        let mut origins: Vec<Arc<Chain>> = Vec::new();
        for index in 0..core.len() {
            let origin = core.payload(index).and_then(Payload::origin);
            if let Some(origin) = origin {
                if !origins.iter().any(|known| Arc::ptr_eq(known, origin)) {
                    origins.push(origin.clone());
                }
            }
        }
        let made = Py::new(
            py,
            Self {
                part: None,
                reason: core.reason().name(),
                core: Mutex::new(ManuallyDrop::new(core)),
                items: Mutex::default(),
                owner: Mutex::new(owner),
                chain: Chain::new(engine.number, origins),
                home: OnceLock::new(),
                engine: engine.clone(),
            },
        )?;
        made.get().show();
        Ok(made)
    }

    /// Lets the handler's code find it; from where it lies now, for as long as it exists.
    fn show(&self) {
        self.spot().show(Subject::Wrapped(self));
    }

    /// Whose handler runs it; None for a custom loop.
    pub(crate) fn owner(&self, py: Python<'_>) -> Py<PyAny> {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        owner
            .as_ref()
            .map_or_else(|| py.None(), |owner| owner.clone_ref(py))
    }

    /// Never locked while Python code, drops or wakes run.
    pub(crate) fn core(&self) -> MutexGuard<'_, ManuallyDrop<Core>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests it holds.
    pub(crate) fn len(&self) -> usize {
        self.core().len()
    }

    /// The execution of the handler, which begins.
    pub(crate) fn run(&self) -> Run {
        self.core().start();
        Run::new(self.chain.clone(), self.part.clone())
    }

    /// Where the handler's code finds this batch.
    fn spot(&self) -> &Spot {
        self.part.as_deref().unwrap_or_else(|| self.chain.spot())
    }

    /// What of it the code of its handler may see.
    pub(crate) fn look(&self, py: Python<'_>) -> Look {
        Look::at(py, &self.core())
    }

    /// Whether its first request waits on this loop.
    pub(crate) fn begins_on(&self, port: &Py<Port>) -> bool {
        let core = self.core();
        let first = core.requests().next();
        first.is_some_and(|first| first.waiter().port().is_some_and(|own| own.is(port)))
    }

    /// The loops whose requests it holds, each once.
    pub(crate) fn ports(&self, py: Python<'_>) -> Vec<Py<Port>> {
        let mut ports: Vec<Py<Port>> = Vec::new();
        for request in self.core().requests() {
            if let Some(port) = request.waiter().port() {
                if !ports.iter().any(|known| known.is(port)) {
                    ports.push(port.clone_ref(py));
                }
            }
        }
        ports
    }

    /// Takes stored answers and steps to their callers.
    pub(crate) fn send(&self, py: Python<'_>, mut outgoing: Outgoing<PyBorder>) {
        let _inside = Inside::go_on();
        let followed = outgoing.follow().map(Box::new);
        let last = outgoing.is_last();
        if last {
            self.chain.end();
        }
        let mut slot_is_free = false;
        let wakes = wakes::hold(|| slot_is_free = outgoing.send());
        if !wakes.is_empty() {
            py.detach(|| wakes.into_iter().for_each(Waker::wake));
        }
        if last {
            let owner = self
                .owner
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            drop(owner);
            self.engine.waits.tidy();
        }
        if slot_is_free {
            self.engine.pumps.wake_parked(py);
        }
        self.engine.tell_watchers(py, followed);
    }

    /// What one row of a result is to its caller.
    pub(crate) fn answer(row: Bound<'_, PyAny>) -> Answer {
        // SAFETY: attached; the object is alive; the check reads the flags of its type.
        if unsafe { pyo3::ffi::PyExceptionInstance_Check(row.as_ptr()) } != 0 {
            Answer::Raised(row.unbind())
        } else {
            Answer::Value(row.unbind())
        }
    }

    /// The rows of a result: those of its requests, and behind them of what stands for nobody.
    pub(crate) fn rows<'py>(
        &self,
        py: Python<'py>,
        results: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (len, count) = {
            let core = self.core();
            (core.len(), core.padded_len())
        };
        match results.cast_exact::<PyList>() {
            Ok(list) if list.len() == count => Ok(list.clone()),
            _ => bare::rows_of(py, &self.engine, results, count, len),
        }
    }

    /// What everything of its batcher refers to.
    pub(crate) fn engine(&self) -> &Shared {
        &self.engine
    }

    /// Whether every request has its answer.
    pub(crate) fn ended(&self) -> bool {
        self.core().left() == 0
    }

    /// Fails what is unanswered.
    pub(crate) fn fail_rest(&self, py: Python<'_>, error: &Py<PyAny>) {
        let outgoing = self
            .core()
            .answer_rest(|_| Answer::Raised(error.clone_ref(py)));
        self.send(py, outgoing);
    }

    /// Fails what is unanswered with what its handler raised.
    pub(crate) fn fail_by_handler(&self, py: Python<'_>, error: &Py<PyAny>) {
        self.engine.handler_failed(py, error.bind(py));
        self.fail_rest(py, error);
    }

    /// Fails what is unanswered, because nobody will answer it.
    pub(crate) fn abandon(&self, py: Python<'_>) {
        let abandoned = carpool_core::Failure::Abandoned;
        let outgoing = self.core().answer_rest(|_| Answer::Failure(abandoned));
        self.send(py, outgoing);
    }
}

#[pymethods]
impl Batch {
    /// The items, in order of arrival.
    #[getter]
    pub(crate) fn items(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let known = || self.known_items().as_ref().map(|items| items.clone_ref(py));
        if let Some(items) = known() {
            return Ok(items);
        }
        let core = self.core();
        let items = bare::padded(&core).map(|index| match core.payload(index) {
            Some(payload) => payload.item.clone_ref(py),
            None => py.None(),
        });
        let items: Vec<_> = items.collect();
        drop(core);
        let made = PyList::new(py, items)?.unbind();
        // Making it may have run the collector, and so any code.
        if let Some(items) = known() {
            return Ok(items);
        }
        *self.known_items() = Some(made.clone_ref(py));
        Ok(made)
    }

    /// Why it left: "full", "wait", "cost", "idle", "gather", "flush" or "close".
    #[getter]
    fn reason(&self) -> &str {
        self.reason
    }

    /// How long the oldest request had waited when the batch was sealed, in milliseconds.
    #[getter]
    fn waited_ms(&self) -> f64 {
        self.core().waited() as f64 / 1e6
    }

    /// How many rows the handler is to see, and to return: more than requests where `batch_sizes` fills up.
    #[getter]
    fn padded_size(&self) -> usize {
        self.core().padded_len()
    }

    /// Whether every request has its answer.
    #[getter]
    fn done(&self) -> bool {
        self.core().left() == 0
    }

    /// The function whose handler runs it.
    #[getter(_owner)]
    fn get_owner(&self, py: Python<'_>) -> Py<PyAny> {
        self.owner(py)
    }

    /// The execution of the handler, for `running`.
    #[getter(_run)]
    fn get_run(&self) -> Run {
        self.run()
    }

    /// What is known of each request, in the order of `items`; empty once all have been answered in one step.
    #[getter]
    fn requests<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let requests = current::requests(py, &self.core());
        current::tuple(py, requests)
    }

    fn __len__(&self) -> usize {
        self.core().len()
    }

    /// Takes the requests from `items[at]` on out, into a batch of their own: the slot is free, and the
    /// handler's run over, when both have ended. Items of requests that are answered are None.
    #[pyo3(signature = (at, /))]
    fn _split(&self, py: Python<'_>, at: usize) -> PyResult<Py<Self>> {
        let mut core = self.core();
        let split = core.split_off(at);
        let rest = split.map_err(|why| PyValueError::new_err(why.to_string()))?;
        if core.left() > 0 && rest.left() > 0 {
            self.chain.share();
        }
        drop(core);
        // Each part has a list of its own: this one may be in the handler's hands.
        let stale = self.known_items().take();
        drop(stale);
        let part = Self {
            engine: self.engine.clone(),
            core: Mutex::new(ManuallyDrop::new(rest)),
            reason: self.reason,
            items: Mutex::default(),
            owner: Mutex::new(Some(self.owner(py))),
            chain: self.chain.clone(),
            home: OnceLock::new(),
            part: Some(Arc::new(Spot::of(Subject::Nothing))),
        };
        let part = Py::new(py, part)?;
        part.get().show();
        if let Some(port) = self.home.get() {
            self.engine.pumps.note(py, port.clone_ref(py), &part)?;
        }
        Ok(part)
    }

    /// Makes it ready to be run again: without those who gave up, who are overdue (they fail with
    /// DeadlineExceeded) or who have their answers. In how many seconds the next of the others is overdue.
    fn _leave_out(&self, py: Python<'_>) -> Option<f64> {
        let now = self.engine.core.now();
        let (outgoing, next) = self.core().leave_out(now);
        self.send(py, outgoing);
        // The handler may have changed the list it was given.
        let stale = self.known_items().take();
        drop(stale);
        next.map(|deadline| deadline.saturating_sub(now) as f64 / 1e9)
    }

    /// Its handler ran out of memory: less leaves together from now on. How many requests; or, where there is a
    /// budget, none and how much cost.
    fn _was_too_large(&self, py: Python<'_>) -> (Option<usize>, Option<u64>) {
        let fits = self.core().was_too_large();
        // With less in a batch one may be full.
        self.engine.pumps.wake_all(py);
        match fits {
            Fits::Requests(most) => (Some(most), None),
            Fits::Cost(most) => (None, Some(most)),
        }
    }

    /// Fails what is unanswered with what its handler raised.
    #[pyo3(signature = (error, /))]
    fn _failed(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.engine.handler_failed(py, error);
        self.fail(py, error)
    }

    fn __repr__(&self) -> String {
        format!(
            "<carpool.Batch of {} for {}, {}>",
            self.core().len(),
            self.engine.name,
            self.reason
        )
    }

    /// Answers every request with its row of `results`: a list, array or tensor of as many rows. A
    /// row that is an exception fails its request alone. A wrong number or kind fails every
    /// unanswered request with BatchLengthError and raises it here.
    #[pyo3(signature = (results, /))]
    pub(crate) fn complete(&self, py: Python<'_>, results: &Bound<'_, PyAny>) -> PyResult<()> {
        let rows = match self.rows(py, results) {
            Ok(rows) => rows,
            Err(error) => {
                self.fail_rest(py, &error.value(py).clone().into_any().unbind());
                return Err(error);
            }
        };
        let answers: Vec<Answer> = rows.iter().take(self.len()).map(Self::answer).collect();
        let answered = self.core().answer_all(answers);
        match answered {
            Ok(outgoing) => {
                self.send(py, outgoing);
                Ok(())
            }
            Err((why, _answers)) => Err(errors::answering(py, &self.engine, &why)),
        }
    }

    /// Fails every request that is unanswered; each caller gets an exception of its own.
    #[pyo3(signature = (error, /))]
    fn fail(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        check_exception(error)?;
        if self.core().left() == 0 {
            let why = carpool_core::AnswerError::Answered { index: 0 };
            return Err(errors::answering(py, &self.engine, &why));
        }
        self.fail_rest(py, &error.clone().unbind());
        Ok(())
    }

    /// Answers one request.
    #[pyo3(signature = (index, result, /))]
    fn set(
        &self,
        py: Python<'_>,
        index: &Bound<'_, PyAny>,
        result: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.answer_one(py, index, Self::answer(result))
    }

    /// Fails one request.
    #[pyo3(signature = (index, error, /))]
    fn fail_item(
        &self,
        py: Python<'_>,
        index: &Bound<'_, PyAny>,
        error: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        check_exception(&error)?;
        self.answer_one(py, index, Answer::Raised(error.unbind()))
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        cls.py()
            .import("types")?
            .getattr("GenericAlias")?
            .call1((cls, item))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        // Items that are still in the core are reachable from there only. No lock is waited for here;
        // what is not shown is kept alive.
        match self.items.try_lock() {
            Ok(items) => visit.call(items.as_ref()),
            Err(_) => Ok(()),
        }
    }
}

impl Batch {
    fn known_items(&self) -> MutexGuard<'_, Option<Py<PyList>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says on which loop it runs.
    pub(crate) fn runs_at(&self, port: Py<Port>) {
        // It runs on one; a batch is taken once.
        drop(self.home.set(port));
    }

    fn answer_one(&self, py: Python<'_>, index: &Bound<'_, PyAny>, answer: Answer) -> PyResult<()> {
        let len = self.core().len();
        let at = match index.extract::<isize>() {
            Ok(at) if at < 0 => usize::try_from(at + len as isize).unwrap_or(usize::MAX),
            Ok(at) => at as usize,
            // An int beyond 64 bits is out of range like any other.
            Err(error) if error.is_instance_of::<PyOverflowError>(py) => usize::MAX,
            Err(error) => return Err(error),
        };
        let answered = self.core().answer(at, answer);
        match answered {
            Ok(outgoing) => {
                self.send(py, outgoing);
                Ok(())
            }
            Err((carpool_core::AnswerError::OutOfRange { len, .. }, _answer)) => {
                let text = format!("index {index} is out of range for a batch of {len}");
                Err(pyo3::exceptions::PyIndexError::new_err(text))
            }
            Err((why, _answer)) => Err(errors::answering(py, &self.engine, &why)),
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.spot().show(Subject::Nothing);
        if self.engine.epoch != epoch() {
            // A batch of the parent process is left alone: locks of its batcher may be held by threads
            // that do not exist in this one.
            return;
        }
        if !self.ended() {
            Python::attach(|py| self.abandon(py));
        }
        let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: here only, and the batch is not used afterwards.
        unsafe { ManuallyDrop::drop(core) };
    }
}

fn check_exception(error: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: attached; the object is alive; the check reads the flags of its type.
    if unsafe { pyo3::ffi::PyExceptionInstance_Check(error.as_ptr()) } != 0 {
        return Ok(());
    }
    let text = format!(
        "an exception object is needed, not {} ({})",
        error.repr()?,
        error.get_type().name()?
    );
    Err(PyTypeError::new_err(text))
}
