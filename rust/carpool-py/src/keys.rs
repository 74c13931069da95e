//! Keys as numbers: requests share a batch only where their keys are equal, and Python's `__eq__` cannot
//! run where batches are made.
//!
//! Any hashable object is a key. Equal ones get the same number while any of their requests holds it;
//! with the last it is forgotten. `__hash__` and `__eq__` run in the caller alone, with no lock held, and
//! never when a key is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// The keys of one batcher.
#[derive(Default)]
pub(crate) struct Keys(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_hash: HashMap<isize, Vec<Known>>,
    len: usize,
    last: u64,
}

struct Known {
    key: Py<PyAny>,
    number: u64,
    requests: usize,
}

/// One request's share in a key.
pub(crate) struct Key {
    keys: Arc<Keys>,
    hash: isize,
    number: u64,
}

impl Key {
    /// Never 0, which stands for no key.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let forgotten = self.keys.table().give_up(self.hash, self.number);
        // Dropping a key may run code: not under the lock.
        drop(forgotten);
    }
}

impl Table {
    fn share(&mut self, hash: isize, number: u64) -> bool {
        let known = self.by_hash.get_mut(&hash).into_iter().flatten();
        for key in known {
            if key.number == number {
                key.requests += 1;
                return true;
            }
        }
        false
    }

    fn give_up(&mut self, hash: isize, number: u64) -> Option<Py<PyAny>> {
        let known = self.by_hash.get_mut(&hash)?;
        let at = known.iter().position(|key| key.number == number)?;
        known[at].requests -= 1;
        if known[at].requests > 0 {
            return None;
        }
        let forgotten = known.swap_remove(at);
        if known.is_empty() {
            self.by_hash.remove(&hash);
        }
        self.len -= 1;
        Some(forgotten.key)
    }
}

impl Keys {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many different ones there are.
    pub(crate) fn len(&self) -> usize {
        self.table().len
    }

    /// The number of `key`; errors of its `__hash__` and `__eq__` go to the caller.
    pub(crate) fn of(self: &Arc<Self>, key: &Bound<'_, PyAny>, name: &str) -> PyResult<Key> {
        let py = key.py();
        let hash = key.hash().map_err(|why| unhashable(key, name, why))?;
        let mut compared: Vec<u64> = Vec::new();
        loop {
            let mut table = self.table();
            let known = table.by_hash.get(&hash).into_iter().flatten();
            let mut new = known.filter(|known| !compared.contains(&known.number));
            let Some(next) = new.next() else {
                // Nothing that it was not compared with: it is the first of its kind.
                table.last += 1;
                table.len += 1;
                let number = table.last;
                table.by_hash.entry(hash).or_default().push(Known {
                    key: key.clone().unbind(),
                    number,
                    requests: 1,
                });
                drop(table);
                return Ok(self.share_of(hash, number));
            };
            let (number, same) = (next.number, next.key.is(key));
            let other = next.key.clone_ref(py);
            drop(table);
            // As in a dict, an object is equal to itself whatever its `__eq__` says.
            let equal = same || other.bind(py).eq(key)?;
            drop(other);
            // It may have been forgotten while its `__eq__` ran.
            if equal && self.table().share(hash, number) {
                return Ok(self.share_of(hash, number));
            }
            compared.push(number);
        }
    }

    fn share_of(self: &Arc<Self>, hash: isize, number: u64) -> Key {
        let keys = self.clone();
        Key { keys, hash, number }
    }
}

/// What the caller is told of a key without a hash: the key, and why.
#[cold]
fn unhashable(key: &Bound<'_, PyAny>, name: &str, why: PyErr) -> PyErr {
    let py = key.py();
    if !why.is_instance_of::<PyTypeError>(py) {
        return why;
    }
    let shown = key.repr().map_or_else(
        |_| "an object".into(),
        |shown| shown.to_string().chars().take(100).collect::<String>(),
    );
    let kind = key.get_type();
    let kind = kind
        .name()
        .map_or_else(|_| String::new(), |name| name.to_string());
    let error = PyTypeError::new_err(format!(
        "{name}: a key must be hashable, not {shown} ({kind}): {}",
        why.value(py)
    ));
    error.set_cause(py, Some(why));
    error
}
