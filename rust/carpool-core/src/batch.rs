//! A batch: closed for ever when sealed, answered exactly once per request.

mod again;

use std::task::Waker;

#[cfg(doc)]
use crate::batcher::Batcher;
use crate::border::{Border, Failure};
use crate::clock::Nanos;
use crate::error::{AnswerError, SplitError};
use crate::lease::Lease;
use crate::reply::Unstored;
use crate::request::{Claimed, Handle};
use crate::route::{self, Delivery};
use crate::scheduler::Shared;
use crate::scheduler::learned::Load;
use crate::scheduler::policy::Reason;
use crate::slot::Kept;
use crate::stats::since;
use crate::sync::Arc;
use crate::watch::{End, Ended, Followed, Moments};

/// What the scheduler sealed.
pub(crate) struct Sealed<B: Border> {
    pub(crate) requests: Vec<Claimed<B>>,
    pub(crate) reason: Reason,
    pub(crate) oldest: Nanos,
    pub(crate) cost: u64,
    pub(crate) at: Nanos,
    /// How many batches had been sealed, this one included.
    pub(crate) number: u64,
}

/// One request of one batch, for borders that cannot hand pointers around: where a batch is run in another
/// process, say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    /// The batch, counted from 1 in the order of sealing.
    pub batch: u64,
    /// Its place in the batch as it was sealed.
    pub index: usize,
}

/// A sealed batch, or a part of one, and the lease on its slot. Both end with the last answer; a batch
/// that is dropped before fails what is unanswered with [`Failure::Abandoned`].
///
/// Payloads stay until their requests are answered, so a batch can be run any number of times; and it
/// can be split, to run its parts by themselves.
pub struct Batch<B: Border> {
    shared: Arc<Shared<B>>,
    /// Empty once all have been answered in one step.
    requests: Vec<Claimed<B>>,
    answered: Vec<bool>,
    left: usize,
    reason: Reason,
    oldest: Nanos,
    sealed: Nanos,
    /// When the handler was called, as far as anybody said so.
    started: Nanos,
    /// The id of the first request.
    first: RequestId,
    /// How far each is from the first, where some between them were left out.
    places: Option<Vec<usize>>,
    /// Until the last answer is stored.
    lease: Option<Lease>,
}

