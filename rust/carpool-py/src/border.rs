//! What the core calls: how each kind of caller learns of its answer, with one wake per event loop.
//!
//! Steps. The core tells the caller of a request that was given a step in the same way as of an answer, and
//! only if its reader found nothing when it looked last. So the reader of a stream looks with the ticket's
//! `next` until that says `Nothing`, and then waits as for an answer: a thread parks, on a loop the next
//! `tell` finds it. One that stops calls `cancel`, which the handler sees (`Batch::is_wanted`). Waiters that
//! read no steps get the answer alone (`take`).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;

use crate::guard::intern;
use carpool_core::request::Handle;
use carpool_core::{Batcher, Border, Failure, Moments, Nanos, timer};
use pyo3::prelude::*;

use crate::awaitable::Link;
use crate::clock::{self, PyClock};
use crate::errors;
use crate::guard::insist;
use crate::keys::Key;
use crate::overdue;
use crate::port::{Port, Ready};
use crate::reader::{Reader, Word};
use crate::run::Chain;
use crate::shared::Shared;
use crate::{wakes, watching};

/// The core's border to Python.
pub(crate) struct PyBorder;

/// One caller's item on its way.
pub(crate) struct Payload {
    pub(crate) item: Py<PyAny>,
    /// Who runs it. A request keeps its function (and with it the instance of a method) alive.
    pub(crate) owner: Py<PyAny>,
    /// What only those have that ask for more than the plain, or arose in a handler.
    pub(crate) extra: Option<Box<Extra>>,
}

impl Payload {
    /// The handler it arose in.
    pub(crate) fn origin(&self) -> Option<&Arc<Chain>> {
        self.extra.as_ref()?.origin.as_ref()
    }
}

/// What a request has beyond the plain, as far as the border keeps it.
pub(crate) struct Extra {
    /// The handler it arose in.
    pub(crate) origin: Option<Arc<Chain>>,
    /// Its share in what it is grouped by; held until the request ends.
    pub(crate) key: Option<Key>,
    /// Its priority.
    pub(crate) level: i32,
    /// The context of its caller, where that is kept.
    pub(crate) context: Option<Py<PyAny>>,
}

impl Extra {
    /// None where there is nothing to keep.
    pub(crate) fn of(
        origin: Option<Arc<Chain>>,
        key: Option<Key>,
        level: i32,
        context: Option<Py<PyAny>>,
    ) -> Option<Box<Self>> {
        let plain = origin.is_none() && key.is_none() && level == 0 && context.is_none();
        (!plain).then(|| {
            Box::new(Self {
                origin,
                key,
                level,
                context,
            })
        })
    }

    /// The number of its key; 0 without one.
    pub(crate) fn number(&self) -> u64 {
        self.key.as_ref().map_or(0, Key::number)
    }
}

/// One request's outcome on its way back.
pub(crate) enum Answer {
    Value(Py<PyAny>),
    /// What the handler raised; the caller gets a copy.
    Raised(Py<PyAny>),
    Failure(Failure),
}

/// Who waits.
pub(crate) enum Waiter {
    /// A thread that sleeps until its answer is there.
    Thread(Waker),
    /// A thread that may run the batch itself.
    Caller(Waker),
    /// An awaitable of an event loop.
    Loop(Link),
    /// One that knows its moments.
    Timed(Box<Timed>),
    /// Whoever is to be told of a window, and the event loop it was submitted from.
    Window {
        waker: Waker,
        port: Option<Py<Port>>,
    },
    /// Whoever reads a stream.
    Stream(Box<Reader>),
    /// A `carpool.Future`.
    Future(Box<FutureEnd>),
}

/// The way back to an awaitable that knows its moments.
pub(crate) struct Timed {
    link: Link,
    /// When its batch went through the stations of its way.
    moments: OnceLock<Arc<Moments>>,
}

/// The way back to a future.
pub(crate) struct FutureEnd {
    pub(crate) future: Held,
    /// The thread that submits it, while it waits for room.
    pub(crate) let_in: Waker,
    pub(crate) engine: Arc<Shared>,
    /// When its batch went through the stations of its way.
    pub(crate) moments: OnceLock<Arc<Moments>>,
}

