//! Which runs of a handler wait for requests to that same handler.
//!
//! With several slots a handler may call itself, as long as a slot is left for the call. How many slots one
//! chain of calls holds it shows itself ([`run`](crate::run)). But several chains together can hold them all,
//! each waiting for a slot that none will free. So every such wait is noted here, and the last one is refused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carpool_core::request::Handle;
use pyo3::prelude::*;

use crate::border::PyBorder;
use crate::run::Chain;
use crate::shared::Shared;

/// One run that waits for one request.
struct Wait {
    number: u64,
    run: Arc<Chain>,
    request: Handle<PyBorder>,
}

impl Wait {
    /// Given up, or answered (though whoever waited may not have gone on yet), it waits no more.
    fn goes_on(&self) -> bool {
        let reply = self.request.reply();
        self.run.is_active() && (reply.is_pending() || reply.is_in_lobby() || reply.is_wanted())
    }
}

/// The waits of one engine's runs for that engine.
#[derive(Default)]
pub(crate) struct Waits {
    any: AtomicBool,
    next: AtomicU64,
    /// Never locked while Python code, drops or wakes run.
    noted: Mutex<Vec<Wait>>,
}

impl Waits {
    fn noted(&self) -> MutexGuard<'_, Vec<Wait>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many runs wait, if those of `more` do.
    pub(crate) fn count_with(&self, more: &[&Arc<Chain>]) -> usize {
        self.tidy();
        let mut runs: Vec<*const Chain> = more.iter().map(|run| Arc::as_ptr(run)).collect();
        for wait in self.noted().iter() {
            let run = Arc::as_ptr(&wait.run);
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        runs.len()
    }

    /// Notes that the handlers of `engine` which `chain` runs in wait for `request`. None: there are none.
    fn note(&self, engine: u64, chain: &Arc<Chain>, request: &Handle<PyBorder>) -> Option<u64> {
        let runs = chain.runs_of(engine);
        if runs.is_empty() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.any.store(true, Ordering::Relaxed);
        self.noted().extend(runs.into_iter().map(|run| Wait {
            number,
            run: run.clone(),
            request: request.clone(),
        }));
        Some(number)
    }

    fn drop_where(&self, over: impl FnMut(&Wait) -> bool) {
        let dropped: Vec<Wait> = {
            let mut noted = self.noted();
            let (dropped, kept) = std::mem::take(&mut *noted).into_iter().partition(over);
            *noted = kept;
            self.any.store(!noted.is_empty(), Ordering::Relaxed);
            dropped
        };
        drop(dropped);
    }

    /// Forgets the waits that are over.
    #[inline]
    pub(crate) fn tidy(&self) {
        if self.any.load(Ordering::Relaxed) {
            self.drop_where(|wait| !wait.goes_on());
        }
    }
}

/// A wait that was noted; dropping this ends it.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Waiting {
    engine: Arc<Shared>,
    number: u64,
}

impl Waiting {
    /// Notes that whoever runs in `chain` waits for `request` from now on.
    pub(crate) fn note(
        engine: &Arc<Shared>,
        chain: Option<&Arc<Chain>>,
        request: &Handle<PyBorder>,
    ) -> Option<Self> {
        let number = engine.waits.note(engine.number, chain?, request)?;
        Some(Self {
            engine: engine.clone(),
            number,
        })
    }

    /// The same, until `request` is answered, or the run over.
    pub(crate) fn keep(
        engine: &Arc<Shared>,
        chain: Option<&Arc<Chain>>,
        request: &Handle<PyBorder>,
    ) {
        if let Some(chain) = chain {
            engine.waits.note(engine.number, chain, request);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.engine
            .waits
            .drop_where(|wait| wait.number == self.number);
    }
}
