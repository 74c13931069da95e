//! What every call through one function, view or batcher asks for: terms that are the same each time, and those
//! that are measured on the call's own item.

use carpool_core::Nanos;
use pyo3::prelude::*;

use crate::run;
use crate::shared::Shared;
use crate::terms::Asked;

/// Terms for calls; made from options.
///
/// `measure(item)` gives the cost, the key (None: no key) and the length of one call. It runs in the caller, before
/// anything is submitted, so that its errors are that caller's alone. `level` is the priority, worth as much as
/// the batcher's ageing says. `timeout_ns` is a limit of the calls' own (None: no limit); without `own_timeout`
/// the batcher's counts. With `keeps_context` a request keeps a copy of its caller's context.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Asks {
    timeout: Timeout,
    cost: u64,
    length: u64,
    measure: Option<Py<PyAny>>,
    level: i32,
    keeps_context: bool,
}

/// What is measured on the item of a call.
pub(crate) struct Measured {
    pub(crate) cost: u64,
    pub(crate) key: Option<Py<PyAny>>,
    pub(crate) length: u64,
}

/// How long a call may wait.
enum Timeout {
    /// As long as the batcher says at that moment.
    Standing,
    Own(Option<Nanos>),
}

impl Asks {
    /// The terms of a call with `item`, which arrives now.
    pub(crate) fn of(&self, py: Python<'_>, shared: &Shared, item: &Py<PyAny>) -> PyResult<Asked> {
        let Measured { cost, key, length } = self.measured(py, item)?;
        let (level, context) = self.kept(py)?;
        Ok(Asked {
            cost,
            key,
            length,
            level,
            context,
            ..self.of_all(shared)
        })
    }

    /// What does not depend on the item, of calls that arrive now.
    pub(crate) fn of_all(&self, shared: &Shared) -> Asked {
        let deadline = match self.timeout {
            Timeout::Standing => shared.standing_deadline(),
            Timeout::Own(timeout) => {
                timeout.map(|timeout| shared.core.now().saturating_add(timeout))
            }
        };
        Asked::new(
            deadline,
            self.cost,
            shared.standing.urgency(self.level),
            None,
        )
    }

    /// What a request keeps for whoever wants to know: its priority, and the context of its caller where that is
    /// kept.
    pub(crate) fn kept(&self, py: Python<'_>) -> PyResult<(i32, Option<Py<PyAny>>)> {
        let context = match self.keeps_context {
            true => Some(run::copy_context(py)?),
            false => None,
        };
        Ok((self.level, context))
    }

    /// What depends on the item.
    pub(crate) fn measured(&self, py: Python<'_>, item: &Py<PyAny>) -> PyResult<Measured> {
        let (cost, key, length) = match &self.measure {
            None => (self.cost, None, self.length),
            Some(measure) => measure.bind(py).call1((item,))?.extract()?,
        };
        Ok(Measured { cost, key, length })
    }
}

#[pymethods]
impl Asks {
    #[new]
    #[pyo3(signature = (*, own_timeout=false, timeout_ns=None, cost=1, length=0, measure=None, level=0,
                        keeps_context=false))]
    fn new(
        own_timeout: bool,
        timeout_ns: Option<Nanos>,
        cost: u64,
        length: u64,
        measure: Option<Py<PyAny>>,
        level: i32,
        keeps_context: bool,
    ) -> Self {
        Self {
            timeout: match own_timeout {
                true => Timeout::Own(timeout_ns),
                false => Timeout::Standing,
            },
            cost,
            length,
            measure,
            level,
            keeps_context,
        }
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.measure)
    }
}
