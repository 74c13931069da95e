//! Blocking calls: a thread that waits for its answer, or runs the batch itself.

use std::sync::Arc;

use crate::guard::intern;
use carpool_core::park::Parker;
use carpool_core::submit::Announce;
use pyo3::prelude::*;

use crate::batch::Batch;
use crate::border::{Answer, Payload, PyBorder, Waiter};
use crate::call::handler_of;
use crate::port::inside_loop;
use crate::seat::{Watch, with_parker};
use crate::shared::{Executor, Shared};
use crate::terms::Asked;
use crate::waits::Waiting;
use crate::{bare, errors};

type CoreTicket = carpool_core::Ticket<PyBorder>;

/// Blocks until the answer is there. Only its own thread waits; the interpreter runs on.
pub(crate) fn call_blocking(
    shared: &Arc<Shared>,
    py: Python<'_>,
    owner: Py<PyAny>,
    item: Py<PyAny>,
    asked: &Asked,
) -> PyResult<Py<PyAny>> {
    if shared.executor == Executor::Loop {
        return Err(if inside_loop(py)? {
            shared.would_block_loop(py, "a blocking call")
        } else {
            shared.no_loop()
        });
    }
    let origin = shared.origin(py, true)?;
    let inside = origin.clone();
    let runs = shared.executor == Executor::Caller;
    let payload = Payload {
        item,
        owner,
        extra: None,
    };
    with_parker(|parker| {
        let waker = parker.waker().clone();
        let (waiter, announce) = if runs {
            (Waiter::Caller(waker), Announce::No)
        } else {
            (Waiter::Thread(waker), Announce::Yes)
        };
        let ticket = shared.submit(py, payload, origin, waiter, announce, asked)?;
        let _waiting = Waiting::note(shared, inside.as_ref(), ticket.request());
        let waited = if runs {
            wait_running(py, shared, parker, &ticket)
        } else {
            Watch::new(py)?.wait(py, parker, || ticket.request().reply().is_over())
        };
        if let Err(error) = waited {
            // Interrupted: nobody waits for the answer any more.
            drop((ticket.cancel(), ticket.request().reclaim()));
            shared.tell_due(py);
            return Err(error);
        }
        let answer = ticket.take().unwrap_or_else(|| {
            // Its item is dropped by who brought it.
            drop(ticket.request().reclaim());
            Answer::Failure(carpool_core::Failure::Expired)
        });
        if let Answer::Failure(_) = answer {
            shared.tell_due(py);
        }
        errors::outcome(py, shared, answer).map_err(|error| PyErr::from_value(error.into_bound(py)))
    })
}

/// Waits as one that may run the batch itself.
fn wait_running(
    py: Python<'_>,
    shared: &Arc<Shared>,
    parker: &Parker,
    ticket: &CoreTicket,
) -> PyResult<()> {
    let watch = Watch::new(py)?;
    while let Some(batch) = watch.run(py, &shared.core, parker, ticket)? {
        let owner = batch.payload(0).map(|payload| payload.owner.clone_ref(py));
        let owner = owner.unwrap_or_else(|| py.None()).into_bound(py);
        let handler = handler_of(&owner);
        match handler.filter(|handler| handler.is_ready_at(handler.desk(py).get())) {
            Some(handler) => {
                let (mut told, outcome) = bare::serve(py, shared, handler, batch);
                let followed = told.take_followed();
                py.detach(|| told.wake_others(parker.waker()));
                shared.tell_watchers(py, followed);
                outcome?;
            }
            None => {
                let batch = Batch::wrap(py, shared, batch)?;
                owner.call_method1(intern!(py, "_run_as_caller"), (batch,))?;
            }
        }
    }
    Ok(())
}