/// A future that its request keeps alive until it has ended. Future and request refer to each other, so
/// the request lets go as soon as it can.
pub(crate) struct Held(Mutex<Option<Py<PyAny>>>);

impl Held {
    pub(crate) fn new(future: Py<PyAny>) -> Self {
        Self(Mutex::new(Some(future)))
    }

    /// Lets go; the first caller gets the future.
    pub(crate) fn take(&self) -> Option<Py<PyAny>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The requests of one routing step whose callers are to be told.
#[derive(Default)]
pub(crate) struct Wakes(Vec<Handle<PyBorder>>);

impl Waiter {
    /// That of an awaitable, with or without its moments.
    #[inline]
    pub(crate) fn of_awaitable(link: Link, keeps_moments: bool) -> Self {
        if keeps_moments {
            return Self::Timed(Box::new(Timed {
                link,
                moments: OnceLock::new(),
            }));
        }
        Self::Loop(link)
    }

    /// The way back to the awaitable, if one waits.
    #[inline]
    pub(crate) fn link(&self) -> Option<&Link> {
        match self {
            Self::Loop(link) => Some(link),
            Self::Timed(timed) => Some(&timed.link),
            _ => None,
        }
    }

    /// Where its moments are noted, if it wants to know them.
    pub(crate) fn moments(&self) -> Option<&OnceLock<Arc<Moments>>> {
        match self {
            Self::Future(end) => Some(&end.moments),
            Self::Timed(timed) => Some(&timed.moments),
            _ => None,
        }
    }

    /// The event loop that it waits on.
    pub(crate) fn port(&self) -> Option<&Py<Port>> {
        match self {
            Self::Loop(link) => Some(&link.port),
            Self::Timed(timed) => Some(&timed.link.port),
            Self::Window { port, .. } => port.as_ref(),
            Self::Stream(reader) => reader.port.as_ref(),
            Self::Thread(_) | Self::Caller(_) | Self::Future { .. } => None,
        }
    }
}

impl Border for PyBorder {
    type Payload = Payload;
    type Answer = Answer;
    type Waiter = Waiter;
    type Wakes = Wakes;
    type Clock = PyClock;

    fn failure(why: Failure) -> Answer {
        Answer::Failure(why)
    }

    fn is_failure(answer: &Answer) -> bool {
        !matches!(answer, Answer::Value(_))
    }

    #[inline]
    fn wake(request: &Handle<Self>, wakes: &mut Wakes) {
        wakes.0.push(request.clone());
    }

    fn fire(wakes: Wakes) {
        Self::tell(wakes.0);
    }

    fn tell(requests: Vec<Handle<Self>>) {
        let blocked = |request: &Handle<Self>| {
            matches!(request.waiter(), Waiter::Thread(_) | Waiter::Caller(_))
        };
        let others = || {
            if !requests.iter().all(blocked) {
                // Whoever routes is a Python thread; most often attached already.
                Python::attach(|py| tell(py, &requests));
            }
        };
        let blocked = requests
            .iter()
            .filter_map(|request| match request.waiter() {
                Waiter::Thread(waker) | Waiter::Caller(waker) => Some(waker),
                _ => None,
            });
        for request in &requests {
            if let Waiter::Stream(reader) = request.waiter() {
                if let Some(waker) = reader.thread() {
                    wakes::one(&waker);
                }
            }
        }
        wakes::after(others, blocked);
    }

    fn note(requests: &[Handle<Self>], moments: &Moments) {
        watching::note(requests, moments);
    }

    fn expired(requests: Vec<Handle<Self>>) {
        overdue::tell(requests);
    }

    fn wake_window(waiter: &Waiter) {
        match waiter {
            Waiter::Thread(waker) | Waiter::Caller(waker) | Waiter::Window { waker, .. } => {
                wakes::one(waker);
            }
            Waiter::Loop(_) | Waiter::Timed(_) | Waiter::Future(_) | Waiter::Stream(_) => {}
        }
    }

    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        // While the clock stands, whoever moves it has the batchers look.
        if !clock::is_still() {
            timer::arm(batcher, clock::on_machine(moment));
        }
    }