impl<B: Border> Batch<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>, sealed: Sealed<B>) -> Self {
        let Sealed {
            requests,
            reason,
            oldest,
            cost,
            at,
            number,
        } = sealed;
        let left = requests.len();
        let load = Load {
            size: shared.learning.padded(left),
            cost,
            oldest,
        };
        if shared.learning.sizes.is_some() {
            shared.watch.padded(left as u64, load.size as u64);
        }
        Self {
            shared,
            answered: vec![false; left],
            requests,
            left,
            reason,
            oldest,
            sealed: at,
            started: at,
            first: RequestId {
                batch: number,
                index: 0,
            },
            places: None,
            lease: Some(Lease::new(at, load)),
        }
    }

    /// Takes the requests from `at` on out, into a batch of their own. Both parts hold the slot: it is
    /// free, and the run is over, when the last of them has ended, in whatever order and on whatever
    /// threads they do. Each part counts its requests from 0.
    pub fn split_off(&mut self, at: usize) -> Result<Self, SplitError> {
        let len = self.len();
        if at == 0 || at >= len {
            return Err(SplitError { at, len });
        }
        // None are left where all were answered in one step.
        let requests = self.requests.split_off(at.min(self.requests.len()));
        let answered = self.answered.split_off(at);
        let places = self.places.as_mut().map(|places| places.split_off(at));
        let distance = if places.is_some() { 0 } else { at };
        let left = answered.iter().filter(|&&answered| !answered).count();
        self.left -= left;
        // A part without an open request has ended, and holds nothing.
        let lease = match (self.left, left) {
            (_, 0) => None,
            (0, _) => self.lease.take(),
            _ => self.lease.as_mut().map(Lease::share),
        };
        let mut rest = Self {
            shared: self.shared.clone(),
            requests,
            answered,
            left,
            reason: self.reason,
            oldest: self.oldest,
            sealed: self.sealed,
            started: self.started,
            first: RequestId {
                index: self.first.index + distance,
                ..self.first
            },
            places,
            lease,
        };
        for part in [self, &mut rest] {
            let arrivals = part.requests.iter().map(Claimed::arrival);
            part.oldest = arrivals.min().unwrap_or(part.oldest);
        }
        Ok(rest)
    }

    /// How many requests it holds.
    pub fn len(&self) -> usize {
        self.answered.len()
    }

    /// Its handler was given so much, of which so much was of use and the rest padding; in whatever unit.
    pub fn padded(&self, useful: u64, given: u64) {
        self.shared.watch.padded(useful, given);
    }

    /// How many rows its handler is to see: as many as it holds requests, or the next allowed size. The rows
    /// beyond the requests belong to nobody.
    #[inline]
    pub fn padded_len(&self) -> usize {
        self.shared.learning.padded(self.len())
    }

    /// Never: a batch holds at least one request.
    pub fn is_empty(&self) -> bool {
        self.answered.is_empty()
    }

    /// How many are unanswered.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Why it left.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// How long its oldest request had waited when it was sealed.
    pub fn waited(&self) -> Nanos {
        since(self.oldest, self.sealed)
    }

    /// Its handler is about to be called.
    #[inline]
    pub fn start(&mut self) {
        if self.shared.watch.is_timed() {
            self.started = self.shared.now();
        }
    }

    /// When what happened up to now, that the answers are there; where that is noted.
    #[inline]
    fn moments(&self) -> Option<Moments> {
        self.shared.watch.is_timed().then(|| Moments {
            sealed: self.sealed,
            started: self.started,
            finished: self.shared.now(),
            delivered: 0,
        })
    }

    /// What of the answers to these requests somebody wants to hear of.
    #[cold]
    fn sampled<'a>(&self, answers: impl Iterator<Item = (usize, &'a B::Answer)>) -> Vec<Ended> {
        let taken = answers.filter(|_| self.shared.watch.takes_next());
        let ended = taken.map(|(index, answer)| {
            let handle = self.requests[index].handle();
            let end = if handle.reply.is_forsaken() {
                End::Cancelled
            } else if B::is_failure(answer) {
                End::Failed
            } else {
                End::Answered
            };
            Ended {
                arrival: handle.terms.arrival,
                end,
            }
        });
        ended.collect()
    }

    /// Its requests, in order; none once all have been answered in one step.
    pub fn requests(&self) -> impl Iterator<Item = &Handle<B>> {
        self.requests.iter().map(Claimed::handle)
    }

    /// The id of request `index`: the same whatever parts the batch was split into.
    pub fn id(&self, index: usize) -> RequestId {
        let place = self.places.as_ref().map_or(index, |places| places[index]);
        RequestId {
            index: self.first.index + place,
            ..self.first
        }
    }

    /// The payload of request `index`, until it is answered.
    pub fn payload(&self, index: usize) -> Option<&B::Payload> {
        self.requests.get(index)?.payload()
    }

    /// Answers one request. A refused answer comes back; an accepted one is on its way once the
    /// result of this is sent.
    pub fn answer(
        &mut self,
        index: usize,
        answer: B::Answer,
    ) -> Result<Outgoing<B>, (AnswerError, B::Answer)> {
        let len = self.len();
        match self.answered.get(index) {
            None => return Err((AnswerError::OutOfRange { index, len }, answer)),
            Some(true) => return Err((AnswerError::Answered { index }, answer)),
            Some(false) => {}
        }
        Ok(self.prepare([(index, answer)]))
    }

    /// Answers all requests at once, in order; with a wrong number, or if one has been answered
    /// before, nothing happens and the answers come back.
    pub fn answer_all(
        &mut self,
        answers: Vec<B::Answer>,
    ) -> Result<Outgoing<B>, (AnswerError, Vec<B::Answer>)> {
        if answers.len() != self.len() {
            let (expected, actual) = (self.len(), answers.len());
            return Err((AnswerError::WrongLength { expected, actual }, answers));
        }
        if let Some(index) = self.answered.iter().position(|&answered| answered) {
            return Err((AnswerError::Answered { index }, answers));
        }
        let followed = if self.shared.watch.samples() {
            self.sampled(answers.iter().enumerate())
        } else {
            Vec::new()
        };
        let mut delivery = Delivery::of(answers.len());
        delivery.moments = self.moments();
        let mut payloads = Vec::with_capacity(answers.len());
        for (claimed, answer) in self.requests.drain(..).zip(answers) {
            payloads.extend(delivery.add_last(claimed, answer));
        }
        self.answered.fill(true);
        self.left = 0;
        Ok(Outgoing {
            shared: self.shared.clone(),
            delivery,
            stepped: Vec::new(),
            ended: self.lease.take(),
            payloads,
            followed,
            reason: self.reason,
            size: self.answered.len(),
        })
    }

    /// Answers what is unanswered.
    pub fn answer_rest(&mut self, mut answer: impl FnMut(usize) -> B::Answer) -> Outgoing<B> {
        let open: Vec<_> = (0..self.len())
            .filter(|&index| !self.answered[index])
            .collect();
        let answers: Vec<_> = open
            .into_iter()
            .map(|index| (index, answer(index)))
            .collect();
        self.prepare(answers)
    }

    /// Gives one request a step before its answer. A refused step comes back: there is no room, or
    /// nobody wants it any more. An accepted one can be taken from now on; its caller is told once the
    /// result of this is sent.
    pub fn step(
        &mut self,
        index: usize,
        step: B::Answer,
    ) -> Result<Outgoing<B>, (AnswerError, B::Answer)> {
        let (outgoing, mut refused) = self.steps([(index, step)]);
        match refused.pop() {
            Some(refused) => Err(refused),
            None => Ok(outgoing),
        }
    }

    /// Gives many requests a step, each for itself: which were refused, and why, comes back.
    pub fn steps(
        &mut self,
        steps: impl IntoIterator<Item = (usize, B::Answer)>,
    ) -> (Outgoing<B>, Vec<(AnswerError, B::Answer)>) {
        let len = self.len();
        let (mut stepped, mut refused) = (Vec::new(), Vec::new());
        for (index, step) in steps {
            let claimed = match self.answered.get(index) {
                None => {
                    refused.push((AnswerError::OutOfRange { index, len }, step));
                    continue;
                }
                Some(true) => {
                    refused.push((AnswerError::Answered { index }, step));
                    continue;
                }
                Some(false) => &mut self.requests[index],
            };
            match claimed.step(step, self.shared.posted.steps()) {
                Ok(()) => stepped.push(claimed.handle().clone()),
                Err((Unstored::Full, step)) => refused.push((AnswerError::Full { index }, step)),
                Err((Unstored::Gone, step)) => refused.push((AnswerError::Gone { index }, step)),
            }
        }
        let outgoing = Outgoing {
            shared: self.shared.clone(),
            delivery: Delivery::of(0),
            stepped,
            ended: None,
            payloads: Vec::new(),
            followed: Vec::new(),
            reason: self.reason,
            size: self.answered.len(),
        };
        (outgoing, refused)
    }

    /// Whether request `index` is unanswered.
    pub fn is_open(&self, index: usize) -> bool {
        self.answered.get(index) == Some(&false)
    }

    /// Whether the caller of request `index` still waits for a step or its answer. A handler may stop
    /// working for who does not.
    pub fn is_wanted(&self, index: usize) -> bool {
        self.is_open(index) && self.requests[index].handle().reply.is_wanted()
    }

    /// Whether request `index` has room for a step, or will never want one; if not, `waker` will be
    /// woken when that is so. One giver waits at a time: a later waker takes the place of an earlier.
    pub fn poll_room(&self, index: usize, waker: &Waker) -> bool {
        if !self.is_wanted(index) {
            return true;
        }
        let reply = &self.requests[index].handle().reply;
        reply.poll_room(self.shared.posted.steps(), waker)
    }

    /// Stores the answers of unanswered requests.
    fn prepare(&mut self, answers: impl IntoIterator<Item = (usize, B::Answer)>) -> Outgoing<B> {
        let answers = answers.into_iter();
        let mut followed = Vec::new();
        let samples = self.shared.watch.samples();
        let mut delivery = Delivery::of(answers.size_hint().0);
        delivery.moments = self.moments();
        let mut payloads = Vec::with_capacity(answers.size_hint().0);
        for (index, answer) in answers {
            debug_assert!(!self.answered[index]);
            if samples {
                followed.append(&mut self.sampled(std::iter::once((index, &answer))));
            }
            self.answered[index] = true;
            self.left -= 1;
            payloads.extend(delivery.add(&mut self.requests[index], answer));
        }
        Outgoing {
            shared: self.shared.clone(),
            delivery,
            stepped: Vec::new(),
            ended: self.lease.take_if(|_| self.left == 0),
            payloads,
            followed,
            reason: self.reason,
            size: self.answered.len(),
        }
    }
}

