//! What must be true, kept in a plain list: which requests there are, how each stands, and when a
//! batch is due. Nothing in here is taken from the code under test but its limits.

use carpool_core::request::Terms;
use carpool_core::{Learning, Limits, Overflow, Reason, Refusal, Snapshot, Ticket};

use super::border::Sim;
use super::plainly::{self, Waiting, rows, total};
use super::setting::chooses;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Lobby,
    Pending,
    /// With a handler; `gone`: nobody waits for it any more.
    InFlight {
        gone: bool,
    },
    /// Answered, not sent.
    Prepared {
        gone: bool,
        failed: bool,
    },
    Answered,
    Failed,
    Expired,
    /// Gave way at a full queue.
    Shed,
    Cancelled,
}

pub struct Entry {
    pub terms: Terms,
    pub state: State,
    pub ticket: Ticket<Sim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    Draining,
    Failing,
}

pub struct Plain {
    pub limits: Limits,
    pub learning: Learning,
    /// In order of submission; the number of a request is its place.
    pub all: Vec<Entry>,
    pub rejected: u64,
    /// Others may leave than those that stand first.
    chooses: bool,
    /// Of those the ones that gave way at a full queue.
    pub gave_way: u64,
    pub phase: Phase,
    pub flushed: Option<u64>,
    pub running: usize,
    pub sealed: u64,
    pub batches: u64,
    /// How many were pending and running when limits were lowered below that; until there are fewer.
    pub beyond: (usize, usize),
}

impl Plain {
    pub fn new(limits: Limits, learning: Learning) -> Self {
        Self {
            limits,
            learning,
            all: Vec::new(),
            rejected: 0,
            chooses: chooses(&limits),
            gave_way: 0,
            phase: Phase::Open,
            flushed: None,
            running: 0,
            sealed: 0,
            batches: 0,
            beyond: (0, 0),
        }
    }

    pub fn with(&self, wanted: impl Fn(State) -> bool) -> impl Iterator<Item = usize> {
        let all = self.all.iter().enumerate();
        all.filter(move |(_, entry)| wanted(entry.state))
            .map(|(id, _)| id)
    }

    pub fn count(&self, wanted: impl Fn(State) -> bool) -> usize {
        self.with(wanted).count()
    }

    pub fn pending(&self) -> usize {
        self.count(|state| state == State::Pending)
    }

    /// When the oldest of these arrived.
    pub fn oldest(&self, ids: &[usize]) -> u64 {
        let arrivals = ids.iter().map(|&id| self.all[id].terms.arrival);
        arrivals.min().expect("a request")
    }

    /// How a submit with these terms ends: refused, or in the queue, or in front of it; and who gives way for
    /// it.
    pub fn admits(&self, terms: &Terms, now: u64) -> (Result<State, Refusal>, Option<usize>) {
        // Whoever finds the queue full looks for what is overdue first.
        let live = |&id: &usize| self.all[id].terms.deadline > now;
        let pending: Vec<_> = self.with(|state| state == State::Pending).collect();
        let full = pending.len() >= self.limits.max_queue;
        if !full || self.limits.overflow != Overflow::Shed {
            return (self.admits_without_shedding(terms.cost), None);
        }
        if self.is_too_large(terms.cost) || self.phase != Phase::Open {
            return (self.admits_without_shedding(terms.cost), None);
        }
        // The least urgent level, of that the latest deadline, of those the newest.
        let rank = |terms: &Terms| {
            let level = i128::from(terms.urgency) - i128::from(terms.arrival);
            (level, terms.deadline)
        };
        let pending: Vec<_> = pending.into_iter().filter(live).collect();
        if pending.len() < self.limits.max_queue {
            return (Ok(State::Pending), None);
        }
        let last = pending
            .into_iter()
            .max_by_key(|&id| (rank(&self.all[id].terms), id));
        match last.filter(|&id| rank(&self.all[id].terms) > rank(terms)) {
            Some(id) => (Ok(State::Pending), Some(id)),
            None => (Err(Refusal::Shed), None),
        }
    }

