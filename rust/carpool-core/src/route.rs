//! From outcomes to callers: store every outcome of the step, count, let them be seen, then wake.
//!
//! In this order for a reason. A caller that has its answer finds it counted. A wake runs the
//! border's code, which may submit, close or drop, so nothing is half done by then and no lock is
//! held. Wakes are grouped by the border: one per waiting loop, however many of its requests the
//! batch held.

use crate::border::{Border, Failure};
use crate::lease::Lease;
use crate::many;
use crate::request::{Claimed, Handle};
use crate::scheduler::{Phase, Shared};
use crate::stats::since;
use crate::sync::Arc;
use crate::watch::{End, Moments};

/// The outcomes of one step, stored and not yet seen.
pub(crate) struct Delivery<B: Border> {
    delivered: Vec<Handle<B>>,
    /// Answers whose callers had stopped waiting.
    refused: Vec<B::Answer>,
    failed: usize,
    /// When what happened, where that is noted.
    pub(crate) moments: Option<Moments>,
}

impl<B: Border> Delivery<B> {
    /// With room for `n`.
    pub(crate) fn of(n: usize) -> Self {
        Self {
            delivered: Vec::with_capacity(n),
            refused: Vec::new(),
            failed: 0,
            moments: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.refused.is_empty()
    }

    /// Stores the answer of one claimed request; its payload comes back.
    #[inline]
    pub(crate) fn add(
        &mut self,
        request: &mut Claimed<B>,
        answer: B::Answer,
    ) -> Option<B::Payload> {
        let (payload, stored) = self.store(request, answer);
        if stored {
            self.delivered.push(request.handle().clone());
        }
        payload
    }

    /// The same for a request that needs no more than its answer.
    #[inline(always)]
    pub(crate) fn add_last(
        &mut self,
        mut request: Claimed<B>,
        answer: B::Answer,
    ) -> Option<B::Payload> {
        let (payload, stored) = self.store(&mut request, answer);
        if stored {
            self.delivered.push(request.into_handle());
        }
        payload
    }

    #[inline(always)]
    fn store(&mut self, request: &mut Claimed<B>, answer: B::Answer) -> (Option<B::Payload>, bool) {
        let failed = B::is_failure(&answer);
        let (payload, stored) = request.answer(answer);
        match stored {
            Ok(()) => {
                self.failed += usize::from(failed);
                (payload, true)
            }
            Err(answer) => {
                self.refused.push(answer);
                (payload, false)
            }
        }
    }

    fn publish_and_wake(self) {
        if let Some(moments) = &self.moments {
            B::note(&self.delivered, moments);
        }
        let mut windows = false;
        for request in &self.delivered {
            request.reply.publish();
            windows |= request.window().is_some();
        }
        if windows {
            many::tell_each(self.delivered, B::tell);
        } else {
            B::tell(self.delivered);
        }
    }
}

/// Takes one step's outcomes of a batch to its callers; `ended` is its lease if this was its last step.
/// True when that gave the slot back, or with `keeps_slot` left it to the caller of this.
pub(crate) fn route<B: Border>(
    shared: &Arc<Shared<B>>,
    mut delivery: Delivery<B>,
    ended: Option<Lease>,
    keeps_slot: bool,
) -> bool {
    let (delivered, gone) = (
        delivery.delivered.len() as u64,
        delivery.refused.len() as u64,
    );
    let failed = delivery.failed as u64;
    let now = shared.now();
    if let Some(moments) = &mut delivery.moments {
        moments.delivered = now;
    }
    let mut took = 0;
    let slot_is_free = shared.locked(|state, out| {
        let ended = ended.and_then(Lease::end);
        // Most are inside just before some leave.
        let waiting = (shared.admission.count() + state.lobby.len()) as u64;
        let counters = &mut state.counters;
        counters.inside.add(waiting + counters.in_flight);
        counters.in_flight -= delivered + gone;
        counters.answered += delivered - failed;
        counters.failed += failed;
        counters.forsaken += gone;
        if let Some(ended) = &ended {
            let run = since(ended.sealed, now);
            counters.runs.add(run);
            if let Some(learned) = &mut state.learned {
                learned.ended(ended.sealed);
            }
            // One that failed may have ended early.
            let ran = ended.load.filter(|_| failed < delivered + gone);
            if let (Some(learned), Some(load)) = (&mut state.learned, ran) {
                learned.ran(load, run, now);
            }
            if state.learned.is_some() {
                // Before the callers are told: who comes back then has not come to others.
                state.see_arrivals(shared, delivered + gone, now);
            }
            took = run;
            state.company.answered(run, shared.admission.count());
            if !keeps_slot {
                state.give_slot_back();
                state.company.ended(now);
            }
        }
        // The last answer sent need not be the last one prepared.
        if (ended.is_some() && !keeps_slot) || state.has_ended(shared) {
            state.settle(shared, now, out);
        }
        ended.is_some()
    });
    if slot_is_free {
        shared.watch.ran(took, || now);
    }
    delivery.publish_and_wake();
    slot_is_free
}

/// Tells the callers that wait for a step. Nothing is counted: a stream counts once, at its end.
pub(crate) fn tell_steps<B: Border>(mut requests: Vec<Handle<B>>) {
    requests.retain(|request| request.reply.must_tell());
    if !requests.is_empty() {
        B::tell(requests);
    }
}

/// Fails requests that were claimed without a batch: those a close met while they were pending, or that gave
/// way at a full queue. Until here they count as in flight, since their callers may still give up.
pub(crate) fn fail_unsealed<B: Border>(shared: &Shared<B>, requests: Vec<(Claimed<B>, Failure)>) {
    let mut delivery = Delivery::<B>::of(requests.len());
    let mut payloads = Vec::with_capacity(requests.len());
    for (claimed, why) in requests {
        let (arrival, gone) = (claimed.arrival(), delivery.refused.len());
        payloads.extend(delivery.add_last(claimed, B::failure(why)));
        let end = match delivery.refused.len() > gone {
            true => End::Cancelled,
            false => End::of(why),
        };
        shared.watch.ended(arrival, end, || shared.now());
    }
    let (failed, gone) = (
        delivery.delivered.len() as u64,
        delivery.refused.len() as u64,
    );
    let now = shared.now();
    shared.locked(|state, out| {
        state.counters.in_flight -= failed + gone;
        state.counters.failed += failed;
        state.counters.forsaken += gone;
        // A close may have waited for these alone.
        if state.phase != Phase::Open {
            state.settle(shared, now, out);
        }
    });
    delivery.publish_and_wake();
    drop(payloads);
}
