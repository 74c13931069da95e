//! What a batcher learns while it runs, and what it uses that for. It exists only where an option asks for
//! it; without one the scheduler pays for the look that finds nothing here.

use super::curve::Curve;
use super::objective::{Hold, Objective, Outlook, Runs};
use super::sizes::Sizes;
use crate::clock::Nanos;
use crate::limits::{BadLimit, Limits};

/// What a batcher is to learn for; nothing, by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learning {
    /// The sizes that batches may have, for the handler.
    pub sizes: Option<Sizes>,
    /// How long after its call each answer should be there.
    pub target: Option<Nanos>,
}

impl Learning {
    fn is_off(&self) -> bool {
        self.sizes.is_none() && self.target.is_none()
    }

    /// The limits with what follows from this: no batch is larger than the largest size.
    pub(crate) fn limit(&self, limits: Limits) -> Result<Limits, BadLimit> {
        let Some(sizes) = &self.sizes else {
            return Ok(limits);
        };
        if sizes.largest() > limits.max_batch_size {
            return Err(BadLimit {
                name: "sizes",
                value: sizes.largest() as u64,
            });
        }
        Ok(Limits {
            max_batch_size: sizes.largest(),
            ..limits
        })
    }

    /// The largest batch of no more than `most` requests: an allowed size, though none be as small.
    pub(crate) fn at_most(&self, most: usize) -> usize {
        let Some(sizes) = &self.sizes else {
            return most;
        };
        let all = sizes.all();
        let fitting = all.iter().copied().filter(|&size| size <= most);
        fitting.max().unwrap_or(all[0])
    }

    /// As many rows as a handler sees of `n` requests.
    #[inline]
    pub(crate) fn padded(&self, n: usize) -> usize {
        match &self.sizes {
            None => n,
            Some(sizes) => sizes.fit(n).max(n),
        }
    }
}

/// What a sealed batch brings to the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Rows, padding included.
    pub(crate) size: usize,
    /// What its requests cost.
    pub(crate) cost: u64,
    /// When the oldest of them arrived.
    pub(crate) oldest: Nanos,
}

/// What is known by now.
pub(crate) struct Learned {
    curve: Curve,
    sizes: Option<Sizes>,
    /// What a batch of each size takes.
    runs: Vec<f64>,
    flow: Flow,
    objective: Option<Objective>,
}

impl Learned {
    /// Nothing yet; `None` where nothing is to be learned.
    pub(crate) fn of(learning: &Learning, limits: &Limits) -> Option<Box<Self>> {
        if learning.is_off() {
            return None;
        }
        let sizes = learning.sizes.clone();
        let all = sizes.as_ref().map_or(&[][..], Sizes::all);
        Some(Box::new(Self {
            curve: Curve::new(all, limits.max_batch_size),
            runs: vec![0.0; all.len()],
            sizes,
            flow: Flow::default(),
            objective: learning.target.map(Objective::new),
        }))
    }

    /// A whole batch was answered now, after running for `run`.
    pub(crate) fn ran(&mut self, load: Load, run: Nanos, now: Nanos) {
        if let Some(objective) = &mut self.objective {
            objective.ended(load.size, now.saturating_sub(load.oldest));
        }
        self.curve.learn(load.size, load.cost, run);
        if let Some(sizes) = &self.sizes {
            self.runs = sizes.runs(&self.curve);
        }
    }

    /// `arrived` requests had arrived in all by `now`.
    pub(crate) fn see(&mut self, arrived: u64, now: Nanos) {
        self.flow.see(arrived, now);
    }

    /// Whether there is a target.
    #[inline]
    pub(crate) fn aims(&self) -> bool {
        self.objective.is_some()
    }

