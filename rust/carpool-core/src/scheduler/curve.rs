//! What a batch takes, learned from the batches that ran: run time as a function of size and cost.
//!
//! Two things are kept apart. The *shape* (how a large batch compares with a small one) changes rarely: it is a
//! straight line, `fixed + per request + per cost`, fitted to a few samples of each size by reweighted least
//! squares (P. J. Huber, "Robust estimation of a location parameter", 1964: a sample far off counts by its
//! distance, not by its square), corrected by the median of each size. The *level* (how fast the
//! machine is just now) may change any moment: it is the median of the last few batches against the shape. And
//! when batch after batch is far off in the same direction, what was known before is moved to the new level, so
//! that a handler that becomes ten times slower is known after three batches, and one odd run changes nothing.
//!
//! Old samples count less, and leave when their size has newer ones; a size that has not run for long is no longer
//! taken for [known](Curve::known). The first run of a size counts for nothing once there is a second: it
//! may have compiled something. Numbers in, numbers out: no clock, no lock.

use super::line::{Sample, on, straight_line};
use crate::clock::Nanos;

/// Samples kept per size.
const KEPT: usize = 6;
/// Over so many batches a sample loses half its weight.
const HALF_LIFE: f64 = 64.0;
/// A size that has not run for so many batches is not known any more.
const STALE: u64 = 256;
/// Batches that make the level.
const RECENT: usize = 7;
/// Batches that make the spread.
const SPREAD: usize = 64;
/// So far off, and so often in a row, is a change and no accident.
const FAR: f64 = 1.6;
const IN_A_ROW: usize = 3;
/// The spread while too little is known.
const UNSURE: f64 = 1.25;

/// The samples of neighbouring sizes.
#[derive(Debug, Clone, Default)]
struct Bucket {
    /// Newest last; never more than `KEPT`.
    samples: Vec<Sample>,
    /// The only sample is the first ever.
    cold: bool,
    /// The median of what these sizes took over what the line says.
    off: f64,
}

/// Run time of a batch by size and cost.
#[derive(Debug, Clone)]
pub struct Curve {
    /// The largest size of each bucket, increasing.
    ends: Vec<usize>,
    buckets: Vec<Bucket>,
    batches: u64,
    recent: Vec<Sample>,
    /// Real over expected, of the last batches, newest last.
    ratios: Vec<f64>,
    /// Cost is more than the number of requests.
    by_cost: bool,
    /// Fixed, per request, per cost.
    line: [f64; 3],
    level: f64,
    spread: f64,
}

/// The middle of some numbers; the lower of two, since what is odd is slow.
fn median(numbers: &mut [f64]) -> Option<f64> {
    let middle = numbers.len().saturating_sub(1) / 2;
    if numbers.is_empty() {
        return None;
    }
    Some(*numbers.select_nth_unstable_by(middle, f64::total_cmp).1)
}

impl Curve {
    /// Nothing known. `sizes` are the ones that batches have; without any, all up to `most`.
    pub fn new(sizes: &[usize], most: usize) -> Self {
        let ends = if sizes.is_empty() {
            // Two buckets for each power of two.
            let steps = (0..usize::BITS - 1).flat_map(|power| [1 << power, 3 << power >> 1]);
            let mut ends: Vec<usize> = steps.filter(|&end| end < most).collect();
            ends.push(most.max(1));
            ends.sort_unstable();
            ends.dedup();
            ends
        } else {
            sizes.to_vec()
        };
        Self {
            buckets: vec![Bucket::default(); ends.len()],
            ends,
            batches: 0,
            recent: Vec::with_capacity(RECENT),
            ratios: Vec::with_capacity(SPREAD),
            by_cost: false,
            line: [0.0; 3],
            level: 1.0,
            spread: UNSURE,
        }
    }

    fn bucket(&self, size: usize) -> usize {
        let at = self.ends.partition_point(|&end| end < size);
        at.min(self.ends.len() - 1)
    }

