//! Which requests leave together (padded budgets, look-ahead, similar lengths), against a plain list, and
//! what must hold whatever is chosen.

use std::cell::Cell;
use std::rc::Rc;

use carpool_core::Limits;
use carpool_core::request::Terms;
use carpool_core::scheduler::objective::Aside;
use carpool_core::scheduler::pending::{Pending, Queued};
use proptest::prelude::*;

#[path = "plainly/taking.rs"]
mod plainly;

use plainly::{Waiting, total};

#[derive(Clone)]
struct Item(Rc<(usize, Terms, Cell<bool>)>);

impl Queued for Item {
    fn terms(&self) -> &Terms {
        &self.0.1
    }
    fn is_live(&self) -> bool {
        self.0.2.get()
    }
    fn address(&self) -> u64 {
        self.0.0 as u64
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { level: i64, cost: u64, length: u64 },
    Later(u64),
    Kill(usize),
    Take { size: usize, refuses: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let push = (-1..3_i64, 0..7_u64, 0..40_u64);
    let plain = (Just(0_i64), 0..7_u64, 0..40_u64);
    prop_oneof![
        3 => push.prop_map(|(level, cost, length)| Step::Push { level, cost, length }),
        9 => plain.prop_map(|(level, cost, length)| Step::Push { level, cost, length }),
        4 => (1..4_u64).prop_map(Step::Later),
        2 => any::<usize>().prop_map(Step::Kill),
        3 => (1..6_usize, prop_oneof![Just(0), 2..30_usize]).prop_map(|(size, refuses)| Step::Take { size, refuses }),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        1..6_usize,
        prop_oneof![Just(u64::MAX), 7..16_u64],
        any::<bool>(),
        prop_oneof![Just(0), 1..6_usize, Just(usize::MAX)],
        prop_oneof![Just(0), 1..5_usize],
        prop_oneof![Just(0), 1..8_u64, Just(u64::MAX)],
    )
        .prop_map(
            |(max_batch_size, max_batch_cost, padded, look_ahead, length_window, age)| Limits {
                max_batch_size,
                max_batch_cost,
                padded,
                look_ahead,
                length_window,
                length_age: age.saturating_mul(TICK),
                ..Limits::default()
            },
        )
}

/// Moments are far enough apart that no two levels are equally urgent.
const TICK: u64 = 100;
const AGE: i64 = 107;

struct Run {
    limits: Limits,
    pending: Pending<Item>,
    /// In order of arrival.
    all: Vec<Item>,
    now: u64,
}

impl Run {
    fn waiting(&self, refuses: usize) -> Vec<Waiting> {
        let live = self.all.iter().filter(|item| item.is_live());
        live.map(|item| Waiting {
            id: item.0.0,
            terms: item.0.1,
            refuses: refuses != 0 && item.0.0 % refuses == 0,
        })
        .collect()
    }

    fn take(&mut self, size: usize, refuses: usize) -> usize {
        let size = size.min(self.limits.max_batch_size);
        let mut garbage = Vec::new();
        if self.pending.next(Some(self.now), &mut garbage).is_none() {
            assert!(self.waiting(0).is_empty());
            return 0;
        }
        let before = self.waiting(refuses);
        let expected = plainly::take(&self.limits, &[], &before, size, self.now);
        let is_sure = |one: &&Waiting| self.pending.among_first(0, size, |item| item.0.0 == one.id);
        let sure: Vec<_> = before.iter().filter(is_sure).map(|one| one.id).collect();
        let mut taken = Vec::new();
        let misfit = self.pending.take(0, size, self.now, |item| {
            let live = item.is_live();
            item.0.2.set(false);
            let refused = refuses != 0 && item.0.0 % refuses == 0;
            if live && !refused {
                taken.push(item.0.0);
            }
            live && !refused
        });
        assert_eq!((&taken, misfit), (&expected.ids, expected.misfit));
        self.check(&taken, &before, misfit);
        // A caller that was told that its own request leaves now gets it.
        assert!(refuses != 0 || sure.iter().all(|id| taken.contains(id)));
        assert!(garbage.iter().all(|item| !item.is_live()));
        before.len() - self.waiting(0).len()
    }

    /// What must hold whatever is chosen.
    fn check(&self, taken: &[usize], before: &[Waiting], misfit: bool) {
        let limits = &self.limits;
        let terms = |id: usize| self.all[id].0.1;
        let costs: Vec<_> = taken.iter().map(|&id| terms(id).cost).collect();
        assert!(taken.len() <= 1 || total(limits, &[], &costs) <= limits.max_batch_cost);
        let mut order: Vec<_> = before.iter().filter(|one| !one.refuses).collect();
        order.sort_by_key(|one| (one.terms.urgency, one.id));
        // The first of all is always taken: nobody waits for company, and a misfit opens the next batch.
        assert_eq!(taken.first().copied(), order.first().map(|one| one.id));
        for left in self.waiting(0) {
            let waited = self.now - left.terms.arrival;
            for &id in taken {
                let before_it = (terms(id).urgency, id) < (left.terms.urgency, left.id);
                if before_it {
                    continue;
                }
                // Only for its cost with look-ahead, or for its length while it is young.
                let level = |terms: &Terms| terms.urgency.wrapping_sub(terms.arrival);
                let for_length = limits.length_window > 0
                    && waited < limits.length_age
                    && level(&terms(id)) == level(&left.terms);
                let looked_ahead = limits.look_ahead > 0 && limits.max_batch_cost != u64::MAX;
                assert!(
                    for_length || looked_ahead,
                    "{} was overtaken by {id}, misfit: {misfit}",
                    left.id
                );
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push {
                level,
                cost,
                length,
            } => {
                let terms = Terms {
                    urgency: Terms::urgency(self.now, level * AGE),
                    cost,
                    length,
                    ..Terms::at(self.now)
                };
                let item = Item(Rc::new((self.all.len(), terms, Cell::new(true))));
                self.all.push(item.clone());
                self.pending.push(item);
            }
            Step::Later(ticks) => self.now += ticks * TICK,
            Step::Kill(which) => {
                let live: Vec<_> = self.waiting(0).iter().map(|one| one.id).collect();
                if !live.is_empty() {
                    self.all[live[which % live.len()]].0.2.set(false);
                }
            }
            Step::Take { size, refuses } => {
                self.take(size, refuses);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_take_the_same(limits in limits(), steps in prop::collection::vec(step(), 1..90)) {
        let mut run = Run {
            limits,
            pending: Pending::new(limits),
            all: Vec::new(),
            now: 10_000,
        };
        for step in steps {
            run.step(step);
        }
        while run.take(usize::MAX, 0) > 0 {}
        assert_eq!(run.waiting(0).len(), 0);
        assert!(run.all.iter().all(|item| !item.is_live()));
        // What died unmet may be left; nothing else is.
        run.pending.compact(&mut Vec::new());
        assert_eq!((run.pending.len(), run.pending.groups()), (0, 0));
    }
}

prop_compose! {
    /// Arrivals in order, the level, and whether there is a deadline.
    fn queue()(
        all in prop::collection::vec((0..4_u64, prop_oneof![9 => Just(0_i64), 1 => Just(1_i64)], prop::bool::weighted(0.1)), 1..60),
        levels in prop::bool::weighted(0.2),
    ) -> Vec<Waiting> {
        let mut now = 10_000;
        let one = |(id, (later, level, limited)): (usize, (u64, i64, bool))| {
            now += later * TICK;
            let terms = Terms {
                urgency: Terms::urgency(now, if levels { level * AGE } else { 0 }),
                deadline: if limited { now + 1_000_000 } else { u64::MAX },
                ..Terms::at(now)
            };
            Waiting { id, terms, refuses: false }
        };
        all.into_iter().enumerate().map(one).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Those that will be late let others pass: the same as a plain list says, batch after batch, until nobody is left.
    #[test]
    fn who_can_be_in_time_goes_first(
        queue in queue(),
        size in 1..10_usize,
        (aged, late) in (0..120_u64, 0..240_u64),
        most in prop_oneof![0..8_usize, Just(1000)],
    ) {
        let (aged, late) = (9_900 + aged * TICK, 9_900 + late * TICK);
        let mut pending = Pending::new(Limits { max_batch_size: size, ..Limits::default() });
        let mut waiting = queue.clone();
        for one in &queue {
            pending.push(Item(Rc::new((one.id, one.terms, Cell::new(true)))));
        }
        while !waiting.is_empty() {
            let mut aside = Aside { late, aged, most, left: 0, too_many: false };
            let mut taken = Vec::new();
            let misfit = pending.take_in_time(0, size, 0, Some(&mut aside), |item| {
                taken.push(item.0.0);
                true
            });
            let (expected, left) = plainly::in_time(&waiting, size, (aged, late), most);
            prop_assert!(!misfit);
            prop_assert_eq!(&taken, &expected);
            prop_assert_eq!(aside.left, left);
            waiting.retain(|one| !taken.contains(&one.id));
            prop_assert_eq!(pending.len(), waiting.len());
        }
    }
}

/// A batch of one lane, made plainly: (cost, length) in order; who leaves in which batch.
fn batches(limits: Limits, all: &[(u64, u64)]) -> Vec<Vec<usize>> {
    let mut pending = Pending::new(limits);
    for (id, &(cost, length)) in all.iter().enumerate() {
        let terms = Terms {
            cost,
            length,
            ..Terms::at(id as u64)
        };
        pending.push(Item(Rc::new((id, terms, Cell::new(true)))));
    }
    let mut batches = Vec::new();
    while !pending.is_empty() {
        let mut batch = Vec::new();
        pending.take(0, limits.max_batch_size, all.len() as u64, |item| {
            batch.push(item.0.0);
            true
        });
        batches.push(batch);
    }
    batches
}

/// What it shows, the limits, costs or lengths in order, and who leaves in which batch.
type Row = (
    &'static str,
    Limits,
    &'static [u64],
    &'static [&'static [usize]],
);

#[test]
fn a_misfit_keeps_its_place() {
    let limits = Limits {
        max_batch_size: 4,
        max_batch_cost: 10,
        ..Limits::default()
    };
    let look = |look_ahead| Limits {
        look_ahead,
        ..limits
    };
    let costs = |costs: &[u64]| costs.iter().map(|&cost| (cost, 0)).collect::<Vec<_>>();
    let rows: [Row; 7] = [
        (
            "without a look ahead nobody is overtaken",
            limits,
            &[6, 7, 2, 2],
            &[&[0], &[1, 2], &[3]],
        ),
        (
            "the misfit opens the next batch",
            look(2),
            &[6, 7, 2, 2],
            &[&[0, 2, 3], &[1]],
        ),
        (
            "no further than asked for",
            look(1),
            &[6, 7, 2, 2],
            &[&[0, 2], &[1, 3]],
        ),
        (
            "what does not fit either is passed over, too",
            look(9),
            &[6, 7, 5, 4, 1],
            &[&[0, 3], &[1, 4], &[2]],
        ),
        (
            "no more than a batch takes",
            look(9),
            &[5, 7, 1, 1, 1, 1],
            &[&[0, 2, 3, 4], &[1, 5]],
        ),
        (
            "padded, a short one costs as much as the longest",
            Limits {
                padded: true,
                ..look(9)
            },
            &[3, 6, 2, 3, 1],
            &[&[0, 2, 3], &[1], &[4]],
        ),
        (
            "padded, without",
            Limits {
                padded: true,
                ..limits
            },
            &[2, 2, 5, 5, 1],
            &[&[0, 1], &[2, 3], &[4]],
        ),
    ];
    for (what, limits, given, expected) in rows {
        assert_eq!(batches(limits, &costs(given)), expected, "{what}");
    }
}

#[test]
fn similar_lengths_leave_together() {
    let limits = Limits {
        max_batch_size: 2,
        length_window: 3,
        length_age: 1_000_000,
        ..Limits::default()
    };
    let lengths = |all: &[u64]| all.iter().map(|&length| (1, length)).collect::<Vec<_>>();
    let rows: [Row; 5] = [
        (
            "around the oldest",
            limits,
            &[5, 90, 6, 91, 40, 41],
            &[&[0, 2], &[1, 3], &[4, 5]],
        ),
        (
            "no further than the window",
            limits,
            &[5, 90, 91, 92, 93, 94, 5],
            &[&[0, 1], &[2, 3], &[4, 5], &[6]],
        ),
        (
            "who has waited long enough goes first",
            Limits {
                length_age: 5,
                ..limits
            },
            &[5, 90, 6, 91, 40, 41],
            &[&[0, 1], &[2, 4], &[3, 5]],
        ),
        ("no more are there than leave", limits, &[5, 90], &[&[0, 1]]),
        (
            "off",
            Limits {
                length_window: 0,
                ..limits
            },
            &[5, 90, 6, 91],
            &[&[0, 1], &[2, 3]],
        ),
    ];
    for (what, limits, given, expected) in rows {
        assert_eq!(batches(limits, &lengths(given)), expected, "{what}");
    }
}
