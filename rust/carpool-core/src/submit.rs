//! How a request gets in, and out again before its time.

use crate::border::Border;
use crate::clock::{NEVER, Nanos};
use crate::error::{Refusal, Refused};
use crate::limits::Overflow;
use crate::queue::admission::NotAdmitted;
use crate::reply::{Cancelled, Next};
use crate::request::{Handle, Request, Terms, Who};
use crate::scheduler::{Phase, Shared};
use crate::sync::Arc;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::watch::End;

/// The caller's end of a request: its reply, and the right to give up on it.
///
/// Dropping a ticket changes nothing: pending owns the reply. Whoever wants "dropped means
/// cancelled" calls [`Ticket::cancel`] in its own `Drop`.
pub struct Ticket<B: Border> {
    shared: Arc<Shared<B>>,
    request: Handle<B>,
}

impl<B: Border> Clone for Ticket<B> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            request: self.request.clone(),
        }
    }
}

impl<B: Border> Ticket<B> {
    /// The request.
    #[inline]
    pub fn request(&self) -> &Handle<B> {
        &self.request
    }

    /// The answer, once there; to the first who asks.
    #[inline]
    pub fn take(&self) -> Option<B::Answer> {
        self.request.reply.take()
    }

    /// The next step of a reply that takes steps, or its answer after all of them; each to the first who
    /// asks. Whoever found nothing is told (as by [`Border::tell`]) of the next.
    pub fn next(&self) -> Next<B::Answer> {
        self.request.reply.next()
    }

    /// Gives up. Before sealing the request never reaches the handler, its place is free at once and
    /// its payload comes back to be dropped wherever the caller of this can; after sealing only its
    /// answer is dropped, and steps that nobody took are dropped here.
    pub fn cancel(&self) -> (Cancelled, Option<B::Payload>) {
        self.end(true)
    }

    /// Gives up, but only if the request is not in a batch yet; else it goes on as if nothing was asked.
    pub fn withdraw(&self) -> (Cancelled, Option<B::Payload>) {
        self.end(false)
    }

    fn end(&self, forsake: bool) -> (Cancelled, Option<B::Payload>) {
        let reply = &self.request.reply;
        let (met, payload) = if forsake {
            reply.cancel()
        } else {
            reply.withdraw()
        };
        let shared = &self.shared;
        match met {
            Cancelled::Pending => {
                // The mark first: whoever sees the place free must know of the dead handle.
                shared.dead.fetch_add(1, SeqCst);
                self.count_cancelled();
                shared.leave_queue(1, self.request.terms.cost);
                let lead = B::runner(self.request.waiter()).is_some();
                if lead || self.must_settle() {
                    shared.settle_now();
                }
            }
            Cancelled::InLobby => {
                shared.dead.fetch_add(1, SeqCst);
                self.count_cancelled();
                if self.must_settle() {
                    shared.settle_now();
                }
            }
            Cancelled::InFlight | Cancelled::TooLate => {}
        }
        (met, payload)
    }

    fn count_cancelled(&self) {
        let shared = &self.shared;
        shared.cancelled.fetch_add(1, Relaxed);
        let arrival = self.request.terms.arrival;
        let watch = &shared.watch;
        watch.ended(arrival, End::Cancelled, || shared.now());
    }

    /// Others wait for the place, for the end, or for the dead handles to be swept.
    fn must_settle(&self) -> bool {
        let shared = &self.shared;
        shared.lobby.load(SeqCst) > 0
            || shared.short.load(SeqCst) > 0
            || shared.admission.is_closed()
            || shared.is_worth_a_sweep(shared.dead.load(Relaxed))
    }
}

/// Whether a submit looks after waiting slots itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// Wake the slot whose need is met.
    Yes,
    /// The caller is about to pull by itself.
    No,
}

pub(crate) fn submit<B: Border>(
    shared: &Arc<Shared<B>>,
    payload: B::Payload,
    waiter: B::Waiter,
    terms: Terms,
    announce: Announce,
) -> Result<Ticket<B>, Refused<B::Payload, B::Waiter>> {
    if terms.cost > shared.posted.most_of_one() {
        return refuse(shared, Refusal::TooLarge, payload, waiter, &terms);
    }
    if terms.deadline != NEVER && shared.learning.refuse_late {
        let now = shared.now();
        if let Some(why) = shared.locked(|state, _| state.refuses(shared, &terms, now)) {
            return refuse(shared, why, payload, waiter, &terms);
        }
    }
    // Behind those who already wait for room.
    let entered = if shared.lobby.load(SeqCst) > 0 {
        Err(NotAdmitted::Full)
    } else {
        shared.admission.enter()
    };
    if let Err(why) = entered {
        return submit_to_full(shared, payload, waiter, terms, why);
    }
    if shared.has_budget() {
        shared.cost.fetch_add(terms.cost, Relaxed);
    }
    let (request, queued) = Handle::pair(|| Request::new(payload, Who::One(waiter), terms, false));
    shared.intake.push(queued);
    // See queue/README.md: the push first, then the look at what the waiting slot needs.
    if announce == Announce::Yes {
        if let Some(count) = shared.need.stated() {
            let met = shared.admission.count() >= count
                || (shared.has_budget() && shared.cost.load(Relaxed) >= shared.need.stated_cost());
            if met && shared.need.withdraw() {
                shared.settle_now();
            }
        }
    }
    if shared.admission.is_closed() {
        // The close may have looked before the push.
        shared.settle_now();
    }
    if terms.deadline != NEVER {
        Shared::keep_deadline(shared, terms.deadline);
    }
    Ok(Ticket {
        shared: shared.clone(),
        request,
    })
}