    /// Whether any batch has been seen.
    pub fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// A batch of `size` requests that cost `cost` together ran for `run` nanoseconds.
    pub fn learn(&mut self, size: usize, cost: u64, run: Nanos) {
        if size == 0 {
            return;
        }
        self.batches += 1;
        let sample = Sample {
            size: size as f64,
            cost: cost as f64,
            run: run.max(1) as f64,
            at: self.batches,
        };
        self.by_cost |= cost != size as u64;
        if let Some(expected) = self.expected(size, cost) {
            push(&mut self.ratios, SPREAD, sample.run / expected);
        }
        push(&mut self.recent, RECENT, sample);
        let at = self.bucket(size);
        let bucket = &mut self.buckets[at];
        if bucket.samples.is_empty() {
            bucket.cold = true;
        } else if bucket.cold {
            bucket.samples.clear();
            bucket.cold = false;
        }
        push(&mut bucket.samples, KEPT, sample);
        self.follow_a_change();
        self.fit();
    }

    /// Moves what was known to the level of the last batches, where all of them were far off.
    fn follow_a_change(&mut self) {
        let Some(from) = self.ratios.len().checked_sub(IN_A_ROW) else {
            return;
        };
        let last = &mut self.ratios[from..];
        let slower = last.iter().all(|&ratio| ratio > FAR);
        let faster = last.iter().all(|&ratio| ratio < 1.0 / FAR);
        if !slower && !faster {
            return;
        }
        let Some(factor) = median(last) else { return };
        // What ran since the change is at the new level already.
        let before = self.batches - IN_A_ROW as u64;
        let all = self.buckets.iter_mut().flat_map(|one| &mut one.samples);
        for sample in all.filter(|sample| sample.at <= before) {
            sample.run *= factor;
        }
        self.recent.drain(..self.recent.len() - IN_A_ROW);
        self.ratios.clear();
    }

    fn fit(&mut self) {
        self.line = straight_line(&self.weighed(), self.by_cost);
        for at in 0..self.buckets.len() {
            let line = &self.line;
            let bucket = &mut self.buckets[at];
            let ratios = bucket.samples.iter().map(|one| one.run / on(line, one));
            let mut ratios: Vec<f64> = ratios.collect();
            let n = if bucket.cold { 0 } else { ratios.len() };
            // The more samples, the more of it is the size's own; of two, one may be odd.
            let share = n.saturating_sub(2) as f64 / n.max(2).saturating_sub(1) as f64;
            let off = median(&mut ratios).map_or(1.0, |off| 1.0 + (off - 1.0) * share);
            // Much of it only by all the samples there can be.
            bucket.off = if n < KEPT { off.clamp(0.5, 2.0) } else { off };
        }
        let mut ratios: Vec<f64> = self
            .recent
            .iter()
            .map(|one| one.run / self.shape(one))
            .collect();
        self.level = if ratios.len() < 3 {
            1.0
        } else {
            median(&mut ratios).unwrap_or(1.0)
        };
        let mut ratios = self.ratios.clone();
        self.spread = if ratios.len() < 8 {
            UNSURE
        } else {
            // Two in 64 may be worse.
            let high = ratios.len() - 1 - ratios.len() / 32;
            let high = *ratios.select_nth_unstable_by(high, f64::total_cmp).1;
            high.max(1.0)
        };
    }

    /// The samples that count, with their weights by age.
    fn weighed(&self) -> Vec<(Sample, f64)> {
        let warm = self
            .buckets
            .iter()
            .any(|one| !one.cold && !one.samples.is_empty());
        let known = self.buckets.iter().filter(|one| !(warm && one.cold));
        known
            .flat_map(|one| &one.samples)
            .map(|&one| {
                let age = (self.batches - one.at) as f64;
                (one, 0.5_f64.powf(age / HALF_LIFE).max(0.02))
            })
            .collect()
    }

    fn shape(&self, one: &Sample) -> f64 {
        let off = self.buckets[self.bucket(one.size as usize)].off;
        on(&self.line, one) * if off > 0.0 { off } else { 1.0 }
    }

    /// What such a batch takes, in nanoseconds; `None` while nothing is known.
    pub fn expected(&self, size: usize, cost: u64) -> Option<f64> {
        if self.line == [0.0; 3] {
            return None;
        }
        let one = Sample {
            size: size.max(1) as f64,
            cost: cost as f64,
            run: 0.0,
            at: 0,
        };
        Some((self.shape(&one) * self.level).max(1.0))
    }

