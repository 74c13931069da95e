//! When a batch leaves: a pure function of what is pending, the time and the free slots.
//!
//! It knows neither threads nor locks nor clocks, so a table, a property test against a plain model
//! and a virtual clock can all drive the very code that runs in production.

use crate::clock::Nanos;
use crate::limits::Limits;

/// Why a batch left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// It holds `max_batch_size` requests.
    Full,
    /// Its oldest request had waited long enough.
    Wait,
    /// The next request would have exceeded `max_batch_cost`, or the budget is used up.
    Cost,
    /// Nothing is held for company (`wait` is 0) and a slot was free.
    Idle,
    /// The caller that runs it had gathered long enough.
    Gather,
    /// Somebody asked for everything pending to leave.
    Flush,
    /// The batcher is draining.
    Close,
    /// The latency target allowed to hold it no longer.
    Target,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Full,
        Self::Wait,
        Self::Cost,
        Self::Idle,
        Self::Gather,
        Self::Flush,
        Self::Close,
        Self::Target,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Wait => "wait",
            Self::Cost => "cost",
            Self::Idle => "idle",
            Self::Gather => "gather",
            Self::Flush => "flush",
            Self::Close => "close",
            Self::Target => "target",
        }
    }
}

/// What the policy sees of the requests that could share the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// How many are pending (exact up to `max_batch_size`).
    pub count: usize,
    /// Their cost.
    pub cost: u64,
    /// When the oldest of them arrived; `None` when there is none.
    pub oldest: Option<Nanos>,
    /// The oldest was pending when a flush was asked for.
    pub flushed: bool,
    /// The batcher is draining: nothing more will come.
    pub draining: bool,
    /// Who may come back, where a caller looks that would run the batch itself.
    pub gather: Option<Gather>,
}

/// For whom a caller that would run the batch itself may hold it, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather {
    /// How many were there last time.
    pub company: usize,
    /// When it runs at the latest.
    pub until: Nanos,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Seal a batch now.
    Leave(Reason),
    /// Nothing is due.
    Wait {
        /// When that changes by itself.
        until: Option<Nanos>,
        /// How many pending requests change it, or may.
        count: usize,
        /// How much pending cost changes it.
        cost: u64,
    },
}

impl Decision {
    /// Only a slot that becomes free changes anything.
    pub const NO_SLOT: Self = Self::Wait {
        until: None,
        count: usize::MAX,
        cost: u64::MAX,
    };
}

