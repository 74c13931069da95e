//! A latency objective: hold requests for company as long as the target allows, and no longer than it pays.
//!
//! Every request is to have its answer `target` after its arrival. So the oldest may be held until the *last
//! moment*: its arrival, plus the target, less what the batch hardly ever exceeds, less a margin. Larger batches take
//! less of the handler's time per request, so holding is how throughput is bought. It ends earlier
//!
//! - when nobody else is expected before the last moment, by the rate of arrivals: holding would gain nothing;
//! - when those who are expected would save the handler less than a twentieth of its time;
//! - when the batch is so large that whoever arrives while it runs, and has to wait for that, would miss the target
//!   with the next one. (With another slot free they need not wait.)
//!
//! A request that cannot meet the target any more runs like any other, as soon as a slot is free: nothing is ever
//! dropped here. Under overload nothing is held, and batches are as large as the limits allow. Where more wait than a batch
//! takes, those that will be late in any case [let others pass](Aside), as long as these can still be in time, and no
//! longer than for so many targets: a backlog of some hundred milliseconds then costs few answers their time, and
//! not all of those who come while it lasts.
//!
//! The margin learns from what it is for: it grows by a step when a batch that was held to the last moment is late,
//! and shrinks by a small part of that step when it is not, so that late ones stay below one in a hundred
//! (stochastic approximation of a quantile; H. Robbins and S. Monro, 1951). Late timers, slow deliveries and
//! odd runs all count.

use super::passing::Passing;
use crate::clock::Nanos;

/// A longer wait must save at least this part of the handler's time per request.
const WORTH: f64 = 0.05;
/// What a batch keeps per batch of being the largest.
const PEAK: f64 = 0.99;
/// With a load beyond `1 - 1 / CALM` of what batches of the largest size can do, less and less is held.
const CALM: f64 = 4.0;
/// Of the target: how much the margin grows when a batch is late.
const STEP: f64 = 0.1;
/// How many batches in time make up for a late one.
const IN_TIME: f64 = 500.0;
/// Of the target: the least margin, the first, the largest.
const MARGINS: [f64; 3] = [0.02, 0.18, 1.0];

/// Who lets others pass, by the moment of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// Whoever arrived before will be late in any case,
    pub late: Nanos,
    /// and whoever arrived before has waited for too long to let others pass.
    pub aged: Nanos,
    /// At most so many let others pass; of more nobody does.
    pub most: usize,
    /// What came of it: how many left that will be late,
    pub left: usize,
    /// and whether more would have had to let others pass.
    pub too_many: bool,
}

/// The target, and the margin kept from it.
#[derive(Debug, Clone)]
pub struct Objective {
    target: f64,
    /// A part of the target.
    margin: f64,
    /// How many requests batches have, on average and at most, as of late.
    size: f64,
    peak: f64,
    passing: Passing,
}

/// What is pending, and what is to be expected.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    /// Requests that could share the next batch.
    pub count: usize,
    /// Of all keys.
    pub pending: usize,
    /// How many keys are pending; each takes a batch of its own.
    pub groups: usize,
    /// When the oldest of those that could share the next batch arrived.
    pub oldest: Nanos,
    /// The present moment.
    pub now: Nanos,
    /// The one that asks is among them.
    pub free_slots: usize,
    /// The most that the slot takes.
    pub most: usize,
    /// How many arrive per nanosecond, as of late.
    pub rate: f64,
    /// The same over some seconds.
    pub long_rate: f64,
    /// With a handler now.
    pub in_flight: usize,
    /// How many more there may be at once.
    pub room: f64,
}

/// How long to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hold {
    /// Until so long after the arrival of the oldest; 0 for not at all.
    pub wait: Nanos,
    /// Leave with so many at once.
    pub full: usize,
    /// Look again with so many.
    pub look: usize,
    /// So many more are expected.
    pub company: f64,
}

/// What a batch of so many takes.
pub struct Runs<'a> {
    /// As a rule.
    pub expected: &'a dyn Fn(usize) -> f64,
    /// At worst, but for few.
    pub at_most: &'a dyn Fn(usize) -> f64,
}

