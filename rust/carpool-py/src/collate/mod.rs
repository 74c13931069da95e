//! Items into batches, the fast way: for items of a kind that has been seen before, in which every leaf is an
//! ordinary numpy array, torch tensor, number or flat list of numbers.
//!
//! Python decides everything once per kind of item (who fits, what is padded with what) and hands the result over
//! as a [`plan`]. Here items are compared with the plans, measured, and copied, outside the interpreter where
//! that is worth while. Whatever is not as a plan says goes back to Python, unharmed.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | what is known of a kind of item |
//! | [`tree`] | the nesting of items |
//! | [`source`] | the rows of one leaf, and what their batch is made as |
//! | [`numpy`], [`torch`] | arrays and tensors, without calls of Python's |
//! | [`memory`] | what an array refers to in place of memory of its own |
//! | [`copying`] | a leaf's rows into one buffer |

mod copying;
pub(crate) mod memory;
mod numpy;
mod plan;
mod source;
mod torch;
mod tree;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carpool_collate::{Block, Pool, Side, Widths};
use pyo3::exceptions::PyMemoryError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use self::copying::Copying;
use self::plan::{Form, Leaf, Plan, Rule, Taken};
use self::tree::Tree;
use crate::current;
use crate::guard::Inside;

/// From so many bytes on the interpreter is let go while they are copied: some microseconds, which is what another
/// thread needs to take it up.
const WORTH_WHILE: usize = 256 * 1024;

/// The most kinds of items that are remembered.
const KINDS: usize = 8;

/// One of the kind of a leaf, the axes that are padded, and with what.
type ToldLeaf<'py> = (Bound<'py, PyAny>, Option<Vec<usize>>, Bound<'py, PyAny>);

/// The fast way of one collator: what it knows of its items, and its buffers.
#[pyclass(frozen, module = "carpool._core")]
pub(crate) struct Collation {
    rule: Rule,
    /// The latest first. Never locked while Python code runs or the interpreter is let go; so is `pool`.
    plans: Mutex<Vec<Arc<Plan>>>,
    pool: Mutex<Pool>,
}

#[pymethods]
impl Collation {
    /// `form`: "stack", "pad" or "ragged". `extras`: the names of the keys for mask and lengths, or None. `joined`:
    /// what a ragged leaf becomes, called with values, ends and the longest.
    #[new]
    #[pyo3(signature = (form, *, side, multiple_of, max_length, buckets, truncate, extras, joined, notes))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        form: &str,
        side: &str,
        multiple_of: usize,
        max_length: Option<usize>,
        buckets: Vec<usize>,
        truncate: Option<&str>,
        extras: (Option<Py<PyAny>>, Option<Py<PyAny>>),
        joined: Option<Py<PyAny>>,
        notes: bool,
    ) -> Self {
        let end = |side: &str| {
            if side == "left" {
                Side::Left
            } else {
                Side::Right
            }
        };
        let form = match (form, joined) {
            ("ragged", Some(joined)) => Form::Ragged(joined),
            ("pad", _) => Form::Pad,
            _ => Form::Stack,
        };
        Self {
            rule: Rule {
                form,
                side: end(side),
                widths: Widths {
                    multiple_of,
                    max_length,
                    buckets,
                    truncate: truncate.map(end),
                },
                mask: extras.0,
                lengths: extras.1,
                notes,
            },
            plans: Mutex::default(),
            pool: Mutex::default(),
        }
    }

    /// Remembers a kind of item: its nesting, and for each leaf one of its kind, the axes that are padded (None: those
    /// whose lengths differ) and the pad value in its dtype. `one`: 1 in the mask's dtype. False where only the
    /// plain way can collate such items.
    #[pyo3(signature = (tree, leaves, one, /))]
    fn learn(
        &self,
        tree: &Bound<'_, PyAny>,
        leaves: Vec<ToldLeaf<'_>>,
        one: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let tree = Tree::from_python(tree)?;
        if tree.leaves() != leaves.len() || leaves.is_empty() {
            return Ok(false);
        }
        let mut known = Vec::with_capacity(leaves.len());
        for (sample, axes, value) in leaves {
            let Some(leaf) = Leaf::of(&sample, axes, &value)? else {
                return Ok(false);
            };
            known.push(leaf);
        }
        let Some(extras) = plan::Extras::of(one)? else {
            return Ok(false);
        };
        let plan = Arc::new(Plan {
            tree,
            leaves: known,
            extras,
        });
        let mut plans = self.plans();
        plans.insert(0, plan);
        let oldest = if plans.len() > KINDS {
            plans.pop()
        } else {
            None
        };
        drop(plans);
        drop(oldest);
        Ok(true)
    }

    /// The batch of these items, in `size` rows; None where no such item is known, NotImplemented where the others are
    /// not like the first. With `notes` a tuple: the batch, its arrays, and for each padded leaf its place, axes,
    /// widths and the lengths by row.
    #[pyo3(signature = (items, size, /))]
    fn collate<'py>(
        &self,
        items: &Bound<'py, PyList>,
        size: usize,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = items.py();
        let mut at = 0;
        loop {
            let Some(plan) = self.plans().get(at).cloned() else {
                return Ok(None);
            };
            at += 1;
            let Some(taken) = plan.take(items, size) else {
                continue;
            };
            let Some(taken) = taken else {
                return Ok(Some(py.NotImplemented().into_bound(py)));
            };
            return match self.make(py, &plan, taken, size)? {
                Some(made) => Ok(Some(made)),
                None => Ok(Some(py.NotImplemented().into_bound(py))),
            };
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.rule.mask)?;
        visit.call(&self.rule.lengths)?;
        if let Form::Ragged(joined) = &self.rule.form {
            visit.call(joined)?;
        }
        // No lock is waited for here; what is not shown is kept alive.
        if let Ok(plans) = self.plans.try_lock() {
            for plan in plans.iter() {
                plan.traverse(&visit)?;
            }
        }
        Ok(())
    }
}

