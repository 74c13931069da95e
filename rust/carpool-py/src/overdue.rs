//! How the callers of overdue requests learn of it: most often from the timer thread, which never
//! attaches.
//!
//! A blocked thread is unparked and drops its own item. A caller on an event loop is told by the loop's
//! [bell](crate::bell), and its item dropped there. The callbacks of a `Future` are Python code, and a
//! loop that cannot be rung must be called through Python: these go to the thread of
//! [`errands`](crate::errands).

use std::sync::Arc;
use std::task::Waker;

use carpool_core::Border;
use carpool_core::request::Handle;
use pyo3::prelude::*;

use crate::bell::Bell;
use crate::border::{PyBorder, Waiter};
use crate::errands::{self, Errand};

/// From any thread.
pub(crate) fn tell(requests: Vec<Handle<PyBorder>>) {
    let mut bells: Vec<(Arc<Bell>, Vec<Handle<PyBorder>>)> = Vec::new();
    let mut others = Vec::new();
    for request in requests {
        let bell = match request.waiter() {
            Waiter::Thread(waker) | Waiter::Caller(waker) => {
                waker.wake_by_ref();
                continue;
            }
            // Its window is told, not each of it.
            Waiter::Window { .. } => continue,
            Waiter::Future(end) => {
                end.let_in.wake_by_ref();
                None
            }
            waiter @ (Waiter::Loop(_) | Waiter::Timed(_)) => {
                waiter.link().and_then(|link| link.port.get().bell())
            }
            Waiter::Stream(reader) => {
                reader.let_in.iter().for_each(Waker::wake_by_ref);
                if let Some(waker) = reader.thread() {
                    waker.wake();
                    continue;
                }
                reader.bell()
            }
        };
        let Some(bell) = bell else {
            others.push(request);
            continue;
        };
        match bells
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(known, &bell))
        {
            Some((_, of_loop)) => of_loop.push(request),
            None => bells.push((bell, vec![request])),
        }
    }
    for (bell, of_loop) in bells {
        if let Err(unheard) = bell.ring(of_loop) {
            others.extend(unheard);
        }
    }
    if !others.is_empty() {
        errands::post(Errand::Tell(others));
    }
}

/// From a thread that may run Python code.
pub(crate) fn tell_attached(_py: Python<'_>, requests: &[Handle<PyBorder>]) {
    for request in requests {
        drop(request.reclaim());
    }
    PyBorder::tell(requests.to_vec());
}
