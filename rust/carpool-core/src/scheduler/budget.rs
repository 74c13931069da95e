//! What requests cost together, and whether one more fits.
//!
//! Plainly the sum of their costs; padded, as many times the largest as there are requests: what a batch costs
//! whose rows are padded to the longest. Where batches have a few sizes, they are filled up to one with such rows, too.

use std::collections::BTreeMap;

use super::sizes::Sizes;
use crate::limits::Limits;
use crate::sync::Arc;

/// How costs are added up, and how much they may come to.
#[derive(Debug, Clone, Copy)]
pub struct Budget<'a> {
    most: u64,
    padded: bool,
    sizes: Option<&'a Sizes>,
}

/// The costs of some requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// How many.
    pub count: usize,
    /// All together.
    pub sum: u64,
    /// The largest.
    pub largest: u64,
}

impl Load {
    /// With one more that costs `cost`.
    #[inline]
    pub fn with(self, cost: u64) -> Self {
        Self {
            count: self.count + 1,
            sum: self.sum.saturating_add(cost),
            largest: self.largest.max(cost),
        }
    }
}

/// As many rows as a batch of so many requests has.
fn rows(sizes: Option<&Sizes>, count: usize) -> u64 {
    sizes.map_or(count, |sizes| sizes.rows(count)) as u64
}

impl<'a> Budget<'a> {
    /// Of these limits, and of these sizes of batches, if they have a few only.
    #[inline]
    pub fn of(limits: &Limits, sizes: Option<&'a Sizes>) -> Self {
        Self {
            most: limits.max_batch_cost,
            padded: limits.padded,
            sizes,
        }
    }

    /// What it comes to.
    #[inline]
    pub fn total(&self, load: &Load) -> u64 {
        if self.padded {
            rows(self.sizes, load.count).saturating_mul(load.largest)
        } else {
            load.sum
        }
    }

    /// Whether they fit together.
    #[inline]
    pub fn allows(&self, load: &Load) -> bool {
        self.total(load) <= self.most
    }

    /// Whether a request that costs `cost` fits as well. Alone each does: what is too large was refused.
    #[inline]
    pub fn fits(&self, load: &Load, cost: u64) -> bool {
        load.count == 0 || self.allows(&load.with(cost))
    }
}

/// The costs of what is queued: requests come and go.
pub(super) struct Tally {
    count: usize,
    sum: u64,
    /// How often each cost is there; where costs are padded.
    costs: Option<BTreeMap<u64, usize>>,
    sizes: Option<Arc<Sizes>>,
}

/// How costs are added up.
#[derive(Debug, Clone, Default)]
pub struct Counting {
    /// As padded to the largest.
    pub padded: bool,
    /// To one of these sizes, as well.
    pub sizes: Option<Arc<Sizes>>,
}

impl Tally {
    pub(super) fn new(counting: &Counting) -> Self {
        Self {
            count: 0,
            sum: 0,
            costs: counting.padded.then(BTreeMap::new),
            sizes: counting.sizes.clone(),
        }
    }

    #[inline]
    pub(super) fn add(&mut self, cost: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(cost);
        if self.costs.is_some() {
            self.note(cost);
        }
    }

    #[cold]
    fn note(&mut self, cost: u64) {
        if let Some(costs) = &mut self.costs {
            *costs.entry(cost).or_default() += 1;
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, cost: u64) {
        self.count -= 1;
        self.sum = self.sum.saturating_sub(cost);
        if self.costs.is_some() {
            self.forget(cost);
        }
    }

    #[cold]
    fn forget(&mut self, cost: u64) {
        if let Some(costs) = &mut self.costs {
            if let Some(n) = costs.get_mut(&cost) {
                *n -= 1;
                if *n == 0 {
                    costs.remove(&cost);
                }
            }
        }
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What they come to.
    #[inline]
    pub(super) fn total(&self) -> u64 {
        match &self.costs {
            None => self.sum,
            Some(_) => self.padded_total(),
        }
    }

    #[cold]
    fn padded_total(&self) -> u64 {
        let load = self.load();
        rows(self.sizes.as_deref(), load.count).saturating_mul(load.largest)
    }

    pub(super) fn load(&self) -> Load {
        let largest = self.costs.as_ref().and_then(|costs| costs.last_key_value());
        Load {
            count: self.count,
            sum: self.sum,
            largest: largest.map_or(0, |(&cost, _)| cost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(costs: &[u64]) -> Load {
        costs
            .iter()
            .fold(Load::default(), |load, &cost| load.with(cost))
    }

    #[test]
    fn what_fits() {
        let rows: [(&str, bool, &[u64], u64, bool); 12] = [
            ("alone, whatever it costs", false, &[], 99, true),
            ("alone, padded", true, &[], 99, true),
            ("up to the budget", false, &[4, 3], 3, true),
            ("beyond it", false, &[4, 3], 4, false),
            ("nothing more, for nothing", false, &[10], 0, true),
            ("padded: twice the largest", true, &[5], 5, true),
            ("padded: as many times the largest", true, &[5], 1, true),
            ("padded: one more makes all larger", true, &[2, 2], 4, false),
            ("padded: three of three", true, &[3, 3], 3, true),
            ("padded: four of three", true, &[3, 3, 3], 1, false),
            (
                "padded: of nothing any number",
                true,
                &[0, 0, 0, 0],
                0,
                true,
            ),
            ("no overflow", true, &[u64::MAX, 1], u64::MAX, false),
        ];
        for (what, padded, before, cost, expected) in rows {
            let budget = Budget {
                most: 10,
                padded,
                sizes: None,
            };
            assert_eq!(budget.fits(&load(before), cost), expected, "{what}");
        }
    }

    #[test]
    fn rows_that_fill_a_size_cost_as_much() {
        let sizes = Sizes::new(&[2, 4]).unwrap();
        let rows: [(&str, bool, &[u64], u64, bool); 6] = [
            ("one is two", true, &[], 6, true),
            ("two of two", true, &[5], 5, true),
            ("three are four", true, &[3, 3], 3, false),
            ("four of four", true, &[2, 2, 2], 2, true),
            ("beyond the largest", true, &[2, 2, 2, 2], 2, true),
            ("not padded", false, &[3, 3], 3, true),
        ];
        for (what, padded, before, cost, expected) in rows {
            let budget = Budget {
                most: 10,
                padded,
                sizes: Some(&sizes),
            };
            assert_eq!(budget.fits(&load(before), cost), expected, "{what}");
            let counting = Counting {
                padded,
                sizes: Some(Arc::new(sizes.clone())),
            };
            let mut tally = Tally::new(&counting);
            before.iter().for_each(|&cost| tally.add(cost));
            assert_eq!(tally.total(), budget.total(&load(before)), "{what}");
        }
    }

    #[test]
    fn a_tally_forgets_what_has_gone() {
        for padded in [false, true] {
            let mut tally = Tally::new(&Counting {
                padded,
                sizes: None,
            });
            for cost in [3, 9, 9, 1] {
                tally.add(cost);
            }
            for (gone, left) in [(9, &[3, 9, 1][..]), (9, &[3, 1]), (1, &[3]), (3, &[])] {
                tally.remove(gone);
                let expected = Load {
                    largest: if padded { load(left).largest } else { 0 },
                    ..load(left)
                };
                assert_eq!(tally.load(), expected);
                assert_eq!(tally.count(), left.len());
            }
        }
    }
}
