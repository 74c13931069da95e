//! What a batcher learns while it runs, and what it uses that for. It exists only where an option asks for
//! it; without one the scheduler pays for the look that finds nothing here.

use super::curve::Curve;
use super::flow::Flow;
use super::late::{self, Ahead};
use super::objective::{Aside, Hold, Objective, Outlook, Runs};
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
    /// Requests that cannot be answered before their deadlines are refused.
    pub refuse_late: bool,
}

impl Learning {
    fn is_off(&self) -> bool {
        self.sizes.is_none() && self.target.is_none() && !self.refuse_late
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

    /// As how many requests a lone one counts against the budget.
    pub(crate) fn at_least(&self, limits: &Limits) -> u64 {
        match &self.sizes {
            Some(sizes) if limits.padded => sizes.rows(1) as u64,
            _ => 1,
        }
    }

    /// As many rows as a handler sees of `n` requests.
    #[inline]
    pub(crate) fn padded(&self, n: usize) -> usize {
        match &self.sizes {
            None => n,
            Some(sizes) => sizes.rows(n),
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
    /// When batches in flight were sealed, and the ends that are expected; kept where late ones are refused.
    flying: Vec<(Nanos, Nanos)>,
    ends: Vec<Nanos>,
    keeps_ends: bool,
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
            flying: Vec::new(),
            ends: Vec::new(),
            keeps_ends: learning.refuse_late,
        }))
    }

    /// Another target, or none, for one that may have learned already.
    pub(crate) fn aim(
        learned: &mut Option<Box<Self>>,
        target: Option<Nanos>,
        learning: &Learning,
        limits: &Limits,
    ) {
        let learning = Learning {
            target,
            ..learning.clone()
        };
        match learned {
            None => *learned = Self::of(&learning, limits),
            Some(_) if learning.is_off() => *learned = None,
            Some(learned) => {
                let same = learned.objective.as_ref().map(Objective::target) == target;
                if !same {
                    learned.objective = target.map(Objective::new);
                }
            }
        }
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

    /// See [`Flow::see`].
    pub(crate) fn see(&mut self, arrived: u64, there: u64, outstanding: bool, now: Nanos) {
        self.flow.see(arrived, there, outstanding, now);
    }

    /// Whether requests are held.
    pub(crate) fn is_holding(&self) -> bool {
        self.flow.is_holding()
    }

    /// A batch was sealed that brings `size` rows; `aside` says who let others pass, and what came of that.
    pub(crate) fn sealed(&mut self, size: usize, cost: u64, aside: Option<&Aside>, now: Nanos) {
        self.flow.sealed();
        if let Some(objective) = &mut self.objective {
            objective.sealed(size, aside);
        }
        if self.keeps_ends {
            let run = self.curve.expected(size, cost).unwrap_or(0.0);
            self.flying.push((now, now.saturating_add(run as Nanos)));
            self.note_ends();
        }
    }

    /// A batch that was sealed then has ended, however.
    pub(crate) fn ended(&mut self, sealed: Nanos) {
        if let Some(at) = self.flying.iter().position(|&(then, _)| then == sealed) {
            self.flying.swap_remove(at);
            self.note_ends();
        }
    }

    fn note_ends(&mut self) {
        self.ends.clear();
        self.ends.extend(self.flying.iter().map(|&(_, end)| end));
    }

    /// When the batches in flight are expected to end.
    pub(crate) fn ends(&self) -> &[Nanos] {
        &self.ends
    }

    /// When a request of `cost` is answered at the earliest; see [`late::earliest`].
    pub(crate) fn earliest(&self, ahead: &Ahead<'_>, deadline: Nanos, cost: u64) -> Option<Nanos> {
        let run = |n| {
            self.with_runs(cost as f64, |runs| (runs.expected)(n))
                .unwrap_or(0.0)
        };
        late::earliest(ahead, deadline, run)
    }

    /// What the shortest of batches takes.
    pub(crate) fn least_run(&self) -> Nanos {
        self.with_runs(1.0, |runs| (runs.expected)(1) as Nanos)
            .unwrap_or(0)
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

    /// Who lets others pass, where a batch of `size` requests leaves now; `None` for nobody.
    pub(crate) fn aside(&self, size: usize, now: Nanos) -> Option<Aside> {
        let objective = self.objective.as_ref()?;
        self.with_runs(1.0, |runs| objective.aside(now, (runs.expected)(size)))
            .flatten()
    }

    /// How long to hold what is pending; `None` for not at all.
    pub(crate) fn hold(&mut self, outlook: Outlook, cost: u64) -> Option<Hold> {
        let objective = self.objective.as_ref()?;
        if !self.flow.is_worth_it() || outlook.now >= self.flow.patience() {
            return None;
        }
        let outlook = Outlook {
            rate: self.flow.rate(),
            long_rate: self.flow.long_rate(),
            room: self.flow.room(outlook.pending + outlook.in_flight),
            ..outlook
        };
        let each = cost as f64 / outlook.count.max(1) as f64;
        let hold = self.with_runs(each, |runs| objective.hold(&outlook, runs))?;
        if hold.wait > 0 {
            self.flow.holds(hold.company);
        }
        let patience = self.flow.patience().saturating_sub(outlook.oldest);
        Some(Hold {
            wait: hold.wait.min(patience),
            ..hold
        })
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
        sizes.choose(count.min(room), &self.runs, self.flow.rate())
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
}
