//! Running a batch again, or what is left of it.

use super::{Batch, Outgoing};
use crate::border::{Border, Failure};
use crate::clock::{NEVER, Nanos};
use crate::scheduler::budget::Load;
use crate::scheduler::change::Fits;

impl<B: Border> Batch<B> {
    /// Makes it ready to be run again: who gave up meanwhile is left out, and who is overdue, which fails with
    /// [`Failure::Expired`]; so are those that have been answered. What is left counts from 0, unless nothing is.
    /// Also the first deadline to come of what is left.
    pub fn leave_out(&mut self, now: Nanos) -> (Outgoing<B>, Option<Nanos>) {
        let ended: Vec<_> = (0..self.requests.len())
            .filter(|&index| !self.answered[index])
            .filter_map(|index| {
                let why = if !self.is_wanted(index) {
                    Failure::Abandoned
                } else if self.requests[index].handle().terms.deadline <= now {
                    Failure::Expired
                } else {
                    return None;
                };
                Some((index, B::failure(why)))
            })
            .collect();
        if let Some(lease) = &mut self.lease {
            lease.runs_again();
        }
        let outgoing = self.prepare(ended);
        if self.left == 0 {
            return (outgoing, None);
        }
        if self.left < self.len() {
            let places = self.places.take();
            let mut place = 0..;
            let mut kept = Vec::with_capacity(self.left);
            let answered = std::mem::replace(&mut self.answered, vec![false; self.left]);
            let mut answered = answered.into_iter();
            self.requests.retain(|_| {
                let at = place.next().unwrap_or_default();
                let open = answered.next() == Some(false);
                if open {
                    kept.push(places.as_ref().map_or(at, |places| places[at]));
                }
                open
            });
            self.places = Some(kept);
        }
        let deadlines = self.requests.iter().map(|one| one.handle().terms.deadline);
        let first = deadlines.min().filter(|&deadline| deadline != NEVER);
        (outgoing, first)
    }

    /// Its handler ran out of memory with so much at once: less leaves together from now on, and slowly more
    /// again. How much.
    pub fn was_too_large(&self) -> Fits {
        let now = self.shared.now();
        let size = self.padded_len();
        let costs = self.requests.iter().map(|one| one.handle().terms.cost);
        let load = costs.fold(Load::default(), Load::with);
        self.shared.locked(|state, out| {
            let cost = state.pending.budget().total(&load);
            let fits = state.was_too_large(&self.shared, size, cost);
            state.settle(&self.shared, now, out);
            fits
        })
    }
}