impl<B: Border> Drop for Batch<B> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.answer_rest(|_| B::failure(Failure::Abandoned)).send();
        }
    }
}

/// Stored answers that nobody has seen yet, and steps that nobody has been told of. Sending runs the border's code (wakes, drops), so whoever
/// keeps a batch behind a lock releases that first. Dropping sends too: nothing stored is lost.
#[must_use = "the callers wait until it is sent"]
pub struct Outgoing<B: Border> {
    shared: Arc<Shared<B>>,
    delivery: Delivery<B>,
    /// Who was given a step.
    stepped: Vec<Handle<B>>,
    ended: Option<Lease>,
    payloads: Vec<B::Payload>,
    /// Those that somebody wants to hear of.
    followed: Vec<Ended>,
    reason: Reason,
    size: usize,
}

impl<B: Border> Outgoing<B> {
    /// The requests that somebody wants to hear of ([`Batcher::sample`]), to the first who asks; nobody has been
    /// told of their answers yet. What is done with them is best done once this is sent. Where nobody asks, they
    /// are [due](Batcher::take_due) then.
    #[inline]
    pub fn follow(&mut self) -> Option<Followed> {
        if self.followed.is_empty() {
            return None;
        }
        Some(Followed {
            moments: self.delivery.moments.unwrap_or_default(),
            batch: Some((self.reason, self.size)),
            requests: std::mem::take(&mut self.followed),
        })
    }

