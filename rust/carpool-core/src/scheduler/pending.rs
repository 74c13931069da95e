//! Pending requests, laid out so that each step costs the same with ten of them as with a million.
//!
//! One *group* per key; a batch holds one group's requests only. Within a group one *lane* per
//! priority: a lane is a plain queue, because all its requests have the same distance between arrival
//! and urgency, so the order of arrival is the order of urgency. Over the groups three indices: by
//! urgency of the head (who goes first), by its arrival (when the next wait is over), and the full
//! ones. They hold an entry per group and change only when a head does, not per request.
//!
//! A request that ended while it was queued stays as a dead handle: its payload and its place in the
//! count are free already. Dead heads are dropped whenever somebody looks, the rest by `compact`.

use std::collections::BTreeSet;

use super::budget::{Budget, Counting, Load};
use super::group::Groups;
use super::objective::Aside;
use super::policy::View;
use super::ranks::Ranks;
use super::sizes::Sizes;
use super::taking;
use crate::clock::Nanos;
use crate::limits::{Limits, Overflow};
use crate::request::Terms;
use crate::sync::Arc;

/// What can be queued here.
pub trait Queued {
    /// The numbers it is ordered by.
    fn terms(&self) -> &Terms;
    /// Still pending, not cancelled or expired meanwhile.
    fn is_live(&self) -> bool;
    /// What tells it from all others that are queued.
    fn address(&self) -> u64;
}

/// All pending requests of one batcher.
pub struct Pending<H> {
    groups: Groups<H>,
    by_urgency: BTreeSet<(Nanos, u64)>,
    by_arrival: BTreeSet<(Nanos, u64)>,
    full: BTreeSet<(Nanos, u64)>,
    /// Where requests give way at a full queue.
    ranks: Option<Ranks<H>>,
    limits: Limits,
    /// Those that batches may have, where that counts for their costs.
    sizes: Option<Arc<Sizes>>,
    len: usize,
}

impl<H: Queued + Clone> Pending<H> {
    /// Nothing pending.
    pub fn new(limits: Limits) -> Self {
        Self::of_sizes(limits, None)
    }

    /// The same for batches that are filled up to one of these sizes.
    pub fn of_sizes(limits: Limits, sizes: Option<Sizes>) -> Self {
        let sizes = sizes.filter(|_| limits.padded).map(Arc::new);
        let counting = Counting {
            padded: limits.padded,
            sizes: sizes.clone(),
        };
        Self {
            groups: Groups::new(counting),
            by_urgency: BTreeSet::new(),
            by_arrival: BTreeSet::new(),
            full: BTreeSet::new(),
            ranks: (limits.overflow == Overflow::Shed).then(Ranks::new),
            limits,
            sizes,
            len: 0,
        }
    }

    /// Keeps to other limits from now on.
    pub fn keep_to(&mut self, limits: Limits) {
        let before = std::mem::replace(&mut self.limits, limits);
        let full = |limits: &Limits| (limits.max_batch_size, limits.max_batch_cost);
        if full(&before) != full(&limits) {
            for key in self.groups.keys() {
                self.index(key);
            }
        }
    }

