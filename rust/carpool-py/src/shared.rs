//! What everything of one batcher refers to, and which process it belongs to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use carpool_core::submit::Announce;
use carpool_core::{Batcher, Nanos, timer};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::border::{Payload, PyBorder, Waiter};
use crate::keys::Keys;
use crate::leaving::Leaving;
use crate::port::inside_loop;
use crate::pump::Pumps;
use crate::run::{self, Chain};
use crate::terms::{Asked, Standing};
use crate::waits::Waits;
use crate::watching::Watchers;
use crate::{errands, errors, guard};

type CoreTicket = carpool_core::Ticket<PyBorder>;

/// Raised by one in every forked child: what belongs to another epoch belongs to the parent.
static EPOCH: AtomicU64 = AtomicU64::new(0);
pub(crate) static ENGINES: AtomicU64 = AtomicU64::new(0);

/// The present process, as far as forks tell them apart.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// Raised whenever functions have to ask for their engines again: by a fork, or another mode.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// While it stays the same, a known engine is the right one.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Has every decorated function ask for its engine again.
#[pyfunction]
pub(crate) fn renew() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Marks this process as a forked child.
#[pyfunction]
pub(crate) fn forked() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    renew();
    timer::forked();
    errands::forked();
    guard::forget_others();
}

/// Who runs the handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executor {
    /// Worker threads, or a loop of the user's own.
    Thread,
    /// The event loop of a caller.
    Loop,
    /// The thread whose call closes the batch.
    Caller,
}

/// What everything of one batcher refers to.
pub(crate) struct Shared {
    pub(crate) core: Batcher<PyBorder>,
    pub(crate) name: String,
    pub(crate) executor: Executor,
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    pub(crate) pumps: Pumps,
    pub(crate) standing: Standing,
    pub(crate) dead: Mutex<Option<Py<PyAny>>>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) watchers: Watchers,
    /// Awaitables know when their requests went through the stations of their way.
    pub(crate) keeps_timings: bool,
    pub(crate) leaving: Leaving,
    /// Whoever submits runs the handler.
    pub(crate) inline: bool,
    pub(crate) waits: Waits,
}

impl Shared {
    /// The error that ended it, where one did.
    pub(crate) fn cause_of_death(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let dead = self
            .dead
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        dead.as_ref().map(|error| error.clone_ref(py))
    }

    /// Closes for ever: pending and later callers get a copy of `error`.
    pub(crate) fn die(&self, py: Python<'_>, error: Py<PyAny>) {
        {
            let dead = self.dead.lock();
            let mut dead = dead.unwrap_or_else(std::sync::PoisonError::into_inner);
            dead.get_or_insert(error);
        }
        self.core.close(false);
        self.pumps.wake_all(py);
    }

    /// A handler raised `error`. After some errors nothing that this process runs on its device can succeed; then
    /// the batcher is dead, before anybody has the error.
    #[cold]
    pub(crate) fn handler_failed(&self, py: Python<'_>, error: &Bound<'_, PyAny>) {
        if self.epoch != epoch() {
            // The handler has forked, and this is the child: the parent's batcher is the parent's.
            return;
        }
        let dead = guard::insist(py, || {
            let faults = py.import("carpool._handler.faults")?;
            faults.call_method1("cause_of_death", (&self.name, error))
        });
        if let Ok(dead) = dead.map(Bound::unbind) {
            if !dead.is_none(py) {
                self.die(py, dead);
            }
        }
    }

    /// The origin of a request made here, unless waiting for it could never end.
    #[inline]
    pub(crate) fn origin(&self, py: Python<'_>, waits: bool) -> PyResult<Option<Arc<Chain>>> {
        if run::none() {
            return Ok(None);
        }
        self.origin_here(py, waits)
    }

    #[cold]
    fn origin_here(&self, py: Python<'_>, waits: bool) -> PyResult<Option<Arc<Chain>>> {
        let Some(chain) = run::current(py) else {
            return Ok(None);
        };
        if waits {
            self.check_chain(py, &chain)?;
        }
        Ok(Some(chain))
    }

