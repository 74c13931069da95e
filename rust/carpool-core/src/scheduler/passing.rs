//! Who lets others pass for a latency target: those that will be late in any case, as long as they are few.
//!
//! One answer in a hundred may be late. Taken in order, all are late that come while a backlog lasts; where those that
//! cannot be in time any more let the others pass, only as many as the backlog is too long by. (Nobody is
//! dropped: they leave with the first batches that have room, or in any case once they have waited for so many targets.)
//! But where there is more to do than the handler can, or the target is hardly longer than a run, letting others pass
//! makes some much later and few of the others punctual. So it has to be earned: each request that leaves
//! earns a hundredth, each late one costs one, and no more let others pass at a time than has been earned. Where that
//! is not enough the order is that of arrival, for twice as long each time before it is tried again.

use super::objective::Aside;
use crate::clock::Nanos;

/// So many targets after its arrival nobody lets others pass any more.
const PATIENT: f64 = 20.0;
/// How many of all may be late.
const SHARE: f64 = 0.01;
/// The most that is saved up, and what there is at first and after a pause.
const MOST: f64 = 400.0;
const FIRST: f64 = 50.0;
/// The shortest pause, and the longest, in requests.
const PAUSES: [usize; 2] = [4_000, 1 << 20];

/// Whether those that will be late let others pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing {
    credit: f64,
    /// Requests for which the order is that of arrival: left, and in all.
    pause: (usize, usize),
}

impl Default for Passing {
    fn default() -> Self {
        Self {
            credit: FIRST,
            pause: (0, PAUSES[0]),
        }
    }
}

impl Passing {
    /// Who lets others pass, if a batch that leaves now takes `run` and answers are to be there after `target`.
    pub(crate) fn aside(&self, target: f64, now: Nanos, run: f64) -> Option<Aside> {
        let now = now as f64;
        (self.pause.0 == 0).then(|| Aside {
            late: (now + run - target).max(0.0) as Nanos,
            aged: (now - PATIENT * target).max(0.0) as Nanos,
            most: self.credit as usize,
            left: 0,
            too_many: false,
        })
    }

    /// A batch of `n` left, and that is what came of letting others pass.
    pub(crate) fn sealed(&mut self, n: usize, aside: Option<&Aside>) {
        let (left, all) = &mut self.pause;
        let Some(aside) = aside else {
            *left = left.saturating_sub(n);
            return;
        };
        self.credit += SHARE * n as f64 - aside.left as f64;
        if self.credit < 0.0 || aside.too_many {
            self.credit = FIRST;
            *left = *all;
            *all = (*all * 2).min(PAUSES[1]);
        } else if self.credit >= MOST {
            (self.credit, *all) = (MOST, PAUSES[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn aside(passing: &Passing) -> Option<Aside> {
        passing.aside(50.0 * MS as f64, 2000 * MS, 20.0 * MS as f64)
    }

    /// A batch of `n` of which `late` are late.
    fn leaves(passing: &mut Passing, n: usize, late: usize) {
        let aside = aside(passing).map(|aside| Aside {
            left: late,
            ..aside
        });
        passing.sealed(n, aside.as_ref());
    }

    #[test]
    fn who_will_be_late_and_who_has_waited_for_long() {
        let aside = aside(&Passing::default()).unwrap();
        assert_eq!(aside.late, 1970 * MS, "it ends at 2020");
        assert_eq!(aside.aged, 1000 * MS, "twenty targets ago");
        assert_eq!((aside.most, aside.left), (FIRST as usize, 0));
        // Nothing is below zero.
        let early = Passing::default().aside(50.0 * MS as f64, 1, 1.0).unwrap();
        assert_eq!((early.late, early.aged), (0, 0));
    }

    #[test]
    fn punctual_ones_earn_what_late_ones_cost() {
        let mut passing = Passing::default();
        leaves(&mut passing, 64, 24);
        assert_eq!(aside(&passing).unwrap().most, 26, "50 + 0.64 - 24");
        for _ in 0..100 {
            leaves(&mut passing, 64, 0);
        }
        assert_eq!(aside(&passing).unwrap().most, 90);
        for _ in 0..1_000 {
            leaves(&mut passing, 64, 0);
        }
        assert_eq!(aside(&passing).unwrap().most, MOST as usize);
    }

    #[test]
    fn with_nothing_left_the_order_is_that_of_arrival_for_longer_each_time() {
        let mut passing = Passing::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            for _ in 0..10 {
                if aside(&passing).is_some() {
                    leaves(&mut passing, 100, 50);
                }
            }
            let mut count = 0;
            while aside(&passing).is_none() {
                leaves(&mut passing, 100, 0);
                count += 100;
            }
            assert!(count > 0, "it was used up");
            assert_eq!(aside(&passing).unwrap().most, FIRST as usize);
            pauses.push(count);
        }
        assert_eq!(pauses[..3], [4_000, 8_000, 16_000]);
        assert!(pauses.iter().all(|&pause| pause < PAUSES[1] + 100));
        // It has been worth it.
        for _ in 0..=MOST as usize {
            leaves(&mut passing, 100, 0);
        }
        assert_eq!(aside(&passing).unwrap().most, MOST as usize);
        assert_eq!(passing.pause, (0, PAUSES[0]));
    }

    #[test]
    fn of_too_many_nobody_lets_others_pass() {
        let mut passing = Passing::default();
        let all = Aside {
            too_many: true,
            ..aside(&passing).unwrap()
        };
        passing.sealed(10, Some(&all));
        assert_eq!(aside(&passing), None);
    }
}
