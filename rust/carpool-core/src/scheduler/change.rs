//! Changes while it runs: other limits, valid from the next decision on.
//!
//! A change is one step under the scheduler's lock: the new limits, the indices that rest on them, the slots, the
//! bound of the queue. Settling afterwards brings in line who waits by the old ones: the slot at the front (its
//! timer, its stated need), the caller that keeps the time, those who wait for room.

use super::budget::Load;
use super::{Shared, State};
use crate::border::Border;
use crate::limits::Limits;

/// How much a batch has from now on, after one that its handler had no memory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// So many requests.
    Requests(usize),
    /// Where there is a budget: requests that cost so much together.
    Cost(u64),
}

impl<B: Border> State<B> {
    /// Keeps to other limits; to be settled after.
    pub(crate) fn keep_to(&mut self, shared: &Shared<B>, limits: Limits) {
        (self.free_slots, self.slots_over) = slots_after(
            self.limits.slots,
            limits.slots,
            self.free_slots,
            self.slots_over,
        );
        self.asked = (limits.max_batch_size, limits.max_batch_cost);
        self.limits = limits;
        shared.admission.change(limits.max_queue);
        self.keep_to_cap(shared);
    }

    /// The largest batch is as large as was asked for, as far as the handler has memory for it. (A request is refused
    /// for its cost only by what was asked for; alone it leaves.)
    pub(crate) fn keep_to_cap(&mut self, shared: &Shared<B>) {
        let (size, cost) = self.asked;
        let fits = self.cap.of(size as u64) as usize;
        self.limits.max_batch_size = shared.learning.at_most(fits);
        self.limits.max_batch_cost = self.cost_cap.of(cost);
        self.pending.keep_to(self.limits);
        shared.posted.post(&Limits {
            max_batch_cost: cost,
            ..self.limits
        });
    }

    /// The handler ran out of memory with `size` requests that cost `cost` together; to be settled after. How much
    /// there is in a batch from now on.
    pub(crate) fn was_too_large(&mut self, shared: &Shared<B>, size: usize, cost: u64) -> Fits {
        // What costs nothing, or one, does not say how large it is.
        let by_cost = shared.has_budget() && cost > 1;
        if by_cost {
            self.cost_cap.failed(cost);
        } else {
            self.cap.failed(size as u64);
        }
        self.keep_to_cap(shared);
        if by_cost {
            Fits::Cost(self.limits.max_batch_cost)
        } else {
            Fits::Requests(self.limits.max_batch_size)
        }
    }

    /// A batch leaves of these costs; `misfit`: for another there was no room.
    #[cold]
    pub(super) fn keep_trying(
        &mut self,
        shared: &Shared<B>,
        costs: impl ExactSizeIterator<Item = u64>,
        misfit: bool,
    ) {
        let (size, cost) = self.asked;
        let most = self.limits.max_batch_size;
        let mut changes = self
            .cap
            .leaves(costs.len() as u64, most as u64, size as u64);
        let load = costs.fold(Load::default(), Load::with);
        let most = self.limits.max_batch_cost;
        let total = self.pending.budget().total(&load);
        // One that no other fits beside is as full as it gets; a larger one left alone.
        let full = if misfit { total.max(most) } else { total };
        if load.count > 1 {
            changes |= self.cost_cap.leaves(full, most, cost);
        }
        if changes {
            self.keep_to_cap(shared);
        }
    }

    /// A batch has ended. Where slots were taken away meanwhile, its own is one of them.
    #[inline]
    pub(crate) fn give_slot_back(&mut self) {
        if self.slots_over == 0 {
            self.free_slots += 1;
        } else {
            self.slots_over -= 1;
        }
    }
}

/// How many slots are free, and how many in use beyond the limit, once that changes from `before` to `after`.
fn slots_after(before: usize, after: usize, free: usize, over: usize) -> (usize, usize) {
    let in_use = (before - free).saturating_add(over);
    (after.saturating_sub(in_use), in_use.saturating_sub(after))
}

#[cfg(test)]
mod tests {
    use super::slots_after;

    #[test]
    fn slots_in_use_stay_in_use() {
        let rows = [
            ("all free, more", (2, 5, 2, 0), (5, 0)),
            ("all free, fewer", (5, 2, 5, 0), (2, 0)),
            ("some in use, more", (2, 5, 1, 0), (4, 0)),
            ("some in use, fewer, enough", (5, 3, 3, 0), (1, 0)),
            ("all in use, fewer", (5, 2, 0, 0), (0, 3)),
            ("in use beyond the limit, more", (2, 4, 0, 3), (0, 1)),
            (
                "in use beyond the limit, enough again",
                (2, 9, 0, 3),
                (4, 0),
            ),
            (
                "no limit before",
                (usize::MAX, 1, usize::MAX - 2, 0),
                (0, 1),
            ),
            ("no limit after", (1, usize::MAX, 0, 1), (usize::MAX - 2, 0)),
        ];
        for (what, (before, after, free, over), expected) in rows {
            assert_eq!(slots_after(before, after, free, over), expected, "{what}");
        }
    }
}
