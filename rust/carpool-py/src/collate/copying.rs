//! The rows of each leaf laid out in one buffer, and copied there.

use std::mem::MaybeUninit;
use std::slice;
use std::sync::Arc;

use carpool_collate::{Block, Frame, Pattern, Row, Side, place};

use super::plan::{Form, Leaf, Plan, Rule};

/// What a part of a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Leaf,
    Mask,
    Lengths,
    /// Where the rows of a ragged leaf end.
    Ends,
}

/// One array of a batch: its shape, and what goes into it.
pub(super) struct Laid {
    pub(super) is: Is,
    pub(super) shape: Vec<usize>,
    /// Of a padded leaf, the axes.
    pub(super) padded: Option<Vec<usize>>,
    /// Of a ragged leaf, its longest row.
    pub(super) longest: usize,
    content: Content,
    bytes: usize,
}

enum Content {
    /// Rows, each in a frame of the same size, and zeros in the frames beyond.
    Framed { frame: Frame, rows: Vec<Row> },
    /// Rows one after the other.
    Joined { frames: Vec<Frame>, rows: Vec<Row> },
    /// Numbers.
    Written(Vec<u8>),
}

impl Laid {
    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept of a row along these axes.
    pub(super) fn kept<'a>(
        &'a self,
        row: usize,
        axes: &'a [usize],
    ) -> impl ExactSizeIterator<Item = usize> + use<'a> {
        let shape = match &self.content {
            Content::Framed { rows, .. } | Content::Joined { rows, .. } => rows[row].shape(),
            Content::Written(_) => &[],
        };
        axes.iter().map(|&axis| shape[axis])
    }

    /// Of a padded leaf, how many of the places along the padded axes are items', and how many there are.
    pub(super) fn padding(&self) -> Option<(u64, u64)> {
        let axes = self.padded.as_ref()?;
        let Content::Framed { rows, .. } = &self.content else {
            return None;
        };
        let places = |shape: &[usize]| axes.iter().map(|&axis| shape[axis] as u64).product::<u64>();
        let useful = rows.iter().map(|row| places(row.shape())).sum();
        Some((useful, rows.len() as u64 * places(&self.shape[1..])))
    }

    fn framed(is: Is, frame: Frame, rows: Vec<Row>, size: usize) -> Option<Self> {
        if !rows.iter().all(|row| frame.takes(row)) {
            return None;
        }
        let bytes = frame.bytes().checked_mul(size)?;
        // No array is larger, and what has no bytes must not have more places than that either.
        frame
            .shape()
            .iter()
            .try_fold(size, |all, &one| all.checked_mul(one.max(1)))?;
        (bytes <= isize::MAX as usize).then(|| Self {
            is,
            shape: std::iter::once(size)
                .chain(frame.shape().iter().copied())
                .collect(),
            padded: None,
            longest: 0,
            bytes,
            content: Content::Framed { frame, rows },
        })
    }

    fn written(is: Is, shape: Vec<usize>, numbers: Vec<u8>) -> Self {
        Self {
            is,
            shape,
            padded: None,
            longest: 0,
            bytes: numbers.len(),
            content: Content::Written(numbers),
        }
    }
}

/// Lays out a batch of `size` rows: the leaves in order, then mask and lengths, or the ends of each ragged leaf.
/// `None` where rows do not fit one another.
pub(super) fn lay(rule: &Rule, plan: &Plan, rows: Vec<Vec<Row>>, size: usize) -> Option<Vec<Laid>> {
    let mut made = Vec::with_capacity(plan.leaves.len() + 2);
    let mut ends = Vec::new();
    for (leaf, rows) in plan.leaves.iter().zip(rows) {
        match rule.form {
            Form::Stack => made.push(stacked(leaf, rows, size)?),
            Form::Pad if leaf.axes == Some(0) => made.push(stacked(leaf, rows, size)?),
            Form::Pad => made.push(padded(rule, leaf, rows, size)?),
            Form::Ragged(_) => {
                let (values, own) = joined(leaf, rows, size)?;
                made.push(values);
                ends.push(own);
            }
        }
    }
    made.append(&mut ends);
    if rule.mask.is_some() || rule.lengths.is_some() {
        let first = made.iter().find(|one| one.padded.is_some())?;
        let mut extras = Vec::new();
        if rule.mask.is_some() {
            extras.push(mask(rule, plan, first, size)?);
        }
        if rule.lengths.is_some() {
            extras.push(lengths(first, size)?);
        }
        made.append(&mut extras);
    }
    Some(made)
}

fn stacked(leaf: &Leaf, rows: Vec<Row>, size: usize) -> Option<Laid> {
    let frame = Frame::new(rows.first()?.shape(), Side::Right, leaf.value)?;
    if rows.iter().any(|row| row.shape() != frame.shape()) {
        return None;
    }
    Laid::framed(Is::Leaf, frame, rows, size)
}

fn padded(rule: &Rule, leaf: &Leaf, mut rows: Vec<Row>, size: usize) -> Option<Laid> {
    let first = rows.first()?;
    let mut shape = first.shape().to_vec();
    let mut axes = Vec::new();
    let end = rule.widths.truncate.unwrap_or(Side::Right);
    for (axis, width) in shape.iter_mut().enumerate() {
        let differs = rows.iter().any(|row| row.shape()[axis] != *width);
        let pads = match leaf.axes {
            Some(bits) => bits & 1 << axis != 0,
            None => differs,
        };
        if !pads {
            if differs {
                return None;
            }
            continue;
        }
        let mut longest = 0;
        for row in &mut rows {
            let kept = rule.widths.kept(row.shape()[axis])?;
            row.keep(axis, kept, end);
            longest = longest.max(kept);
        }
        *width = rule.widths.width(longest)?;
        axes.push(axis);
    }
    let frame = Frame::new(&shape, rule.side, leaf.value)?;
    let mut laid = Laid::framed(Is::Leaf, frame, rows, size)?;
    laid.padded = Some(axes);
    Some(laid)
}

