//! The nesting of items: leaves taken out, batches put in their places.

use std::ptr::null_mut;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};

/// A nesting, as an item of it showed it.
pub(super) enum Tree {
    Leaf,
    /// A dict of exactly these keys.
    Dict(Vec<(Py<PyAny>, Tree)>),
    /// A tuple.
    Tuple(Vec<Tree>),
    /// A named tuple.
    Named(Py<PyType>, Vec<Tree>),
    /// A dataclass, by the names of its fields.
    Fields(Py<PyType>, Vec<(Py<PyString>, Tree)>),
}

/// The kind of a container, its class, its keys and its children.
type Told<'py> = (String, Py<PyAny>, Vec<Py<PyAny>>, Vec<Bound<'py, PyAny>>);

impl Tree {
    /// From Python: None for a leaf; else ("dict", None, keys, children), and so for the others.
    pub(super) fn from_python(told: &Bound<'_, PyAny>) -> PyResult<Self> {
        if told.is_none() {
            return Ok(Self::Leaf);
        }
        let (kind, class, keys, children): Told<'_> = told.extract()?;
        let children = children
            .iter()
            .map(Self::from_python)
            .collect::<PyResult<Vec<_>>>()?;
        let class = || class.bind(told.py()).cast::<PyType>().cloned();
        Ok(match kind.as_str() {
            "dict" => Self::Dict(keys.into_iter().zip(children).collect()),
            "tuple" => Self::Tuple(children),
            "named" => Self::Named(class()?.unbind(), children),
            "fields" => {
                let names = keys
                    .iter()
                    .map(|key| Ok(key.bind(told.py()).cast::<PyString>()?.clone().unbind()));
                let names = names.collect::<PyResult<Vec<_>>>()?;
                Self::Fields(class()?.unbind(), names.into_iter().zip(children).collect())
            }
            _ => return Err(PyTypeError::new_err("no such nesting")),
        })
    }

    /// Appends the leaves of an item; false where it is nested differently.
    pub(super) fn take<'py>(
        &self,
        item: Bound<'py, PyAny>,
        leaves: &mut Vec<Bound<'py, PyAny>>,
    ) -> bool {
        let py = item.py();
        match self {
            Self::Leaf => {
                leaves.push(item);
                true
            }
            Self::Dict(children) => {
                let Ok(dict) = item.cast_exact::<PyDict>() else {
                    return false;
                };
                if dict.len() != children.len() {
                    return false;
                }
                let mut entries = Entries::of(dict);
                children.iter().all(|(key, child)| {
                    // Most dicts have the very keys of the first, in its order; where one has not, they are looked up.
                    let value = match entries.next(key) {
                        Some(value) => Some(value),
                        None => dict.get_item(key.bind(py)).ok().flatten(),
                    };
                    value.is_some_and(|value| child.take(value, leaves))
                })
            }
            Self::Tuple(children) => {
                item.cast_exact::<PyTuple>().is_ok() && take_tuple(children, &item, leaves)
            }
            Self::Named(class, children) => {
                is_exactly(&item, class) && take_tuple(children, &item, leaves)
            }
            Self::Fields(class, children) => {
                is_exactly(&item, class)
                    && children
                        .iter()
                        .all(|(name, child)| match item.getattr(name.bind(py)) {
                            Ok(value) => child.take(value, leaves),
                            Err(_) => false,
                        })
            }
        }
    }

    /// The same nesting around other leaves, taken in order.
    pub(super) fn put<'py>(
        &self,
        py: Python<'py>,
        leaves: &mut impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Leaf => leaves.next().ok_or_else(|| {
                PyTypeError::new_err("carpool: a bug in the border (too few leaves)")
            })?,
            Self::Dict(children) => {
                let dict = PyDict::new(py);
                for (key, child) in children {
                    dict.set_item(key.bind(py), child.put(py, leaves)?)?;
                }
                dict.into_any()
            }
            Self::Tuple(children) => put_all(py, children, leaves)?.into_any(),
            // Not by calling the class, whose `__new__` may take something else.
            Self::Named(class, children) => class
                .bind(py)
                .call_method1("_make", (put_all(py, children, leaves)?,))?,
            Self::Fields(class, children) => {
                let values = PyDict::new(py);
                for (name, child) in children {
                    values.set_item(name.bind(py), child.put(py, leaves)?)?;
                }
                class.bind(py).call((), Some(&values))?
            }
        })
    }

    /// How many leaves there are.
    pub(super) fn leaves(&self) -> usize {
        match self {
            Self::Leaf => 1,
            Self::Tuple(children) | Self::Named(_, children) => {
                children.iter().map(Self::leaves).sum()
            }
            Self::Dict(children) => children.iter().map(|(_, child)| child.leaves()).sum(),
            Self::Fields(_, children) => children.iter().map(|(_, child)| child.leaves()).sum(),
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        match self {
            Self::Leaf => Ok(()),
            Self::Tuple(children) => children.iter().try_for_each(|child| child.traverse(visit)),
            Self::Named(class, children) => {
                visit.call(class)?;
                children.iter().try_for_each(|child| child.traverse(visit))
            }
            Self::Dict(children) => children.iter().try_for_each(|(key, child)| {
                visit.call(key)?;
                child.traverse(visit)
            }),
            Self::Fields(class, children) => {
                visit.call(class)?;
                children
                    .iter()
                    .try_for_each(|(_, child)| child.traverse(visit))
            }
        }
    }
}

/// The entries of a dict in order, without looking up one.
struct Entries<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    place: ffi::Py_ssize_t,
}

impl<'a, 'py> Entries<'a, 'py> {
    fn of(dict: &'a Bound<'py, PyDict>) -> Self {
        Self { dict, place: 0 }
    }

    /// The value of the next entry; `None` where its key is not this very object.
    fn next(&mut self, key: &Py<PyAny>) -> Option<Bound<'py, PyAny>> {
        let (mut own, mut value) = (null_mut(), null_mut());
        // SAFETY: attached; a dict, which is alive. No place that it gives is out of range, whatever has become of the
        // dict since; what it finds is borrowed from it, and becomes ours before anything else runs.
        unsafe {
            let found = ffi::PyDict_Next(
                self.dict.as_ptr(),
                &raw mut self.place,
                &raw mut own,
                &raw mut value,
            );
            if found == 0 || own != key.as_ptr() {
                return None;
            }
            Some(Bound::from_borrowed_ptr(self.dict.py(), value))
        }
    }
}

fn is_exactly(item: &Bound<'_, PyAny>, class: &Py<PyType>) -> bool {
    // SAFETY: attached; the object is alive.
    let own: *mut ffi::PyObject = unsafe { ffi::Py_TYPE(item.as_ptr()) }.cast();
    own == class.as_ptr()
}

fn take_tuple<'py>(
    children: &[Tree],
    item: &Bound<'py, PyAny>,
    leaves: &mut Vec<Bound<'py, PyAny>>,
) -> bool {
    let Ok(tuple) = item.cast::<PyTuple>() else {
        return false;
    };
    tuple.len() == children.len()
        && children
            .iter()
            .zip(tuple.iter())
            .all(|(child, value)| child.take(value, leaves))
}

fn put_all<'py>(
    py: Python<'py>,
    children: &[Tree],
    leaves: &mut impl Iterator<Item = Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyTuple>> {
    let made = PyList::empty(py);
    for child in children {
        made.append(child.put(py, leaves)?)?;
    }
    Ok(made.to_tuple())
}
