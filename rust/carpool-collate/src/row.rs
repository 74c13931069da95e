//! A row as it lies in memory.

use crate::widths::Side;

/// The most axes a row may have here.
pub const MAX_RANK: usize = 8;

/// A row of numbers: where it begins, how many there are along each axis, and how far apart, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub(crate) data: *const u8,
    pub(crate) rank: usize,
    pub(crate) shape: [usize; MAX_RANK],
    pub(crate) strides: [isize; MAX_RANK],
}

impl Row {
    /// A row at `data`; `None` with more than [`MAX_RANK`] axes, or with different numbers of lengths and strides.
    ///
    /// # Safety
    ///
    /// For every index within `shape` the number at `data + sum(index * stride)` can be read for as long as the
    /// row, or a copy or part of it, is used, and nobody writes there meanwhile.
    #[inline]
    pub unsafe fn new(data: *const u8, shape: &[usize], strides: &[isize]) -> Option<Self> {
        let mut rows = Vec::with_capacity(1);
        // SAFETY: as promised to us.
        unsafe { Self::push(&mut rows, data, shape, strides) };
        rows.pop()
    }

    /// Appends a row to others, written where it stays: it is too large to be handed about. False, and nothing is
    /// appended, where there is none ([`new`](Self::new)).
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    #[inline]
    pub unsafe fn push(
        rows: &mut Vec<Self>,
        data: *const u8,
        shape: &[usize],
        strides: &[isize],
    ) -> bool {
        if shape.len() > MAX_RANK || shape.len() != strides.len() {
            return false;
        }
        rows.push(Self {
            data,
            rank: shape.len(),
            shape: [1; MAX_RANK],
            strides: [0; MAX_RANK],
        });
        if let Some(row) = rows.last_mut() {
            for (to, from) in row.shape.iter_mut().zip(shape) {
                *to = *from;
            }
            for (to, from) in row.strides.iter_mut().zip(strides) {
                *to = *from;
            }
        }
        true
    }

    /// The same of strides that are counted in numbers of so many bytes.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new), with `stride * size` in place of `stride`.
    #[inline]
    pub unsafe fn push_steps(
        rows: &mut Vec<Self>,
        data: *const u8,
        shape: &[usize],
        steps: &[isize],
        size: isize,
    ) -> bool {
        // SAFETY: as promised to us.
        if !unsafe { Self::push(rows, data, shape, steps) } {
            return false;
        }
        if let Some(row) = rows.last_mut() {
            for stride in &mut row.strides[..shape.len()] {
                *stride = stride.wrapping_mul(size);
            }
        }
        true
    }

    /// How many numbers there are along each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    /// Keeps `kept` numbers along an axis, of which there are as many, and cuts the others off at `end`.
    pub fn keep(&mut self, axis: usize, kept: usize, end: Side) {
        let length = self.shape[axis];
        assert!(axis < self.rank && kept <= length);
        if end == Side::Left && kept > 0 {
            let skipped = (length - kept) as isize * self.strides[axis];
            // Within the row: the first of the kept numbers is one of it.
            self.data = self.data.wrapping_offset(skipped);
        }
        self.shape[axis] = kept;
    }

    /// Whether the numbers from `axis` on lie one after the other without gaps, each of `size` bytes.
    pub(crate) fn is_dense_from(&self, axis: usize, size: usize) -> bool {
        let mut step = size as isize;
        for at in (axis..self.rank).rev() {
            if self.shape[at] != 1 && self.strides[at] != step {
                return false;
            }
            step = step.wrapping_mul(self.shape[at] as isize);
        }
        true
    }
}
