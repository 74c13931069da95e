//! numpy arrays: read from their C structure, and made around memory of ours.
//!
//! Only what has been the same in numpy 1 and 2 is used: the first fields of `PyArrayObject` and of
//! `PyArray_Descr` ("The C structures", numpy's C API reference), and three entries of the table of its C
//! functions. numpy is not linked; nothing is looked for until the program has imported it.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr::null_mut;

use carpool_collate::Row;
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::memory::Memory;
use super::source::Number;

#[repr(C)]
struct Array {
    head: ffi::PyObject,
    data: *mut c_char,
    rank: c_int,
    shape: *mut isize,
    strides: *mut isize,
    base: *mut ffi::PyObject,
    descr: *mut Descr,
}

#[repr(C)]
struct Descr {
    head: ffi::PyObject,
    of: *mut ffi::PyTypeObject,
    kind: c_char,
    letter: c_char,
    order: c_char,
    flags: c_char,
    number: c_int,
}

/// `PyArray_NewFromDescr`, which takes the reference to the descriptor.
type NewFromDescr = unsafe extern "C" fn(
    *mut ffi::PyTypeObject,
    *mut ffi::PyObject,
    c_int,
    *const isize,
    *const isize,
    *mut c_void,
    c_int,
    *mut ffi::PyObject,
) -> *mut ffi::PyObject;
/// `PyArray_SetBaseObject`, which takes the reference to the base, also when it fails.
type SetBaseObject = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> c_int;
/// `PyArray_DescrFromType`: a new reference.
type DescrFromType = unsafe extern "C" fn(c_int) -> *mut ffi::PyObject;

/// C-contiguous, aligned, writeable.
const CARRAY: c_int = 0x1 | 0x100 | 0x400;

/// What of numpy is used.
pub(super) struct Numpy {
    kind: *mut ffi::PyTypeObject,
    new_from_descr: NewFromDescr,
    set_base: SetBaseObject,
    descr_from_type: DescrFromType,
}

// SAFETY: addresses of functions and of a type that live as long as the process: numpy cannot be unloaded.
unsafe impl Send for Numpy {}
// SAFETY: as above; it is never changed.
unsafe impl Sync for Numpy {}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();