/// Late sealing: only with a free slot, and then at once if the batch is full or its oldest request
/// has waited `wait` since its arrival. `size` is the most that the asking slot takes. Where `wait` is 0
/// a caller may gather first: until those are back who were there last time, for a moment at most.
pub fn decide(
    limits: &Limits,
    size: usize,
    view: &View,
    now: Nanos,
    free_slots: usize,
) -> Decision {
    if free_slots == 0 {
        return Decision::NO_SLOT;
    }
    let size = size.clamp(1, limits.max_batch_size);
    let Some(oldest) = view.oldest else {
        return Decision::Wait {
            until: None,
            count: 1,
            cost: u64::MAX,
        };
    };
    let due = oldest.saturating_add(limits.wait);
    // Where costs are padded a single request can use up the budget for all: whichever comes is looked at.
    let enough = |count| if limits.padded { 1 } else { count };
    if view.count >= size {
        Decision::Leave(Reason::Full)
    } else if view.cost >= limits.max_batch_cost {
        Decision::Leave(Reason::Cost)
    } else if limits.wait == 0 {
        match view.gather.filter(|_| !view.draining && !view.flushed) {
            None => Decision::Leave(Reason::Idle),
            Some(gather) if view.count >= gather.company || now >= gather.until => {
                Decision::Leave(Reason::Gather)
            }
            Some(gather) => Decision::Wait {
                until: Some(gather.until),
                count: enough(gather.company.min(size)),
                cost: limits.max_batch_cost,
            },
        }
    } else if now >= due {
        Decision::Leave(Reason::Wait)
    } else if view.draining {
        Decision::Leave(Reason::Close)
    } else if view.flushed {
        Decision::Leave(Reason::Flush)
    } else {
        Decision::Wait {
            until: Some(due),
            count: enough(size),
            cost: limits.max_batch_cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_batch_size: 4,
        max_batch_cost: 100,
        wait: 10,
        max_queue: 8,
        overflow: crate::limits::Overflow::Raise,
        slots: 1,
        steps: 1,
        gather: true,
        padded: false,
        look_ahead: 0,
        length_window: 0,
        length_age: 0,
    };

    fn view(count: usize, cost: u64, oldest: Nanos) -> View {
        View {
            count,
            cost,
            oldest: Some(oldest),
            ..View::default()
        }
    }

    #[test]
    fn table() {
        let wait = |until, count, cost| Decision::Wait { until, count, cost };
        let leave = Decision::Leave;
        let flushed = View {
            flushed: true,
            ..view(1, 1, 5)
        };
        let draining = View {
            draining: true,
            ..view(1, 1, 5)
        };
        let at_once = Limits { wait: 0, ..LIMITS };
        let gathering = |count, company| View {
            gather: Some(Gather { company, until: 9 }),
            ..view(count, 1, 5)
        };
        let rows = [
            (
                "no free slot, however full",
                LIMITS,
                4,
                view(9, 900, 0),
                99,
                0,
                Decision::NO_SLOT,
            ),
            (
                "nothing pending",
                LIMITS,
                4,
                View::default(),
                99,
                1,
                wait(None, 1, u64::MAX),
            ),
            (
                "one, young",
                LIMITS,
                4,
                view(1, 1, 5),
                14,
                1,
                wait(Some(15), 4, 100),
            ),
            (
                "one, exactly due",
                LIMITS,
                4,
                view(1, 1, 5),
                15,
                1,
                leave(Reason::Wait),
            ),
            (
                "full before due",
                LIMITS,
                4,
                view(4, 4, 5),
                5,
                1,
                leave(Reason::Full),
            ),
            (
                "full for a slot that takes two",
                LIMITS,
                2,
                view(2, 2, 5),
                5,
                1,
                leave(Reason::Full),
            ),
            (
                "cost used up",
                LIMITS,
                4,
                view(2, 100, 5),
                5,
                1,
                leave(Reason::Cost),
            ),
            (
                "cost not used up",
                LIMITS,
                4,
                view(2, 99, 5),
                5,
                1,
                wait(Some(15), 4, 100),
            ),
            (
                "no wait asked for",
                at_once,
                4,
                view(1, 1, 5),
                5,
                1,
                leave(Reason::Idle),
            ),
            (
                "company expected",
                at_once,
                4,
                gathering(1, 3),
                8,
                1,
                wait(Some(9), 3, 100),
            ),
            (
                "company is there",
                at_once,
                4,
                gathering(3, 3),
                5,
                1,
                leave(Reason::Gather),
            ),
            (
                "gathered long enough",
                at_once,
                4,
                gathering(1, 3),
                9,
                1,
                leave(Reason::Gather),
            ),
            (
                "more expected than there is room",
                at_once,
                4,
                gathering(1, 9),
                5,
                1,
                wait(Some(9), 4, 100),
            ),
            (
                "full while gathering",
                at_once,
                2,
                gathering(2, 9),
                5,
                1,
                leave(Reason::Full),
            ),
            (
                "flushed while gathering",
                at_once,
                4,
                View {
                    flushed: true,
                    ..gathering(1, 3)
                },
                5,
                1,
                leave(Reason::Idle),
            ),
            (
                "draining while gathering",
                at_once,
                4,
                View {
                    draining: true,
                    ..gathering(1, 3)
                },
                5,
                1,
                leave(Reason::Idle),
            ),
            (
                "a wait of its own is no gathering",
                LIMITS,
                4,
                gathering(1, 3),
                8,
                1,
                wait(Some(15), 4, 100),
            ),
            (
                "padded, any may use up the budget",
                Limits {
                    padded: true,
                    ..LIMITS
                },
                4,
                view(2, 60, 5),
                6,
                1,
                wait(Some(15), 1, 100),
            ),
            ("flushed", LIMITS, 4, flushed, 6, 1, leave(Reason::Flush)),
            ("draining", LIMITS, 4, draining, 6, 1, leave(Reason::Close)),
            (
                "a size beyond the limit is the limit",
                LIMITS,
                9,
                view(4, 4, 5),
                5,
                1,
                leave(Reason::Full),
            ),
        ];
        for (what, limits, size, view, now, free, expected) in rows {
            assert_eq!(decide(&limits, size, &view, now, free), expected, "{what}");
        }
    }

    #[test]
    fn a_wait_beyond_the_end_of_time_does_not_overflow() {
        let limits = Limits {
            wait: Nanos::MAX,
            ..LIMITS
        };
        let decision = decide(&limits, 4, &view(1, 1, 5), 6, 1);
        assert_eq!(
            decision,
            Decision::Wait {
                until: Some(Nanos::MAX),
                count: 4,
                cost: 100
            }
        );
    }

    #[test]
    fn every_reason_has_its_own_word() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