    /// Whether these are the last answers of the batch, or of its part.
    pub fn is_last(&self) -> bool {
        self.ended.is_some()
    }

    /// Counts the answers, lets them be seen, gives the slot back after the last, wakes the callers.
    /// True when the slot was given back: after the last part that was sent.
    pub fn send(mut self) -> bool {
        self.go(false)
    }

    /// The same, but the slot comes to the caller of this: for a runner that has to wake the callers yet.
    pub fn send_keeping(mut self) -> Option<Kept<B>> {
        let shared = self.shared.clone();
        self.go(true).then(|| Kept::new(shared))
    }

    fn go(&mut self, keeps_slot: bool) -> bool {
        if let Some(mut followed) = self.follow() {
            followed.moments.delivered = self.shared.now();
            self.shared.watch.unfollowed(followed);
        }
        let mut slot_is_free = false;
        if !self.delivery.is_empty() {
            let delivery = std::mem::replace(&mut self.delivery, Delivery::of(0));
            slot_is_free = route::route(&self.shared, delivery, self.ended.take(), keeps_slot);
        }
        if !self.stepped.is_empty() {
            route::tell_steps(std::mem::take(&mut self.stepped));
        }
        // Payloads last: dropping one may run the border's code, which may come back here.
        self.payloads.clear();
        slot_is_free
    }
}

impl<B: Border> Drop for Outgoing<B> {
    fn drop(&mut self) {
        self.go(false);
    }
}
