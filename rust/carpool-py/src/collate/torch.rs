//! torch tensors: read and made through the table of C functions that their class offers
//! (`torch.Tensor.__dlpack_c_exchange_api__`; dlpack.h, `DLPackExchangeAPI`), without a call of Python's.
//!
//! torch is not linked; nothing is looked for until the program has imported it. Where its class offers no table,
//! tensors go the plain way.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use carpool_collate::{Block, MAX_RANK, Row};
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;

use super::source::Number;

#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    kind: i32,
    number: i32,
}

/// In main memory.
const CPU: Device = Device { kind: 1, number: 0 };

#[repr(C)]
#[derive(Clone, Copy)]
struct Dtype {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    rank: i32,
    dtype: Dtype,
    shape: *mut i64,
    strides: *mut i64,
    offset: u64,
}

#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
}

#[repr(C)]
struct Managed {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
    flags: u64,
    tensor: Tensor,
}

#[repr(C)]
struct Table {
    version: Version,
    older: *mut c_void,
    allocate: *mut c_void,
    from_object: *mut c_void,
    to_object: Option<unsafe extern "C" fn(*mut Managed, *mut *mut c_void) -> c_int>,
    read: Option<unsafe extern "C" fn(*mut c_void, *mut Tensor) -> c_int>,
    stream: *mut c_void,
}

const INT: u8 = 0;
const UINT: u8 = 1;
const COMPLEX: u8 = 5;
const BOOL: u8 = 6;

/// What of torch is used.
pub(super) struct Torch {
    tensor: Py<PyAny>,
    parameter: Py<PyAny>,
    is_neg: Py<PyAny>,
    to_object: unsafe extern "C" fn(*mut Managed, *mut *mut c_void) -> c_int,
    read: unsafe extern "C" fn(*mut c_void, *mut Tensor) -> c_int,
}

/// `None` once looked for in vain.
static TORCH: PyOnceLock<Option<Torch>> = PyOnceLock::new();

