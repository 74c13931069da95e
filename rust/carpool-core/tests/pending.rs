//! The pending structure against a plain list: whatever is pushed, killed, looked at and taken, both
//! agree. The list knows no groups, lanes or indices; it looks through everything each time.

use std::cell::Cell;
use std::rc::Rc;

use carpool_core::request::Terms;
use carpool_core::scheduler::pending::{Pending, Queued};
use carpool_core::{Limits, Overflow};
use proptest::prelude::*;

struct Cell0 {
    id: usize,
    terms: Terms,
    live: Cell<bool>,
    /// Left the structure.
    out: Cell<bool>,
}

#[derive(Clone)]
struct Item(Rc<Cell0>);

impl Queued for Item {
    fn terms(&self) -> &Terms {
        &self.0.terms
    }
    fn is_live(&self) -> bool {
        self.0.live.get()
    }
    fn address(&self) -> u64 {
        Rc::as_ptr(&self.0) as u64
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        key: u64,
        level: i64,
        cost: u64,
        deadline: u64,
    },
    Later(u64),
    /// Ends one of the pushed, wherever it is.
    Kill(usize),
    /// Looks for the next batch of `size` with what has waited `wait`; perhaps takes it, while every
    /// `refuse`-th claim fails.
    Look {
        size: usize,
        wait: Option<u64>,
        take: bool,
        refuse: usize,
    },
    /// A newcomer of this level and deadline finds the queue full.
    Full {
        level: i64,
        deadline: u64,
    },
    Compact,
    Clear,
    /// Other limits.
    Change {
        max_batch_size: usize,
        max_batch_cost: u64,
    },
}

fn deadline() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(u64::MAX), 2 => 500..503_u64]
}

fn step() -> impl Strategy<Value = Step> {
    let push =
        (0..3_u64, -1..3_i64, 0..6_u64, deadline()).prop_map(|(key, level, cost, deadline)| {
            Step::Push {
                key,
                level,
                cost,
                deadline,
            }
        });
    let full = (-1..3_i64, deadline()).prop_map(|(level, deadline)| Step::Full { level, deadline });
    let look = (
        1..5_usize,
        prop::option::of(0..25_u64),
        any::<bool>(),
        2..6_usize,
    )
        .prop_map(|(size, wait, take, refuse)| Step::Look {
            size,
            wait,
            take,
            refuse,
        });
    prop_oneof![
        8 => push,
        4 => (0..12_u64).prop_map(Step::Later),
        4 => any::<usize>().prop_map(Step::Kill),
        5 => look,
        3 => full,
        1 => Just(Step::Compact),
        1 => (1..5_usize, prop_oneof![Just(u64::MAX), 6..14_u64]).prop_map(
            |(max_batch_size, max_batch_cost)| Step::Change { max_batch_size, max_batch_cost }),
        1 => prop::sample::select(vec![Step::Clear, Step::Compact, Step::Compact]),
    ]
}

/// The plain list, in order of pushing.
#[derive(Default)]
struct Plain(Vec<Item>);

impl Plain {
    fn live(&self) -> impl Iterator<Item = &Cell0> {
        let queued = self.0.iter().map(|item| &*item.0);
        queued.filter(|cell| cell.live.get() && !cell.out.get())
    }