    fn admits_without_shedding(&self, cost: u64) -> Result<State, Refusal> {
        let full = self.pending() >= self.limits.max_queue;
        if self.is_too_large(cost) {
            Err(Refusal::TooLarge)
        } else if self.phase != Phase::Open {
            Err(Refusal::Closed)
        } else if full && self.limits.overflow == Overflow::Raise {
            Err(Refusal::Full)
        } else if full {
            Ok(State::Lobby)
        } else {
            Ok(State::Pending)
        }
    }

    /// Whoever waits longest for room gets it.
    pub fn let_in(&mut self) {
        let room = self.limits.max_queue.saturating_sub(self.pending());
        let waiting: Vec<_> = self
            .with(|state| state == State::Lobby)
            .take(room)
            .collect();
        for id in waiting {
            self.all[id].state = State::Pending;
        }
    }

    fn group(&self, key: u64) -> impl Iterator<Item = &Terms> {
        let of_key = move |entry: &&Entry| entry.state == State::Pending && entry.terms.key == key;
        self.all.iter().filter(of_key).map(|entry| &entry.terms)
    }

    fn keys(&self) -> Vec<u64> {
        let pending = self.with(|state| state == State::Pending);
        let mut keys: Vec<_> = pending.map(|id| self.all[id].terms.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    pub fn room(&self, size: usize) -> usize {
        size.clamp(1, self.limits.max_batch_size)
    }

    fn sizes(&self) -> &[usize] {
        self.learning
            .sizes
            .as_ref()
            .map_or(&[], |sizes| sizes.all())
    }

    fn longest_wait(&self) -> u64 {
        self.learning.target.unwrap_or(self.limits.wait)
    }

    /// How many rows the handler is to see of so many requests.
    pub fn padded(&self, n: usize) -> usize {
        rows(self.sizes(), n)
    }

    /// What they come to together.
    fn total(&self, costs: &[u64]) -> u64 {
        total(&self.limits, self.sizes(), costs)
    }

    /// Whether it does not fit a batch of its own.
    fn is_too_large(&self, cost: u64) -> bool {
        self.total(&[cost]) > self.limits.max_batch_cost
    }

    /// Why a batch of `key` is due, the first reason that holds; the free slot is another matter.
    pub fn due(&self, key: u64, size: usize, now: u64) -> Option<Reason> {
        let oldest = self.group(key).map(|terms| terms.arrival).min()?;
        let costs: Vec<_> = self.group(key).map(|terms| terms.cost).collect();
        let cost = self.total(&costs);
        // What is held for a target may leave any moment, and leaves when that is over.
        let wait = self.longest_wait();
        let rules = [
            (self.group(key).count() >= self.room(size), Reason::Full),
            (cost >= self.limits.max_batch_cost, Reason::Cost),
            (wait == 0, Reason::Idle),
            (oldest.saturating_add(wait) <= now, Reason::Wait),
            (self.phase != Phase::Open, Reason::Close),
            (Some(oldest) <= self.flushed, Reason::Flush),
        ];
        rules
            .into_iter()
            .find(|&(holds, _)| holds)
            .map(|(_, reason)| reason)
    }

    pub fn anything_due(&self, size: usize, now: u64) -> Option<u64> {
        self.keys()
            .into_iter()
            .find(|&key| self.due(key, size, now).is_some())
    }

    /// The next moment at which time alone makes a batch due.
    pub fn next_due(&self) -> Option<u64> {
        let pending = self.with(|state| state == State::Pending);
        let oldest = pending.map(|id| self.all[id].terms.arrival).min()?;
        Some(oldest.saturating_add(self.longest_wait()))
    }

    pub fn has_slot(&self) -> bool {
        self.running < self.limits.slots
    }

    /// What of `key` stays pending when `ids` leave.
    fn left(&self, key: u64, ids: &[usize]) -> impl Iterator<Item = usize> {
        let pending = self.with(|state| state == State::Pending);
        pending.filter(move |id| self.all[*id].terms.key == key && !ids.contains(id))
    }

    /// Checks everything about a batch that was sealed now, and takes note of it.
    pub fn seal(&mut self, ids: &[usize], size: usize, reason: Reason, now: u64) {
        assert!(self.has_slot(), "sealed without a free slot");
        let terms = |id: usize| self.all[id].terms;
        let key = terms(ids[0]).key;
        for &id in ids {
            let (state, terms) = (self.all[id].state, terms(id));
            assert_eq!(state, State::Pending, "request {id} was sealed");
            assert!(terms.deadline > now, "request {id} was overdue");
            assert_eq!(terms.key, key, "two keys in {ids:?}");
        }
        assert!(ids.len() <= self.room(size), "{} of {size}", ids.len());
        let costs: Vec<_> = ids.iter().map(|&id| terms(id).cost).collect();
        let cost = self.total(&costs);
        let budget = self.limits.max_batch_cost;
        // What was let in under a larger budget leaves alone.
        assert!(
            cost <= budget || ids.len() == 1,
            "cost {cost} over {budget}"
        );

        let Limits {
            max_batch_cost,
            length_window,
            ..
        } = self.limits;
        let counted = max_batch_cost != u64::MAX || length_window > 0;
        if self.learning.target.is_some() && !counted {
            self.check_order_in_time(ids, key, now);
            self.check_timing(ids, size, reason, now);
        } else if self.chooses {
            self.check_choice(ids, size, reason, now);
        } else {
            self.check_order(ids, key);
            self.check_timing(ids, size, reason, now);
        }
        for &id in ids {
            self.all[id].state = State::InFlight { gone: false };
        }
        self.running += 1;
        self.batches += 1;
        self.sealed += ids.len() as u64;
    }

    /// First come, first served within a priority; the most urgent first over them.
    fn check_order(&self, ids: &[usize], key: u64) {
        let terms = |id: usize| self.all[id].terms;
        let urgencies: Vec<_> = ids.iter().map(|&id| terms(id).urgency).collect();
        assert!(urgencies.is_sorted(), "{ids:?}: {urgencies:?}");
        let level = |id: usize| terms(id).urgency.wrapping_sub(terms(id).arrival);
        let last = *ids.last().expect("a batch is never empty");
        for id in self.left(key, ids) {
            assert!(
                terms(id).urgency >= terms(last).urgency,
                "{id} was passed over"
            );
            let overtaken = ids
                .iter()
                .any(|&taken| level(taken) == level(id) && taken > id);
            assert!(!overtaken, "{id} was overtaken within its priority");
        }
    }

    /// The same, but that those who will be late may let others pass, for twenty targets at most.
    fn check_order_in_time(&self, ids: &[usize], key: u64, now: u64) {
        let waiting = self.waiting(key);
        let level = |one: &Waiting| one.terms.urgency.wrapping_sub(one.terms.arrival);
        if waiting.iter().any(|one| level(one) != level(&waiting[0])) {
            return self.check_order(ids, key);
        }
        let target = self.learning.target.unwrap_or(0);
        let aged = now.saturating_sub(20 * target);
        // What batches take nobody here knows: late may be whoever arrived before any of them.
        let arrivals = waiting.iter().map(|one| one.terms.arrival + 1);
        let as_expected =
            |late| plainly::in_time(&waiting, ids.len(), (aged, late), usize::MAX).0 == ids;
        assert!(
            arrivals.chain([0]).any(as_expected),
            "{ids:?} of {waiting:?}"
        );
    }

    fn waiting(&self, key: u64) -> Vec<Waiting> {
        self.with(|state| state == State::Pending)
            .map(|id| (id, self.all[id].terms))
            .filter(|(_, terms)| terms.key == key)
            .map(|(id, terms)| Waiting {
                id,
                terms,
                refuses: false,
            })
            .collect()
    }

    /// Never early, exactly those that the plain list says, the right reason.
    fn check_choice(&self, ids: &[usize], size: usize, reason: Reason, now: u64) {
        let key = self.all[ids[0]].terms.key;
        let due = self.check_due(key, size, now);
        let waiting = self.waiting(key);
        // Of allowed sizes, what it has learned may have chosen any.
        let room = self.room(size);
        let allowed = self.sizes().iter().copied().filter(|&one| one < room);
        let aims = self.learning.target.is_some();
        let why = |misfit| if misfit { Some(Reason::Cost) } else { due };
        let expected = [room]
            .into_iter()
            .chain(allowed)
            .map(|size| plainly::take(&self.limits, self.sizes(), &waiting, size, now))
            .any(|one| ids == one.ids && (aims || Some(reason) == why(one.misfit)));
        assert!(expected, "{ids:?} of {waiting:?}, {reason:?}");
    }

    /// Never early, and none that is more urgent is due; why it is.
    fn check_due(&self, key: u64, size: usize, now: u64) -> Option<Reason> {
        let aims = self.learning.target.is_some();
        let due = self.due(key, size, now);
        assert!(due.is_some() || aims, "a batch left before it was due");
        let head = |key| self.group(key).map(|terms| terms.urgency).min();
        for other in self.keys() {
            let earlier = self.due(other, size, now).is_some() && head(other) < head(key);
            assert!(!earlier || aims, "{key} before the more urgent {other}");
        }
        due
    }

    /// Never early, the right group, as much as fits, the right reason.
    fn check_timing(&self, ids: &[usize], size: usize, reason: Reason, now: u64) {
        let terms = |id: usize| self.all[id].terms;
        let (key, budget) = (terms(ids[0]).key, self.limits.max_batch_cost);
        let due = self.check_due(key, size, now);
        let costs: Vec<_> = ids.iter().map(|&id| terms(id).cost).collect();
        let with = |id: usize| self.total(&[&costs[..], &[terms(id).cost]].concat());
        let first = self.left(key, ids).map(|id| terms(id).urgency).min();
        let misfit = self
            .left(key, ids)
            .any(|id| Some(terms(id).urgency) == first && with(id) > budget);
        let whole = ids.len() == self.room(size);
        // Of an allowed size, what it has learned may have held the rest back.
        let allowed = self.sizes().contains(&ids.len());
        let beyond = self.sizes().iter().all(|&one| one > self.room(size));
        assert!(
            whole || misfit || allowed || first.is_none(),
            "{ids:?} could be larger"
        );
        assert!(self.padded(ids.len()) <= self.room(size) || beyond || self.sizes().is_empty());
        let aims = self.learning.target.is_some();
        if !(allowed && misfit && !whole || aims) {
            let expected = if misfit && !whole {
                Some(Reason::Cost)
            } else {
                due
            };
            assert_eq!(Some(reason), expected);
        }
    }

    /// Other limits hold from now on.
    pub fn keep_to(&mut self, limits: Limits) {
        self.limits = limits;
        self.beyond = (self.pending(), self.running);
    }

    /// The figures must add up, at every step.
    pub fn check(&mut self, shown: &Snapshot) {
        let count = |wanted: fn(State) -> bool| self.count(wanted) as u64;
        let expected = [
            (
                "submitted",
                self.all.len() as u64 + self.rejected - count(|s| s == State::Lobby),
                shown.submitted,
            ),
            ("answered", count(|s| s == State::Answered), shown.answered),
            (
                "failed",
                count(|s| matches!(s, State::Failed | State::Expired | State::Shed)),
                shown.failed,
            ),
            (
                "cancelled",
                count(|s| s == State::Cancelled),
                shown.cancelled,
            ),
            ("rejected", self.rejected, shown.rejected),
            (
                "shed",
                count(|s| s == State::Shed) + self.gave_way,
                shown.shed,
            ),
            ("pending", count(|s| s == State::Pending), shown.pending),
            (
                "in flight",
                count(|s| matches!(s, State::InFlight { .. } | State::Prepared { .. })),
                shown.in_flight,
            ),
            ("batches", self.batches, shown.batches),
            (
                "batches by reason",
                self.batches,
                shown.reasons.iter().sum(),
            ),
            ("batches by size", self.batches, shown.sizes.count()),
            ("requests by wait", self.sealed, shown.waits.count()),
        ];
        for (what, expected, shown) in expected {
            assert_eq!(shown, expected, "{what}");
        }
        let now = (self.pending(), self.running);
        let (bound, slots) = (self.limits.max_queue, self.limits.slots);
        assert!(now.0 <= bound.max(self.beyond.0), "over the bound");
        assert!(now.1 <= slots.max(self.beyond.1), "over the slots");
        self.beyond = (now.0.min(self.beyond.0), now.1.min(self.beyond.1));
    }
}