impl Objective {
    /// Answers are to be there `target` nanoseconds after the call.
    pub fn new(target: Nanos) -> Self {
        Self {
            target: target as f64,
            margin: MARGINS[1],
            size: 1.0,
            peak: 1.0,
            passing: Passing::default(),
        }
    }

    /// In nanoseconds.
    pub fn target(&self) -> Nanos {
        self.target as Nanos
    }

    /// The target, less the margin.
    fn budget(&self) -> f64 {
        self.target * (1.0 - self.margin)
    }

    /// Who lets others pass, if a batch that leaves now takes `run`.
    pub(crate) fn aside(&self, now: Nanos, run: f64) -> Option<Aside> {
        self.passing.aside(self.target, now, run)
    }

    /// A batch of `n` requests left.
    pub(crate) fn sealed(&mut self, n: usize, aside: Option<&Aside>) {
        self.passing.sealed(n, aside);
    }

    /// A request of whatever key that has waited so long is due.
    pub fn longest(&self, pending: usize, groups: usize, most: usize, runs: &Runs<'_>) -> Nanos {
        let all = self.all(pending, groups, most, runs);
        (self.budget() - all).max(0.0) as Nanos
    }

    /// What all that is pending takes, one batch for each key.
    fn all(&self, pending: usize, groups: usize, most: usize, runs: &Runs<'_>) -> f64 {
        let groups = groups.max(1);
        let each = pending.div_ceil(groups).clamp(1, most.max(1));
        groups as f64 * (runs.at_most)(each)
    }

    /// Whether those who come while a batch of `n` runs can be in time with the one after.
    fn leaves_time(&self, n: usize, outlook: &Outlook, runs: &Runs<'_>) -> bool {
        let run = (runs.at_most)(n);
        let budget = self.budget() * self.calm(outlook, runs);
        if outlook.free_slots > 1 {
            return run <= budget;
        }
        let coming = outlook.rate * run;
        // More than on average, as often as not.
        let coming = (coming + coming.sqrt()).min(outlook.most as f64);
        run + (runs.at_most)((coming.ceil() as usize).max(1)) <= budget
    }

    /// How much of the budget may be used up by holding, from 0 to 1. Near capacity a slot that stands idle is
    /// missed for long after.
    fn calm(&self, outlook: &Outlook, runs: &Runs<'_>) -> f64 {
        let most = outlook.most.max(1);
        let load = outlook.long_rate * (runs.expected)(most) / most as f64;
        (CALM * (1.0 - load)).clamp(0.0, 1.0)
    }

    /// The largest batch that leaves time for those who come after.
    fn largest(&self, outlook: &Outlook, runs: &Runs<'_>) -> usize {
        let (mut good, mut bad) = (1, outlook.most + 1);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if self.leaves_time(middle, outlook, runs) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        good
    }

    /// How long the requests of an outlook may be held, and how many should not be.
    pub fn hold(&self, outlook: &Outlook, runs: &Runs<'_>) -> Hold {
        let most = outlook.most;
        let now = Hold {
            wait: 0,
            full: most,
            look: most,
            company: 0.0,
        };
        let full = self.largest(outlook, runs);
        if outlook.count >= full {
            return now;
        }
        // How long the last moment is away, by the time that whoever is expected makes the batch longer.
        let left = |more: usize| {
            // A burst may make it as long as the longest.
            let pending = (outlook.pending + more).max(self.peak as usize);
            let all = self.all(pending, outlook.groups, most, runs);
            let last = outlook.oldest as f64 + self.budget() - all;
            last - outlook.now as f64
        };
        let company = (outlook.rate * left(0).max(0.0)).min(outlook.room);
        let company = outlook.rate * left(company as usize).max(0.0);
        let company = company.min(outlook.room);
        // The last of them is hoped for, and no more.
        let gap = 1.0 / outlook.rate.max(f64::MIN_POSITIVE);
        let until = left(company as usize) - gap;
        if company < 1.0 || until < self.target * 0.001 {
            return now;
        }
        let many = (outlook.count + company as usize).min(full);
        let rate = |n: usize| (runs.expected)(n) / n as f64;
        if rate(many) > rate(outlook.count.max(1)) * (1.0 - WORTH) {
            return now;
        }
        let waited = outlook.now.saturating_sub(outlook.oldest);
        Hold {
            wait: waited.saturating_add(until as Nanos),
            full,
            // Twice as many as expected: it may be a burst, and its batch longer.
            look: full.min(outlook.count + (2.0 * company + 1.0).min(outlook.room).ceil() as usize),
            company,
        }
    }