    fn keys(&self) -> Vec<u64> {
        let mut keys: Vec<_> = self.live().map(|cell| cell.terms.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn of(&self, key: u64) -> Vec<&Cell0> {
        self.live().filter(|cell| cell.terms.key == key).collect()
    }

    fn urgency(&self, key: u64) -> u64 {
        self.of(key)
            .iter()
            .map(|cell| cell.terms.urgency)
            .min()
            .unwrap()
    }

    fn oldest(&self, key: u64) -> u64 {
        self.of(key)
            .iter()
            .map(|cell| cell.terms.arrival)
            .min()
            .unwrap()
    }

    fn is_full(&self, key: u64, limits: &Limits) -> bool {
        let cost: u64 = self.of(key).iter().map(|cell| cell.terms.cost).sum();
        self.of(key).len() >= limits.max_batch_size || cost >= limits.max_batch_cost
    }

    /// The keys that may go next; with several, their heads are equally urgent (or equally old).
    fn next(&self, due: Option<u64>, limits: &Limits) -> Vec<u64> {
        let keys = self.keys();
        let is_due = |&key: &u64| {
            self.is_full(key, limits) || due.is_some_and(|due| self.oldest(key) <= due)
        };
        let ripe: Vec<u64> = keys.iter().copied().filter(is_due).collect();
        if ripe.is_empty() {
            let first = keys.iter().map(|&key| self.oldest(key)).min();
            return keys
                .into_iter()
                .filter(|&key| Some(self.oldest(key)) == first)
                .collect();
        }
        let first = ripe.iter().map(|&key| self.urgency(key)).min();
        ripe.into_iter()
            .filter(|&key| Some(self.urgency(key)) == first)
            .collect()
    }

    /// Of the live requests of `key` those that may leave first: the most urgent, and among equals of
    /// one priority the oldest.
    fn firsts(&self, key: u64) -> Vec<&Cell0> {
        let all = self.of(key);
        let urgency = all.iter().map(|cell| cell.terms.urgency).min();
        let mut firsts: Vec<&Cell0> = Vec::new();
        for cell in all {
            let level = |cell: &Cell0| cell.terms.urgency.wrapping_sub(cell.terms.arrival);
            if Some(cell.terms.urgency) == urgency
                && !firsts.iter().any(|f| level(f) == level(cell))
            {
                firsts.push(cell);
            }
        }
        firsts
    }
}

struct Run {
    limits: Limits,
    pending: Pending<Item>,
    plain: Plain,
    now: u64,
    killed: bool,
}

impl Run {
    fn put_out(&self, items: impl IntoIterator<Item = Item>) {
        for Item(cell) in items {
            assert!(!cell.out.replace(true), "{} left twice", cell.id);
        }
    }

    fn bury(&self, garbage: Vec<Item>) {
        assert!(
            garbage.iter().all(|item| !item.is_live()),
            "a living one was dropped"
        );
        self.put_out(garbage);
    }

    /// As the scheduler does it: a group that only looks full is cleaned, then all are asked again.
    fn next(&mut self, due: Option<u64>, size: usize) -> Option<u64> {
        loop {
            let mut garbage = Vec::new();
            let key = self.pending.next(due, &mut garbage);
            self.bury(garbage);
            let key = key?;
            let live = self.plain.of(key).len();
            let is_due = due.is_some_and(|due| self.plain.oldest(key) <= due);
            let leaves = is_due || self.plain.is_full(key, &self.limits);
            let count = self.pending.view(key, size, self.killed).count;
            assert_eq!(count.min(size), live.min(size));
            if leaves || !self.pending.only_looks_full(key, live) {
                return Some(key);
            }
            let mut garbage = Vec::new();
            self.pending.compact_group(key, &mut garbage);
            self.bury(garbage);
        }
    }

    fn look(&mut self, size: usize, wait: Option<u64>, take: bool, refuse: usize) {
        let due = wait.and_then(|wait| self.now.checked_sub(wait));
        let allowed = self.plain.next(due, &self.limits);
        let Some(key) = self.next(due, self.limits.max_batch_size) else {
            assert!(allowed.is_empty(), "{allowed:?} are pending");
            return;
        };
        assert!(allowed.contains(&key), "{key} goes before {allowed:?}");

        let of = self.plain.of(key);
        let view = self
            .pending
            .view(key, self.limits.max_batch_size, self.killed);
        assert_eq!(view.oldest, Some(self.plain.oldest(key)));
        if of.len() <= self.limits.max_batch_size {
            let cost = of.iter().map(|cell| cell.terms.cost).sum::<u64>();
            assert_eq!((view.count, view.cost), (of.len(), cost));
        }
        let head = &self.pending.head(key).expect("it has a live request").0;
        assert!(self.plain.firsts(key).iter().any(|cell| cell.id == head.id));
        self.check_among_first(key, size);
        if take {
            self.take(key, size, refuse);
        }
    }

    fn check_among_first(&self, key: u64, size: usize) {
        let of = self.plain.of(key);
        let level = |cell: &Cell0| cell.terms.urgency.wrapping_sub(cell.terms.arrival);
        let one_lane = of.iter().all(|cell| level(cell) == level(of[0]));
        for (at, cell) in of.iter().enumerate() {
            let sure = self
                .pending
                .among_first(key, size, |item| item.0.id == cell.id);
            if one_lane {
                // Other lanes may linger, empty: then it is careful, never wrong.
                assert!(
                    !sure || at < size,
                    "{} is not among the first {size}",
                    cell.id
                );
                assert!(sure || at > 0, "the head is among the first");
            } else if sure {
                assert!(
                    of.iter()
                        .all(|other| cell.terms.urgency <= other.terms.urgency)
                );
            }
        }
    }

    fn take(&mut self, key: u64, size: usize, refuse: usize) {
        let (mut asked, mut taken) = (0, Vec::new());
        let (plain, budget) = (&self.plain, self.limits.max_batch_cost);
        let cost = |taken: &[Item]| taken.iter().map(|item| item.terms().cost).sum::<u64>();
        let misfit = self.pending.take(key, size, self.now, |item| {
            asked += 1;
            let cell = item.0.clone();
            let is_first = plain.firsts(key).iter().any(|first| first.id == cell.id);
            assert!(is_first || !item.is_live(), "{} is not the first", cell.id);
            // A claim fails where the request ended a moment ago.
            if asked % refuse == 0 {
                cell.live.set(false);
            }
            assert!(!cell.out.replace(true), "{} left twice", cell.id);
            let live = cell.live.get();
            if live {
                taken.push(item);
            }
            live
        });
        self.killed |= asked >= refuse;
        assert!(taken.len() <= size);
        assert!(
            taken.len() <= 1 || cost(&taken) <= budget,
            "over the budget"
        );
        let left = self.plain.firsts(key);
        let fits = |cell: &Cell0| taken.is_empty() || cost(&taken) + cell.terms.cost <= budget;
        if misfit {
            assert!(left.iter().any(|cell| !fits(cell)), "the next one fits");
        } else {
            assert!(
                taken.len() == size || left.is_empty(),
                "there was room for more"
            );
        }
    }

    /// Who gives way: of the least urgent level, of that with the latest deadline, of those the newest.
    fn full(&mut self, level: i64, deadline: u64) {
        let age = 7 * level;
        let newcomer = Terms {
            urgency: Terms::urgency(self.now, age),
            deadline,
            ..Terms::at(self.now)
        };
        let rank = |terms: &Terms| {
            (
                terms.urgency as i128 - terms.arrival as i128,
                terms.deadline,
            )
        };
        let last = self
            .plain
            .live()
            .max_by_key(|cell| (rank(&cell.terms), cell.id));
        let expected = last.filter(|cell| rank(&cell.terms) > rank(&newcomer));
        let found = self.pending.gives_way(&newcomer);
        if self.limits.overflow != Overflow::Shed {
            assert!(found.is_none());
            return;
        }
        assert_eq!(
            found.as_ref().map(|item| item.0.id),
            expected.map(|cell| cell.id)
        );
        if let Some(item) = found {
            item.0.live.set(false);
            self.killed = true;
            let mut garbage = Vec::new();
            let dropped = self.pending.trim(item.terms(), &mut garbage);
            assert_eq!(dropped, garbage.len());
            self.bury(garbage);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push {
                key,
                level,
                cost,
                deadline,
            } => {
                let age = 7 * level;
                let terms = Terms {
                    arrival: self.now,
                    urgency: Terms::urgency(self.now, age),
                    cost,
                    key,
                    deadline,
                    length: 0,
                };
                let item = Item(Rc::new(Cell0 {
                    id: self.plain.0.len(),
                    terms,
                    live: Cell::new(true),
                    out: Cell::new(false),
                }));
                self.plain.0.push(item.clone());
                self.pending.push(item);
            }
            Step::Later(by) => self.now += by,
            Step::Kill(which) => {
                let queued: Vec<_> = self.plain.live().map(|cell| cell.id).collect();
                if let Some(&id) = queued.get(which % queued.len().max(1)) {
                    self.plain.0[id].0.live.set(false);
                    self.killed = true;
                }
            }
            Step::Look {
                size,
                wait,
                take,
                refuse,
            } => self.look(size, wait, take, refuse),
            Step::Full { level, deadline } => self.full(level, deadline),
            Step::Compact => {
                let mut garbage = Vec::new();
                self.pending.compact(&mut garbage);
                self.bury(garbage);
                assert_eq!(self.pending.len(), self.plain.live().count());
                assert_eq!(self.pending.groups(), self.plain.keys().len());
            }
            Step::Change {
                max_batch_size,
                max_batch_cost,
            } => {
                self.limits.max_batch_size = max_batch_size;
                self.limits.max_batch_cost = max_batch_cost;
                self.pending.keep_to(self.limits);
            }
            Step::Clear => {
                let all = self.pending.clear();
                self.put_out(all);
                assert_eq!(self.plain.live().count(), 0);
                assert_eq!((self.pending.len(), self.pending.groups()), (0, 0));
            }
        }
        let queued = self.plain.0.iter().filter(|item| !item.0.out.get()).count();
        assert_eq!(self.pending.len(), queued);
        assert_eq!(self.pending.is_empty(), queued == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_agree(
        max_batch_size in 1..5_usize,
        max_batch_cost in prop_oneof![Just(u64::MAX), 6..14_u64],
        sheds in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let limits = Limits {
            max_batch_size,
            max_batch_cost,
            wait: 0,
            max_queue: 1000,
            overflow: if sheds { Overflow::Shed } else { Overflow::Raise },
            slots: 1,
            ..Limits::default()
        };
        let mut run = Run {
            limits,
            pending: Pending::new(limits),
            plain: Plain::default(),
            now: 100,
            killed: false,
        };
        for step in steps {
            run.step(step);
        }
        run.step(Step::Clear);
        assert!(run.plain.0.iter().all(|item| Rc::strong_count(&item.0) == 1));
    }
}
