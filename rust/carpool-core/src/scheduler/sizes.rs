//! Allowed batch sizes: filling up to the next, or leaving with the one below and holding the rest back.
//!
//! `n` requests between two allowed sizes can run as one batch of the larger, with rows that nobody asked for; or
//! as one of the smaller, and the rest with the next. Which takes less of the machine's time is known once
//! both sizes have run. The rest does not cost a batch of its own where others are coming that it can
//! share one with: then it costs what it makes that one longer.

use super::curve::Curve;

/// The sizes that batches may have, increasing, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(Box<[usize]>);

impl Sizes {
    /// These, in any order; `None` where there are none, or one is 0.
    pub fn new(sizes: &[usize]) -> Option<Self> {
        let mut sizes = sizes.to_vec();
        sizes.sort_unstable();
        sizes.dedup();
        let first = *sizes.first()?;
        (first > 0).then(|| Self(sizes.into()))
    }

    /// All of them.
    pub fn all(&self) -> &[usize] {
        &self.0
    }

    /// The largest.
    pub fn largest(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    fn place(&self, n: usize) -> usize {
        let at = self.0.partition_point(|&size| size < n);
        at.min(self.0.len() - 1)
    }

    /// The smallest that `n` requests fit; the largest where none is large enough.
    pub fn fit(&self, n: usize) -> usize {
        self.0[self.place(n)]
    }

    /// As many rows as a batch of `n` requests is filled up to.
    pub fn rows(&self, n: usize) -> usize {
        self.fit(n).max(n)
    }

    /// What a batch of each size takes, as far as it is known. One that is not may be as good as those
    /// that are allow it, so that it is tried: no faster than a smaller one, nor for each request than a larger.
    pub fn runs(&self, curve: &Curve) -> Vec<f64> {
        let known: Vec<_> = (0..self.0.len()).map(|at| curve.known(at)).collect();
        let at_best = |at: usize| {
            let size = self.0[at];
            let smaller = known[..at].iter().flatten().copied();
            let larger = known[at..].iter().zip(&self.0[at..]);
            let larger = larger.filter_map(|(run, &of)| Some((*run)? * size as f64 / of as f64));
            smaller.chain(larger).fold(0.0, f64::max)
        };
        (0..self.0.len())
            .map(|at| known[at].unwrap_or_else(|| at_best(at)))
            .collect()
    }

    /// How many of `n` pending requests should leave: all (as far as the largest size goes), or as many as an
    /// allowed size, while the others are held back. `runs` is what each size takes, `coming` how many more
    /// requests there will be per nanosecond.
    pub fn choose(&self, n: usize, runs: &[f64], coming: f64) -> usize {
        let n = n.min(self.largest());
        let up = self.place(n);
        let Some(below) = up.checked_sub(1) else {
            return n;
        };
        let few = self.0[below];
        // As many as come while the smaller batch runs will share a batch with the rest.
        let (rest, others) = (n - few, (coming * runs[below]).min(1e9) as usize);
        let rest = if others < self.largest() {
            self.least(rest + others, runs) - self.least(others, runs)
        } else {
            rest as f64 * self.best_rate(runs)
        };
        if runs[below] + rest < runs[up] {
            few
        } else {
            n
        }
    }

    /// The least time in which `n` requests can run.
    fn least(&self, n: usize, runs: &[f64]) -> f64 {
        let most = self.largest();
        let mut time = (n / most) as f64 * self.best_rate(runs) * most as f64;
        // From here on each step is a smaller size, or one more batch of the same.
        let mut left = n % most;
        let mut least = f64::INFINITY;
        while left > 0 {
            let up = self.place(left);
            // All that is left in one batch, or a full one and what is left then.
            least = least.min(time + runs[up]);
            let Some(below) = up.checked_sub(1) else {
                return least;
            };
            let full = left / self.0[below];
            time += full as f64 * runs[below];
            left -= full * self.0[below];
        }
        least.min(time)
    }

    /// Time per request at the best of all sizes.
    fn best_rate(&self, runs: &[f64]) -> f64 {
        let rates = runs
            .iter()
            .zip(&self.0)
            .map(|(run, &size)| run / size as f64);
        rates.fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes::new(&[8, 1, 2, 4, 4]).unwrap()
    }

    /// What the sizes 1, 2, 4 and 8 take where a batch costs `fixed` and each row `each`.
    fn affine(fixed: f64, each: f64) -> Vec<f64> {
        let all = [1.0, 2.0, 4.0, 8.0];
        all.iter().map(|size| fixed + each * size).collect()
    }

    #[test]
    fn sizes_are_in_order_and_positive() {
        assert_eq!(sizes().all(), [1, 2, 4, 8]);
        assert_eq!(Sizes::new(&[]), None);
        assert_eq!(Sizes::new(&[0, 1]), None);
        let fits: Vec<_> = (1..=9).map(|n| sizes().fit(n)).collect();
        assert_eq!(fits, [1, 2, 4, 4, 8, 8, 8, 8, 8]);
    }

    #[test]
    fn table() {
        let sizes = sizes();
        let rows: [(&str, Vec<f64>, f64, [usize; 9]); 6] = [
            // Nothing known: whoever is there leaves.
            ("unknown", vec![0.0; 4], 0.0, [1, 2, 3, 4, 5, 6, 7, 8, 8]),
            // Rows cost nothing: one batch.
            ("fixed", affine(10.0, 0.0), 0.0, [1, 2, 3, 4, 5, 6, 7, 8, 8]),
            // Rows are all the cost: no empty ones. (At 3: 2 + 1 is 3, less than 4.)
            ("rows", affine(0.001, 1.0), 0.0, [1, 2, 2, 4, 4, 4, 4, 8, 8]),
            // 8 rows take 10; 4 take 6 and the fifth 3: 9. Six: 6 + 4 is no better.
            ("both", affine(2.0, 1.0), 0.0, [1, 2, 3, 4, 4, 6, 7, 8, 8]),
            // The same where many more are coming, which the rest can leave with.
            (
                "both, busy",
                affine(2.0, 1.0),
                100.0,
                [1, 2, 2, 4, 4, 4, 4, 8, 8],
            ),
            // A large batch that is worse than two of half the size is not made.
            (
                "thrashes",
                vec![1.0, 1.5, 2.0, 9.0],
                0.0,
                [1, 2, 3, 4, 4, 4, 4, 4, 4],
            ),
        ];
        for (what, runs, coming, expected) in rows {
            let chosen: Vec<_> = (1..=9).map(|n| sizes.choose(n, &runs, coming)).collect();
            assert_eq!(chosen, expected, "{what}");
        }
    }

    #[test]
    fn an_unknown_size_is_taken_for_as_good_as_it_can_be() {
        let mut curve = Curve::new(&[1, 2, 4, 8], 8);
        assert_eq!(sizes().runs(&curve), [0.0; 4]);
        for _ in 0..2 {
            curve.learn(4, 4, 4000);
        }
        assert_eq!(sizes().runs(&curve), [1000.0, 2000.0, 4000.0, 4000.0]);
        // Once: it may have been a slow start.
        curve.learn(1, 1, 900_000);
        assert_eq!(sizes().runs(&curve)[0], 1000.0);
        curve.learn(1, 1, 3000);
        assert_eq!(sizes().runs(&curve), [3000.0, 3000.0, 4000.0, 4000.0]);
    }
}
