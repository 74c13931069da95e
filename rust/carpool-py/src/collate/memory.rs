//! What an array refers to in place of memory of its own.

use std::sync::Arc;

use carpool_collate::Block;
use pyo3::prelude::*;

/// A buffer, for as long as something refers to it.
#[pyclass(frozen, module = "carpool._core", name = "_Memory")]
pub(crate) struct Memory(pub(super) Arc<Block>);

impl Memory {
    pub(super) fn data(&self) -> *mut u8 {
        self.0.data()
    }
}