    fn runner(waiter: &Waiter) -> Option<&Waker> {
        match waiter {
            Waiter::Caller(waker) => Some(waker),
            _ => None,
        }
    }

    fn let_in(waiter: &Waiter) -> Option<&Waker> {
        match waiter {
            Waiter::Caller(waker) => Some(waker),
            Waiter::Future(end) => Some(&end.let_in),
            Waiter::Stream(reader) => reader.let_in.as_ref(),
            Waiter::Thread(_) | Waiter::Loop(_) | Waiter::Timed(_) | Waiter::Window { .. } => None,
        }
    }
}

/// How a request ended; none if it was given a step and goes on.
fn outcome(request: &Handle<PyBorder>) -> Option<Answer> {
    let reply = request.reply();
    let expired = || {
        reply
            .is_expired()
            .then_some(Answer::Failure(Failure::Expired))
    };
    reply.take().or_else(expired)
}

/// Loops first, since that only schedules; futures last, since their callbacks are the users'.
fn tell(py: Python<'_>, requests: &[Handle<PyBorder>]) {
    let mut ports: Vec<(&Py<Port>, Vec<Ready>)> = Vec::new();
    let mut failed: Vec<&Arc<Shared>> = Vec::new();
    let mut others = false;
    for request in requests {
        let Some(link) = request.waiter().link() else {
            others = true;
            continue;
        };
        let Some(answer) = outcome(request) else {
            continue;
        };
        if let Answer::Failure(_) = answer {
            add_once(&mut failed, &link.engine.get().0);
        }
        let Some(done) = link.settle(py, answer) else {
            continue;
        };
        let place = match ports.iter().position(|(port, _)| port.is(&link.port)) {
            Some(place) => place,
            None => {
                ports.push((&link.port, Vec::with_capacity(requests.len())));
                ports.len() - 1
            }
        };
        ports[place].1.push(Ready::Done(done));
    }
    for (port, ready) in ports {
        if port.get().push(ready) {
            Port::schedule(port.bind(py));
        }
    }
    if others {
        tell_streams(py, requests);
        tell_futures(py, requests, &mut failed);
    }
    for engine in failed {
        engine.tell_due(py);
    }
}

/// Most often they are all of one.
fn add_once<'a>(engines: &mut Vec<&'a Arc<Shared>>, engine: &'a Arc<Shared>) {
    if !engines.iter().any(|known| Arc::ptr_eq(known, engine)) {
        engines.push(engine);
    }
}

fn tell_futures<'a>(
    py: Python<'_>,
    requests: &'a [Handle<PyBorder>],
    failed: &mut Vec<&'a Arc<Shared>>,
) {
    for request in requests {
        if let Waiter::Future(end) = request.waiter() {
            let Some(answer) = outcome(request) else {
                continue;
            };
            let Some(future) = end.future.take() else {
                continue;
            };
            if let Answer::Failure(_) = answer {
                add_once(failed, &end.engine);
            }
            let outcome = errors::outcome(py, &end.engine, answer);
            let told = insist(py, || match &outcome {
                Ok(value) => future.call_method1(py, intern!(py, "_resolve"), (value,)),
                Err(error) => future.call_method1(py, intern!(py, "_reject"), (error,)),
            });
            if let Err(error) = told {
                error.write_unraisable(py, Some(future.bind(py)));
            }
        }
    }
}

/// Streams whose readers wait on loops: these look for themselves.
fn tell_streams(py: Python<'_>, requests: &[Handle<PyBorder>]) {
    let mut ports: Vec<(Py<Port>, Vec<Ready>)> = Vec::new();
    for request in requests {
        let Waiter::Stream(reader) = request.waiter() else {
            continue;
        };
        let Some(Word::Loop(port, call)) = reader.take() else {
            continue;
        };
        match ports.iter_mut().find(|(known, _)| known.is(&port)) {
            Some((_, ready)) => ready.push(Ready::Call(call)),
            None => ports.push((port, vec![Ready::Call(call)])),
        }
    }
    for (port, ready) in ports {
        if port.get().push(ready) {
            Port::schedule(port.bind(py));
        }
    }
}
