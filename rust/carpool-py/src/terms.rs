//! What a call may ask for beyond the plain: a deadline, a cost, a priority, a key; and what stands for all calls
//! of a batcher unless they ask for something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use carpool_core::clock::NEVER;
use carpool_core::{Nanos, Terms};
use pyo3::prelude::*;

use crate::border::Extra;
use crate::run::Chain;
use crate::shared::Shared;

/// What stands for all calls of a batcher, until it is changed.
///
/// `Relaxed`: numbers that guard nothing; a call that comes while one is changed goes by either.
pub(crate) struct Standing {
    /// `NEVER` for none.
    timeout: AtomicU64,
    /// What one level of priority is worth.
    age: AtomicU64,
}

impl Standing {
    pub(crate) fn new(timeout: Option<Nanos>, age: Nanos) -> Self {
        Self {
            timeout: AtomicU64::new(timeout.unwrap_or(NEVER)),
            age: AtomicU64::new(age),
        }
    }

    pub(crate) fn change(&self, timeout: Option<Nanos>, age: Nanos) {
        self.timeout.store(timeout.unwrap_or(NEVER), Relaxed);
        self.age.store(age, Relaxed);
    }

    #[inline]
    pub(crate) fn timeout(&self) -> Option<Nanos> {
        match self.timeout.load(Relaxed) {
            NEVER => None,
            timeout => Some(timeout),
        }
    }

    /// How much later, or sooner, a call of this priority stands in the order than its arrival.
    pub(crate) fn urgency(&self, level: i32) -> i64 {
        let age = i64::try_from(self.age.load(Relaxed)).unwrap_or(i64::MAX);
        i64::from(level).saturating_mul(age)
    }
}

/// The terms of one call, as Python gives them.
pub(crate) struct Asked {
    /// On the core's clock.
    pub(crate) deadline: Nanos,
    pub(crate) cost: u64,
    /// Later or sooner than its arrival, in the order of requests.
    pub(crate) urgency: i64,
    pub(crate) key: Option<Py<PyAny>>,
    /// What is padded to the longest of a batch; 0 where nobody asks.
    pub(crate) length: u64,
    /// The priority that `urgency` was made of.
    pub(crate) level: i32,
    /// The context of the caller, where it is to be kept.
    pub(crate) context: Option<Py<PyAny>>,
}

impl Asked {
    /// A plain call.
    pub(crate) const NOTHING: Self = Self {
        deadline: NEVER,
        cost: 1,
        urgency: 0,
        key: None,
        length: 0,
        level: 0,
        context: None,
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
            length: 0,
            level: 0,
            context: None,
        }
    }

    /// What a request keeps of this; errors of a key's `__hash__` and `__eq__` go to the caller.
    #[inline]
    pub(crate) fn extra(
        &self,
        py: Python<'_>,
        shared: &Shared,
        origin: Option<Arc<Chain>>,
    ) -> PyResult<Option<Box<Extra>>> {
        let plain = self.key.is_none() && self.level == 0 && self.context.is_none();
        if plain && origin.is_none() {
            return Ok(None);
        }
        self.more(py, shared, origin)
    }

    #[cold]
    fn more(
        &self,
        py: Python<'_>,
        shared: &Shared,
        origin: Option<Arc<Chain>>,
    ) -> PyResult<Option<Box<Extra>>> {
        let key = match &self.key {
            Some(key) => Some(shared.keys.of(key.bind(py), &shared.name)?),
            None => None,
        };
        let context = self.context.as_ref().map(|context| context.clone_ref(py));
        Ok(Extra::of(origin, key, self.level, context))
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
            length: self.length,
        }
    }

    #[inline]
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline != NEVER
    }
}
