//! What a call may ask for beyond the plain: a deadline, a cost, a priority, a key.

use carpool_core::clock::NEVER;
use carpool_core::{Nanos, Terms};
use pyo3::prelude::*;

/// The terms of one call, as Python gives them.
pub(crate) struct Asked {
    /// On the core's clock.
    pub(crate) deadline: Nanos,
    pub(crate) cost: u64,
    /// Later or sooner than its arrival, in the order of requests.
    pub(crate) urgency: i64,
    pub(crate) key: Option<Py<PyAny>>,
}

impl Asked {
    /// A plain call.
    pub(crate) const NOTHING: Self = Self {
        deadline: NEVER,
        cost: 1,
        urgency: 0,
        key: None,
    };

    pub(crate) fn new(
        deadline: Option<Nanos>,
        cost: u64,
        urgency: i64,
        key: Option<Py<PyAny>>,
    ) -> Self {
        Self {
            deadline: deadline.unwrap_or(NEVER),
            cost,
            urgency,
            key,
        }
    }

    /// As the core has them, of a request that arrives now.
    #[inline]
    pub(crate) fn terms(&self, arrival: Nanos, key: u64) -> Terms {
        Terms {
            arrival,
            urgency: Terms::urgency(arrival, self.urgency),
            cost: self.cost,
            key,
            deadline: self.deadline,
        }
    }

    #[inline]
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline != NEVER
    }
}
