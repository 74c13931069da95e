//! Submitting from a coroutine: an awaitable of the running loop.

use carpool_core::submit::Announce;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::awaitable;
use crate::bell::Bell;
use crate::border::Payload;
use crate::engine::Engine;
use crate::port::Port;
use crate::pump::Pump;
use crate::shared::{Executor, Shared};
use crate::terms::Asked;
use crate::waits::Waiting;

/// An awaitable of the running loop. `waking`: its port, where that is known (see `Port::waking`).
#[inline]
pub(crate) fn call_awaiting(
    engine: Borrowed<'_, '_, Engine>,
    py: Python<'_>,
    owner: Py<PyAny>,
    item: Py<PyAny>,
    asked: &Asked,
    waking: Option<Borrowed<'_, '_, Port>>,
) -> PyResult<Py<PyAny>> {
    let shared = &engine.get().0;
    let port = match waking {
        Some(port) => port.to_owned().unbind(),
        None => match Port::current(py)? {
            Some(port) => port,
            None => return Err(outside(shared)),
        },
    };
    let origin = shared.origin(py, true)?;
    let inside = origin.clone();
    let on_loop = shared.executor == Executor::Loop;
    let announce = if on_loop { Announce::No } else { Announce::Yes };
    let payload = Payload {
        item,
        owner,
        extra: None,
    };
    let pump = if on_loop {
        Some(shared.pumps.of(py, shared, &port)?)
    } else {
        None
    };
    if asked.has_deadline() {
        Bell::of(port.bind(py))?;
    }
    let made = awaitable::make(py, engine, port, |waiter| {
        let ticket = shared.submit(py, payload, origin, waiter, announce, asked)?;
        Waiting::keep(shared, inside.as_ref(), ticket.request());
        Ok(ticket)
    })?;
    if let Some(pump) = pump {
        Pump::nudge(&pump, shared)?;
    }
    Ok(made)
}

/// What a call outside of every event loop is told.
#[cold]
fn outside(shared: &Shared) -> PyErr {
    if shared.executor == Executor::Loop {
        return shared.no_loop();
    }
    PyRuntimeError::new_err(format!(
        "{}: acall needs a running event loop; outside of one, call it or use submit",
        shared.name
    ))
}
