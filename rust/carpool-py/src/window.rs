//! Many at once from Python: a list of items with one that waits for all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::guard::intern;
use carpool_core::many::{self, Item, RefusedMany};
use carpool_core::{Many, Refusal, Told};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::asks::{Asks, Measured};
use crate::border::{Extra, Payload, PyBorder, Waiter};
use crate::errors;
use crate::guard::Inside;
use crate::port::{Port, inside_loop};
use crate::pump::Pump;
use crate::seat::{Watch, callback_waker, with_parker};
use crate::shared::{Executor, Shared, epoch};
use crate::terms::Asked;
use crate::{errands, run};

/// The caller's end of a list of requests. Dropping it cancels nothing.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Window {
    many: Many<PyBorder>,
    engine: Arc<Shared>,
    /// Those that were never submitted, and why.
    refused: Vec<(usize, Py<PyAny>)>,
    /// Which have not been given away by `take_ready`; nobody else looks while that runs.
    open: Mutex<Vec<usize>>,
}

/// Lists that one reader submits one after the other, and which go together.
#[pyclass(frozen, module = "carpool._core")]
#[derive(Default)]
pub(crate) struct Convoy(many::Convoy);

#[pymethods]
impl Convoy {
    #[new]
    fn new() -> Self {
        Self::default()
    }
}

/// When, and with whom, a list is submitted for its waiter.
enum Going<'a> {
    /// With a flush, so that all leave together; told at the end.
    Together,
    Told(Told, Option<&'a Convoy>),
}

/// What the requests of a list ask for.
pub(crate) enum AskedOfMany<'a> {
    /// Each the same.
    Alike(Asked),
    /// Each what is measured on its item.
    Measured(&'a Asks),
}

