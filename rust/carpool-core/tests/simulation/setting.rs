//! What kind of batcher, and of life around it, one run has.

use carpool_core::{Learning, Limits, Overflow, Sizes};

use super::border::Dice;

/// What the die has decided for a whole run.
#[derive(Debug, Clone)]
pub struct Setting {
    pub limits: Limits,
    pub learning: Learning,
    pub seats: usize,
    /// The most a seat asks for.
    pub size: usize,
    pub keys: u64,
    pub levels: i64,
    pub deadlines: bool,
    pub cancels: bool,
    /// Callers run their own batches.
    pub callers: bool,
    /// Looks without a reason, looks without a seat, seats that come and go.
    pub restless: bool,
    /// Limits change while it runs.
    pub changes: bool,
    pub steps: usize,
}

/// Whether other requests may leave than those that stand first.
pub fn chooses(limits: &Limits) -> bool {
    limits.look_ahead > 0 || limits.length_window > 0
}

impl Setting {
    pub fn roll(dice: &mut Dice) -> Self {
        let max_batch_size = 1 + dice.below(6);
        let keys = dice.pick(&[1, 1, 2, 3]);
        let limits = Limits {
            max_batch_size,
            max_batch_cost: dice.pick(&[u64::MAX, u64::MAX, 8, 15]),
            padded: dice.one_in(3),
            look_ahead: dice.pick(&[0, 0, 0, 1, 3, usize::MAX]),
            length_window: dice.pick(&[0, 0, 0, 1, 3]),
            length_age: dice.pick(&[0, 10, 50, u64::MAX]),
            wait: dice.pick(&[0, 0, 5, 20, 60, u64::MAX]),
            max_queue: dice.pick(&[1, 2, 5, 12, 1000]),
            overflow: dice.pick(&[Overflow::Raise, Overflow::Wait, Overflow::Shed]),
            slots: dice.pick(&[1, 1, 2, 3, usize::MAX]),
            ..Limits::default()
        };
        let callers = dice.one_in(4);
        let sizes = dice.pick(&[&[][..], &[], &[], &[1, 2, 4], &[2, 5], &[3], &[1, 6]]);
        let sizes: Vec<_> = sizes
            .iter()
            .copied()
            .filter(|&size| size <= max_batch_size)
            .collect();
        let learning = Learning {
            sizes: Sizes::new(&sizes),
            target: dice.pick(&[None, None, None, None, Some(10), Some(60)]),
            ..Learning::default()
        };
        let limits = Limits {
            // The target chooses the wait.
            wait: if learning.target.is_some() {
                0
            } else {
                limits.wait
            },
            ..limits
        };
        Self {
            limits,
            learning,
            seats: if callers {
                dice.below(2)
            } else {
                1 + dice.below(4)
            },
            // Which seat should look first is a matter of taste where they differ.
            size: if keys == 1 && !callers && dice.one_in(4) {
                1 + dice.below(6)
            } else {
                usize::MAX
            },
            keys,
            // Who leaves is known exactly only where no two stand equally.
            levels: match chooses(&limits) {
                true => 1,
                false => dice.pick(&[1, 1, 3]),
            },
            deadlines: dice.one_in(4),
            cancels: !dice.one_in(3),
            callers,
            restless: dice.one_in(2),
            changes: dice.one_in(3),
            steps: 40 + dice.below(160),
        }
    }

    /// Other limits, some of them as they were; what is settled for good stays.
    pub fn other_limits(dice: &mut Dice, now: Limits) -> Limits {
        let max_batch_cost = match now.max_batch_cost {
            u64::MAX => u64::MAX,
            before => dice.pick(&[before, 8, 11, 15]),
        };
        let changed = Limits {
            max_batch_size: 1 + dice.below(6),
            max_batch_cost,
            wait: dice.pick(&[0, 5, 20, 60, u64::MAX]),
            max_queue: dice.pick(&[1, 2, 5, 12, 1000]),
            slots: dice.pick(&[1, 2, 3, usize::MAX]),
            look_ahead: match chooses(&now) {
                true => dice.pick(&[0, 1, 3]),
                false => now.look_ahead,
            },
            length_window: match chooses(&now) {
                true => dice.pick(&[0, 1, 3]),
                false => now.length_window,
            },
            length_age: dice.pick(&[0, 10, 50, u64::MAX]),
            ..now
        };
        if dice.one_in(2) {
            return changed;
        }
        // One alone: nothing else stirs the scheduler then.
        match dice.below(5) {
            0 => Limits {
                max_batch_size: changed.max_batch_size,
                ..now
            },
            1 => Limits {
                max_batch_cost,
                ..now
            },
            2 => Limits {
                wait: changed.wait,
                ..now
            },
            3 => Limits {
                max_queue: changed.max_queue,
                ..now
            },
            _ => Limits {
                slots: changed.slots,
                ..now
            },
        }
    }

    /// One seat and nothing that makes a wake needless.
    pub fn is_plain(&self) -> bool {
        let Limits {
            max_batch_cost,
            overflow,
            ..
        } = self.limits;
        let simple =
            !(self.deadlines || self.cancels || self.callers || self.restless || self.changes);
        simple
            && self.seats == 1
            && self.keys == 1
            && self.levels == 1
            && max_batch_cost == u64::MAX
            && self.learning == Learning::default()
            && overflow == Overflow::Raise
    }
}
