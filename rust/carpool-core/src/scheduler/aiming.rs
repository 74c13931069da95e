//! What the scheduler does with what it has learned: how long it holds, how many leave, who would be late.

use super::late::Ahead;
use super::learned::Learned;
use super::objective::{Aside, Hold, Outlook};
use super::policy::{self, Decision, Reason, decide};
use super::{Shared, State};
use crate::border::Border;
use crate::clock::{NEVER, Nanos};
use crate::error::Refusal;
use crate::limits::Limits;
use crate::many::Item;
use crate::request::Terms;
use crate::sync::atomic::Ordering::Relaxed;

impl<B: Border> State<B> {
    /// How long a request may wait before its group is due.
    #[inline]
    pub(super) fn longest_wait(&self) -> Nanos {
        let learned = self.learned.as_deref();
        let aimed = learned.and_then(|learned| {
            let (pending, groups) = (self.pending.len(), self.pending.groups());
            learned.longest_wait(pending, groups, self.limits.max_batch_size)
        });
        aimed.unwrap_or(self.limits.wait)
    }

    /// Asks the objective, and then the policy with the wait that it allows.
    #[cold]
    pub(super) fn aim(
        &mut self,
        size: usize,
        view: &policy::View,
        longest: Nanos,
        now: Nanos,
    ) -> Decision {
        let free = self.free_slots;
        let size = size.clamp(1, self.limits.max_batch_size);
        let groups = self.pending.groups();
        let pending = self.pending.len().max(view.count);
        let in_flight = self.counters.in_flight as usize;
        let hold = self
            .learned
            .as_mut()
            .zip(view.oldest)
            .map(|(learned, oldest)| {
                let outlook = Outlook {
                    count: view.count,
                    pending,
                    groups,
                    oldest,
                    now,
                    free_slots: free,
                    in_flight,
                    most: size,
                    rate: 0.0,
                    long_rate: 0.0,
                    room: 0.0,
                };
                learned.hold(outlook, view.cost)
            });
        // While nothing is known nobody is held.
        let hold = hold.flatten().unwrap_or(Hold {
            wait: 0,
            full: size,
            look: size,
            company: 0.0,
        });
        let limits = Limits {
            // Due is due, or it would stand before others that are.
            wait: hold.wait.min(longest),
            ..self.limits
        };
        match decide(&limits, hold.full, view, now, free) {
            Decision::Leave(Reason::Full) if view.count < size => Decision::Leave(Reason::Target),
            Decision::Leave(Reason::Wait) => Decision::Leave(Reason::Target),
            // It was held, and nobody else is expected.
            Decision::Leave(Reason::Idle) if self.is_holding() => Decision::Leave(Reason::Target),
            Decision::Wait { until, count, cost } if until.is_some() => Decision::Wait {
                until,
                count: count.min(hold.look.max(view.count + 1)),
                cost,
            },
            other => other,
        }
    }

    /// How many of the group of `key` should leave at most, with a slot that takes up to `size`.
    pub(super) fn chosen(&self, shared: &Shared<B>, key: u64, size: usize) -> usize {
        let size = size.clamp(1, self.limits.max_batch_size);
        let Some(learned) = &self.learned else {
            return size;
        };
        let some_dead = shared.dead.load(Relaxed) > 0;
        let view = self.pending.view(key, size, some_dead);
        // Whoever flushes wants all of it to leave.
        let all = view.oldest <= self.flushed;
        learned.choose(view.count, size, all)
    }

    /// Who of the group of `key` lets others pass, with a slot that takes up to `size`. Not where callers run their
    /// own batches: those are in them.
    #[inline]
    pub(super) fn aside(
        &self,
        shared: &Shared<B>,
        key: u64,
        size: usize,
        now: Nanos,
    ) -> Option<Aside> {
        let learned = self.learned.as_ref()?;
        learned.aside(self.chosen(shared, key, size), now)
    }

    fn is_holding(&self) -> bool {
        self.learned.as_ref().is_some_and(|one| one.is_holding())
    }

