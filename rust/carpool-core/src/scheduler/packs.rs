//! How many batches the pending requests of a list make: those that a single call finds before it.
//!
//! Each is counted into a *pack* as it is let in: into the last of its key, where it fits by number and cost, else into
//! a new one. So packs are the batches that the requests make in order, if nobody shares them. Whatever leaves is
//! taken from the first pack of its key. (Where others share a batch, or later ones overtake, packs are left in parts
//! for a while; there are no more of them than was allowed.)

use std::collections::{BTreeMap, VecDeque};

use super::budget::{Budget, Load};
use crate::limits::Limits;

/// How many batches of one list, or of lists that go together, may be pending.
pub const MOST: usize = 2;

/// What fits a batch, and what counts as one.
#[derive(Debug, Clone, Copy)]
pub struct Packing<'a> {
    size: usize,
    budget: Budget<'a>,
    holds: bool,
}

impl<'a> Packing<'a> {
    /// Under these limits. `holds`: requests are held for company. Then packs that are not full count together, by
    /// the number of their requests: one by one they would be held, too.
    pub fn of(limits: &Limits, budget: Budget<'a>, holds: bool) -> Self {
        Self {
            size: limits.max_batch_size,
            budget,
            holds,
        }
    }

    /// As how many batches these packs count, with so many requests.
    fn count(&self, packs: usize, requests: usize) -> usize {
        match self.holds {
            true => requests.div_ceil(self.size.max(1)),
            false => packs,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Pack {
    load: Load,
    /// How many of them are pending.
    left: usize,
}

/// The pending requests of lists that go together, as batches.
#[derive(Debug, Default)]
pub struct Packs {
    by_key: BTreeMap<u64, VecDeque<Pack>>,
    /// How many there are that another of their key follows.
    closed: usize,
    /// How many others, and their requests.
    open: usize,
    in_open: usize,
}

impl Packs {
    /// How many batches.
    pub fn batches(&self, packing: &Packing<'_>) -> usize {
        self.closed + packing.count(self.open, self.in_open)
    }

    /// Whether one of these terms fits the last pack of its key.
    pub fn fits(&self, key: u64, cost: u64, packing: &Packing<'_>) -> bool {
        self.by_key
            .get(&key)
            .and_then(VecDeque::back)
            .is_some_and(|pack| pack_fits(pack, cost, packing))
    }

    /// Whether there may be another pack.
    pub fn may_begin(&self, packing: &Packing<'_>) -> bool {
        self.closed + packing.count(self.open + 1, self.in_open + 1) <= MOST
    }

    /// The keys that have packs.
    pub fn keys(&self) -> Vec<u64> {
        self.by_key.keys().copied().collect()
    }

    /// Counts one in.
    pub fn enter(&mut self, key: u64, cost: u64, packing: &Packing<'_>) {
        let packs = self.by_key.entry(key).or_default();
        match packs.back_mut() {
            Some(last) if pack_fits(last, cost, packing) => {
                last.load = last.load.with(cost);
                last.left += 1;
            }
            last => {
                if let Some(last) = last {
                    self.closed += 1;
                    self.open -= 1;
                    self.in_open -= last.left;
                }
                packs.push_back(Pack {
                    load: Load::default().with(cost),
                    left: 1,
                });
                self.open += 1;
            }
        }
        self.in_open += 1;
    }

    /// One of this key is pending no more.
    pub fn leave(&mut self, key: u64) {
        let Some(packs) = self.by_key.get_mut(&key) else {
            debug_assert!(false, "it was counted in");
            return;
        };
        let is_last = packs.len() == 1;
        let Some(first) = packs.front_mut() else {
            return;
        };
        first.left -= 1;
        let is_empty = first.left == 0;
        if is_last {
            self.in_open -= 1;
            self.open -= usize::from(is_empty);
        } else {
            self.closed -= usize::from(is_empty);
        }
        if is_empty {
            packs.pop_front();
        }
        if packs.is_empty() {
            self.by_key.remove(&key);
        }
    }
}

fn pack_fits(pack: &Pack, cost: u64, packing: &Packing<'_>) -> bool {
    pack.load.count < packing.size && packing.budget.fits(&pack.load, cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packing(size: usize, most: u64, padded: bool, holds: bool) -> Packing<'static> {
        let limits = Limits {
            max_batch_size: size,
            max_batch_cost: most,
            padded,
            ..Limits::default()
        };
        Packing::of(&limits, Budget::of(&limits, None), holds)
    }

    #[test]
    fn how_many_batches() {
        type Row = (&'static str, Packing<'static>, &'static [(u64, u64)], usize);
        let by_size = packing(3, u64::MAX, false, false);
        let held = packing(3, u64::MAX, false, true);
        let by_cost = packing(9, 10, false, false);
        let padded = packing(9, 10, true, false);
        // Key and cost of each.
        let rows: [Row; 11] = [
            ("nobody", by_size, &[], 0),
            ("one", by_size, &[(0, 1)], 1),
            ("a full one", by_size, &[(0, 1), (0, 1), (0, 1)], 1),
            (
                "and one more",
                by_size,
                &[(0, 1), (0, 1), (0, 1), (0, 1)],
                2,
            ),
            ("of each key", by_size, &[(1, 1), (2, 1), (1, 1)], 2),
            ("held: together", held, &[(1, 1), (2, 1), (3, 1)], 1),
            (
                "held: more than one",
                held,
                &[(1, 1), (2, 1), (3, 1), (4, 1)],
                2,
            ),
            (
                "held: one is full, and one is not",
                held,
                &[(1, 1), (1, 1), (1, 1), (1, 1), (2, 1)],
                2,
            ),
            ("up to the budget", by_cost, &[(0, 6), (0, 4)], 1),
            ("beyond it, in order", by_cost, &[(0, 6), (0, 6), (0, 4)], 2),
            ("as they are padded", padded, &[(0, 5), (0, 4), (0, 1)], 2),
        ];
        for (what, packing, entered, expected) in rows {
            let mut packs = Packs::default();
            for &(key, cost) in entered {
                packs.enter(key, cost, &packing);
            }
            assert_eq!(packs.batches(&packing), expected, "{what}");
            for &(key, _) in entered {
                packs.leave(key);
            }
            assert_eq!((packs.batches(&packing), packs.keys()), (0, vec![]));
        }
    }

    #[test]
    fn what_fits_and_what_begins() {
        let packing = packing(2, 10, false, false);
        let mut packs = Packs::default();
        assert!(!packs.fits(1, 1, &packing) && packs.may_begin(&packing));
        packs.enter(1, 4, &packing);
        assert!(packs.fits(1, 6, &packing) && !packs.fits(1, 7, &packing));
        assert!(!packs.fits(2, 1, &packing));
        packs.enter(1, 4, &packing);
        assert!(!packs.fits(1, 1, &packing), "it is full by number");
        packs.enter(2, 1, &packing);
        assert!(!packs.may_begin(&packing));
        packs.leave(1);
        assert!(!packs.may_begin(&packing), "half of it is still there");
        packs.leave(1);
        assert!(packs.may_begin(&packing));
    }

    /// Against the plain list of what is pending, packed anew each time: as long as each leaves with its pack there
    /// are as many batches.
    #[test]
    fn as_the_plain_list_says() {
        let mut seed = 7_u64;
        let mut below = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        for life in 0..200 {
            let packing = packing(1 + below(4) as usize, 4 + below(8), life % 2 == 0, false);
            let mut packs = Packs::default();
            let mut plain: Vec<(u64, Vec<u64>)> = Vec::new();
            for _ in 0..60 {
                let (key, cost) = (below(3), below(5));
                let last = plain.iter_mut().rfind(|(of, _)| *of == key);
                let fits = |pack: &[u64]| {
                    let load = pack.iter().fold(Load::default(), |all, &c| all.with(c));
                    pack.len() < packing.size && packing.budget.fits(&load, cost)
                };
                let fitting = last.filter(|(_, pack)| fits(pack));
                assert_eq!(packs.fits(key, cost, &packing), fitting.is_some());
                match fitting {
                    Some((_, pack)) => pack.push(cost),
                    None => plain.push((key, vec![cost])),
                }
                packs.enter(key, cost, &packing);
                if below(3) == 0 {
                    let key = plain[below(plain.len() as u64) as usize].0;
                    let first = plain.iter().position(|(of, _)| *of == key).unwrap();
                    for _ in plain.remove(first).1 {
                        packs.leave(key);
                    }
                }
                assert_eq!(packs.batches(&packing), plain.len());
            }
        }
    }
}
