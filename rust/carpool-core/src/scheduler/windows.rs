//! Letting in what waits in the backlogs of windows: two batches ahead at most, behind whoever came
//! meanwhile.

use std::collections::VecDeque;

use super::budget::Budget;
use super::packs::{MOST, Packing};
use super::{Outbox, Shared, State};
use crate::border::{Border, Failure};
use crate::clock::Nanos;
use crate::limits::Limits;
use crate::many::{Backlog, Item, Place, Window};
use crate::request::{Handle, Request, Terms, Who};
use crate::sync::Arc;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::sync::lock;
use crate::watch::End;

impl<B: Border> State<B> {
    /// How many of one window, or convoy, may be pending: two batches, and no more than half the queue, so that
    /// single calls find room beside a list; of one that leaves together a batch.
    fn most_ahead(&self, together: bool) -> usize {
        let Limits {
            max_batch_size,
            max_queue,
            ..
        } = self.limits;
        if together {
            return max_batch_size.min(max_queue);
        }
        max_batch_size
            .saturating_mul(MOST)
            .min((max_queue / 2).max(1))
    }
}

impl<B: Border> State<B> {
    /// Lets in what there is room for, of each window in turn; the intake has been drained, so single
    /// calls that came meanwhile stand before it.
    pub(super) fn let_in_backlogs(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {
        // Known before the look for room: a cancel that frees some sees it, or this sees the room.
        shared.short.store(1, SeqCst);
        let mut short = !self.lobby.is_empty();
        let mut served: VecDeque<Backlog<B>> = VecDeque::new();
        for _ in 0..self.backlogs.len() {
            let Some(mut backlog) = self.backlogs.pop_front() else {
                break;
            };
            let before = backlog.waiting.len();
            short = short || self.let_in_some(shared, &mut backlog, now);
            let convoy = &backlog.window.convoy;
            // Whose convoy was served comes behind it.
            let follows = |one: &Backlog<B>| Arc::ptr_eq(&one.window.convoy, convoy);
            if backlog.waiting.is_empty() {
                out.backlogs.push((backlog, 0));
            } else if backlog.waiting.len() < before || served.iter().any(follows) {
                served.push_back(backlog);
            } else {
                self.backlogs.push_back(backlog);
            }
        }
        // Whoever got room now comes last the next time.
        self.backlogs.append(&mut served);
        let waits = short && !self.backlogs.is_empty();
        shared.short.store(usize::from(waits), SeqCst);
    }

    /// True when there was less room than it would have taken.
    fn let_in_some(&mut self, shared: &Shared<B>, backlog: &mut Backlog<B>, now: Nanos) -> bool {
        let ahead = backlog.window.convoy.count.load(Relaxed);
        let wanted = self
            .most_ahead(backlog.window.together)
            .saturating_sub(ahead)
            .min(backlog.waiting.len());
        if wanted == 0 {
            return false;
        }
        if backlog.window.packed {
            return self.let_in_packed(shared, backlog, wanted, now);
        }
        let room = shared.admission.enter_waiting(wanted);
        let Backlog { list, waiting, .. } = backlog;
        let mut list = lock(list);
        for _ in 0..room {
            if let Some((place, item)) = waiting.pop(0) {
                let request = self.queue(shared, &backlog.window, &backlog.terms, item, now);
                list.put(place, Place::Made(request));
            }
        }
        room < wanted
    }

    /// The same for requests that differ: no more than `most`, and no more batches of them than may be ahead. What
    /// completes batches comes first, then the others in their order.
    fn let_in_packed(
        &mut self,
        shared: &Shared<B>,
        backlog: &mut Backlog<B>,
        most: usize,
        now: Nanos,
    ) -> bool {
        let holds = self.limits.wait > 0 || self.learned.as_ref().is_some_and(|one| one.aims());
        let budget = Budget::of(&self.limits, shared.learning.sizes.as_ref());
        let packing = Packing::of(&self.limits, budget, holds);
        let convoy = &backlog.window.convoy;
        let (mut packs, mut list) = (lock(&convoy.packs), lock(&backlog.list));
        let (mut begun, mut let_in) = (packs.keys().into_iter(), 0);
        loop {
            let key = begun.next();
            let begins = key.is_none();
            let Some(key) = key.or_else(|| backlog.waiting.first()) else {
                return false;
            };
            if begins && !packs.may_begin(&packing) {
                return false;
            }
            let mut first = begins;
            while let Some(cost) = backlog.waiting.cost(key) {
                if !first && !packs.fits(key, cost, &packing) {
                    break;
                }
                if let_in == most {
                    return false;
                }
                if shared.admission.enter_waiting(1) == 0 {
                    return true;
                }
                if let Some((place, item)) = backlog.waiting.pop(key) {
                    packs.enter(key, cost, &packing);
                    let request = self.queue(shared, &backlog.window, &backlog.terms, item, now);
                    list.put(place, Place::Made(request));
                }
                (first, let_in) = (false, let_in + 1);
            }
        }
    }

    /// Queues one of a list with these terms, which has been counted in.
    #[inline]
    fn queue(
        &mut self,
        shared: &Shared<B>,
        window: &Arc<Window<B>>,
        terms: &Terms,
        item: Item<B::Payload>,
        now: Nanos,
    ) -> Handle<B> {
        if shared.has_budget() {
            shared.cost.fetch_add(item.cost, Relaxed);
        }
        let terms = Terms {
            arrival: now,
            // As urgent, against its arrival, as the list was when it was submitted.
            urgency: now.wrapping_add(terms.urgency.wrapping_sub(terms.arrival)),
            cost: item.cost,
            key: item.key,
            deadline: terms.deadline,
            length: item.length,
        };
        window.convoy.count.fetch_add(1, Relaxed);
        let who = Who::Many(window.clone());
        let (request, listed) = Handle::pair(|| Request::new(item.payload, who, terms, false));
        self.deadlines.add(&request);
        self.pending.push(request);
        listed
    }

    /// Ends all backlogs that `which` says; their waiters are told after unlocking.
    pub(super) fn end_backlogs(
        &mut self,
        shared: &Shared<B>,
        why: Failure,
        which: impl Fn(&Backlog<B>) -> bool,
        out: &mut Outbox<B>,
    ) {
        for _ in 0..self.backlogs.len() {
            let Some(mut backlog) = self.backlogs.pop_front() else {
                break;
            };
            if which(&backlog) {
                let n = backlog.end(why);
                self.counters.failed += n as u64;
                self.counters.expired += if why == Failure::Expired { n as u64 } else { 0 };
                if shared.watch.samples() {
                    let (arrival, now) = (backlog.terms.arrival, shared.now());
                    shared.watch.ended_many(n, arrival, End::of(why), now);
                }
                out.backlogs.push((backlog, n));
            } else {
                self.backlogs.push_back(backlog);
            }
        }
    }

    /// The first deadline of a backlog.
    pub(super) fn first_of_backlogs(&self) -> Option<Nanos> {
        self.backlogs
            .iter()
            .map(|backlog| backlog.terms.deadline)
            .min()
    }
}
