//! From the longest row to the width of a batch.

/// An end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The last elements.
    Right,
    /// The first ones.
    Left,
}

/// The rule for every padded axis.
#[derive(Clone, Debug)]
pub struct Widths {
    /// Widths are rounded up to a multiple of this, from 1.
    pub multiple_of: usize,
    /// The longest a row may be.
    pub max_length: Option<usize>,
    /// The only widths there are, in rising order; empty for any.
    pub buckets: Vec<usize>,
    /// Which end of a row that is longer than `max_length` is cut off; `None`: it does not fit.
    pub truncate: Option<Side>,
}

impl Widths {
    /// How much of a row of this length is kept; `None` where it fits into no batch.
    pub fn kept(&self, length: usize) -> Option<usize> {
        let kept = match (self.max_length, self.truncate) {
            (Some(most), Some(_)) => length.min(most),
            (Some(most), None) if length > most => return None,
            _ => length,
        };
        match self.buckets.last() {
            Some(&widest) if kept > widest => None,
            _ => Some(kept),
        }
    }

    /// The width for rows of which the longest keeps this much.
    pub fn width(&self, longest: usize) -> Option<usize> {
        if !self.buckets.is_empty() {
            return self.buckets.iter().copied().find(|&one| one >= longest);
        }
        let width = longest.checked_next_multiple_of(self.multiple_of)?;
        Some(match self.max_length {
            Some(most) => longest.max(width.min(most)),
            None => width,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn widths(
        multiple_of: usize,
        max: Option<usize>,
        buckets: &[usize],
        truncate: Option<Side>,
    ) -> Widths {
        Widths {
            multiple_of,
            max_length: max,
            buckets: buckets.to_vec(),
            truncate,
        }
    }

    #[test]
    fn a_table_of_widths() {
        let table = [
            (widths(1, None, &[], None), 5, Some(5), Some(5)),
            (widths(8, None, &[], None), 5, Some(5), Some(8)),
            (widths(8, None, &[], None), 16, Some(16), Some(16)),
            (widths(8, Some(10), &[], None), 9, Some(9), Some(10)),
            (widths(8, Some(10), &[], None), 11, None, None),
            (
                widths(8, Some(10), &[], Some(Side::Left)),
                11,
                Some(10),
                Some(10),
            ),
            (widths(1, None, &[4, 8], None), 5, Some(5), Some(8)),
            (widths(1, None, &[4, 8], None), 9, None, None),
            (
                widths(1, Some(3), &[4, 8], Some(Side::Right)),
                9,
                Some(3),
                Some(4),
            ),
            (widths(8, None, &[], None), 0, Some(0), Some(0)),
        ];
        for (rule, length, kept, width) in table {
            assert_eq!(rule.kept(length), kept, "{rule:?} of {length}");
            let found = rule.kept(length).and_then(|kept| rule.width(kept));
            assert_eq!(found, width, "{rule:?} of {length}");
        }
    }

    #[test]
    fn no_width_overflows() {
        assert_eq!(widths(8, None, &[], None).width(usize::MAX), None);
    }

    proptest! {
        #[test]
        fn a_width_has_room_and_keeps_every_promise(
            multiple in 1usize..9,
            max in proptest::option::of(1usize..40),
            buckets in proptest::collection::btree_set(1usize..50, 0..4),
            cut in proptest::option::of(proptest::bool::ANY),
            lengths in proptest::collection::vec(0usize..60, 1..8),
        ) {
            let truncate = cut.map(|left| if left { Side::Left } else { Side::Right });
            let buckets: Vec<usize> = buckets.into_iter().collect();
            let rule = widths(multiple, max, &buckets, truncate);
            let kept: Option<Vec<usize>> = lengths.iter().map(|&one| rule.kept(one)).collect();
            let Some(kept) = kept else {
                let too_long = lengths.iter().any(|&one| {
                    let one = if truncate.is_some() { one.min(max.unwrap_or(one)) } else { one };
                    max.is_some_and(|most| one > most) || buckets.last().is_some_and(|&last| one > last)
                });
                prop_assert!(too_long);
                return Ok(());
            };
            let longest = kept.iter().copied().max().unwrap_or(0);
            let width = rule.width(longest);
            let Some(width) = width else { return Err(TestCaseError::fail("no width")) };
            prop_assert!(width >= longest);
            if buckets.is_empty() {
                prop_assert!(width % multiple == 0 || Some(width) == max);
                prop_assert!(max.is_none_or(|most| width <= most));
                prop_assert!(width < longest + multiple);
            } else {
                prop_assert!(buckets.contains(&width));
                prop_assert!(buckets.iter().all(|&one| one >= width || one < longest));
            }
        }
    }
}
