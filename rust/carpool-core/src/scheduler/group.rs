//! Requests of one key, lane by lane, and all such groups by their keys.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::budget::{Counting, Load, Tally};
use super::pending::Queued;
use crate::clock::Nanos;
use crate::limits::Limits;
use crate::request::Terms;

/// Keys are numbers handed out by the border: mixing them is enough. (Finalizer of SplitMix64;
/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.)
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, key: u64) {
        let mut z = (self.0 ^ key).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = z ^ (z >> 31);
    }
}

/// Where a group stands in the indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) urgency: Nanos,
    pub(super) arrival: Nanos,
    pub(super) full: bool,
}

pub(super) struct Lane<H> {
    /// Urgency − arrival, the same for all of the lane.
    offset: i64,
    pub(super) queue: VecDeque<H>,
}

pub(super) struct Group<H> {
    pub(super) lanes: Vec<Lane<H>>,
    /// What the queued ones cost, dead handles included.
    pub(super) tally: Tally,
    pub(super) indexed: Option<Head>,
}

impl<H: Queued> Group<H> {
    pub(super) fn new(counting: &Counting) -> Self {
        Self {
            lanes: Vec::new(),
            tally: Tally::new(counting),
            indexed: None,
        }
    }

    /// Handles queued, dead ones included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.tally.count()
    }

    pub(super) fn push(&mut self, item: H) {
        let terms = item.terms();
        let offset = terms.level();
        self.tally.add(terms.cost);
        let lane = match self.lanes.iter_mut().position(|lane| lane.offset == offset) {
            Some(at) => &mut self.lanes[at],
            None => {
                self.lanes.push(Lane {
                    offset,
                    queue: VecDeque::new(),
                });
                self.lanes.last_mut().expect("just pushed")
            }
        };
        lane.queue.push_back(item);
    }

    /// The lane whose request goes first of those at these places.
    pub(super) fn first_lane_from(&self, places: &[usize]) -> Option<usize> {
        let lanes = self.lanes.iter().zip(places).enumerate();
        let urgency = |(at, (lane, &place)): (usize, (&Lane<H>, &usize))| {
            lane.queue.get(place).map(|item| (item.terms().urgency, at))
        };
        lanes.filter_map(urgency).min().map(|(_, at)| at)
    }

    /// The lane whose head goes first.
    #[inline]
    pub(super) fn first_lane(&self) -> Option<usize> {
        if let [lane] = self.lanes.as_slice() {
            return (!lane.queue.is_empty()).then_some(0);
        }
        self.first_of_lanes()
    }

    fn first_of_lanes(&self) -> Option<usize> {
        let heads = self.lanes.iter().enumerate();
        heads
            .filter_map(|(at, lane)| lane.queue.front().map(|head| (head.terms().urgency, at)))
            .min()
            .map(|(_, at)| at)
    }

    /// The lane that holds all there is, where one does.
    pub(super) fn only_lane(&self) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        let mut filled = lanes.filter(|(_, lane)| !lane.queue.is_empty());
        let (only, _) = filled.next()?;
        filled.next().is_none().then_some(only)
    }

    /// Drops the dead handles at the end of the lane of `terms`.
    pub(super) fn trim(&mut self, terms: &Terms, mut dropped: impl FnMut(H)) {
        let offset = terms.level();
        let Some(at) = self.lanes.iter().position(|lane| lane.offset == offset) else {
            return;
        };
        let queue = &mut self.lanes[at].queue;
        while queue.back().is_some_and(|last| !last.is_live()) {
            let Some(last) = queue.pop_back() else { break };
            self.tally.remove(last.terms().cost);
            dropped(last);
        }
    }

    #[inline]
    pub(super) fn pop(&mut self, lane: usize) -> Option<H> {
        let item = self.lanes[lane].queue.pop_front()?;
        self.tally.remove(item.terms().cost);
        Some(item)
    }

    pub(super) fn front(&self, lane: usize) -> Option<&H> {
        self.lanes[lane].queue.front()
    }

    pub(super) fn at(&self, lane: usize, place: usize) -> Option<&H> {
        self.lanes[lane].queue.get(place)
    }

    /// Takes one out from between the others, which keep their order.
    pub(super) fn remove(&mut self, lane: usize, place: usize) -> Option<H> {
        let item = self.lanes[lane].queue.remove(place)?;
        self.tally.remove(item.terms().cost);
        Some(item)
    }

    /// The places of the first live requests of a lane, no more than `most`, as far as none of another lane
    /// comes before them.
    pub(super) fn run(&self, lane: usize, most: usize) -> Vec<usize> {
        let others = self.lanes.iter().enumerate();
        let first = |(at, other): (usize, &Lane<H>)| {
            let head = other.queue.front()?;
            (at != lane).then(|| (head.terms().urgency, at))
        };
        let next = others.filter_map(first).min();
        let own = self.lanes[lane].queue.iter().enumerate();
        own.take_while(|(_, item)| next.is_none_or(|next| (item.terms().urgency, lane) < next))
            .filter(|(_, item)| item.is_live())
            .map(|(place, _)| place)
            .take(most)
            .collect()
    }

    /// Drops dead heads; afterwards every lane begins with a live request or is empty.
    pub(super) fn prune(&mut self, garbage: &mut Vec<H>) {
        for at in 0..self.lanes.len() {
            while self.lanes[at]
                .queue
                .front()
                .is_some_and(|head| !head.is_live())
            {
                garbage.extend(self.pop(at));
            }
        }
        if self.lanes.len() > 1 {
            self.lanes.retain(|lane| !lane.queue.is_empty());
        }
    }

    pub(super) fn head(&self, limits: &Limits) -> Option<Head> {
        let urgency = self.lanes[self.first_lane()?]
            .queue
            .front()?
            .terms()
            .urgency;
        let heads = self.lanes.iter().filter_map(|lane| lane.queue.front());
        let arrival = heads.map(|head| head.terms().arrival).min()?;
        let full = self.is_full(limits);
        Some(Head {
            urgency,
            arrival,
            full,
        })
    }

    /// Whether it looks as if a batch were full, by number or by cost.
    #[inline]
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.len() >= limits.max_batch_size || self.tally.total() >= limits.max_batch_cost
    }

    /// What the live requests cost, no further than `enough` of them.
    pub(super) fn live(&self, enough: usize) -> Load {
        let mut load = Load::default();
        for item in self.lanes.iter().flat_map(|lane| &lane.queue) {
            if load.count == enough {
                break;
            }
            if item.is_live() {
                load = load.with(item.terms().cost);
            }
        }
        load
    }
}