impl Numpy {
    /// numpy, if the program has imported it; `None` also where it is none that can be used so.
    pub(super) fn loaded(py: Python<'_>) -> Option<&'static Self> {
        match NUMPY.get(py) {
            Some(known) => Some(known),
            None => Self::look(py),
        }
    }

    #[cold]
    fn look(py: Python<'_>) -> Option<&'static Self> {
        let modules = py.import("sys").ok()?.getattr("modules").ok()?;
        if !modules.contains("numpy").ok()? {
            return None;
        }
        let found = Self::find(py).ok()?;
        drop(NUMPY.set(py, found));
        NUMPY.get(py)
    }

    fn find(py: Python<'_>) -> PyResult<Self> {
        let module = py
            .import("numpy._core.multiarray")
            .or_else(|_| py.import("numpy.core.multiarray"))?;
        let capsule = module.getattr("_ARRAY_API")?;
        // SAFETY: attached; the object is alive, and what is no capsule is refused; numpy's has no name.
        let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), std::ptr::null()) };
        let table: *const *mut c_void = table.cast_const().cast();
        if table.is_null() {
            drop(PyErr::take(py));
            return Err(PyImportError::new_err("numpy's table is not where it was"));
        }
        // SAFETY: these places of the table have held these entries in every version of numpy 1 and 2
        // (`numpy/_core/code_generators/numpy_api.py`, whose numbers never change).
        unsafe {
            Ok(Self {
                kind: (*table.add(2)).cast(),
                new_from_descr: std::mem::transmute::<*mut c_void, NewFromDescr>(*table.add(94)),
                set_base: std::mem::transmute::<*mut c_void, SetBaseObject>(*table.add(282)),
                descr_from_type: std::mem::transmute::<*mut c_void, DescrFromType>(*table.add(45)),
            })
        }
    }

    /// What an array's numbers are, its row appended to `rows`; `None`, and nothing is appended, for anything else
    /// than an array of plain numbers, of exactly this class.
    #[inline]
    pub(super) fn read(&self, object: &Bound<'_, PyAny>, rows: &mut Vec<Row>) -> Option<Number> {
        // SAFETY: attached; the object is alive.
        if unsafe { ffi::Py_TYPE(object.as_ptr()) } != self.kind {
            return None;
        }
        // SAFETY: an array, so it begins with these fields, and its descriptor with those; it is alive.
        let (array, descr) = unsafe {
            let array = &*object.as_ptr().cast::<Array>();
            (array, &*array.descr)
        };
        let number = number(descr)?;
        let rank = usize::try_from(array.rank).ok()?;
        let (shape, strides): (&[usize], &[isize]) = if rank == 0 {
            (&[], &[])
        } else {
            // SAFETY: shape and strides have a place for each axis, and no length is negative.
            unsafe {
                (
                    std::slice::from_raw_parts(array.shape.cast::<usize>(), rank),
                    std::slice::from_raw_parts(array.strides, rank),
                )
            }
        };
        // SAFETY: the array's data has a number at every index. It is kept alive by whoever keeps the object, and
        // numpy lets nobody free the data of an array to which others refer.
        unsafe { Row::push(rows, array.data.cast(), shape, strides) }.then_some(number)
    }

    /// The dtype of an array.
    pub(super) fn dtype_of<'py>(&self, array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        array.getattr("dtype")
    }

    /// The dtype of 64-bit integers, of doubles, of truth values.
    pub(super) fn dtype<'py>(&self, py: Python<'py>, of: Plain) -> PyResult<Bound<'py, PyAny>> {
        let number = match of {
            Plain::Bool => 0,
            Plain::Int if size_of::<c_long>() == 8 => 7,
            Plain::Int => 9,
            Plain::Float => 12,
        };
        // SAFETY: attached; a number that there is; the result is owned or an error is set.
        unsafe { Bound::from_owned_ptr_or_err(py, (self.descr_from_type)(number)) }
    }

    /// An array of this shape around memory of ours, which it keeps.
    pub(super) fn array<'py>(
        &self,
        dtype: &Bound<'py, PyAny>,
        shape: &[usize],
        memory: Memory,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = dtype.py();
        let data = memory.data();
        let base = Bound::new(py, memory)?.into_any();
        // SAFETY: attached. The memory has room for the shape in numbers of this dtype, which the caller has
        // seen to, and is kept by the base. Both functions take the reference that they are given.
        unsafe {
            let made = (self.new_from_descr)(
                self.kind,
                dtype.clone().into_ptr(),
                shape.len() as c_int,
                shape.as_ptr().cast(),
                std::ptr::null(),
                data.cast(),
                CARRAY,
                null_mut(),
            );
            let made = Bound::from_owned_ptr_or_err(py, made)?;
            if (self.set_base)(made.as_ptr(), base.into_ptr()) != 0 {
                return Err(PyErr::fetch(py));
            }
            Ok(made)
        }
    }
}

/// What Python's own numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Bool,
    Int,
    Float,
}

/// What numbers of a dtype are; `None` where they are no plain ones in the machine's order of bytes.
fn number(descr: &Descr) -> Option<Number> {
    if !matches!(descr.order as u8, b'=' | b'|') {
        return None;
    }
    let long = size_of::<c_long>() as u8;
    let (kind, size) = match descr.number {
        0 => (b'b', 1),
        1 => (b'i', 1),
        2 => (b'u', 1),
        3 => (b'i', 2),
        4 => (b'u', 2),
        5 => (b'i', 4),
        6 => (b'u', 4),
        7 => (b'i', long),
        8 => (b'u', long),
        9 => (b'i', 8),
        10 => (b'u', 8),
        11 => (b'f', 4),
        12 => (b'f', 8),
        14 => (b'c', 8),
        15 => (b'c', 16),
        23 => (b'f', 2),
        _ => return None,
    };
    Some(Number { kind, size })
}
