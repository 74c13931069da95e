//! Callers that run their own batches: which of them keeps the time, and what each may seal.

use super::policy::Decision;
use super::{Outbox, Shared, State};
use crate::batch::Sealed;
use crate::border::Border;
use crate::clock::Nanos;
use crate::request::Handle;

/// A caller that runs batches itself and leads the next one.
pub(crate) struct Keeper<B: Border> {
    request: Handle<B>,
    /// When it looks by itself; `None` once it was woken, and owes a look.
    until: Option<Nanos>,
}

impl<B: Border> State<B> {
    /// Seals the batch that `own` leaves with, if it is due; else when `own` must ask again, if its
    /// caller is the one that keeps the time.
    pub(crate) fn seal_own(
        &mut self,
        shared: &Shared<B>,
        own: &Handle<B>,
        size: usize,
        now: Nanos,
        out: &mut Outbox<B>,
    ) -> Result<Sealed<B>, Option<Nanos>> {
        loop {
            let (key, decision) = self.look(shared, size, true, now, out);
            match decision {
                Decision::Leave(reason) => {
                    let is_own = |handle: &Handle<B>| Handle::ptr_eq(handle, own);
                    let leaving = self.chosen(shared, key, size);
                    if key != own.terms.key || !self.pending.among_first(key, leaving, is_own) {
                        return Err(None);
                    }
                    let sealed = self.seal(shared, key, size, None, reason, now, out);
                    if !sealed.requests.is_empty() {
                        return Ok(sealed);
                    }
                }
                Decision::Wait { until, .. } => {
                    let head = self.pending.head(key);
                    let leads = head.is_some_and(|head| Handle::ptr_eq(head, own));
                    if !leads || until.is_none() {
                        return Err(None);
                    }
                    self.keep_time(Some((own.clone(), until)), out);
                    return Err(until);
                }
            }
        }
    }

    /// Without a waiting slot, the caller of the request that leads the next batch keeps the time and
    /// runs it.
    pub(super) fn settle_callers(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {
        if self.free_slots == 0 {
            return;
        }
        // The look drops dead heads: one that was cancelled must not go on keeping the time.
        let (key, decision) = self.look(shared, self.limits.max_batch_size, true, now, out);
        let Some(head) = self.pending.head(key) else {
            return self.keep_time(None, out);
        };
        let keeper = self.keeper.as_ref();
        let keeper = keeper.filter(|keeper| Handle::ptr_eq(&keeper.request, head));
        let will_look = keeper.is_some_and(|keeper| match (keeper.until, decision) {
            (None, _) => true,
            (Some(_), Decision::Leave(_)) => false,
            (Some(timer), Decision::Wait { until, .. }) => until.is_none_or(|due| timer <= due),
        });
        if will_look {
            return;
        }
        let Some(waker) = B::runner(head.waiter()) else {
            return;
        };
        out.wakes.push(waker.clone());
        let head = head.clone();
        self.keep_time(Some((head, None)), out);
    }

    /// Passes the time on to another caller, or to none.
    fn keep_time(&mut self, next: Option<(Handle<B>, Option<Nanos>)>, out: &mut Outbox<B>) {
        let next = next.map(|(request, until)| Keeper { request, until });
        let before = std::mem::replace(&mut self.keeper, next);
        out.drop_later(before.map(|keeper| keeper.request));
    }

    /// The caller of `own` looks: if it kept the time, it does so no longer.
    pub(crate) fn looks_itself(&mut self, own: &Handle<B>, out: &mut Outbox<B>) {
        let keeper = self.keeper.as_ref();
        if keeper.is_some_and(|keeper| Handle::ptr_eq(&keeper.request, own)) {
            self.keep_time(None, out);
        }
    }

    /// A keeper that is no longer pending keeps no time.
    pub(super) fn release_keeper(&mut self, out: &mut Outbox<B>) {
        let keeper = self.keeper.as_ref();
        if keeper.is_some_and(|keeper| !keeper.request.reply.is_pending()) {
            self.keep_time(None, out);
        }
    }
}