impl Collation {
    fn plans(&self) -> MutexGuard<'_, Vec<Arc<Plan>>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffer(&self, bytes: usize) -> PyResult<Arc<Block>> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.take(bytes).ok_or_else(|| {
            PyMemoryError::new_err(format!("no memory for a batch of {bytes} bytes"))
        })
    }

    /// The batch of rows; `None` where they do not fit one another.
    fn make<'py>(
        &self,
        py: Python<'py>,
        plan: &Plan,
        mut taken: Taken<'py>,
        size: usize,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let count = taken.items();
        let Some(laid) = copying::lay(&self.rule, plan, std::mem::take(&mut taken.rows), size)
        else {
            return Ok(None);
        };
        let mut copying = Copying::default();
        for one in laid {
            let buffer = self.buffer(one.bytes())?;
            copying.add(one, buffer);
        }
        // SAFETY: each buffer is fresh from the pool, so nobody else refers to it; the rows' objects are kept by
        // `taken`.
        let copy = || unsafe { copying.run() };
        if copying.bytes() < WORTH_WHILE {
            copy();
        } else if let Ok(_inside) = Inside::enter(py) {
            py.detach(copy);
        } else {
            copy();
        }
        for (laid, _) in copying.parts() {
            if let Some((useful, given)) = laid.padding() {
                current::note_padding(py, useful, given);
            }
        }
        let batch = self.put_together(py, plan, count, &copying)?;
        drop(taken);
        Ok(batch)
    }

    fn put_together<'py>(
        &self,
        py: Python<'py>,
        plan: &Plan,
        items: usize,
        copying: &Copying,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let count = plan.leaves.len();
        let mut made = Vec::with_capacity(count);
        for (leaf, (laid, block)) in plan.leaves.iter().zip(copying.parts()) {
            let Some(array) = leaf.source.make(py, &laid.shape, block.clone())? else {
                return Ok(None);
            };
            made.push(array);
        }
        let mut extras = Vec::new();
        for (laid, block) in copying.parts().skip(count) {
            let Some(source) = plan.extras.source(laid.is) else {
                return Ok(None);
            };
            let Some(array) = source.make(py, &laid.shape, block.clone())? else {
                return Ok(None);
            };
            extras.push(array);
        }
        if let Form::Ragged(joined) = &self.rule.form {
            let parts = made.into_iter().zip(extras).zip(copying.parts());
            let joined = parts.map(|((values, ends), (laid, _))| {
                joined.bind(py).call1((values, ends, laid.longest))
            });
            made = joined.collect::<PyResult<_>>()?;
            extras = Vec::new();
        }
        let arrays = self.rule.notes.then(|| made.clone());
        let batch = plan.tree.put(py, &mut made.into_iter())?;
        let Some(batch) = self.with_extras(py, batch, extras)? else {
            return Ok(None);
        };
        let Some(arrays) = arrays else {
            return Ok(Some(batch));
        };
        let notes = PyList::empty(py);
        for (at, (laid, _)) in copying.parts().take(count).enumerate() {
            if let Some(axes) = &laid.padded {
                let lengths: Vec<_> = (0..items)
                    .map(|row| PyTuple::new(py, laid.kept(row, axes)))
                    .collect::<PyResult<_>>()?;
                let widths: Vec<usize> = axes.iter().map(|axis| laid.shape[axis + 1]).collect();
                notes.append((
                    at,
                    PyTuple::new(py, axes)?,
                    PyTuple::new(py, widths)?,
                    lengths,
                ))?;
            }
        }
        Ok(Some((batch, arrays, notes).into_pyobject(py)?.into_any()))
    }

    /// Mask and lengths added under their names, or beside what has none.
    fn with_extras<'py>(
        &self,
        py: Python<'py>,
        batch: Bound<'py, PyAny>,
        extras: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if extras.is_empty() {
            return Ok(Some(batch));
        }
        let Ok(dict) = batch.cast_exact::<PyDict>() else {
            let all = std::iter::once(batch).chain(extras).collect::<Vec<_>>();
            return Ok(Some(PyTuple::new(py, all)?.into_any()));
        };
        let names = [&self.rule.mask, &self.rule.lengths];
        for (name, extra) in names.into_iter().flatten().zip(extras) {
            if dict.contains(name)? {
                return Ok(None);
            }
            dict.set_item(name, extra)?;
        }
        Ok(Some(batch))
    }
}