    /// A batch of `size` requests ended so long after the arrival of its oldest.
    pub fn ended(&mut self, size: usize, took: Nanos) {
        let size = size as f64;
        self.size += (size - self.size) / 32.0;
        self.peak = size.max(self.peak * PEAK);
        // It is requests that should be in time, so large batches count for more.
        let weight = size / self.size;
        let [least, _, most] = MARGINS;
        let late = took as f64 > self.target;
        let by = weight * if late { STEP } else { -STEP / IN_TIME };
        self.margin = (self.margin + by).clamp(least, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn outlook(count: usize, per_ms: f64) -> Outlook {
        Outlook {
            count,
            pending: count,
            groups: 1,
            oldest: 100 * MS,
            now: 100 * MS,
            free_slots: 1,
            most: 64,
            rate: per_ms / MS as f64,
            long_rate: per_ms / MS as f64,
            in_flight: 0,
            room: 1000.0,
        }
    }

    /// 5 ms a batch and 0.2 ms a request.
    fn run(n: usize) -> f64 {
        (5.0 + 0.2 * n as f64) * MS as f64
    }

    fn hold(target: Nanos, outlook: Outlook) -> Hold {
        let runs = Runs {
            expected: &run,
            at_most: &run,
        };
        Objective::new(target * MS).hold(&outlook, &runs)
    }

    #[test]
    fn table() {
        let now = |hold: Hold| hold.wait == 0;
        // One per millisecond, 50 ms: about 30 are gained.
        let held = hold(50, outlook(1, 1.0));
        assert!((25 * MS..40 * MS).contains(&held.wait), "{held:?}");
        assert!(held.full > 30, "{held:?}");
        // Nobody to be expected.
        assert!(now(hold(50, outlook(1, 0.01))));
        assert!(now(hold(50, outlook(1, 0.0))));
        // No time: the target is two runs.
        assert!(now(hold(11, outlook(1, 1.0))));
        // Impossible: it leaves all the same, and at once.
        assert!(now(hold(3, outlook(1, 1.0))));
        // Late.
        let late = Outlook {
            now: 160 * MS,
            ..outlook(3, 1.0)
        };
        assert!(now(hold(50, late)));
        // Large enough: the next batch would be late.
        assert!(now(hold(20, outlook(40, 1.0))));
        // As large as pays: five runs' worth of fixed time is a twentieth of the rest.
        assert!(now(hold(
            1000,
            Outlook {
                most: 1000,
                ..outlook(800, 0.1)
            }
        )));
        // The waits of the others are over by the time it is done.
        let keyed = Outlook {
            pending: 5,
            groups: 5,
            ..outlook(1, 1.0)
        };
        let alone = hold(50, outlook(1, 1.0)).wait;
        let keyed = hold(50, keyed).wait;
        assert!(keyed < alone - 15 * MS, "{keyed}");
    }

    #[test]
    fn another_free_slot_serves_those_who_come_after() {
        let one = hold(20, outlook(1, 2.0));
        let two = Outlook {
            free_slots: 2,
            ..outlook(1, 2.0)
        };
        assert!(hold(20, two).full > one.full);
    }

    #[test]
    fn the_margin_follows_late_batches() {
        let mut objective = Objective::new(100 * MS);
        let first = objective.budget();
        for _ in 0..100 {
            objective.ended(1, 90 * MS);
        }
        assert!(objective.budget() > first);
        objective.ended(1, 101 * MS);
        let after = objective.budget();
        assert!(after < first);
        for _ in 0..100 {
            objective.ended(1, 1000 * MS);
        }
        assert!(objective.budget() < 1.0, "nothing is held any more");
        for _ in 0..10_000 {
            objective.ended(1, 1);
        }
        assert!(objective.budget() < 98.1e6);
    }
}