    fn with_runs<R>(&self, cost_each: f64, f: impl FnOnce(&Runs<'_>) -> R) -> Option<R> {
        if self.curve.is_empty() {
            return None;
        }
        let rows = |n: usize| self.sizes.as_ref().map_or(n, |sizes| sizes.fit(n));
        let cost = |n: usize| (cost_each * n as f64) as u64;
        let expected = |n: usize| self.curve.expected(rows(n), cost(n)).unwrap_or(0.0);
        let at_most = |n: usize| self.curve.at_most(rows(n), cost(n)).unwrap_or(0.0);
        Some(f(&Runs {
            expected: &expected,
            at_most: &at_most,
        }))
    }

    /// How long a request of any key may wait before it is due; `None` without a target.
    pub(crate) fn longest_wait(&self, pending: usize, groups: usize, most: usize) -> Option<Nanos> {
        let objective = self.objective.as_ref()?;
        let longest = |runs: &Runs<'_>| objective.longest(pending, groups, most, runs);
        Some(self.with_runs(1.0, longest).unwrap_or(0))
    }

    /// How long to hold what is pending; `None` without a target, and while nothing is known.
    pub(crate) fn hold(&self, outlook: Outlook, cost: u64) -> Option<Hold> {
        let objective = self.objective.as_ref()?;
        let outlook = Outlook {
            rate: self.flow.rate,
            long_rate: self.flow.long_rate,
            ..outlook
        };
        let each = cost as f64 / outlook.count.max(1) as f64;
        self.with_runs(each, |runs| objective.hold(&outlook, runs))
    }

    /// How many of `count` pending requests should leave, of which a slot takes up to `size`; `all` of them, if
    /// somebody wants that.
    pub(crate) fn choose(&self, count: usize, size: usize, all: bool) -> usize {
        let Some(sizes) = &self.sizes else {
            return size;
        };
        // A slot that takes less than the smallest size gets what it takes, filled up.
        let fitting = sizes.all().iter().rev().find(|&&one| one <= size);
        let room = fitting.copied().unwrap_or(size);
        if all {
            return room;
        }
        sizes.choose(count.min(room), &self.runs, self.flow.rate)
    }
}

/// How fast requests arrive.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flow {
    arrived: u64,
    /// When this began; 0 before.
    since: Nanos,
    at: Nanos,
    /// Per nanosecond.
    rate: f64,
    /// The same, over a longer time.
    long_rate: f64,
}

impl Flow {
    /// What lies so far back counts half as much, and less: 30 ms.
    const MEMORY: f64 = 43e6;
    const LONG_MEMORY: f64 = 2e9;

    fn see(&mut self, arrived: u64, now: Nanos) {
        if self.since == 0 {
            (self.since, self.at) = (now, now);
        }
        let passed = now.saturating_sub(self.at) as f64;
        if passed <= 0.0 || arrived < self.arrived {
            return;
        }
        let news = (arrived - self.arrived) as f64 / passed;
        // At first the mean of all: nothing is known of a time before.
        let all = now.saturating_sub(self.since) as f64;
        let mix = |rate: f64, memory: f64| {
            let kept = (1.0 - passed / all).min((-passed / memory).exp());
            rate * kept + news * (1.0 - kept)
        };
        self.rate = mix(self.rate, Self::MEMORY);
        self.long_rate = mix(self.long_rate, Self::LONG_MEMORY);
        self.arrived = arrived;
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_limit_the_batch_and_must_fit_it() {
        let learning = |sizes: &[usize]| Learning {
            sizes: Sizes::new(sizes),
            ..Learning::default()
        };
        let limits = Limits {
            max_batch_size: 8,
            ..Limits::default()
        };
        assert_eq!(Learning::default().limit(limits), Ok(limits));
        let four = learning(&[1, 4]).limit(limits).unwrap();
        assert_eq!(four.max_batch_size, 4);
        let error = learning(&[1, 9]).limit(limits).unwrap_err();
        assert_eq!((error.name, error.value), ("sizes", 9));
        assert_eq!(learning(&[2, 4]).padded(3), 4);
        assert_eq!(Learning::default().padded(3), 3);
    }

    #[test]
    fn a_slot_that_takes_few_gets_a_size_that_it_takes() {
        let learning = Learning {
            sizes: Sizes::new(&[2, 4, 8]),
            ..Learning::default()
        };
        let learned = Learned::of(&learning, &Limits::default()).unwrap();
        for (size, expected) in [(usize::MAX, 7), (8, 7), (7, 4), (4, 4), (3, 2), (1, 1)] {
            assert_eq!(learned.choose(7, size, false), expected, "{size}");
        }
    }

    #[test]
    fn the_flow_follows_within_some_memories() {
        let mut flow = Flow::default();
        let mut now = 0;
        for arrived in 1..=1000 {
            now += 1_000_000;
            flow.see(arrived, now);
        }
        assert!((flow.rate * 1e6 - 1.0).abs() < 0.01, "{}", flow.rate);
        // Nobody for a second, then one.
        flow.see(1001, now + 1_000_000_000);
        assert!(flow.rate * 1e9 < 1.1, "{}", flow.rate);
        // Two looks at one moment, and a count that has gone down, change nothing.
        let before = flow.rate;
        flow.see(1002, now + 1_000_000_000);
        flow.see(3, now + 2_000_000_000);
        assert!((flow.rate - before).abs() < 1e-30);
    }
}
