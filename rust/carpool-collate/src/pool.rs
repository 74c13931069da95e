//! Buffers that are used again.
//!
//! A buffer belongs to whoever has a clone of its `Arc`: the array around it, views of that, the answers that
//! are such views. The pool keeps one clone itself. It gives a buffer out only where its own is the only one
//! left, so one that somebody still refers to is never written again.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

/// Wide enough for every vector register, and a line of the cache.
const ALIGN: usize = 64;

/// The smallest buffer that is made.
const LEAST: usize = 4096;

/// Memory, not initialised when made.
#[derive(Debug)]
pub struct Block {
    data: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is memory alone; who may read and write it when, is up to those who hold it.
unsafe impl Send for Block {}
// SAFETY: as above: through a shared block only its address and its size are seen.
unsafe impl Sync for Block {}

impl Block {
    /// Memory of `size` bytes, at least one; `None` where there is none left.
    pub fn new(size: usize) -> Option<Self> {
        let layout = Layout::from_size_align(size.max(1), ALIGN).ok()?;
        // SAFETY: the layout is not empty.
        let data = NonNull::new(unsafe { alloc(layout) })?;
        Some(Self { data, layout })
    }

    /// Where it begins.
    pub fn data(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed here only.
        unsafe { dealloc(self.data.as_ptr(), self.layout) };
    }
}

/// Buffers for the next batches.
#[derive(Debug, Default)]
pub struct Pool {
    blocks: Vec<Arc<Block>>,
}

impl Pool {
    /// The most buffers that are kept.
    pub const MOST: usize = 16;

    /// A buffer of at least `bytes` bytes that nobody else refers to; `None` where no memory is left.
    pub fn take(&mut self, bytes: usize) -> Option<Arc<Block>> {
        let size = class(bytes)?;
        let mut unused = None;
        for (at, block) in self.blocks.iter_mut().enumerate() {
            let own = block.size();
            // Nobody else: what the last one wrote and read comes before what follows here.
            if Arc::get_mut(block).is_some() {
                if own >= bytes && own <= size.saturating_mul(2) {
                    return Some(block.clone());
                }
                unused = unused.or(Some(at));
            }
        }
        let block = Arc::new(Block::new(size)?);
        if self.blocks.len() >= Self::MOST {
            // One that has become too small or too large; else the oldest, which goes with its last user.
            self.blocks.remove(unused.unwrap_or(0));
        }
        self.blocks.push(block.clone());
        Some(block)
    }

    /// How many buffers are kept.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// The size that buffers of so many bytes have: eight steps to each power of two.
fn class(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(LEAST);
    let step = (bytes.checked_next_power_of_two()? / 16).max(1);
    bytes.checked_next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_refers_to_it() {
        let mut pool = Pool::default();
        let first = pool.take(5000).expect("memory");
        let address = first.data();
        let second = pool.take(5000).expect("memory");
        assert_ne!(second.data(), address);
        let view = first.clone();
        drop(first);
        assert_ne!(pool.take(5000).expect("memory").data(), address);
        drop(view);
        assert_eq!(pool.take(5100).expect("memory").data(), address);
        assert_eq!(pool.len(), 3);
    }

    #[test]
    fn much_larger_buffers_are_left_for_larger_batches() {
        let mut pool = Pool::default();
        let large = pool.take(1 << 20).expect("memory").data();
        assert_ne!(pool.take(5000).expect("memory").data(), large);
        assert_eq!(pool.take(1 << 20).expect("memory").data(), large);
    }

    #[test]
    fn the_pool_does_not_grow_without_end() {
        let mut pool = Pool::default();
        let held: Vec<_> = (0..100).filter_map(|_| pool.take(10)).collect();
        assert_eq!(held.len(), 100);
        assert_eq!(pool.len(), Pool::MOST);
        let mut addresses: Vec<_> = held.iter().map(|block| block.data()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 100);
    }

    #[test]
    fn no_size_overflows() {
        assert!(Pool::default().take(usize::MAX).is_none());
        assert_eq!(class(0), Some(LEAST));
    }

    proptest! {
        #[test]
        fn buffers_in_use_never_overlap(steps in proptest::collection::vec((1usize..40_000, 0usize..8), 1..60)) {
            let mut pool = Pool::default();
            let mut held: Vec<Arc<Block>> = Vec::new();
            for (bytes, drops) in steps {
                let block = pool.take(bytes).expect("memory");
                prop_assert!(block.size() >= bytes);
                prop_assert_eq!(block.data() as usize % ALIGN, 0);
                for other in &held {
                    let (own, theirs) = (block.data() as usize, other.data() as usize);
                    prop_assert!(own + block.size() <= theirs || theirs + other.size() <= own);
                }
                held.push(block);
                for _ in 0..drops.min(held.len()) {
                    held.remove(0);
                }
            }
        }
    }
}