    /// What a batch may cost.
    pub fn budget(&self) -> Budget<'_> {
        Budget::of(&self.limits, self.sizes.as_deref())
    }

    /// Handles queued, dead ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No handle queued.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many keys are pending.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Queues one request behind those of its key and priority.
    pub fn push(&mut self, item: H) {
        if let Some(ranks) = &mut self.ranks {
            ranks.insert(&item);
        }
        let key = item.terms().key;
        let group = self.groups.of(key);
        group.push(item);
        self.len += 1;
        // Only a new head or a group that becomes full changes an index.
        let stale = match group.indexed {
            None => true,
            Some(head) => head.full != group.is_full(&self.limits) || group.lanes.len() > 1,
        };
        if stale {
            self.index(key);
        }
    }

    /// Brings the indices in line with one group, and forgets it when it is empty.
    fn index(&mut self, key: u64) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let (before, now) = (group.indexed, group.head(&self.limits));
        group.indexed = now;
        let empty = group.len() == 0;
        if before != now {
            if let Some(head) = before {
                self.by_urgency.remove(&(head.urgency, key));
                self.by_arrival.remove(&(head.arrival, key));
                self.full.remove(&(head.urgency, key));
            }
            if let Some(head) = now {
                self.by_urgency.insert((head.urgency, key));
                self.by_arrival.insert((head.arrival, key));
                if head.full {
                    self.full.insert((head.urgency, key));
                }
            }
        }
        if empty {
            self.groups.forget(key);
        }
    }

    /// When the oldest arrived; dead heads that are met are dropped.
    pub fn oldest(&mut self, garbage: &mut Vec<H>) -> Option<Nanos> {
        loop {
            let &(arrival, key) = self.by_arrival.first()?;
            if !self.prune(key, garbage) {
                return Some(arrival);
            }
        }
    }

    /// Drops the dead heads of one group; true when its place in the indices changed.
    fn prune(&mut self, key: u64, garbage: &mut Vec<H>) -> bool {
        let Some(group) = self.groups.get_mut(key) else {
            return false;
        };
        let before = (group.len(), group.indexed);
        let dropped = garbage.len();
        group.prune(garbage);
        if let Some(ranks) = &mut self.ranks {
            garbage[dropped..]
                .iter()
                .for_each(|item| ranks.remove(item));
        }
        self.len -= before.0 - group.len();
        if before.0 == group.len() {
            return false;
        }
        self.index(key);
        before.1 != self.groups.get(key).and_then(|group| group.indexed)
    }

    /// The key whose batch goes next: of the groups that are full or whose oldest request arrived no
    /// later than `due` the one with the most urgent head; where none is due, the one that will be due
    /// first. `None` when nothing is pending.
    pub fn next(&mut self, due: Option<Nanos>, garbage: &mut Vec<H>) -> Option<u64> {
        loop {
            let ripe = |&(arrival, _): &(Nanos, u64)| due.is_some_and(|due| arrival <= due);
            let waited = if self.by_arrival.first().is_some_and(ripe) {
                let groups = &self.groups;
                self.by_urgency.iter().copied().find(|&(_, key)| {
                    let head = groups.get(key).and_then(|group| group.indexed);
                    head.is_some_and(|head| due.is_some_and(|due| head.arrival <= due))
                })
            } else {
                None
            };
            let full = self.full.first().copied();
            let chosen = match (waited, full) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b).or_else(|| self.by_arrival.first().copied()),
            };
            let (_, key) = chosen?;
            // A dead head may have made the group look due, or full: look again without it.
            if !self.prune(key, garbage) {
                return Some(key);
            }
        }
    }

    /// What the policy sees of the group of `key`. `some_dead`: requests may have ended while queued.
    pub fn view(&self, key: u64, size: usize, some_dead: bool) -> View {
        let Some(group) = self.groups.get(key) else {
            return View::default();
        };
        let Some(head) = group.indexed else {
            return View::default();
        };
        let (count, cost) = if some_dead {
            let load = group.live(size);
            (load.count, self.budget().total(&load))
        } else {
            (group.len(), group.tally.total())
        };
        View {
            count,
            cost,
            oldest: Some(head.arrival),
            flushed: false,
            draining: false,
            gather: None,
        }
    }

    /// The request of the group of `key` that goes first.
    pub fn head(&self, key: u64) -> Option<&H> {
        let group = self.groups.get(key)?;
        group.lanes[group.first_lane()?].queue.front()
    }

    /// Whether the request that `is_it` knows leaves with the next `size` of the group of `key`, as far
    /// as they fit the cost. Where a group has several priorities, or those of similar length leave together, only its
    /// head is sure to.
    pub fn among_first(&self, key: u64, size: usize, is_it: impl Fn(&H) -> bool) -> bool {
        let Some(group) = self.groups.get(key) else {
            return false;
        };
        let Some(first) = group.first_lane() else {
            return false;
        };
        let in_order = group.lanes.len() == 1 && self.limits.length_window == 0;
        let sure = if in_order { size } else { 1 };
        let queue = group.lanes[first].queue.iter();
        let (budget, mut load) = (self.budget(), Load::default());
        for item in queue.filter(|item| item.is_live()).take(sure) {
            let cost = item.terms().cost;
            if !budget.fits(&load, cost) {
                return false;
            }
            load = load.with(cost);
            if is_it(item) {
                return true;
            }
        }
        false
    }

    /// Whether the group of `key` stands among the full ones with only `live` live requests.
    pub fn only_looks_full(&self, key: u64, live: usize) -> bool {
        self.groups
            .get(key)
            .is_some_and(|group| group.indexed.is_some_and(|head| head.full) && live < group.len())
    }

    /// Takes up to `size` requests of the group of `key` that `claim` accepts, most urgent first, as long as they fit
    /// the cost; the first that does not fit stays the head. The limits may ask to look further, and for
    /// those of similar length. True when there could have been more, had they cost less.
    pub fn take(
        &mut self,
        key: u64,
        size: usize,
        now: Nanos,
        claim: impl FnMut(H) -> bool,
    ) -> bool {
        self.take_in_time(key, size, now, None, claim)
    }

    /// The same, where `aside` says who lets others pass. (It does where nothing is counted but their number.)
    pub fn take_in_time(
        &mut self,
        key: u64,
        size: usize,
        now: Nanos,
        aside: Option<&mut Aside>,
        mut claim: impl FnMut(H) -> bool,
    ) -> bool {
        let Some(group) = self.groups.get_mut(key) else {
            return false;
        };
        let ranks = &mut self.ranks;
        let claim = |item: H| {
            if let Some(ranks) = ranks {
                ranks.remove(&item);
            }
            claim(item)
        };
        let before = group.len();
        let misfit = taking::take(
            group,
            &self.limits,
            self.sizes.as_deref(),
            size,
            now,
            aside,
            claim,
        );
        self.len -= before - group.len();
        self.index(key);
        misfit
    }

    /// At a full queue, where requests give way: of all that is pending, and a newcomer with these terms, the one
    /// that gives way; none: the newcomer. Whoever ends it tells by [`trim`](Self::trim).
    pub fn gives_way(&mut self, newcomer: &Terms) -> Option<H> {
        self.ranks.as_mut()?.gives_way(newcomer)
    }

    /// A request with these terms has ended: drops the dead handles at the end of its lane, where most of those
    /// that give way stand. How many.
    pub fn trim(&mut self, terms: &Terms, garbage: &mut Vec<H>) -> usize {
        let Some(group) = self.groups.get_mut(terms.key) else {
            return 0;
        };
        let before = group.len();
        let ranks = &mut self.ranks;
        group.trim(terms, |item| {
            if let Some(ranks) = ranks {
                ranks.remove(&item);
            }
            garbage.push(item);
        });
        let dropped = before - group.len();
        self.len -= dropped;
        self.index(terms.key);
        dropped
    }

    /// Drops every dead handle.
    pub fn compact(&mut self, garbage: &mut Vec<H>) {
        for key in self.groups.keys() {
            self.compact_group(key, garbage);
        }
    }

    /// Drops every dead handle of the group of `key`.
    pub fn compact_group(&mut self, key: u64, garbage: &mut Vec<H>) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let before = group.len();
        for lane in 0..group.lanes.len() {
            for _ in 0..group.lanes[lane].queue.len() {
                let Some(item) = group.pop(lane) else { break };
                if item.is_live() {
                    group.tally.add(item.terms().cost);
                    group.lanes[lane].queue.push_back(item);
                } else {
                    if let Some(ranks) = &mut self.ranks {
                        ranks.remove(&item);
                    }
                    garbage.push(item);
                }
            }
        }
        self.len -= before - group.len();
        if group.lanes.len() > 1 {
            group.lanes.retain(|lane| !lane.queue.is_empty());
        }
        self.index(key);
    }

    /// Takes everything out, in no particular order over the keys.
    pub fn clear(&mut self) -> Vec<H> {
        let all = self.groups.drain().collect();
        self.by_urgency.clear();
        self.by_arrival.clear();
        self.full.clear();
        if let Some(ranks) = &mut self.ranks {
            // Each handle is held by `all` as well.
            ranks.clear();
        }
        self.len = 0;
        all
    }
}
