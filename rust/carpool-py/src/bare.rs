//! Handlers that need nothing around them: called from here, without a Python frame in between.

use std::sync::Arc;
use std::task::Waker;

use carpool_core::{Followed, Kept, Outgoing};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::border::{Answer, Payload, PyBorder};
use crate::desk::Desk;
use crate::run::{self, Chain};
use crate::shared::{Shared, epoch};
use crate::{errors, wakes};

type Core = carpool_core::Batch<PyBorder>;

/// A plain function of one list, to be called as it is: no `async def`, no `context`.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Bare {
    function: Py<PyAny>,
    /// Where callers run it.
    desk: Py<Desk>,
    needs_setup: bool,
}

#[pymethods]
impl Bare {
    #[new]
    fn new(function: Py<PyAny>, desk: Py<Desk>, needs_setup: bool) -> Self {
        Self {
            function,
            desk,
            needs_setup,
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.desk)
    }
}

/// A bare handler with the instance it is called on, where it is a method.
#[derive(Clone, Copy)]
pub(crate) struct Handler<'a> {
    pub(crate) bare: &'a Bare,
    pub(crate) instance: Option<&'a Py<PyAny>>,
}

impl Handler<'_> {
    /// The desk of its callers.
    pub(crate) fn desk<'py>(&self, py: Python<'py>) -> &Bound<'py, Desk> {
        self.bare.desk.bind(py)
    }

    /// Whether it can run at a desk: its setup, if any, has.
    #[inline]
    pub(crate) fn is_ready_at(&self, desk: &Desk) -> bool {
        !self.bare.needs_setup || desk.is_ready()
    }

    /// The function and its arguments, for whoever calls it from Python.
    pub(crate) fn call_of<'py>(
        &self,
        py: Python<'py>,
        items: Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let function = self.bare.function.clone_ref(py);
        let call = match self.instance {
            None => (function, (items,)).into_pyobject(py)?,
            Some(instance) => {
                return Ok((function, (instance.clone_ref(py), items))
                    .into_pyobject(py)?
                    .into_any());
            }
        };
        Ok(call.into_any())
    }

    /// Calls it.
    #[inline]
    fn call<'py>(&self, items: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyAny>> {
        let py = items.py();
        let mut args = [std::ptr::null_mut(), items.as_ptr(), std::ptr::null_mut()];
        let (first, count) = match self.instance {
            None => (1, 1),
            Some(instance) => {
                args[2] = items.as_ptr();
                args[1] = instance.as_ptr();
                (1, 2)
            }
        };
        // SAFETY: attached; function and arguments are alive; the place in front of the arguments is ours
        // to lend, as the flag says; the result is owned or an error is set.
        unsafe {
            let result = ffi::PyObject_Vectorcall(
                self.bare.function.as_ptr(),
                args.as_ptr().add(first),
                count | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                std::ptr::null_mut(),
            );
            Bound::from_owned_ptr_or_err(py, result)
        }
    }
}

/// The answer to a call that nobody else sees, run here and now; `None` where it has to be submitted.
#[inline]
pub(crate) fn alone(
    py: Python<'_>,
    shared: &Arc<Shared>,
    handler: Handler<'_>,
    item: &Py<PyAny>,
) -> Option<PyResult<Py<PyAny>>> {
    let desk = handler.desk(py);
    // Inside another handler the request would have to remember it, and who watches hears of requests.
    if !handler.is_ready_at(desk.get()) || run::is_inside(py) || shared.watchers.hook.is_some() {
        return None;
    }
    let lease = shared.core.alone()?;
    let answer = match run_alone(py, shared, handler, desk, item) {
        Ok(answer) => answer,
        Err(error) => {
            shared.handler_failed(py, error.value(py));
            Answer::Raised(error.into_value(py).into_any())
        }
    };
    if shared.epoch != epoch() {
        // The handler has forked, and this is the child: the parent's slot is the parent's.
        std::mem::forget(lease);
    } else if let Answer::Value(_) = answer {
        lease.answered();
    } else {
        lease.failed();
    }
    shared.tell_watchers(py, None);
    Some(match answer {
        Answer::Value(value) => Ok(value),
        Answer::Raised(original) if original.bind(py).is_instance_of::<PyKeyboardInterrupt>() => {
            Err(PyErr::from_value(original.into_bound(py)))
        }
        other => errors::outcome(py, shared, other)
            .map_err(|error| PyErr::from_value(error.into_bound(py))),
    })
}

#[inline]
fn run_alone(
    py: Python<'_>,
    shared: &Arc<Shared>,
    handler: Handler<'_>,
    desk: &Bound<'_, Desk>,
    item: &Py<PyAny>,
) -> PyResult<Answer> {
    let items = PyList::new(py, [item])?;
    let entered = Desk::enter(desk, shared.number, Vec::new())?;
    let results = handler.call(&items);
    drop(entered);
    let rows = rows(py, shared, results?, 1, 1)?;
    Ok(answer(rows.get_item(0)?))
}