    /// Notes who has come; `ended`: so many have just been answered.
    #[cold]
    pub(crate) fn see_arrivals(&mut self, shared: &Shared<B>, ended: u64, now: Nanos) {
        let arrived = self.counters.waits.count() + shared.admission.count() as u64;
        if let Some(learned) = &mut self.learned {
            let there = self.counters.in_flight + shared.admission.count() as u64;
            learned.see(arrived, there + ended, there > 0, now);
        }
    }

    /// A batch was sealed.
    #[cold]
    pub(super) fn note_sealed(
        &mut self,
        shared: &Shared<B>,
        len: usize,
        cost: u64,
        aside: Option<Aside>,
        now: Nanos,
    ) {
        if let Some(learned) = &mut self.learned {
            let rows = shared.learning.padded(len);
            learned.sealed(rows, cost, aside.as_ref(), now);
        }
    }

    /// Why a request that arrives now is refused for being late.
    #[cold]
    pub(crate) fn refuses(&self, shared: &Shared<B>, terms: &Terms, now: Nanos) -> Option<Refusal> {
        let learned = self.learned.as_ref()?;
        let usual = Terms::urgency(terms.arrival, 0);
        let limits = &self.limits;
        let pending = shared.admission.count();
        let ahead = Ahead {
            now,
            ends: learned.ends(),
            free_slots: self.free_slots,
            pending: if terms.urgency < usual { 0 } else { pending },
            most: limits.max_batch_size,
        };
        if pending == 0 && self.counters.in_flight == 0 {
            return None;
        }
        let deadline = terms.deadline;
        let end = learned.earliest(&ahead, deadline, terms.cost)?;
        (end > deadline).then(|| Refusal::Late {
            needs: end.saturating_sub(now),
            left: deadline.saturating_sub(now),
        })
    }

    /// How many of a list, in its order, can be answered before its deadline; all, where that is not asked for.
    pub(crate) fn in_time<P>(
        &self,
        shared: &Shared<B>,
        terms: &Terms,
        items: &[Item<P>],
        now: Nanos,
    ) -> usize {
        match &self.learned {
            Some(learned) if shared.learning.refuse_late && terms.deadline != NEVER => {
                self.how_many(learned, shared, terms, items, now)
            }
            _ => items.len(),
        }
    }

    #[cold]
    fn how_many<P>(
        &self,
        learned: &Learned,
        shared: &Shared<B>,
        terms: &Terms,
        items: &[Item<P>],
        now: Nanos,
    ) -> usize {
        let usual = Terms::urgency(terms.arrival, 0);
        let (limits, pending) = (&self.limits, shared.admission.count());
        let most = limits.max_batch_size;
        // As a single call that finds the batcher idle: the first batch is tried.
        let idle = pending == 0 && self.counters.in_flight == 0;
        let tried = if idle { most.min(items.len()) } else { 0 };
        let before = if terms.urgency < usual { 0 } else { pending };
        let cost = items
            .iter()
            .map(|item| item.cost)
            .fold(0, u64::saturating_add);
        let each = cost / items.len().max(1) as u64;
        let is_late = |place: usize| {
            let ahead = Ahead {
                now,
                ends: learned.ends(),
                free_slots: self.free_slots,
                pending: before + place,
                most,
            };
            learned
                .earliest(&ahead, terms.deadline, each)
                .is_some_and(|end| end > terms.deadline)
        };
        // Whoever stands behind one that is late is no sooner.
        let (mut from, mut to) = (tried, items.len());
        while from < to {
            let middle = from + (to - from) / 2;
            if is_late(middle) {
                to = middle;
            } else {
                from = middle + 1;
            }
        }
        from
    }

    /// How long before its deadline a pending request has no chance any more; 0 where that is not asked for, and
    /// for the only one there is, which shows how fast the handler is.
    #[inline]
    pub(super) fn lead(&self, shared: &Shared<B>) -> Nanos {
        if !shared.learning.refuse_late {
            return 0;
        }
        self.least_run(shared)
    }

    #[cold]
    fn least_run(&self, shared: &Shared<B>) -> Nanos {
        if self.counters.in_flight == 0 && shared.admission.count() <= 1 {
            return 0;
        }
        self.learned
            .as_ref()
            .map_or(0, |learned| learned.least_run())
    }
}
