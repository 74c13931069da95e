//! Ageing: how long a less urgent request can be overtaken, whoever comes.
//!
//! The bound that the documentation states: a request of level L goes before every request of level l < L with the
//! same key that arrives more than (L - l) × age after it. And within a level nobody is overtaken.

use carpool_core::Limits;
use carpool_core::request::Terms;
use carpool_core::scheduler::pending::{Pending, Queued};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Item {
    id: usize,
    level: i64,
    terms: Terms,
}

impl Queued for Item {
    fn terms(&self) -> &Terms {
        &self.terms
    }
    fn is_live(&self) -> bool {
        true
    }
    fn address(&self) -> u64 {
        self.id as u64
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { level: i64, key: u64 },
    Later(u64),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (-100..=100_i64, 0..2_u64).prop_map(|(level, key)| Step::Push { level, key }),
        5 => (-2..=2_i64, Just(0)).prop_map(|(level, key)| Step::Push { level, key }),
        3 => (0..400_u64).prop_map(Step::Later),
        3 => (1..4_usize).prop_map(Step::Take),
    ]
}

/// What `left` may be overtaken by `taken`: only by what is more urgent and did not come too late for that.
fn may_go_before(taken: &Item, left: &Item, age: u64) -> bool {
    let levels = left.level - taken.level;
    match levels {
        0 => taken.id < left.id,
        // Equally urgent ones may go either way.
        _ => {
            let (came, waits) = (taken.terms.arrival as i64, left.terms.arrival as i64);
            came - waits <= levels * age as i64
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nobody_is_overtaken_for_longer_than_the_bound(
        age in prop_oneof![Just(0), 1..60_u64],
        // The clock of a machine that has only just started, too.
        start in prop_oneof![Just(0), 0..1000_u64, Just(1 << 61)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let limits = Limits::default();
        let mut pending = Pending::new(limits);
        let mut waiting: Vec<Item> = Vec::new();
        let (mut now, mut pushed) = (start, 0);
        for step in steps.into_iter().chain([Step::Take(1000)]) {
            match step {
                Step::Push { level, key } => {
                    let urgency = Terms::urgency(now, level * age as i64);
                    let terms = Terms { urgency, key, ..Terms::at(now) };
                    let item = Item { id: pushed, level, terms };
                    pushed += 1;
                    waiting.push(item.clone());
                    pending.push(item);
                }
                Step::Later(by) => now += by,
                Step::Take(count) => {
                    let mut garbage = Vec::new();
                    let Some(key) = pending.next(Some(now), &mut garbage) else { continue };
                    let mut taken = Vec::new();
                    pending.take(key, count, now, |item| {
                        taken.push(item);
                        true
                    });
                    prop_assert!(garbage.is_empty());
                    for item in taken {
                        waiting.retain(|other| other.id != item.id);
                        for left in waiting.iter().filter(|left| left.terms.key == key) {
                            prop_assert!(
                                may_go_before(&item, left, age),
                                "{item:?} goes before {left:?} with age {age}"
                            );
                        }
                    }
                }
            }
        }
    }
}