/// Runs a batch to its end in this thread, whose own request is in it; the wakes of the others are the
/// caller's to make. A KeyboardInterrupt of the handler is raised, after the others have been told.
pub(crate) fn serve(
    py: Python<'_>,
    shared: &Arc<Shared>,
    handler: Handler<'_>,
    mut batch: Core,
) -> (Told, PyResult<()>) {
    let results = (|| {
        let items = items(py, &batch)?;
        let mut entered = Desk::enter(handler.desk(py), shared.number, origins(&batch))?;
        batch.start();
        entered.show(&batch);
        let results = handler.call(&items);
        drop(entered);
        results
    })();
    match results {
        Ok(results) => (deliver(py, shared, &mut batch, results), Ok(())),
        Err(error) => {
            let interrupt = error
                .is_instance_of::<PyKeyboardInterrupt>(py)
                .then(|| error.clone_ref(py));
            shared.handler_failed(py, error.value(py));
            let told = fail(py, &mut batch, &error.into_value(py).into_any());
            (told, interrupt.map_or(Ok(()), Err))
        }
    }
}

/// The callers of a batch have their answers. What is left is to wake those who are blocked, without the
/// interpreter, and then to give the slot back; dropping this does both.
#[derive(Default)]
pub(crate) struct Told {
    wakes: Vec<Waker>,
    slot: Option<Kept<PyBorder>>,
    /// For those who watch: to be told after the callers.
    followed: Option<Box<Followed>>,
}

impl Told {
    fn of(mut outgoing: Outgoing<PyBorder>) -> Self {
        let followed = outgoing.follow().map(Box::new);
        let mut slot = None;
        let wakes = wakes::hold(|| slot = outgoing.send_keeping());
        Self {
            wakes,
            slot,
            followed,
        }
    }

    /// Whether no blocked thread is to be woken: callers on loops know already.
    pub(crate) fn wakes_nobody(&self) -> bool {
        self.wakes.is_empty()
    }

    /// What those who watch are to be told.
    #[inline]
    pub(crate) fn take_followed(&mut self) -> Option<Box<Followed>> {
        self.followed.take()
    }

    /// Wakes all but the thread of `own`.
    pub(crate) fn wake_others(mut self, own: &Waker) {
        self.wakes.retain(|waker| !waker.will_wake(own));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.wakes.drain(..).for_each(Waker::wake);
        // Then the slot.
        drop(self.slot.take());
    }
}

/// Whose items a handler sees: each request's, and in rows beyond them once more that of the last.
pub(crate) fn padded(batch: &Core) -> impl ExactSizeIterator<Item = usize> {
    let last = batch.len().saturating_sub(1);
    (0..batch.padded_len()).map(move |row| row.min(last))
}

/// The items of a batch, filled up to the size that its handler is to see.
pub(crate) fn items<'py>(py: Python<'py>, batch: &Core) -> PyResult<Bound<'py, PyList>> {
    let items = padded(batch).map(|index| match batch.payload(index) {
        Some(payload) => payload.item.clone_ref(py),
        None => py.None(),
    });
    PyList::new(py, items)
}

/// The handlers in which the requests of a batch arose, each once.
pub(crate) fn origins(batch: &Core) -> Vec<Arc<Chain>> {
    let mut origins: Vec<Arc<Chain>> = Vec::new();
    for index in 0..batch.len() {
        let payload = batch.payload(index);
        if let Some(origin) = payload.and_then(Payload::origin) {
            if !origins.iter().any(|known| Arc::ptr_eq(known, origin)) {
                origins.push(origin.clone());
            }
        }
    }
    origins
}

/// Answers every request with its row, or all with what is wrong with the rows.
pub(crate) fn deliver(
    py: Python<'_>,
    shared: &Arc<Shared>,
    batch: &mut Core,
    results: Bound<'_, PyAny>,
) -> Told {
    let (len, count) = (batch.len(), batch.padded_len());
    let rows = match rows(py, shared, results, count, len) {
        Ok(rows) => rows,
        Err(error) => return fail(py, batch, &error.into_value(py).into_any()),
    };
    let answers = rows.iter().take(len).map(answer).collect();
    match batch.answer_all(answers) {
        Ok(outgoing) => Told::of(outgoing),
        // Nobody else could have answered, and the number was checked.
        Err(_) => Told::default(),
    }
}

/// Fails every request.
pub(crate) fn fail(py: Python<'_>, batch: &mut Core, error: &Py<PyAny>) -> Told {
    Told::of(batch.answer_rest(|_| Answer::Raised(error.clone_ref(py))))
}

/// The `count` rows of what a handler returned for `requests`.
#[inline]
fn rows<'py>(
    py: Python<'py>,
    shared: &Shared,
    results: Bound<'py, PyAny>,
    count: usize,
    requests: usize,
) -> PyResult<Bound<'py, PyList>> {
    match results.cast_into_exact::<PyList>() {
        Ok(list) if list.len() == count => Ok(list),
        Ok(list) => rows_of(py, shared, list.as_any(), count, requests),
        Err(error) => rows_of(py, shared, &error.into_inner(), count, requests),
    }
}

#[cold]
pub(crate) fn rows_of<'py>(
    py: Python<'py>,
    shared: &Shared,
    results: &Bound<'py, PyAny>,
    count: usize,
    requests: usize,
) -> PyResult<Bound<'py, PyList>> {
    let rows = py.import("carpool._handler.rows")?.getattr("rows")?;
    Ok(rows
        .call1((results, count, &shared.name, requests))?
        .cast_into::<PyList>()?)
}

/// What one row of a result is to its caller.
#[inline]
fn answer(row: Bound<'_, PyAny>) -> Answer {
    // SAFETY: attached; the object is alive; the check reads the flags of its type.
    if unsafe { ffi::PyExceptionInstance_Check(row.as_ptr()) } != 0 {
        Answer::Raised(row.unbind())
    } else {
        Answer::Value(row.unbind())
    }
}
