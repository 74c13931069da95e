//! The one table from the core's errors to Python's exceptions.

use carpool_core::{AnswerError, Failure, Refusal};
use pyo3::exceptions::{PyIndexError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::border::Answer;
use crate::guard::{self, insist};
use crate::shared::Shared;

fn tree(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static TREE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = guard::once(&TREE, py, || {
        PyModule::import(py, "carpool._exceptions").map(Bound::unbind)
    })?;
    Ok(module.bind(py))
}

/// An instance of carpool's exception `name`.
pub(crate) fn make(py: Python<'_>, name: &str, text: String) -> Py<PyAny> {
    let made = insist(py, || tree(py)?.getattr(name)?.call1((&text,)));
    match made {
        Ok(error) => error.unbind(),
        Err(error) => error.into_value(py).into_any(),
    }
}

/// The same, ready to be raised.
pub(crate) fn raise(py: Python<'_>, name: &str, text: String) -> PyErr {
    PyErr::from_value(make(py, name, text).into_bound(py))
}

/// An exception object that one caller can have for itself.
pub(crate) fn private(py: Python<'_>, original: &Bound<'_, PyAny>) -> Py<PyAny> {
    let made = insist(py, || {
        let copy = tree(py)?.getattr("private_copy")?;
        copy.call1((original,))
    });
    match made {
        Ok(error) => error.unbind(),
        Err(error) => error.into_value(py).into_any(),
    }
}

/// Why a submit was refused.
pub(crate) fn refused(py: Python<'_>, engine: &Shared, why: Refusal, cost: u64) -> PyErr {
    let name = &engine.name;
    match why {
        Refusal::Full => {
            let most = engine.core.limits().max_queue;
            let text = format!(
                "{name}: {most} requests are pending (max_queue={most}); \
                 try later, raise max_queue, or use overflow=\"wait\""
            );
            raise(py, "QueueFull", text)
        }
        Refusal::Shed => {
            let most = engine.core.limits().max_queue;
            let text = format!(
                "{name}: {most} requests are pending (max_queue={most}) and none of them is less urgent \
                 than this one, so it gives way (overflow=\"shed\"); try later, or raise max_queue"
            );
            raise(py, "RequestShed", text)
        }
        Refusal::Closed => closed(py, engine),
        Refusal::Late { needs, left } => {
            let ms = |ns: u64| ns as f64 / 1e6;
            let text = format!(
                "{name}: it would take about {:.1} ms, by what batches have taken, and {:.1} ms are left \
                 (timeout_ms, refuse_late=True); try later, or allow more time",
                ms(needs),
                ms(left)
            );
            raise(py, "TooLate", text)
        }
        Refusal::TooLarge => {
            let most = engine.core.limits().max_batch_cost;
            let of_one = engine.core.most_of_one();
            let filled = match of_one < most {
                true => format!(", so in the smallest of batch_sizes each {of_one}"),
                false => String::new(),
            };
            let text = format!(
                "{name}: the request costs {cost}, a whole batch may cost {most} \
                 (max_batch_cost={most}){filled}; make it smaller or raise max_batch_cost"
            );
            raise(py, "RequestTooLarge", text)
        }
    }
}

fn closed(py: Python<'_>, engine: &Shared) -> PyErr {
    PyErr::from_value(failure(py, engine, Failure::Closed).into_bound(py))
}

/// The exception for a request that no handler answered.
fn failure(py: Python<'_>, engine: &Shared, why: Failure) -> Py<PyAny> {
    let name = &engine.name;
    match why {
        Failure::Abandoned => {
            let text = format!("{name}: the batch was dropped before this request was answered");
            make(py, "BatchAbandoned", text)
        }
        Failure::Closed => match engine.cause_of_death(py) {
            Some(error) => private(py, error.bind(py)),
            None => {
                let text = format!("{name} is closed and takes no more requests");
                make(py, "BatcherClosed", text)
            }
        },
        Failure::Shed => {
            let most = engine.core.limits().max_queue;
            let text = format!(
                "{name}: the queue was full (max_queue={most}), and this request gave way to a more urgent \
                 one (overflow=\"shed\"); try later, or raise max_queue"
            );
            make(py, "RequestShed", text)
        }
        Failure::Expired => {
            let (why, kind) = if engine.core.refuses_late() {
                let why = "the request could not be answered in time any more (refuse_late=True)";
                (why, "TooLate")
            } else {
                (
                    "the request's time was over before it left in a batch",
                    "DeadlineExceeded",
                )
            };
            make(py, kind, format!("{name}: {why}"))
        }
    }
}

/// What a caller gets: its value, or an exception of its own.
pub(crate) fn outcome(
    py: Python<'_>,
    engine: &Shared,
    answer: Answer,
) -> Result<Py<PyAny>, Py<PyAny>> {
    match answer {
        Answer::Value(value) => Ok(value),
        Answer::Raised(original) => Err(private(py, original.bind(py))),
        Answer::Failure(why) => Err(failure(py, engine, why)),
    }
}

/// Why a batch refused an answer.
pub(crate) fn answering(py: Python<'_>, engine: &Shared, why: &AnswerError) -> PyErr {
    let name = &engine.name;
    match why {
        AnswerError::OutOfRange { .. } => PyIndexError::new_err(format!("{name}: {why}")),
        AnswerError::Answered { .. } => raise(py, "AlreadyAnswered", format!("{name}: {why}")),
        AnswerError::WrongLength { .. } => raise(py, "BatchLengthError", format!("{name}: {why}")),
        // Of steps only.
        AnswerError::Full { .. } | AnswerError::Gone { .. } => {
            PyRuntimeError::new_err(format!("{name}: {why}"))
        }
    }
}
