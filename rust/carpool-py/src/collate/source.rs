//! Where the rows of one leaf come from, and what their batch is made as.

use std::sync::Arc;

use carpool_collate::{Block, Row};
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::memory::Memory;
use super::numpy::{Numpy, Plain};
use super::torch::Torch;

/// What the numbers of an array are: a code for their kind, and their size in bytes. Codes are numpy's letters for
/// arrays and DLPack's numbers for tensors; the two never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) kind: u8,
    pub(super) size: u8,
}

/// How the rows of a leaf are read, and its batch is made.
pub(super) enum Source {
    /// Arrays of this dtype.
    Array { number: Number, dtype: Py<PyAny> },
    /// Tensors in main memory.
    Tensor { number: Number },
    /// Python's own numbers, or lists of them; they become arrays of this dtype.
    Plain {
        of: Plain,
        is_list: bool,
        dtype: Py<PyAny>,
    },
}

/// Numbers of Python's, as rows are made of them.
#[derive(Default)]
pub(super) struct Scratch(Vec<Box<[u64]>>);

impl Scratch {
    fn row(&mut self, numbers: Box<[u64]>, shape: &[usize], rows: &mut Vec<Row>) -> Option<()> {
        let data: *const u8 = numbers.as_ptr().cast();
        self.0.push(numbers);
        let strides = [size_of::<u64>() as isize];
        // SAFETY: as many numbers as the shape says lie there, 8 bytes apart; they stay where they are when the
        // box is moved, and rows are not used beyond the scratch.
        unsafe { Row::push(rows, data, shape, &strides[..shape.len()]) }.then_some(())
    }
}

impl Source {
    /// From one item's leaf, how to read all of them; `None` where only the plain way can. With its rank.
    pub(super) fn of(sample: &Bound<'_, PyAny>) -> PyResult<Option<(Self, usize)>> {
        let py = sample.py();
        let mut rows = Vec::new();
        if let Some(torch) = Torch::loaded(py) {
            if let Some(number) = torch.read(sample, &mut rows) {
                return Ok(Some((Self::Tensor { number }, rank_of(&rows))));
            }
        }
        let Some(numpy) = Numpy::loaded(py) else {
            return Ok(None);
        };
        if let Some(number) = numpy.read(sample, &mut rows) {
            let dtype = numpy.dtype_of(sample)?.unbind();
            return Ok(Some((Self::Array { number, dtype }, rank_of(&rows))));
        }
        let list = sample.cast_exact::<PyList>().ok();
        let first = match list {
            None => Some(sample.clone()),
            Some(list) => list.iter().next(),
        };
        let Some((of, _)) = first.and_then(|first| plain(&first)) else {
            return Ok(None);
        };
        let source = Self::Plain {
            of,
            is_list: list.is_some(),
            dtype: numpy.dtype(py, of)?.unbind(),
        };
        Ok(Some((source, usize::from(list.is_some()))))
    }

    /// How large one number is, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Array { number, .. } | Self::Tensor { number } => number.size.into(),
            Self::Plain {
                of: Plain::Bool, ..
            } => 1,
            Self::Plain { .. } => 8,
        }
    }

    /// Appends the row of one leaf, which has to outlive it; `None` where it is not like the others, whose last is then
    /// perhaps one too many.
    #[inline]
    pub(super) fn read(
        &self,
        leaf: &Bound<'_, PyAny>,
        scratch: &mut Scratch,
        rows: &mut Vec<Row>,
    ) -> Option<()> {
        match self {
            Self::Array { number, .. } => {
                let own = Numpy::loaded(leaf.py())?.read(leaf, rows)?;
                (own == *number).then_some(())
            }
            Self::Tensor { number } => {
                let own = Torch::loaded(leaf.py())?.read(leaf, rows)?;
                (own == *number).then_some(())
            }
            Self::Plain {
                of, is_list: false, ..
            } => {
                let (own, number) = plain(leaf)?;
                (own == *of).then(|| scratch.row(Box::new([number]), &[], rows))?
            }
            Self::Plain {
                of, is_list: true, ..
            } => {
                let list = leaf.cast_exact::<PyList>().ok()?;
                let numbers = list.iter().map(|one| match plain(&one) {
                    Some((own, number)) if own == *of => Some(number),
                    _ => None,
                });
                let numbers = numbers.collect::<Option<Box<[u64]>>>()?;
                let length = numbers.len();
                scratch.row(numbers, &[length], rows)
            }
        }
    }

    /// An array or tensor of this shape around a buffer that has room for it.
    pub(super) fn make<'py>(
        &self,
        py: Python<'py>,
        shape: &[usize],
        block: Arc<Block>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Self::Array { dtype, .. } | Self::Plain { dtype, .. } => Numpy::loaded(py)
                .map(|numpy| numpy.array(dtype.bind(py), shape, Memory(block)))
                .transpose(),
            Self::Tensor { number } => Torch::loaded(py)
                .map(|torch| torch.tensor(py, *number, shape, block))
                .transpose(),
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        match self {
            Self::Array { dtype, .. } | Self::Plain { dtype, .. } => visit.call(dtype),
            Self::Tensor { .. } => Ok(()),
        }
    }
}

fn rank_of(rows: &[Row]) -> usize {
    rows.last().map_or(0, |row| row.shape().len())
}

/// A number of Python's, of exactly its own class: what it becomes, and its bytes.
fn plain(number: &Bound<'_, PyAny>) -> Option<(Plain, u64)> {
    let object = number.as_ptr();
    // SAFETY: attached; the object is alive, and each function is called on what has been seen to be of its class.
    unsafe {
        if ffi::PyLong_CheckExact(object) != 0 {
            let mut overflow = 0;
            let value = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
            return (overflow == 0).then_some((Plain::Int, value as u64));
        }
        if ffi::PyFloat_CheckExact(object) != 0 {
            return Some((Plain::Float, ffi::PyFloat_AsDouble(object).to_bits()));
        }
        if ffi::PyBool_Check(object) != 0 {
            let byte = u8::from(object == ffi::Py_True());
            return Some((Plain::Bool, u64::from_ne_bytes([byte, 0, 0, 0, 0, 0, 0, 0])));
        }
    }
    None
}
