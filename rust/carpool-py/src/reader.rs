//! The reader's end of a stream: a request that is given steps before its answer.
//!
//! Whoever reads may be a thread or a coroutine, and not always the same one. So the request's waiter is a place
//! where the reader leaves word before it looks: a thread its waker, a coroutine what its loop is to call. Who tells
//! takes that away. A reader that found something takes its word back itself; a word too many does no harm.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use carpool_core::reply::Cancelled;
use carpool_core::submit::Announce;
use carpool_core::{Failure, Next};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyTuple};

use crate::bell::Bell;
use crate::border::{Answer, Payload, PyBorder, Waiter};
use crate::errors;
use crate::guard::Inside;
use crate::port::Port;
use crate::pump::Pump;
use crate::run;
use crate::seat::{Watch, with_parker};
use crate::shared::{Executor, Shared, epoch};
use crate::terms::Asked;

/// Whom to tell of a stream.
pub(crate) struct Reader {
    /// The loop it was asked for on.
    pub(crate) port: Option<Py<Port>>,
    /// The thread that asks for it, while that waits for room.
    pub(crate) let_in: Option<Waker>,
    word: Mutex<Option<Word>>,
}

/// What a reader leaves before it waits.
pub(crate) enum Word {
    Thread(Waker),
    Loop(Py<Port>, Py<PyAny>),
}

impl Reader {
    fn word(&self) -> MutexGuard<'_, Option<Word>> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves word. What lay there before is dropped with nothing locked.
    fn leave(&self, word: Word) {
        let before = self.word().replace(word);
        drop(before);
    }

    /// Takes the word away, if it is a thread's.
    pub(crate) fn thread(&self) -> Option<Waker> {
        let mut word = self.word();
        match word.take() {
            Some(Word::Thread(waker)) => Some(waker),
            other => {
                *word = other;
                None
            }
        }
    }

    /// Takes any word away.
    pub(crate) fn take(&self) -> Option<Word> {
        self.word().take()
    }

    /// The bell of the loop on which somebody waits; without the interpreter.
    pub(crate) fn bell(&self) -> Option<Arc<Bell>> {
        match &*self.word() {
            Some(Word::Loop(port, _)) => port.get().bell(),
            _ => None,
        }
    }

    fn has_word(&self) -> bool {
        self.word().is_some()
    }
}

/// What a look found.
enum Found {
    Step(Py<PyAny>),
    End,
    Nothing,
}

/// The reader's end of a stream. Dropping it gives the stream up.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Steps {
    ticket: carpool_core::Ticket<PyBorder>,
    engine: Arc<Shared>,
    ended: AtomicBool,
}

impl Steps {
    /// Submits `item`. `blocks`: this thread may wait for room in the queue; else an event loop runs here.
    pub(crate) fn submit(
        shared: &Arc<Shared>,
        py: Python<'_>,
        owner: Py<PyAny>,
        item: Py<PyAny>,
        blocks: bool,
        asked: &Asked,
    ) -> PyResult<Self> {
        let port = Port::current(py)?;
        let pump = match (shared.executor, &port) {
            (Executor::Loop, None) => return Err(shared.no_loop()),
            (Executor::Loop, Some(port)) => Some(shared.pumps.of(py, shared, port)?),
            _ => None,
        };
        let origin = shared.origin(py, !blocks)?;
        if let Some(port) = port.as_ref().filter(|_| asked.has_deadline()) {
            Bell::of(port.bind(py))?;
        }
        let announce = if pump.is_some() {
            Announce::No
        } else {
            Announce::Yes
        };
        let payload = Payload {
            item,
            owner,
            extra: None,
        };
        with_parker(|parker| {
            let waiter = Waiter::Stream(Box::new(Reader {
                port,
                let_in: blocks.then(|| parker.waker().clone()),
                word: Mutex::new(None),
            }));
            let ticket = shared.submit(py, payload, origin, waiter, announce, asked)?;
            let steps = Self {
                ticket,
                engine: shared.clone(),
                ended: AtomicBool::new(false),
            };
            if let Some(pump) = pump {
                Pump::nudge(&pump, shared)?;
            }
            let reply = steps.ticket.request().reply();
            if blocks && reply.is_in_lobby() {
                // An error drops the stream, which gives the request up.
                shared.check_wait(py, "a call that waits for room")?;
                Watch::new(py)?.wait(py, parker, || !reply.is_in_lobby())?;
            }
            Ok(steps)
        })
    }

