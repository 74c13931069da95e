//! A full queue where requests give way: who does is the [ranks'](super::ranks) to say, here it is done.
//!
//! The place of the one that gives way is handed to the newcomer: it is never free in between, so nobody who
//! was not compared gets it.

use super::{Outbox, Shared, State};
use crate::border::{Border, Failure};
use crate::queue::admission::NotAdmitted;
use crate::request::{Claimed, Terms};
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};

impl<B: Border> State<B> {
    /// Counts a newcomer with these terms in, if need be in the place of another; or says why not: closed, or
    /// full of requests that are more urgent. The intake has been drained.
    pub(crate) fn make_room(
        &mut self,
        shared: &Shared<B>,
        newcomer: &Terms,
        out: &mut Outbox<B>,
    ) -> Result<(), NotAdmitted> {
        while let Err(why) = shared.admission.enter() {
            if why == NotAdmitted::Closed {
                return Err(why);
            }
            let Some(handle) = self.pending.gives_way(newcomer) else {
                self.counters.shed += 1;
                return Err(why);
            };
            match Claimed::claim(handle) {
                Ok(claimed) => {
                    self.shed(shared, claimed, out);
                    break;
                }
                // Cancelled a moment ago: its place is free, or will be at once.
                Err(handle) => out.garbage.push(handle),
            }
        }
        if shared.has_budget() {
            shared.cost.fetch_add(newcomer.cost, Relaxed);
        }
        Ok(())
    }

    /// Ends a pending request that gives way; its place goes to the newcomer.
    fn shed(&mut self, shared: &Shared<B>, claimed: Claimed<B>, out: &mut Outbox<B>) {
        let request = claimed.handle();
        self.deadlines.forget(request);
        if let Some(window) = request.window() {
            window.leave(&request.terms);
        }
        if shared.has_budget() {
            shared.cost.fetch_sub(request.terms.cost, Relaxed);
        }
        self.counters.in_flight += 1;
        self.counters.shed += 1;
        let dropped = self.pending.trim(&request.terms, &mut out.garbage);
        if dropped == 0 {
            // Its handle stays queued until somebody meets it. (Where others were dropped, they had been
            // counted, and count for it now.)
            shared.dead.fetch_add(1, SeqCst);
        }
        out.failing.push((claimed, Failure::Shed));
    }
}
