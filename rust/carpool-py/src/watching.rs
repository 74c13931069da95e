//! Telling those who watch: the hook that hears of requests, and the log of slow handlers. Always after the
//! callers have been told, and whatever comes of it stays here.

use std::sync::Arc;

use crate::guard::intern;
use carpool_core::clock::NEVER;
use carpool_core::request::Handle;
use carpool_core::watch::{Moments, Said, rate_of};
use carpool_core::{End, Ended, Followed, Nanos};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::border::PyBorder;
use crate::clock::seconds;
use crate::shared::Shared;

/// Whom a batcher tells.
#[derive(Default)]
pub(crate) struct Watchers {
    /// `on_request`.
    pub(crate) hook: Option<Py<PyAny>>,
}

impl Watchers {
    /// Has the core note what these want to know: of a share of the requests, and of runs that take as long as
    /// `slow`.
    pub(crate) fn ask(
        &self,
        core: &carpool_core::Batcher<PyBorder>,
        share: f64,
        slow: Option<Nanos>,
    ) {
        if self.hook.is_some() {
            core.sample(rate_of(share));
        }
        core.set_slow(slow.unwrap_or(NEVER));
    }
}

/// How it ended, as Python has it.
fn outcome_of(end: End) -> &'static str {
    match end {
        End::Answered => "answered",
        End::Failed => "failed",
        End::Cancelled => "cancelled",
        End::Expired => "expired",
        End::Shed => "shed",
        End::Closed => "closed",
        End::Refused => "refused",
    }
}

/// Moments as Python has them: of one request that arrived at `arrival`.
fn moments_of(arrival: Nanos, moments: &Moments) -> (f64, f64, f64, f64, f64) {
    (
        seconds(arrival),
        seconds(moments.sealed),
        seconds(moments.started),
        seconds(moments.finished),
        seconds(moments.delivered),
    )
}

impl Shared {
    /// Tells of a batch that has ended, or a step of it.
    #[inline]
    pub(crate) fn tell_watchers(&self, py: Python<'_>, followed: Option<Box<Followed>>) {
        if followed.is_some() || self.core.is_due() {
            self.tell_them(py, followed);
        }
    }

    /// Tells of requests that have ended without a batch, where there may be such.
    #[inline]
    pub(crate) fn tell_due(&self, py: Python<'_>) {
        if self.core.is_due() {
            self.tell_them(py, None);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_them(&self, py: Python<'_>, followed: Option<Box<Followed>>) {
        if let Some(mut followed) = followed {
            followed.moments.delivered = self.core.now();
            self.tell_of(py, &followed);
        }
        let due = self.core.take_due();
        for ended in &due.ended {
            self.tell_of(py, ended);
        }
        if let Some(said) = due.slow {
            self.say_slow(py, said);
        }
    }

    fn say_slow(&self, py: Python<'_>, said: Said) {
        let slow = self.core.slow();
        let say = || {
            py.import("carpool._watch.events")?
                .getattr("slow_handler")?
                .call1((
                    &self.name,
                    said.worst as f64 / 1e6,
                    slow as f64 / 1e6,
                    said.count,
                ))
        };
        if let Err(error) = say() {
            error.write_unraisable(py, None);
        }
    }

    fn tell_of(&self, py: Python<'_>, followed: &Followed) {
        let batch = followed.batch.map(|(reason, size)| (size, reason.name()));
        for &Ended { arrival, end } in &followed.requests {
            let mut moments = moments_of(arrival, &followed.moments);
            if batch.is_none() {
                (moments.1, moments.2, moments.3) = (f64::NAN, f64::NAN, f64::NAN);
            }
            self.call_hook(py, outcome_of(end), batch, moments);
        }
    }

    fn call_hook(
        &self,
        py: Python<'_>,
        outcome: &str,
        batch: Option<(usize, &str)>,
        moments: (f64, f64, f64, f64, f64),
    ) {
        let Some(hook) = &self.watchers.hook else {
            return;
        };
        let call = || {
            py.import("carpool._watch.timing")?
                .getattr(intern!(py, "tell"))?
                .call1((hook, &self.name, outcome, batch, moments))?
                .is_truthy()
        };
        // What the hook raises does not come as far as this.
        let interrupted = call().unwrap_or_else(|error| {
            let interrupted = error.is_instance_of::<PyKeyboardInterrupt>(py);
            error.write_unraisable(py, None);
            interrupted
        });
        if interrupted {
            // SAFETY: may be called from any thread at any time.
            unsafe { pyo3::ffi::PyErr_SetInterrupt() };
        }
    }
}

/// Notes when requests went through the stations of their way, for callers that want to know.
pub(crate) fn note(requests: &[Handle<PyBorder>], moments: &Moments) {
    let mut noted: Option<Arc<Moments>> = None;
    for request in requests {
        if let Some(place) = request.waiter().moments() {
            let moments = noted.get_or_insert_with(|| Arc::new(*moments));
            // A request is answered once.
            drop(place.set(moments.clone()));
        }
    }
}

/// When a request went through the stations of its way; None before it has been answered, where it never came
/// into a batch, and where nobody wanted to know.
pub(crate) fn moments<'py>(
    py: Python<'py>,
    request: &Handle<PyBorder>,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    match request.waiter().moments().and_then(|place| place.get()) {
        None => Ok(None),
        Some(moments) => moments_of(request.terms.arrival, moments)
            .into_pyobject(py)
            .map(Some),
    }
}

/// The same as a `Timing`.
pub(crate) fn timing(py: Python<'_>, request: &Handle<PyBorder>) -> PyResult<Py<PyAny>> {
    let Some(moments) = moments(py, request)? else {
        return Ok(py.None());
    };
    let timing_of = py
        .import("carpool._watch.timing")?
        .getattr(intern!(py, "timing_of"))?;
    Ok(timing_of.call1((moments,))?.unbind())
}