/// It is not let in; what was given comes back.
#[cold]
fn refuse<B: Border>(
    shared: &Shared<B>,
    why: Refusal,
    payload: B::Payload,
    waiter: B::Waiter,
    terms: &Terms,
) -> Result<Ticket<B>, Refused<B::Payload, B::Waiter>> {
    shared.rejected.fetch_add(1, Relaxed);
    let end = match why {
        Refusal::Shed => End::Shed,
        _ => End::Refused,
    };
    shared.watch.ended(terms.arrival, end, || shared.now());
    Err(Refused {
        why,
        payload,
        waiter,
    })
}

/// The queue is full, or closed, or others wait for room: help, and try in an orderly way.
#[cold]
fn submit_to_full<B: Border>(
    shared: &Arc<Shared<B>>,
    payload: B::Payload,
    waiter: B::Waiter,
    terms: Terms,
    why: NotAdmitted,
) -> Result<Ticket<B>, Refused<B::Payload, B::Waiter>> {
    let refusal = match (why, shared.posted.overflow) {
        (NotAdmitted::Closed, _) => Some(Refusal::Closed),
        (NotAdmitted::Full, Overflow::Raise) => Some(Refusal::Full),
        (NotAdmitted::Full, Overflow::Shed) => {
            return submit_shedding(shared, payload, waiter, terms);
        }
        (NotAdmitted::Full, Overflow::Wait) => None,
    };
    if let Some(why) = refusal {
        return refuse(shared, why, payload, waiter, &terms);
    }
    let request = Handle::new(|| Request::new(payload, Who::One(waiter), terms, true));
    let now: Nanos = shared.now();
    let refused = shared.locked(|state, out| {
        if state.phase != Phase::Open {
            return true;
        }
        state.deadlines.add(&request);
        state.lobby.push_back(request.clone());
        // Known before the look for room that `settle` takes: the other order than in a cancel.
        shared.lobby.store(state.lobby.len(), SeqCst);
        state.settle(shared, now, out);
        false
    });
    if refused {
        let parts = request.into_inner().map(Request::into_parts);
        if let Some((Some(payload), Who::One(waiter))) = parts {
            return refuse(shared, Refusal::Closed, payload, waiter, &terms);
        }
        unreachable!("the request was never shared");
    }
    if terms.deadline != NEVER {
        Shared::keep_deadline(shared, terms.deadline);
    }
    Ok(Ticket {
        shared: shared.clone(),
        request,
    })
}

/// The queue is full, and the least urgent gives way.
fn submit_shedding<B: Border>(
    shared: &Arc<Shared<B>>,
    payload: B::Payload,
    waiter: B::Waiter,
    terms: Terms,
) -> Result<Ticket<B>, Refused<B::Payload, B::Waiter>> {
    let now = shared.now();
    let made = shared.locked(|state, out| {
        // The look may end what is overdue: then there is room.
        state.take_in(shared, now, out);
        let made = match state.make_room(shared, &terms, out) {
            Ok(()) => {
                let who = Who::One(waiter);
                let (request, queued) = Handle::pair(|| Request::new(payload, who, terms, false));
                state.deadlines.add(&queued);
                state.pending.push(queued);
                Ok(request)
            }
            Err(why) => Err((why, payload, waiter)),
        };
        state.settle(shared, now, out);
        made
    });
    let request = match made {
        Ok(request) => request,
        Err((why, payload, waiter)) => {
            let why = match why {
                NotAdmitted::Closed => Refusal::Closed,
                NotAdmitted::Full => Refusal::Shed,
            };
            return refuse(shared, why, payload, waiter, &terms);
        }
    };
    if terms.deadline != NEVER {
        Shared::keep_deadline(shared, terms.deadline);
    }
    Ok(Ticket {
        shared: shared.clone(),
        request,
    })
}