    fn reader(&self) -> &Reader {
        match self.ticket.request().waiter() {
            Waiter::Stream(reader) => reader,
            _ => unreachable!("a stream is submitted with its reader"),
        }
    }

    /// Takes what is there.
    fn look(&self, py: Python<'_>) -> PyResult<Found> {
        if self.ended.load(Ordering::Acquire) {
            return Ok(Found::End);
        }
        let (answer, is_last) = match self.ticket.next() {
            Next::Step(step) => (step, false),
            Next::Last(last) => (last, true),
            Next::Nothing => {
                let request = self.ticket.request();
                if !request.reply().is_expired() {
                    return Ok(Found::Nothing);
                }
                drop(request.reclaim());
                (Answer::Failure(Failure::Expired), true)
            }
        };
        if is_last {
            self.ended.store(true, Ordering::Release);
            if let Answer::Failure(_) = answer {
                self.engine.tell_due(py);
            }
        }
        match errors::outcome(py, &self.engine, answer) {
            Ok(_) if is_last => Ok(Found::End),
            Ok(step) => Ok(Found::Step(step)),
            Err(error) => Err(PyErr::from_value(error.into_bound(py))),
        }
    }

    /// Leaves word and looks once more, since what came before the word told nobody.
    fn wait_for(&self, py: Python<'_>, word: Word) -> PyResult<Found> {
        self.reader().leave(word);
        let found = self.look(py);
        if !matches!(found, Ok(Found::Nothing)) {
            drop(self.reader().take());
        }
        found
    }

    /// Who may not wait will never read on: the trace of the error refers to the stream, and would keep a request
    /// that nobody wants.
    fn unless_given_up(&self, may_wait: PyResult<()>) -> PyResult<()> {
        may_wait.inspect_err(|_| self.give_up())
    }

    fn give_up(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) && self.is_ours() {
            let (met, payload) = self.ticket.cancel();
            drop((payload, self.ticket.request().reclaim()));
            drop(self.reader().take());
            Python::attach(|py| self.engine.tell_due(py));
            if met == Cancelled::InFlight {
                self.engine.leaving.tell();
            }
        }
    }
}

impl Found {
    fn shown(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match self {
            Self::Step(step) => PyTuple::new(py, [step])?.into_any().unbind(),
            Self::End => PyBool::new(py, false).to_owned().into_any().unbind(),
            Self::Nothing => py.None(),
        })
    }
}

#[pymethods]
impl Steps {
    /// A step in a tuple of one; False at the end; None where there is nothing yet: then `callback()`, if given,
    /// comes from this event loop when it is worth looking again. Raises what the stream failed with.
    #[pyo3(signature = (callback=None))]
    fn poll(&self, py: Python<'_>, callback: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let _inside = Inside::go_on();
        let Some(callback) = callback else {
            return self.look(py)?.shown(py);
        };
        if let Some(chain) = run::current(py) {
            self.unless_given_up(self.engine.check_chain(py, &chain))?;
        }
        let Some(port) = Port::current(py)? else {
            return Err(self.engine.no_loop());
        };
        self.wait_for(py, Word::Loop(port, callback))?.shown(py)
    }

    /// The same, but waits in this thread until there is something.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(py)?;
        let mut found = self.look(py)?;
        while matches!(found, Found::Nothing) {
            self.unless_given_up(self.engine.check_wait(py, "waiting for a step"))?;
            found = with_parker(|parker| {
                let found = self.wait_for(py, Word::Thread(parker.waker().clone()))?;
                if !matches!(found, Found::Nothing) {
                    return Ok(found);
                }
                let reader = self.reader();
                let waited = Watch::new(py)?.wait(py, parker, || !reader.has_word());
                if let Err(error) = waited {
                    drop(reader.take());
                    return Err(error);
                }
                self.look(py)
            })?;
        }
        found.shown(py)
    }

    /// Gives the stream up: before it is in a batch it never reaches the handler, later its row is free.
    fn cancel(&self) {
        let _inside = Inside::go_on();
        self.give_up();
    }

    /// Whether it was submitted in this process, not in one that was forked from.
    #[getter]
    fn is_ours(&self) -> bool {
        self.engine.epoch == epoch()
    }

    /// The name of its batcher.
    #[getter]
    fn name(&self) -> &str {
        &self.engine.name
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if self.is_ours() {
            self.give_up();
        }
    }
}