/// The groups by key. A batcher without keys has them all at 0: that group needs no look-up, and is
/// kept with its buffers when it is empty.
pub(super) struct Groups<H> {
    plain: Group<H>,
    keyed: HashMap<u64, Group<H>, BuildHasherDefault<Mix>>,
    counting: Counting,
}

impl<H: Queued> Groups<H> {
    pub(super) fn new(counting: Counting) -> Self {
        Self {
            plain: Group::new(&counting),
            keyed: HashMap::default(),
            counting,
        }
    }

    /// How many hold a handle.
    pub(super) fn len(&self) -> usize {
        self.keyed.len() + usize::from(self.plain.len() > 0)
    }

    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<&Group<H>> {
        match key {
            0 => Some(&self.plain),
            key => self.keyed.get(&key),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut Group<H>> {
        match key {
            0 => Some(&mut self.plain),
            key => self.keyed.get_mut(&key),
        }
    }

    /// The group of `key`, a new one if need be.
    #[inline]
    pub(super) fn of(&mut self, key: u64) -> &mut Group<H> {
        match key {
            0 => &mut self.plain,
            key => {
                let counting = &self.counting;
                let entry = self.keyed.entry(key);
                entry.or_insert_with(|| Group::new(counting))
            }
        }
    }

    /// Forgets a key whose group is empty.
    pub(super) fn forget(&mut self, key: u64) {
        if key != 0 {
            self.keyed.remove(&key);
        }
    }

    pub(super) fn keys(&self) -> Vec<u64> {
        self.keyed.keys().copied().chain([0]).collect()
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = H> {
        let plain = std::mem::replace(&mut self.plain, Group::new(&self.counting));
        let groups = self.keyed.drain().map(|(_, group)| group).chain([plain]);
        groups.flat_map(|group| group.lanes.into_iter().flat_map(|lane| lane.queue))
    }
}
