//! The memory of requests: each thread keeps a few freed ones for the next.
//!
//! A batch frees its requests in one go and its callers make as many again; that is more than the C library
//! keeps at hand for a thread, and its long way costs more than all else in a submit. Everything of another
//! size goes to the system as ever.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

use carpool_core::Request;

use crate::border::PyBorder;

/// A request counts its own handles: nothing is around it.
const CELL: Layout = Layout::new::<Request<PyBorder>>();

/// How many a thread keeps. None where memory is being watched: it must see every use of what is gone.
const MOST: usize = if cfg!(feature = "memcheck") { 0 } else { 128 };

/// The freed cells of a thread: each one's first word is the next.
struct Kept {
    first: Cell<*mut u8>,
    count: Cell<usize>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut cell = self.first.replace(null_mut());
        while !cell.is_null() {
            // SAFETY: kept cells came from `System` with this layout, are owned by this list, and hold the
            // next one in their first word.
            unsafe {
                let next = cell.cast::<*mut u8>().read();
                System.dealloc(cell, CELL);
                cell = next;
            }
        }
    }
}

thread_local! {
    static KEPT: Kept = const { Kept { first: Cell::new(null_mut()), count: Cell::new(0) } };
}

/// The system's memory but for requests.
pub(crate) struct Cells;

impl Cells {
    #[inline]
    fn take() -> Option<*mut u8> {
        KEPT.try_with(|kept| {
            let cell = kept.first.get();
            if cell.is_null() {
                return None;
            }
            // SAFETY: as in `drop`; the list gives the cell up.
            kept.first.set(unsafe { cell.cast::<*mut u8>().read() });
            kept.count.set(kept.count.get() - 1);
            Some(cell)
        })
        // The thread is ending.
        .unwrap_or(None)
    }

    /// False: it is not kept.
    ///
    /// # Safety
    /// `cell` came from `System` with the layout `CELL` and is given up.
    #[inline]
    unsafe fn keep(cell: *mut u8) -> bool {
        KEPT.try_with(|kept| {
            let count = kept.count.get();
            if count == MOST {
                return false;
            }
            // SAFETY: by contract; a cell has room for a pointer, and is aligned for one.
            unsafe { cell.cast::<*mut u8>().write(kept.first.get()) };
            kept.first.set(cell);
            kept.count.set(count + 1);
            true
        })
        .unwrap_or(false)
    }
}

// SAFETY: every block is one of `System`, of the layout asked for: a kept one has exactly the layout `CELL`, and
// is handed out once before it comes back. `thread_local!` allocates nothing here: its value is constant, and
// what notes its destructor is the C library's.
unsafe impl GlobalAlloc for Cells {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout == CELL {
            if let Some(cell) = Self::take() {
                return cell;
            }
        }
        // SAFETY: by contract.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by contract: the block came from `alloc` with this layout, so from `System`.
        unsafe {
            if layout != CELL || !Self::keep(block) {
                System.dealloc(block, layout);
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by contract; the block is one of `System`.
        unsafe { System.realloc(block, layout, size) }
    }
}