impl AskedOfMany<'_> {
    /// Cost, key and length of one.
    fn of(&self, py: Python<'_>, item: &Py<PyAny>) -> PyResult<Measured> {
        match self {
            Self::Alike(asked) => Ok(Measured {
                cost: asked.cost,
                key: asked.key.as_ref().map(|key| key.clone_ref(py)),
                length: asked.length,
            }),
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

/// What is submitted of `items`. With `refused`, one that cannot be measured, or costs more than a batch may, goes
/// there by itself, with its place; without, it refuses them all.
fn listed(
    shared: &Arc<Shared>,
    py: Python<'_>,
    owner: &Py<PyAny>,
    items: &Bound<'_, PyAny>,
    asked: &AskedOfMany<'_>,
    mut refused: Option<&mut Vec<(usize, Py<PyAny>)>>,
) -> PyResult<Vec<Item<Payload>>> {
    let origin = run::current(py);
    let (level, context) = asked.kept(py)?;
    let most = shared.core.most_of_one();
    let alone = refused.is_some();
    let of_one = |item: &Py<PyAny>| -> PyResult<_> {
        let Measured { cost, key, length } = asked.of(py, item)?;
        if cost > most && alone {
            shared.core.count_rejected();
            return Err(errors::refused(py, shared, Refusal::TooLarge, cost));
        }
        let key = match key {
            Some(key) => Some(shared.keys.of(key.bind(py), &shared.name)?),
            None => None,
        };
        Ok((cost, key, length))
    };
    // The user's iterator runs before there is anything to undo.
    let given = items.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let mut all = Vec::with_capacity(given.len());
    for (place, item) in given.into_iter().enumerate() {
        let item = item.unbind();
        let (cost, key, length) = match (of_one(&item), refused.as_mut()) {
            (Ok(one), _) => one,
            // An interrupt, or the end of the process, is nothing that one item is to blame for.
            (Err(error), Some(refused)) if error.is_instance_of::<PyException>(py) => {
                refused.push((place, error.into_value(py).into_any()));
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        let context = context.as_ref().map(|context| context.clone_ref(py));
        all.push(Item {
            cost,
            key: key.as_ref().map_or(0, |key| key.number()),
            length,
            payload: Payload {
                item,
                owner: owner.clone_ref(py),
                extra: Extra::of(origin.clone(), key, level, context),
            },
        });
    }
    Ok(all)
}

/// Submits a list for `waiter`.
fn submit(
    shared: &Arc<Shared>,
    py: Python<'_>,
    owner: &Py<PyAny>,
    all: Vec<Item<Payload>>,
    waiter: Waiter,
    asked: &AskedOfMany<'_>,
    going: &Going<'_>,
) -> PyResult<Many<PyBorder>> {
    if shared.executor == Executor::Caller {
        // No caller runs what is one of many: a worker does.
        owner.call_method0(py, intern!(py, "_before_waiting"))?;
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
    let core = &shared.core;
    let submitted = match *going {
        Going::Together => core.submit_together(all, waiter, terms),
        Going::Told(told, None) => core.submit_many(all, waiter, terms, told),
        Going::Told(told, Some(convoy)) => core.submit_in(&convoy.0, all, waiter, terms, told),
    };
    let many = submitted.map_err(|RefusedMany { why, items, .. }| {
        let dearest = items.iter().map(|item| item.cost).max();
        shared.tell_due(py);
        errors::refused(py, shared, why, dearest.unwrap_or(0))
    })?;
    if shared.inline {
        owner.call_method0(py, intern!(py, "_run_here"))?;
    }
    Ok(many)
}

/// The outcome of each, in order: its result, or the exception in its place. Blocks.
pub(crate) fn call_many(
    shared: &Arc<Shared>,
    py: Python<'_>,
    owner: &Py<PyAny>,
    items: &Bound<'_, PyAny>,
    asked: &AskedOfMany<'_>,
    together: bool,
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
        let waiter = Waiter::Window {
            waker: parker.waker().clone(),
            port: None,
        };
        let all = listed(shared, py, owner, items, asked, None)?;
        let going = match together {
            true => Going::Together,
            false => Going::Told(Told::AtTheEnd, None),
        };
        let many = submit(shared, py, owner, all, waiter, asked, &going)?;
        let waited = Watch::new(py)?.wait(py, parker, || many.is_over());
        if let Err(error) = waited {
            // Interrupted: nobody waits for the answers any more.
            drop(many.cancel());
            shared.tell_due(py);
            return Err(error);
        }
        outcomes(shared, py, &many)
    })
}

fn outcomes(shared: &Arc<Shared>, py: Python<'_>, many: &Many<PyBorder>) -> PyResult<Py<PyList>> {
    let answers = many.take_all().into_iter();
    shared.tell_due(py);
    let rows = answers.map(|answer| match errors::outcome(py, shared, answer) {
        Ok(value) | Err(value) => value,
    });
    PyList::new(py, rows.collect::<Vec<_>>()).map(Bound::unbind)
}

impl Window {
    /// Submits `items`; `callback()` comes from any thread when all have their outcomes, or, `per_step`,
    /// whenever some more have. Those of one `convoy` go together.
    #[allow(clippy::too_many_arguments, reason = "one per term")]
    pub(crate) fn submit(
        shared: &Arc<Shared>,
        py: Python<'_>,
        owner: &Py<PyAny>,
        items: &Bound<'_, PyAny>,
        callback: Py<PyAny>,
        per_step: bool,
        asked: &AskedOfMany<'_>,
        convoy: Option<&Convoy>,
    ) -> PyResult<Self> {
        let port = match shared.executor {
            Executor::Loop => match Port::current(py)? {
                Some(port) => Some(port),
                None => return Err(shared.no_loop()),
            },
            _ => None,
        };
        let told = if per_step {
            Told::PerStep
        } else {
            Told::AtTheEnd
        };
        let waiter = Waiter::Window {
            waker: callback_waker(callback.clone_ref(py)),
            port: port.as_ref().map(|port| port.clone_ref(py)),
        };
        let mut refused = Vec::new();
        let all = listed(shared, py, owner, items, asked, Some(&mut refused))?;
        let going = Going::Told(told, convoy);
        let many = submit(shared, py, owner, all, waiter, asked, &going)?;
        if let Some(port) = port {
            Pump::nudge(&shared.pumps.of(py, shared, &port)?, shared)?;
        }
        if many.is_empty() {
            // Nothing that could end, so nobody else calls.
            callback.call0(py)?;
        }
        Ok(Self {
            open: Mutex::new(if per_step {
                (0..many.len()).collect()
            } else {
                Vec::new()
            }),
            many,
            engine: shared.clone(),
            refused,
        })
    }

    fn open(&self) -> MutexGuard<'_, Vec<usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place in the list of the request that was submitted as number `index`.
    fn place(&self, index: usize) -> usize {
        // The refused are few, and by rising place.
        let skip = |at: usize, &(refused, _): &(usize, Py<PyAny>)| at + usize::from(refused <= at);
        self.refused.iter().fold(index, skip)
    }
}

#[pymethods]
impl Window {
    fn __len__(&self) -> usize {
        self.many.len() + self.refused.len()
    }

    /// How many have no outcome yet.
    #[getter]
    fn left(&self) -> usize {
        self.many.left()
    }

    /// Those that were never submitted, their cost or key being none: place and error of each.
    #[getter]
    fn refused(&self, py: Python<'_>) -> Vec<(usize, Py<PyAny>)> {
        let refused = self.refused.iter();
        refused
            .map(|(place, error)| (*place, error.clone_ref(py)))
            .collect()
    }

    /// Whether it was submitted in this process, not in one that was forked from.
    #[getter]
    fn is_ours(&self) -> bool {
        self.engine.epoch == epoch()
    }

    /// The outcome of submitted request `index` in a tuple of one, to the first who asks; None before it is
    /// there.
    fn take<'py>(&self, py: Python<'py>, index: usize) -> Option<(Py<PyAny>,)> {
        let _inside = Inside::go_on();
        let answer = self.many.take(index)?;
        self.engine.tell_due(py);
        match errors::outcome(py, &self.engine, answer) {
            Ok(value) | Err(value) => Some((value,)),
        }
    }

    /// All outcomes of submitted requests in order, once: results, and exceptions in their places. Empty before
    /// all are there.
    fn take_all(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let _inside = Inside::go_on();
        outcomes(&self.engine, py, &self.many)
    }

    /// The same for all of the list, refused ones included, and how many of them failed.
    fn collect(&self, py: Python<'_>) -> PyResult<(Py<PyList>, usize)> {
        let _inside = Inside::go_on();
        let answers = self.many.take_all();
        self.engine.tell_due(py);
        let mut rows = Vec::with_capacity(answers.len() + self.refused.len());
        let mut failed = self.refused.len();
        for answer in answers {
            rows.push(match errors::outcome(py, &self.engine, answer) {
                Ok(value) => value,
                Err(error) => {
                    failed += 1;
                    error
                }
            });
        }
        for (place, error) in &self.refused {
            rows.insert(*place, error.clone_ref(py));
        }
        Ok((PyList::new(py, rows)?.unbind(), failed))
    }

    /// Of one that is told per step, the outcomes that came since this was asked last: their places in the list, the outcomes, and how many
    /// of them failed. Refused ones are not among them.
    fn take_ready(&self, py: Python<'_>) -> (Vec<usize>, Vec<Py<PyAny>>, usize) {
        let _inside = Inside::go_on();
        let open = std::mem::take(&mut *self.open());
        let (mut ready, mut rest) = (Vec::new(), Vec::new());
        for index in open {
            match self.many.take(index) {
                Some(answer) => ready.push((index, answer)),
                None => rest.push(index),
            }
        }
        *self.open() = rest;
        self.engine.tell_due(py);
        let (mut places, mut rows, mut failed) = (Vec::new(), Vec::new(), 0);
        for (index, answer) in ready {
            places.push(self.place(index));
            rows.push(match errors::outcome(py, &self.engine, answer) {
                Ok(value) => value,
                Err(error) => {
                    failed += 1;
                    error
                }
            });
        }
        (places, rows, failed)
    }

    /// Gives up on all of them: what is not sealed never reaches the handler.
    fn cancel(&self, py: Python<'_>) {
        let payloads = self.many.cancel();
        drop(payloads);
        self.engine.tell_due(py);
    }
}
