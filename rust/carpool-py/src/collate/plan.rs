//! What is known of a kind of item, so that the next ones need no questions.

use carpool_collate::{MAX_RANK, Pattern, Row, Side, Widths};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::copying::Is;
use super::source::{Scratch, Source};
use super::tree::Tree;

/// What becomes of leaves.
pub(super) enum Form {
    Stack,
    Pad,
    /// One after the other, as an object of this class.
    Ragged(Py<PyAny>),
}

/// The options of a collator.
pub(super) struct Rule {
    pub(super) form: Form,
    pub(super) side: Side,
    pub(super) widths: Widths,
    /// The names of keys that are added.
    pub(super) mask: Option<Py<PyAny>>,
    pub(super) lengths: Option<Py<PyAny>>,
    /// Whether to tell what was padded.
    pub(super) notes: bool,
}

/// One leaf of a kind of item.
pub(super) struct Leaf {
    pub(super) source: Source,
    pub(super) rank: usize,
    /// The axes that are padded, by bit; `None` for those whose lengths differ.
    pub(super) axes: Option<u8>,
    pub(super) value: Pattern,
}

impl Leaf {
    /// From one of its kind, the axes, and the pad value in its dtype (None for none).
    pub(super) fn of(
        sample: &Bound<'_, PyAny>,
        axes: Option<Vec<usize>>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Self>> {
        let Some((source, rank)) = Source::of(sample)? else {
            return Ok(None);
        };
        let Some(axes) = bits(axes, rank) else {
            return Ok(None);
        };
        let value = if value.is_none() {
            Pattern::zeros(source.size())
        } else {
            pattern(value)?
        };
        Ok(value
            .filter(|value| value.size() == source.size())
            .map(|value| Self {
                source,
                rank,
                axes,
                value,
            }))
    }
}

/// Axes by bit; `None` where there are others than the rank has, or too many.
fn bits(axes: Option<Vec<usize>>, rank: usize) -> Option<Option<u8>> {
    if rank > MAX_RANK {
        return None;
    }
    let Some(axes) = axes else { return Some(None) };
    let bits = axes
        .into_iter()
        .try_fold(0u8, |bits, axis| (axis < rank).then_some(bits | 1 << axis))?;
    Some(Some(bits))
}

/// The bytes of a number in an array or tensor of rank 0.
fn pattern(number: &Bound<'_, PyAny>) -> PyResult<Option<Pattern>> {
    let Some((source, 0)) = Source::of(number)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; source.size()];
    let mut scratch = Scratch::default();
    let mut rows = Vec::new();
    let Some(()) = source.read(number, &mut scratch, &mut rows) else {
        return Ok(None);
    };
    let Some(frame) = carpool_collate::Frame::new(
        &[],
        Side::Right,
        match Pattern::zeros(source.size()) {
            Some(zeros) => zeros,
            None => return Ok(None),
        },
    ) else {
        return Ok(None);
    };
    let mut part = vec![std::mem::MaybeUninit::new(0); frame.bytes()];
    // SAFETY: the number is kept by the caller; it is as large as the source says.
    unsafe { frame.place(&rows[0], &mut part) };
    for (to, from) in bytes.iter_mut().zip(part) {
        // SAFETY: every byte has been given a value, twice.
        *to = unsafe { from.assume_init() };
    }
    Ok(Pattern::new(&bytes))
}

/// What mask, lengths and ends are made as.
pub(super) struct Extras {
    mask: Source,
    pub(super) one: Pattern,
    lengths: Source,
    ends: Source,
}

impl Extras {
    /// `one`: 1 in the mask's dtype, in int64 and in int32, in the kind of the first padded leaf.
    pub(super) fn of(one: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let (mask, lengths, ends): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) =
            one.extract()?;
        let made = (
            Source::of(&mask)?,
            pattern(&mask)?,
            Source::of(&lengths)?,
            Source::of(&ends)?,
        );
        Ok(match made {
            (Some((mask, 0)), Some(one), Some((lengths, 0)), Some((ends, 0)))
                if lengths.size() == 8 && ends.size() == 4 =>
            {
                Some(Self {
                    mask,
                    one,
                    lengths,
                    ends,
                })
            }
            _ => None,
        })
    }

    pub(super) fn source(&self, is: Is) -> Option<&Source> {
        match is {
            Is::Leaf => None,
            Is::Mask => Some(&self.mask),
            Is::Lengths => Some(&self.lengths),
            Is::Ends => Some(&self.ends),
        }
    }
}

/// A kind of item.
pub(super) struct Plan {
    pub(super) tree: Tree,
    pub(super) leaves: Vec<Leaf>,
    pub(super) extras: Extras,
}

/// The rows of a batch by leaf, with what they lie in.
pub(super) struct Taken<'py> {
    pub(super) rows: Vec<Vec<Row>>,
    _objects: Vec<Bound<'py, PyAny>>,
    _scratch: Scratch,
}

impl Taken<'_> {
    /// How many items there are.
    pub(super) fn items(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }
}

impl Plan {
    /// The rows of all items. The outer `None`: the first item is of another kind; the inner: a later one is.
    pub(super) fn take<'py>(
        &self,
        items: &Bound<'py, PyList>,
        size: usize,
    ) -> Option<Option<Taken<'py>>> {
        let (count, leaves) = (items.len(), self.leaves.len());
        if count == 0 || size < count {
            return None;
        }
        let mut objects = Vec::with_capacity(count * leaves);
        let mut scratch = Scratch::default();
        let mut rows: Vec<Vec<Row>> = (0..leaves).map(|_| Vec::with_capacity(count)).collect();
        for (at, item) in items.iter().enumerate() {
            let from = objects.len();
            let fits = self.tree.take(item, &mut objects)
                && self.leaves.iter().enumerate().all(|(place, leaf)| {
                    let rows = &mut rows[place];
                    leaf.source
                        .read(&objects[from + place], &mut scratch, rows)
                        .is_some()
                        && rows
                            .last()
                            .is_some_and(|row| row.shape().len() == leaf.rank)
                });
            if !fits {
                return if at == 0 { None } else { Some(None) };
            }
        }
        // The list may have been changed by what an odd key runs when it is compared.
        if rows.iter().any(|rows| rows.len() != count) {
            return Some(None);
        }
        Some(Some(Taken {
            rows,
            _objects: objects,
            _scratch: scratch,
        }))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.tree.traverse(visit)?;
        for leaf in &self.leaves {
            leaf.source.traverse(visit)?;
        }
        self.extras.mask.traverse(visit)?;
        self.extras.lengths.traverse(visit)?;
        self.extras.ends.traverse(visit)
    }
}