    pub(crate) fn check_chain(&self, py: Python<'_>, chain: &Arc<Chain>) -> PyResult<()> {
        let runs = chain.runs_of(self.number);
        if runs.is_empty() {
            return Ok(());
        }
        let (name, slots) = (&self.name, self.core.slots());
        let held = Chain::held_by(&runs);
        if held == run::ALL_SLOTS {
            let text = format!(
                "{name}: called from inside its own setup, which has to end before any batch can run"
            );
            return Err(errors::raise(py, "WouldDeadlock", text));
        }
        if held < slots {
            if self.waits.count_with(&runs) < slots {
                return Ok(());
            }
            let text = format!(
                "{name}: called from inside its own handler while all {slots} slots are held by such calls, \
                 of which none can end; return first, submit without waiting, or raise \
                 max_concurrent_batches"
            );
            return Err(errors::raise(py, "WouldDeadlock", text));
        }
        let held = match slots {
            1 => "the only slot".to_owned(),
            _ => format!("all {slots} slots"),
        };
        let text = format!(
            "{name}: called from inside its own handler, which holds {held}; return first, \
             submit without waiting, or raise max_concurrent_batches"
        );
        Err(errors::raise(py, "WouldDeadlock", text))
    }

    /// When a call that arrives now, and says nothing itself, is overdue.
    pub(crate) fn standing_deadline(&self) -> Option<Nanos> {
        let timeout = self.standing.timeout()?;
        Some(self.core.now().saturating_add(timeout))
    }

    /// What a call asks for that gives its terms itself; without a deadline the batcher's counts.
    pub(crate) fn asked(
        &self,
        deadline: Option<Nanos>,
        cost: u64,
        urgency: i64,
        key: Option<Py<PyAny>>,
    ) -> Asked {
        let deadline = deadline.or_else(|| self.standing_deadline());
        Asked::new(deadline, cost, urgency, key)
    }

    pub(crate) fn submit(
        &self,
        py: Python<'_>,
        mut payload: Payload,
        origin: Option<Arc<Chain>>,
        waiter: Waiter,
        announce: Announce,
        asked: &Asked,
    ) -> PyResult<CoreTicket> {
        payload.extra = asked.extra(py, self, origin)?;
        let key = payload.extra.as_ref().map_or(0, |extra| extra.number());
        if asked.has_deadline() {
            errands::start(py)?;
            timer::start()?;
        }
        let terms = asked.terms(self.core.now(), key);
        let submitted = self.core.submit_with(payload, waiter, terms, announce);
        submitted.map_err(|refused| {
            let error = errors::refused(py, self, refused.why, asked.cost);
            self.tell_due(py);
            error
        })
    }

    /// A loop must run the handler, and this thread is not inside one.
    pub(crate) fn no_loop(&self) -> PyErr {
        PyRuntimeError::new_err(format!(
            "{}: the handler runs on its callers' event loop (executor=\"loop\"), and there is no \
             running event loop here; call it from a coroutine, or use executor=\"thread\"",
            self.name
        ))
    }

    pub(crate) fn would_block_loop(&self, py: Python<'_>, what: &str) -> PyErr {
        let name = &self.name;
        let text = format!(
            "{name}: {what} would block the event loop that has to run the handler; await instead"
        );
        errors::raise(py, "WouldDeadlock", text)
    }

    /// Refuses to wait until all batches have ended inside one of them.
    pub(crate) fn check_end(&self, py: Python<'_>) -> PyResult<()> {
        let Some(chain) = run::current(py) else {
            return Ok(());
        };
        if chain.runs_of(self.number).iter().any(|run| run.has_batch()) {
            let text = format!(
                "{}: a close from inside its own handler would wait for that handler; close elsewhere",
                self.name
            );
            return Err(errors::raise(py, "WouldDeadlock", text));
        }
        self.check_chain(py, &chain)
    }

    /// Refuses to wait for a request on the loop that has to run the handler, or inside it.
    pub(crate) fn check_wait(&self, py: Python<'_>, what: &str) -> PyResult<()> {
        if let Some(chain) = run::current(py) {
            self.check_chain(py, &chain)?;
        }
        if self.executor == Executor::Loop && inside_loop(py)? {
            return Err(self.would_block_loop(py, what));
        }
        Ok(())
    }
}
