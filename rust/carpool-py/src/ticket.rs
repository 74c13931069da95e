//! The caller's end of a request that a `carpool.Future` stands for.

use std::sync::Arc;

use crate::guard::intern;
use carpool_core::reply::Cancelled;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::border::{PyBorder, Waiter};
use crate::run;
use crate::shared::{Shared, epoch};
use crate::waits::Waiting;
use crate::watching;

type CoreTicket = carpool_core::Ticket<PyBorder>;

/// The caller's end of a submitted request.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Ticket {
    pub(crate) ticket: CoreTicket,
    pub(crate) engine: Arc<Shared>,
}

impl Ticket {
    fn waiting(&self, py: Python<'_>) -> Option<Waiting> {
        let chain = run::current(py);
        Waiting::note(&self.engine, chain.as_ref(), self.ticket.request())
    }

    /// Says that an error reached nobody.
    pub(crate) fn say_lost(py: Python<'_>, engine: &Shared, error: &Bound<'_, PyAny>) {
        let say = || -> PyResult<()> {
            let events = py.import("carpool._watch.events")?;
            events
                .getattr(intern!(py, "lost_error"))?
                .call1((&engine.name, error))?;
            Ok(())
        };
        // At the end of the process there may be nobody left to tell.
        drop(say());
    }
}

#[pymethods]
impl Ticket {
    /// Gives up. True if the request was not sealed yet: then the handler never sees it.
    fn cancel(&self, py: Python<'_>) -> bool {
        let (met, payload) = self.ticket.withdraw();
        drop(payload);
        let ended = matches!(met, Cancelled::Pending | Cancelled::InLobby);
        if let (true, Waiter::Future(end)) = (ended, self.ticket.request().waiter()) {
            drop(end.future.take());
        }
        self.engine.tell_due(py);
        ended
    }

    /// True while the request can still be cancelled.
    #[getter]
    fn pending(&self) -> bool {
        let reply = self.ticket.request().reply();
        reply.is_pending() || reply.is_in_lobby()
    }

    /// True once it is in a batch.
    #[getter]
    fn sealed(&self) -> bool {
        self.ticket.request().reply().is_sealed()
    }

    /// Whether it was submitted in this process, not in one that was forked from.
    #[getter]
    fn is_ours(&self) -> bool {
        self.engine.epoch == epoch()
    }

    /// When it went through the stations of its way, in seconds; None as long as it has not.
    #[getter]
    fn moments<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        watching::moments(py, self.ticket.request())
    }

    /// The name of its batcher.
    #[getter]
    fn name(&self) -> &str {
        &self.engine.name
    }

    /// Refuses (WouldDeadlock) a wait that could never end. What it returns, if anything, is to be kept while
    /// that lasts.
    fn check_wait(&self, py: Python<'_>) -> PyResult<Option<Waiting>> {
        self.engine.check_wait(py, "waiting for the result")?;
        Ok(self.waiting(py))
    }

    /// Refuses (WouldDeadlock) to await the request inside the handler that has to answer it; as above.
    fn check_chain(&self, py: Python<'_>) -> PyResult<Option<Waiting>> {
        if let Some(chain) = run::current(py) {
            self.engine.check_chain(py, &chain)?;
        }
        Ok(self.waiting(py))
    }

    /// Logs that `error` reached nobody.
    fn lost(&self, py: Python<'_>, error: &Bound<'_, PyAny>) {
        Self::say_lost(py, &self.engine, error);
    }
}
