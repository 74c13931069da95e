//! Many at once from Python: a list of items with one that waits for all of them.

use std::sync::Arc;

use carpool_core::many::{Item, RefusedMany};
use carpool_core::{Many, Told};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::asks::Asks;
use crate::border::{Extra, Payload, PyBorder, Waiter};
use crate::errors;
use crate::guard::Inside;
use crate::port::inside_loop;
use crate::seat::{Watch, callback_waker, with_parker};
use crate::shared::{Executor, Shared, epoch};
use crate::terms::Asked;
use crate::{errands, run};

/// The caller's end of a list of requests. Dropping it cancels nothing.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Window {
    many: Many<PyBorder>,
    engine: Arc<Shared>,
}

/// What the requests of a list ask for.
pub(crate) enum AskedOfMany<'a> {
    /// Each the same.
    Alike(Asked),
    /// Each what is measured on its item.
    Measured(&'a Asks),
}

impl AskedOfMany<'_> {
    /// The cost and the key of one.
    fn of(&self, py: Python<'_>, item: &Py<PyAny>) -> PyResult<(u64, Option<Py<PyAny>>)> {
        match self {
            Self::Alike(asked) => {
                let key = asked.key.as_ref().map(|key| key.clone_ref(py));
                Ok((asked.cost, key))
            }
            Self::Measured(asks) => asks.measured(py, item),
        }
    }

    /// What each keeps for whoever wants to know.
    fn kept(&self, py: Python<'_>) -> PyResult<(i32, Option<Py<PyAny>>)> {
        match self {
            Self::Alike(_) => Ok((0, None)),
            Self::Measured(asks) => asks.kept(py),
        }
    }
}

/// Submits `items` for `waiter`.
fn submit(
    shared: &Arc<Shared>,
    py: Python<'_>,
    owner: &Py<PyAny>,
    items: &Bound<'_, PyAny>,
    waiter: Waiter,
    asked: &AskedOfMany<'_>,
    told: Told,
) -> PyResult<Many<PyBorder>> {
    let origin = run::current(py);
    if shared.executor == Executor::Caller {
        // No caller runs what is one of many: a worker does.
        owner.call_method0(py, intern!(py, "_before_waiting"))?;
    }
    let (level, context) = asked.kept(py)?;
    // The user's iterator runs before there is anything to undo.
    let given = items.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let mut all = Vec::with_capacity(given.len());
    for item in given {
        let item = item.unbind();
        let (cost, key) = asked.of(py, &item)?;
        let key = match key {
            Some(key) => Some(shared.keys.of(key.bind(py), &shared.name)?),
            None => None,
        };
        let context = context.as_ref().map(|context| context.clone_ref(py));
        all.push(Item {
            cost,
            key: key.as_ref().map_or(0, |key| key.number()),
            payload: Payload {
                item,
                owner: owner.clone_ref(py),
                origin: origin.clone(),
                extra: Extra::of(key, level, context),
            },
        });
    }
    // From now on: what was measured has taken its time.
    let asked = match asked {
        AskedOfMany::Alike(asked) => asked,
        AskedOfMany::Measured(asks) => &asks.of_all(shared),
    };
    if asked.has_deadline() {
        errands::start(py)?;
        carpool_core::timer::start()?;
    }
    let terms = asked.terms(shared.core.now(), 0);
    let submitted = shared.core.submit_many(all, waiter, terms, told);
    submitted.map_err(|RefusedMany { why, items, .. }| {
        let dearest = items.iter().map(|item| item.cost).max();
        errors::refused(py, shared, why, dearest.unwrap_or(0))
    })
}

/// The outcome of each, in order: its result, or the exception in its place. Blocks.
pub(crate) fn call_many(
    shared: &Arc<Shared>,
    py: Python<'_>,
    owner: &Py<PyAny>,
    items: &Bound<'_, PyAny>,
    asked: &AskedOfMany<'_>,
) -> PyResult<Py<PyList>> {
    if shared.executor == Executor::Loop {
        return Err(if inside_loop(py)? {
            shared.would_block_loop(py, "a blocking call")
        } else {
            shared.no_loop()
        });
    }
    drop(shared.origin(py, true)?);
    with_parker(|parker| {
        let waiter = Waiter::Window(parker.waker().clone());
        let many = submit(shared, py, owner, items, waiter, asked, Told::AtTheEnd)?;
        let waited = Watch::new(py)?.wait(py, parker, || many.is_over());
        if let Err(error) = waited {
            // Interrupted: nobody waits for the answers any more.
            drop(many.cancel());
            return Err(error);
        }
        outcomes(shared, py, &many)
    })
}

fn outcomes(shared: &Arc<Shared>, py: Python<'_>, many: &Many<PyBorder>) -> PyResult<Py<PyList>> {
    let answers = many.take_all().into_iter();
    let rows = answers.map(|answer| match errors::outcome(py, shared, answer) {
        Ok(value) | Err(value) => value,
    });
    PyList::new(py, rows.collect::<Vec<_>>()).map(Bound::unbind)
}

impl Window {
    /// Submits `items`; `callback()` comes from any thread when all have their outcomes, or, `per_step`,
    /// whenever some more have.
    pub(crate) fn submit(
        shared: &Arc<Shared>,
        py: Python<'_>,
        owner: &Py<PyAny>,
        items: &Bound<'_, PyAny>,
        callback: Py<PyAny>,
        per_step: bool,
        asked: &AskedOfMany<'_>,
    ) -> PyResult<Self> {
        if shared.executor == Executor::Loop {
            return Err(shared.no_loop());
        }
        let told = if per_step {
            Told::PerStep
        } else {
            Told::AtTheEnd
        };
        let waiter = Waiter::Window(callback_waker(callback));
        Ok(Self {
            many: submit(shared, py, owner, items, waiter, asked, told)?,
            engine: shared.clone(),
        })
    }
}

#[pymethods]
impl Window {
    fn __len__(&self) -> usize {
        self.many.len()
    }

    /// How many have no outcome yet.
    #[getter]
    fn left(&self) -> usize {
        self.many.left()
    }

    /// Whether it was submitted in this process, not in one that was forked from.
    #[getter]
    fn is_ours(&self) -> bool {
        self.engine.epoch == epoch()
    }

    /// The outcome of request `index` in a tuple of one, to the first who asks; None before it is there.
    fn take<'py>(&self, py: Python<'py>, index: usize) -> Option<(Py<PyAny>,)> {
        let _inside = Inside::go_on();
        let answer = self.many.take(index)?;
        match errors::outcome(py, &self.engine, answer) {
            Ok(value) | Err(value) => Some((value,)),
        }
    }

    /// All outcomes in order, once: results, and exceptions in their places. Empty before all are there.
    fn take_all(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let _inside = Inside::go_on();
        outcomes(&self.engine, py, &self.many)
    }

    /// Gives up on all of them: what is not sealed never reaches the handler.
    fn cancel(&self) {
        let payloads = self.many.cancel();
        drop(payloads);
    }
}