    /// What such a batch hardly ever exceeds: all but two in 64 of the last.
    pub fn at_most(&self, size: usize, cost: u64) -> Option<f64> {
        Some(self.expected(size, cost)? * self.spread)
    }

    /// What batches of the sizes of bucket `at` took, the median of the last few, if they ran more than once
    /// and not too long ago.
    pub fn known(&self, at: usize) -> Option<f64> {
        let bucket = self.buckets.get(at)?;
        let last = bucket.samples.last()?;
        if bucket.cold || self.batches - last.at > STALE {
            return None;
        }
        let mut runs: Vec<f64> = bucket.samples.iter().map(|one| one.run).collect();
        median(&mut runs)
    }
}

fn push<T>(into: &mut Vec<T>, most: usize, one: T) {
    if into.len() == most {
        into.remove(0);
    }
    into.push(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    /// 5 ms and 0.5 ms per request, times `level`.
    fn run(size: usize, level: f64) -> Nanos {
        ((5.0 + 0.5 * size as f64) * MS * level) as Nanos
    }

    fn fed(sizes: &[usize], rounds: usize) -> Curve {
        let mut curve = Curve::new(&[], 64);
        for round in 0..rounds {
            let size = sizes[round % sizes.len()];
            curve.learn(size, size as u64, run(size, 1.0));
        }
        curve
    }

    fn error(curve: &Curve, size: usize, level: f64) -> f64 {
        let expected = curve.expected(size, size as u64).unwrap();
        (expected / run(size, level) as f64 - 1.0).abs()
    }

    #[test]
    fn nothing_is_known_before_the_first_batch() {
        let curve = Curve::new(&[], 64);
        assert!(curve.is_empty());
        assert_eq!((curve.expected(1, 1), curve.at_most(1, 1)), (None, None));
        assert_eq!(curve.known(0), None);
    }

    #[test]
    fn buckets_cover_every_size_once() {
        for most in 1..200 {
            let curve = Curve::new(&[], most);
            assert!(curve.ends.is_sorted_by(|a, b| a < b), "{:?}", curve.ends);
            assert_eq!(curve.ends.last(), Some(&most));
            assert_eq!(curve.bucket(1), 0);
            assert_eq!(curve.bucket(most), curve.ends.len() - 1);
            assert_eq!(curve.bucket(most + 1), curve.ends.len() - 1);
        }
        assert_eq!(Curve::new(&[], 20).ends, [1, 2, 3, 4, 6, 8, 12, 16, 20]);
    }

    #[test]
    fn two_sizes_make_the_line() {
        let curve = fed(&[4, 32], 12);
        for size in [1, 4, 16, 32, 64] {
            assert!(
                error(&curve, size, 1.0) < 0.15,
                "{size}: {}",
                error(&curve, size, 1.0)
            );
        }
    }

    #[test]
    fn one_size_alone_is_known_well_and_the_others_by_a_guess_in_between() {
        let curve = fed(&[16], 8);
        assert!(error(&curve, 16, 1.0) < 0.01);
        let one = curve.expected(1, 1).unwrap();
        let most = curve.expected(64, 64).unwrap();
        let known = run(16, 1.0) as f64;
        assert!(one > known / 16.0 && one < known, "{one}");
        assert!(most > known && most < known * 4.0, "{most}");
    }

    #[test]
    fn the_first_run_of_a_size_is_forgotten_with_the_second() {
        let mut curve = fed(&[4, 8], 12);
        curve.learn(32, 32, run(32, 200.0));
        assert!(error(&curve, 8, 1.0) < 0.05, "one slow start is no change");
        let at = curve.bucket(32);
        assert_eq!(curve.known(at), None);
        curve.learn(32, 32, run(32, 1.0));
        assert_eq!(curve.known(at), Some(run(32, 1.0) as f64));
        assert!(error(&curve, 32, 1.0) < 0.05);
    }

    #[test]
    fn odd_runs_change_little() {
        let mut curve = fed(&[4, 8, 16, 32], 40);
        for (round, odd) in [(0, 30.0), (1, 30.0), (2, 0.01)] {
            curve.learn(16, 16, run(16, odd));
            assert!(error(&curve, 16, 1.0) < 0.25, "{round}");
            assert!(error(&curve, 4, 1.0) < 0.25, "{round}");
            for size in [4, 8, 16, 32] {
                curve.learn(size, size as u64, run(size, 1.0));
            }
        }
        assert!(error(&curve, 16, 1.0) < 0.05);
    }

    #[test]
    fn a_change_by_ten_is_known_after_three_batches_at_every_size() {
        for level in [10.0, 0.1] {
            let mut curve = fed(&[2, 4, 8, 16, 32], 60);
            for _ in 0..3 {
                curve.learn(8, 8, run(8, level));
            }
            for size in [2, 8, 16, 32] {
                let error = error(&curve, size, level);
                assert!(error < 0.15, "{level}: {size} is off by {error}");
            }
        }
    }

    #[test]
    fn a_slow_drift_by_ten_is_followed() {
        let mut curve = fed(&[2, 8, 32], 60);
        for round in 0..600 {
            let level = 10_f64.powf(f64::from(round) / 600.0);
            let size = [2, 8, 32][round as usize % 3];
            if round > 10 {
                let error = error(&curve, size, level);
                assert!(error < 0.2, "{round}: off by {error}");
            }
            curve.learn(size, size as u64, run(size, level));
        }
    }

    #[test]
    fn cost_counts_where_it_is_more_than_the_number() {
        let mut curve = Curve::new(&[], 64);
        let took =
            |size: usize, cost: u64| (2.0 * MS + size as f64 * 0.1 * MS) as u64 + cost * 20_000;
        let mut state = 1_u64;
        for _ in 0..80 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let size = 1 + (state >> 40) as usize % 32;
            let cost = size as u64 * (1 + (state >> 50) % 90);
            curve.learn(size, cost, took(size, cost));
        }
        for (size, cost) in [(4, 40), (4, 300), (32, 400), (32, 2000)] {
            let ratio = curve.expected(size, cost).unwrap() / took(size, cost) as f64;
            assert!((ratio - 1.0).abs() < 0.2, "{size}, {cost}: {ratio}");
        }
    }

    #[test]
    fn a_size_that_does_not_run_for_long_is_not_known_any_more() {
        let mut curve = Curve::new(&[1, 8], 8);
        for _ in 0..2 {
            curve.learn(8, 8, run(8, 1.0));
        }
        assert!(curve.known(1).is_some());
        for _ in 0..=STALE {
            curve.learn(1, 1, run(1, 1.0));
        }
        assert_eq!(curve.known(1), None);
        assert!(curve.known(0).is_some());
    }

    #[test]
    fn no_part_is_below_zero_and_nothing_is_beyond_numbers() {
        let mut curve = Curve::new(&[], 64);
        // Falling with the size, then nonsense.
        for size in [1, 2, 4, 8, 16, 32, 64] {
            for _ in 0..3 {
                curve.learn(size, size as u64, 1_000_000 / size as u64);
            }
        }
        assert!(
            curve.line.iter().all(|part| *part >= 0.0),
            "{:?}",
            curve.line
        );
        for (size, cost, run) in [
            (1, 0, 0),
            (64, u64::MAX, u64::MAX),
            (1, 0, u64::MAX),
            (64, 1, 0),
        ] {
            curve.learn(size, cost, run);
            for size in [1, 64] {
                let most = curve.at_most(size, size as u64).unwrap();
                assert!(most.is_finite() && most >= 1.0, "{most}");
            }
        }
    }

    #[test]
    fn the_spread_says_what_hardly_ever_is_exceeded() {
        let mut curve = fed(&[4, 16], 20);
        let calm = curve.at_most(16, 16).unwrap() / curve.expected(16, 16).unwrap();
        assert!(calm < 1.05, "{calm}");
        for round in 0..64 {
            let level = if round % 10 == 0 { 1.5 } else { 1.0 };
            curve.learn(16, 16, run(16, level));
        }
        let wild = curve.at_most(16, 16).unwrap() / curve.expected(16, 16).unwrap();
        assert!((1.4..1.6).contains(&wild), "{wild}");
    }
}
