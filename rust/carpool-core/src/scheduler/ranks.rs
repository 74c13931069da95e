//! Who gives way at a full queue: the least urgent level, of that the latest deadline, of those the newest.
//!
//! Kept only where requests do give way (`Overflow::Shed`), by [`Pending`](super::pending::Pending): it holds
//! what is queued there and lives, dead handles until somebody meets them. By level alone: what a request has
//! waited moves it forward in the queue, and makes it no more urgent than those that came after it.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use super::group::Mix;
use super::pending::Queued;
use crate::clock::Nanos;
use crate::request::Terms;

/// A place in the order; the last gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    level: i64,
    deadline: Nanos,
    /// In order of queueing; a newcomer comes after all.
    number: u64,
}

impl Rank {
    fn of(terms: &Terms, number: u64) -> Self {
        Self {
            level: terms.level(),
            deadline: terms.deadline,
            number,
        }
    }
}

/// All queued requests by rank.
pub(super) struct Ranks<H> {
    order: BTreeMap<Rank, H>,
    /// By their addresses, which differ while they are queued.
    numbers: HashMap<u64, u64, BuildHasherDefault<Mix>>,
    last: u64,
}

impl<H: Queued + Clone> Ranks<H> {
    pub(super) fn new() -> Self {
        Self {
            order: BTreeMap::new(),
            numbers: HashMap::default(),
            last: 0,
        }
    }

    #[cold]
    pub(super) fn insert(&mut self, item: &H) {
        self.last += 1;
        self.numbers.insert(item.address(), self.last);
        self.order
            .insert(Rank::of(item.terms(), self.last), item.clone());
    }

    /// The caller holds another handle: none is dropped for good here.
    #[cold]
    pub(super) fn remove(&mut self, item: &H) {
        if let Some(number) = self.numbers.remove(&item.address()) {
            self.order.remove(&Rank::of(item.terms(), number));
        }
    }

    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.numbers.clear();
    }

    /// Of all that is queued and alive, and a newcomer with these terms, the one that gives way; none:
    /// the newcomer.
    pub(super) fn gives_way(&mut self, newcomer: &Terms) -> Option<H> {
        while let Some((rank, last)) = self.order.last_key_value() {
            if last.is_live() {
                let gives_way = *rank > Rank::of(newcomer, u64::MAX);
                return gives_way.then(|| last.clone());
            }
            // Ended while it was queued; where it is queued it is still held.
            self.numbers.remove(&last.address());
            self.order.pop_last();
        }
        None
    }
}