impl Torch {
    /// torch, if the program has imported it and its tensors can be read so.
    pub(super) fn loaded(py: Python<'_>) -> Option<&'static Self> {
        match TORCH.get(py) {
            Some(known) => known.as_ref(),
            None => Self::look(py),
        }
    }

    #[cold]
    fn look(py: Python<'_>) -> Option<&'static Self> {
        let modules = py.import("sys").ok()?.getattr("modules").ok()?;
        let torch = modules.get_item("torch").ok()?;
        // While it is being imported, it may have no tensors yet.
        torch.getattr("nn").ok()?.getattr("Parameter").ok()?;
        let found = Self::find(&torch).ok();
        drop(TORCH.set(py, found));
        TORCH.get(py)?.as_ref()
    }

    fn find(torch: &Bound<'_, PyAny>) -> PyResult<Self> {
        if size_of::<usize>() != size_of::<i64>() {
            return Err(PyImportError::new_err("lengths are read as they lie there"));
        }
        let tensor = torch.getattr("Tensor")?;
        let capsule = tensor.getattr("__dlpack_c_exchange_api__")?;
        let name = c"dlpack_exchange_api";
        // SAFETY: attached; the object is alive, and what is no capsule of this name is refused.
        let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), name.as_ptr()) };
        if table.is_null() {
            return Err(PyErr::fetch(torch.py()));
        }
        // SAFETY: a capsule of this name points to such a table, which lives as long as the process. What follows
        // the header is as here in version 1, and the version stands in the header.
        let table = unsafe { &*table.cast::<Table>() };
        match (table.version.major, table.to_object, table.read) {
            (1, Some(to_object), Some(read)) => Ok(Self {
                parameter: torch.getattr("nn")?.getattr("Parameter")?.unbind(),
                is_neg: tensor.getattr("is_neg")?.unbind(),
                tensor: tensor.unbind(),
                to_object,
                read,
            }),
            _ => Err(PyImportError::new_err("this table cannot be read here")),
        }
    }

    /// What a tensor's numbers are, its row appended to `rows`; `None`, and nothing is appended, for anything else
    /// than a dense tensor in main memory, of exactly this class (or a parameter), and for what it refuses to
    /// show.
    pub(super) fn read(&self, object: &Bound<'_, PyAny>, rows: &mut Vec<Row>) -> Option<Number> {
        // SAFETY: attached; the object is alive.
        let kind: *mut ffi::PyObject = unsafe { ffi::Py_TYPE(object.as_ptr()) }.cast();
        if kind != self.tensor.as_ptr() && kind != self.parameter.as_ptr() {
            return None;
        }
        let mut read = Tensor {
            data: null_mut(),
            device: CPU,
            rank: 0,
            dtype: Dtype {
                code: 0,
                bits: 0,
                lanes: 0,
            },
            shape: null_mut(),
            strides: null_mut(),
            offset: 0,
        };
        // SAFETY: attached; a tensor of the class that the table belongs to, which is alive; `read` is ours.
        if unsafe { (self.read)(object.as_ptr().cast(), &raw mut read) } != 0 {
            drop(PyErr::take(object.py()));
            return None;
        }
        let rank = usize::try_from(read.rank).ok()?;
        let size = read.dtype.bits / 8;
        if read.device.kind != CPU.kind
            || read.dtype.lanes != 1
            || !matches!(size, 1 | 2 | 4 | 8 | 16)
            || read.dtype.bits % 8 != 0
            || rank > MAX_RANK
            || (rank > 0 && read.strides.is_null())
            // A complex tensor may be a view that is to be conjugated when it is read, which the table hides.
            || read.dtype.code == COMPLEX
        {
            return None;
        }
        let (shape, steps): (&[usize], &[isize]) = if rank == 0 {
            (&[], &[])
        } else {
            // SAFETY: there is a place for each axis, of 64 bits as here, which the tensor keeps; no length is negative.
            unsafe {
                (
                    std::slice::from_raw_parts(read.shape.cast::<usize>(), rank),
                    std::slice::from_raw_parts(read.strides.cast::<isize>(), rank),
                )
            }
        };
        // And imaginary parts of such views are to be negated. Their neighbours lie two numbers apart.
        if !matches!(read.dtype.code, INT | UINT | BOOL) {
            let inner = (0..rank).rev().find(|&axis| shape[axis] != 1);
            if inner.is_none_or(|axis| steps[axis] != 1) {
                let negated = self.is_neg.bind(object.py()).call1((object,));
                if !negated.is_ok_and(|negated| negated.is(PyBool::new(object.py(), false))) {
                    return None;
                }
            }
        }
        let data: *const u8 = read.data.cast_const().cast();
        let data = data.wrapping_add(usize::try_from(read.offset).ok()?);
        // SAFETY: the tensor's memory has a number at every index. It is kept alive by whoever keeps the object.
        let appended = unsafe { Row::push_steps(rows, data, shape, steps, size.into()) };
        appended.then_some(Number {
            kind: read.dtype.code,
            size,
        })
    }

    /// A tensor of this shape around memory of ours, which it keeps.
    pub(super) fn tensor<'py>(
        &self,
        py: Python<'py>,
        number: Number,
        shape: &[usize],
        block: Arc<Block>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut owner = Box::new(Owner {
            managed: Managed {
                version: Version { major: 1, minor: 0 },
                context: null_mut(),
                deleter: Some(let_go),
                flags: 0,
                tensor: Tensor {
                    data: block.data().cast(),
                    device: CPU,
                    rank: shape.len() as i32,
                    dtype: Dtype {
                        code: number.kind,
                        bits: number.size * 8,
                        lanes: 1,
                    },
                    shape: null_mut(),
                    strides: null_mut(),
                    offset: 0,
                },
            },
            shape: [0; MAX_RANK + 1],
            strides: [0; MAX_RANK + 1],
            _block: block,
        });
        let mut step = 1;
        for axis in (0..shape.len()).rev() {
            owner.shape[axis] = shape[axis] as i64;
            owner.strides[axis] = step;
            step *= shape[axis].max(1) as i64;
        }
        let owner = Box::into_raw(owner);
        let mut made: *mut c_void = null_mut();
        // SAFETY: attached. `owner` is ours until it is given away; what it points to lies in itself, at places
        // that do not move. The function takes it, and calls the deleter when nobody uses the tensor any more.
        unsafe {
            (*owner).managed.context = owner.cast();
            (*owner).managed.tensor.shape = (&raw mut (*owner).shape).cast();
            (*owner).managed.tensor.strides = (&raw mut (*owner).strides).cast();
            if (self.to_object)(&raw mut (*owner).managed, &raw mut made) != 0 {
                return Err(PyErr::fetch(py));
            }
            Bound::from_owned_ptr_or_err(py, made.cast())
        }
    }
}

/// What a tensor of ours keeps.
#[repr(C)]
struct Owner {
    managed: Managed,
    shape: [i64; MAX_RANK + 1],
    strides: [i64; MAX_RANK + 1],
    _block: Arc<Block>,
}

/// Nobody uses the tensor any more. Comes from any thread, attached or not, and needs no interpreter.
unsafe extern "C" fn let_go(managed: *mut Managed) {
    // SAFETY: the context is the owner that was given away, and this is called once.
    drop(unsafe { Box::from_raw((*managed).context.cast::<Owner>()) });
}