/// What of a padded leaf mask and lengths tell of: the padded axes, or where there are none the first.
fn told(first: &Laid) -> Option<(&[usize], &[Row])> {
    let axes = first.padded.as_deref()?;
    let Content::Framed { rows, .. } = &first.content else {
        return None;
    };
    Some((if axes.is_empty() { &[0] } else { axes }, rows))
}

fn mask(rule: &Rule, plan: &Plan, first: &Laid, size: usize) -> Option<Laid> {
    let (axes, rows) = told(first)?;
    let widths: Vec<usize> = axes.iter().map(|axis| first.shape[axis + 1]).collect();
    let one = &plan.extras.one;
    let frame = Frame::new(&widths, rule.side, Pattern::zeros(one.size())?)?;
    let strides = vec![0; axes.len()];
    let ones = rows.iter().map(|row| {
        let kept: Vec<usize> = axes.iter().map(|&axis| row.shape()[axis]).collect();
        // SAFETY: every index leads to the same number, which the plan keeps.
        unsafe { Row::new(one.bytes().as_ptr(), &kept, &strides) }
    });
    Laid::framed(Is::Mask, frame, ones.collect::<Option<_>>()?, size)
}

fn lengths(first: &Laid, size: usize) -> Option<Laid> {
    let (axes, rows) = told(first)?;
    let mut numbers = Vec::with_capacity(size * axes.len() * 8);
    for row in rows {
        for &axis in axes {
            numbers.extend((row.shape()[axis] as i64).to_ne_bytes());
        }
    }
    numbers.resize(size.checked_mul(axes.len() * 8)?, 0);
    let shape = if axes.len() == 1 {
        vec![size]
    } else {
        vec![size, axes.len()]
    };
    Some(Laid::written(Is::Lengths, shape, numbers))
}

fn joined(leaf: &Leaf, rows: Vec<Row>, size: usize) -> Option<(Laid, Laid)> {
    let mut shape = rows.first()?.shape().to_vec();
    if rows
        .iter()
        .any(|row| row.shape().is_empty() || row.shape()[1..] != shape[1..])
    {
        return None;
    }
    let mut ends = Vec::with_capacity((size + 1) * 4);
    let mut total = 0i32;
    ends.extend(total.to_ne_bytes());
    let mut frames = Vec::with_capacity(rows.len());
    let mut bytes = 0usize;
    for row in &rows {
        total = total.checked_add(i32::try_from(row.shape()[0]).ok()?)?;
        ends.extend(total.to_ne_bytes());
        let frame = Frame::new(row.shape(), Side::Right, leaf.value)?;
        bytes = bytes.checked_add(frame.bytes())?;
        frames.push(frame);
    }
    for _ in rows.len()..size {
        ends.extend(total.to_ne_bytes());
    }
    shape[0] = usize::try_from(total).ok()?;
    let longest = rows.iter().map(|row| row.shape()[0]).max()?;
    let values = Laid {
        is: Is::Leaf,
        shape,
        padded: None,
        longest,
        bytes,
        content: Content::Joined { frames, rows },
    };
    Some((values, Laid::written(Is::Ends, vec![size + 1], ends)))
}

/// What is to be copied, and where to.
#[derive(Default)]
pub(super) struct Copying {
    parts: Vec<(Laid, Arc<Block>)>,
    bytes: usize,
}

// SAFETY: the rows are addresses of memory that `Taken` keeps, and the blocks are memory: another thread, or this one
// without the interpreter, reads and writes it all the same.
unsafe impl Send for Copying {}
// SAFETY: as above; nothing in it is changed through a shared reference.
unsafe impl Sync for Copying {}

impl Copying {
    /// One part more, with a buffer that has room for it.
    pub(super) fn add(&mut self, laid: Laid, buffer: Arc<Block>) {
        assert!(buffer.size() >= laid.bytes);
        self.bytes += laid.bytes;
        self.parts.push((laid, buffer));
    }

    /// How many bytes there are to write.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The parts in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &(Laid, Arc<Block>)> {
        self.parts.iter()
    }

    /// Writes every byte of every part.
    ///
    /// # Safety
    ///
    /// What the rows lie in is alive, and nobody else reads or writes the buffers.
    pub(super) unsafe fn run(&self) {
        for (laid, block) in &self.parts {
            // SAFETY: the buffer has as many bytes, seen to by `add`, and they are nobody else's meanwhile.
            let memory: &mut [MaybeUninit<u8>] =
                unsafe { slice::from_raw_parts_mut(block.data().cast(), laid.bytes) };
            match &laid.content {
                Content::Written(numbers) => {
                    for (to, &from) in memory.iter_mut().zip(numbers) {
                        to.write(from);
                    }
                }
                Content::Framed { frame, rows } => {
                    let mut rest = memory;
                    for row in rows {
                        let (part, after) = rest.split_at_mut(frame.bytes());
                        // SAFETY: the row is of the leaf that the frame is of, so its numbers are as large.
                        unsafe { frame.place(row, part) };
                        rest = after;
                    }
                    place::set(rest, 0);
                }
                Content::Joined { frames, rows } => {
                    let mut rest = memory;
                    for (frame, row) in frames.iter().zip(rows) {
                        let (part, after) = rest.split_at_mut(frame.bytes());
                        // SAFETY: as above.
                        unsafe { frame.place(row, part) };
                        rest = after;
                    }
                }
            }
        }
    }
}
