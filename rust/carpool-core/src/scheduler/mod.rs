//! Pending requests, the waiting slots, and the carrying out of what the policy decides.
//!
//! The state belongs to whoever holds its lock: a slot that pulls, a submitter that has to wake one
//! or meets a full queue, a close. Nothing of the border runs under the lock: wakes and dropped
//! handles are collected in an [`Outbox`] and let go after unlocking.

mod aiming;
pub mod budget;
mod callers;
mod cap;
pub(crate) mod change;
mod company;
pub mod curve;
mod deadlines;
pub mod flow;
mod group;
pub mod late;
pub mod learned;
mod line;
pub mod objective;
mod overflow;
pub mod packs;
mod passing;
pub mod pending;
pub mod policy;
mod ranks;
pub mod similar;
pub mod sizes;
mod taking;
mod waiting;
mod windows;

use std::collections::VecDeque;
use std::task::Waker;

use crate::batch::Sealed;
use crate::border::{Border, Failure};
use crate::clock::{Clock, NEVER, Nanos};
use crate::limits::{Limits, Posted};
use crate::many::{self, Backlog};
use crate::queue::admission::Admission;
use crate::queue::intake::Intake;
use crate::queue::need::Need;
use crate::request::{Claimed, Handle, Terms};
use crate::stats::{Counters, since};
use crate::sync::Mutex;
use crate::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use crate::watch::Watch;
use callers::Keeper;
use cap::Cap;
pub(crate) use company::Company;
use deadlines::Deadlines;
use learned::{Learned, Learning};
use objective::Aside;
use pending::{Pending, Queued};
use policy::{Decision, Reason, decide};
pub(crate) use waiting::Waiting;

impl<B: Border> Queued for Handle<B> {
    #[inline]
    fn terms(&self) -> &Terms {
        &self.terms
    }
    #[inline]
    fn is_live(&self) -> bool {
        self.reply.is_pending()
    }
    #[inline]
    fn address(&self) -> u64 {
        &raw const **self as u64
    }
}

/// How far a batcher is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Nothing new; what is pending still runs.
    Draining,
    /// Nothing new; what is pending fails.
    Failing,
}

/// What all parties share.
pub(crate) struct Shared<B: Border> {
    pub(crate) intake: Intake<B>,
    pub(crate) admission: Admission,
    pub(crate) need: Need,
    /// Cost of everything admitted; kept only where a batch has a budget.
    pub(crate) cost: AtomicU64,
    /// Requests that wait for room, dead ones included.
    pub(crate) lobby: AtomicUsize,
    /// Whether a window waits for room.
    pub(crate) short: AtomicUsize,
    /// Ended requests whose handles are still queued, at most; a hint for exact counting.
    pub(crate) dead: AtomicUsize,
    pub(crate) cancelled: AtomicU64,
    pub(crate) rejected: AtomicU64,
    /// When `expire_due` is to be called next; see [`deadlines`].
    pub(crate) armed: AtomicU64,
    pub(crate) posted: Posted,
    pub(crate) learning: Learning,
    pub(crate) clock: B::Clock,
    pub(crate) watch: Watch,
    /// When it was made.
    pub(crate) opened: Nanos,
    pub(crate) state: Mutex<State<B>>,
}

/// What only the holder of the lock touches.
pub(crate) struct State<B: Border> {
    pub(crate) pending: Pending<Handle<B>>,
    pub(crate) lobby: VecDeque<Handle<B>>,
    /// What of windows has not been let in yet.
    pub(crate) backlogs: VecDeque<Backlog<B>>,
    pub(crate) deadlines: Deadlines<B>,
    pub(crate) slots: Waiting,
    /// The caller that keeps the time for batches run by their callers, while it does.
    keeper: Option<Keeper<B>>,
    /// Those asked for, but for the size and the cost of a batch, which are no larger than the caps say.
    pub(crate) limits: Limits,
    /// The size and the cost.
    pub(crate) asked: (usize, u64),
    cap: Cap,
    cost_cap: Cap,
    pub(crate) free_slots: usize,
    /// Slots in use beyond the limit, which was lowered meanwhile.
    slots_over: usize,
    /// What arrived up to here was flushed.
    pub(crate) flushed: Option<Nanos>,
    pub(crate) phase: Phase,
    pub(crate) closers: Vec<Waker>,
    pub(crate) counters: Counters,
    /// Who was there last time.
    pub(crate) company: Company,
    /// What batches take, where an option asks for that.
    pub(crate) learned: Option<Box<Learned>>,
}

/// What is to be done once the lock is released.
pub(crate) struct Outbox<B: Border> {
    pub(crate) wakes: Vec<Waker>,
    /// The waker of a seat that left the line.
    pub(crate) spent: Option<Waker>,
    pub(crate) garbage: Vec<Handle<B>>,
    /// Claimed without a batch, each with what it fails with.
    pub(crate) failing: Vec<(Claimed<B>, Failure)>,
    /// Overdue requests, ended.
    pub(crate) expired: Vec<Handle<B>>,
    /// Backlogs that are done with, and how many outcomes each has to count down.
    pub(crate) backlogs: Vec<(Backlog<B>, usize)>,
}

impl<B: Border> Default for Outbox<B> {
    fn default() -> Self {
        Self {
            wakes: Vec::new(),
            spent: None,
            garbage: Vec::new(),
            failing: Vec::new(),
            expired: Vec::new(),
            backlogs: Vec::new(),
        }
    }
}

impl<B: Border> Outbox<B> {
    fn drop_later(&mut self, handle: Option<Handle<B>>) {
        self.garbage.extend(handle);
    }
}

impl<B: Border> Shared<B> {
    pub(crate) fn new(limits: Limits, learning: Learning, clock: B::Clock) -> Self {
        Self {
            intake: Intake::new(),
            admission: Admission::new(limits.max_queue),
            need: Need::default(),
            cost: AtomicU64::new(0),
            lobby: AtomicUsize::new(0),
            short: AtomicUsize::new(0),
            dead: AtomicUsize::new(0),
            cancelled: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            armed: AtomicU64::new(NEVER),
            posted: Posted::new(&limits, learning.at_least(&limits)),
            opened: clock.now(),
            clock,
            watch: Watch::default(),
            state: Mutex::new(State {
                learned: Learned::of(&learning, &limits),
                pending: Pending::of_sizes(limits, learning.sizes.clone()),
                lobby: VecDeque::new(),
                backlogs: VecDeque::new(),
                deadlines: Deadlines::default(),
                slots: Waiting::default(),
                keeper: None,
                limits,
                asked: (limits.max_batch_size, limits.max_batch_cost),
                cap: Cap::default(),
                cost_cap: Cap::default(),
                free_slots: limits.slots,
                slots_over: 0,
                flushed: None,
                phase: Phase::Open,
                closers: Vec::new(),
                counters: Counters::default(),
                company: Company::default(),
            }),
            learning,
        }
    }

    #[inline]
    pub(crate) fn has_budget(&self) -> bool {
        self.posted.counts_cost
    }

    /// Runs `f` under the lock, then does what it left in the outbox.
    pub(crate) fn locked<R>(&self, f: impl FnOnce(&mut State<B>, &mut Outbox<B>) -> R) -> R {
        let mut out = Outbox::default();
        let result = f(&mut crate::sync::lock(&self.state), &mut out);
        self.send_off(out);
        result
    }

    fn send_off(&self, out: Outbox<B>) {
        for waker in out.wakes {
            waker.wake();
        }
        if !out.failing.is_empty() {
            crate::route::fail_unsealed(self, out.failing);
        }
        if !out.expired.is_empty() {
            many::tell_each(out.expired, B::expired);
        }
        for (backlog, n) in &out.backlogs {
            if *n > 0 {
                backlog.window.count_down(*n);
            }
        }
        // Garbage goes last: dropping a waiter or a waker may run the border's code.
        drop((out.garbage, out.spent, out.backlogs));
    }

    /// Brings everything in line after a change that a waiting slot, caller or close may care about.
    pub(crate) fn settle_now(&self) {
        let now = self.now();
        self.locked(|state, out| state.settle(self, now, out));
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Whether so many dead handles are to be dropped: where they outnumber the living, and where
    /// nothing lives, since an idle batcher keeps no request.
    #[inline]
    pub(crate) fn is_worth_a_sweep(&self, dead: usize) -> bool {
        let living = self.admission.count();
        dead > 0 && (living == 0 || (dead > 64 && dead > living))
    }

    /// Counts `n` requests of `cost` out of the queue.
    #[inline]
    pub(crate) fn leave_queue(&self, n: usize, cost: u64) {
        self.admission.leave(n);
        if self.has_budget() {
            self.cost.fetch_sub(cost, Relaxed);
        }
    }
}

impl<B: Border> State<B> {
    /// Takes in what was submitted since the last look, ends what is overdue, and lets in what has room
    /// now.
    pub(crate) fn take_in(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {
        self.drain_intake(shared);
        self.expire_due(shared, now, out);
        self.let_in(shared, now, out);
        if self.phase == Phase::Failing {
            self.fail_all(shared, out);
        }
    }

    fn drain_intake(&mut self, shared: &Shared<B>) {
        let (pending, deadlines) = (&mut self.pending, &mut self.deadlines);
        shared.intake.drain(|request| {
            deadlines.add(&request);
            pending.push(request);
        });
    }

    /// Moves what waits for room into the queue: single requests first, then those of windows.
    fn let_in(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {
        if !self.lobby.is_empty() {
            self.empty_lobby(shared, out);
        }
        if !self.backlogs.is_empty() {
            self.let_in_backlogs(shared, now, out);
        }
    }

    /// Lets in requests that wait for room, oldest first.
    fn empty_lobby(&mut self, shared: &Shared<B>, out: &mut Outbox<B>) {
        while !self.lobby.is_empty() {
            let mut room = shared.admission.enter_waiting(self.lobby.len());
            if room == 0 {
                break;
            }
            while room > 0 {
                let Some(request) = self.lobby.pop_front() else {
                    break;
                };
                if !request.reply.admit() {
                    out.drop_later(Some(request));
                    continue;
                }
                room -= 1;
                if shared.has_budget() {
                    shared.cost.fetch_add(request.terms.cost, Relaxed);
                }
                out.wakes.extend(B::let_in(request.waiter()).cloned());
                self.pending.push(request);
            }
            if room > 0 {
                shared.admission.leave(room);
            }
        }
        shared.lobby.store(self.lobby.len(), SeqCst);
    }

    /// Claims everything that is pending or waits for room, to be failed after unlocking.
    fn fail_all(&mut self, shared: &Shared<B>, out: &mut Outbox<B>) {
        let before = out.failing.len();
        let (mut n, mut cost) = (0, 0);
        for handle in self.lobby.drain(..) {
            // Not counted in yet, so not counted out.
            if handle.reply.admit() {
                match Claimed::claim(handle) {
                    Ok(claimed) => out.failing.push((claimed, Failure::Closed)),
                    Err(handle) => out.garbage.push(handle),
                }
            } else {
                out.garbage.push(handle);
            }
        }
        shared.lobby.store(0, SeqCst);
        for handle in self.pending.clear() {
            let price = handle.terms.cost;
            match Claimed::claim(handle) {
                Ok(claimed) => {
                    n += 1;
                    cost += price;
                    out.failing.push((claimed, Failure::Closed));
                }
                Err(handle) => out.garbage.push(handle),
            }
        }
        self.deadlines.clear(&mut out.garbage);
        self.end_backlogs(shared, Failure::Closed, |_| true, out);
        shared.short.store(0, SeqCst);
        self.counters.in_flight += (out.failing.len() - before) as u64;
        shared.leave_queue(n, cost);
        shared.dead.store(0, Relaxed);
    }

    /// Asks the policy about the group that goes next. `gathers`: for a caller that would run it itself.
    fn look(
        &mut self,
        shared: &Shared<B>,
        size: usize,
        gathers: bool,
        now: Nanos,
        out: &mut Outbox<B>,
    ) -> (u64, Decision) {
        if self.free_slots == 0 {
            // Whatever is pending: the policy would say the same, after a look at all of it.
            return (0, Decision::NO_SLOT);
        }
        if self.learned.is_some() {
            self.see_arrivals(shared, 0, now);
        }
        let draining = self.phase != Phase::Open;
        let aims = self.learned.as_ref().is_some_and(|learned| learned.aims());
        let longest = self.longest_wait();
        let waited = now.checked_sub(longest);
        let due = if draining {
            Some(Nanos::MAX)
        } else {
            waited.max(self.flushed)
        };
        loop {
            let Some(key) = self.pending.next(due, &mut out.garbage) else {
                let view = policy::View {
                    draining,
                    ..policy::View::default()
                };
                return (0, decide(&self.limits, size, &view, now, self.free_slots));
            };
            let some_dead = shared.dead.load(Relaxed) > 0;
            let mut view = self
                .pending
                .view(key, size.min(self.limits.max_batch_size), some_dead);
            view.draining = draining;
            view.flushed = view.oldest <= self.flushed;
            if gathers && self.limits.gather && self.limits.wait == 0 && !aims {
                view.gather = view
                    .oldest
                    .and_then(|oldest| self.company.gather(key, oldest));
            }
            let decision = if aims {
                self.aim(size, &view, longest, now)
            } else {
                decide(&self.limits, size, &view, now, self.free_slots)
            };
            let waits = matches!(decision, Decision::Wait { until: Some(_), .. });
            if waits && self.pending.only_looks_full(key, view.count) {
                // Dead handles made it look full, and may hide a group that is due.
                self.pending.compact_group(key, &mut out.garbage);
                continue;
            }
            return (key, decision);
        }
    }

    /// Seals a batch if one is due for a slot that takes up to `size`.
    pub(crate) fn seal_due(
        &mut self,
        shared: &Shared<B>,
        size: usize,
        now: Nanos,
        out: &mut Outbox<B>,
    ) -> Result<Sealed<B>, Decision> {
        loop {
            let (key, decision) = self.look(shared, size, false, now, out);
            let Decision::Leave(reason) = decision else {
                return Err(decision);
            };
            let aside = self.aside(shared, key, size, now);
            let sealed = self.seal(shared, key, size, aside, reason, now, out);
            if !sealed.requests.is_empty() {
                return Ok(sealed);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "who leaves, and why")]
    fn seal(
        &mut self,
        shared: &Shared<B>,
        key: u64,
        size: usize,
        mut aside: Option<Aside>,
        reason: Reason,
        now: Nanos,
        out: &mut Outbox<B>,
    ) -> Sealed<B> {
        let size = self.chosen(shared, key, size);
        let mut requests = Vec::with_capacity(size.min(self.pending.len()));
        let (mut cost, mut oldest) = (0, now);
        let (counters, deadlines) = (&mut self.counters, &mut self.deadlines);
        let misfit = self
            .pending
            .take_in_time(key, size, now, aside.as_mut(), |handle| {
                let terms = handle.terms;
                deadlines.forget(&handle);
                match Claimed::claim(handle) {
                    Ok(claimed) => {
                        if let Some(window) = claimed.handle().window() {
                            window.leave(&terms);
                        }
                        cost += terms.cost;
                        oldest = oldest.min(terms.arrival);
                        counters.waits.add(since(terms.arrival, now));
                        requests.push(claimed);
                        true
                    }
                    Err(handle) => {
                        out.garbage.push(handle);
                        false
                    }
                }
            });
        let reason = if misfit { Reason::Cost } else { reason };
        if !requests.is_empty() {
            self.free_slots -= 1;
            self.counters.batches += 1;
            self.counters.reasons[reason as usize] += 1;
            self.counters.sizes.add(requests.len() as u64);
            self.counters.in_flight += requests.len() as u64;
            let gathered = reason == Reason::Gather;
            self.company.sealed(requests.len(), key, gathered);
            shared.leave_queue(requests.len(), cost);
            if self.learned.is_some() {
                self.note_sealed(shared, requests.len(), cost, aside, now);
            }
            if self.cap.holds() || self.cost_cap.holds() {
                let costs = requests.iter().map(|one| one.handle().terms.cost);
                self.keep_trying(shared, costs, misfit);
            }
        }
        self.let_in(shared, now, out);
        Sealed {
            requests,
            reason,
            oldest,
            cost,
            at: now,
            number: self.counters.batches,
        }
    }

    /// Makes sure that whoever has to act next knows: the slot at the front (woken if a batch is due
    /// or its timer must change, otherwise with its need stated), a caller that runs its own batch, or
    /// those who wait for the end.
    pub(crate) fn settle(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {
        self.inform(shared, now, out);
        self.release_keeper(out);
    }

    fn inform(&mut self, shared: &Shared<B>, now: Nanos, out: &mut Outbox<B>) {
        loop {
            self.take_in(shared, now, out);
            // What is overdue is dead by now: an idle batcher keeps no request.
            self.sweep(shared, out);
            if self.is_drained(shared) {
                self.slots.wake_all(&mut out.wakes);
                if self.counters.in_flight == 0 {
                    out.wakes.append(&mut self.closers);
                }
                break;
            }
            if self.slots.wake_is_owed() {
                break;
            }
            let Some(size) = self.slots.front_size() else {
                self.settle_callers(shared, now, out);
                break;
            };
            match self.look(shared, size, false, now, out).1 {
                Decision::Leave(_) => {
                    self.slots.wake_front(&mut out.wakes);
                    break;
                }
                Decision::Wait { .. } if self.free_slots == 0 => break,
                Decision::Wait { until, count, cost } => {
                    if self.slots.front_sleeps_beyond(until) {
                        self.slots.wake_front(&mut out.wakes);
                        break;
                    }
                    shared.need.state(count, cost);
                    if shared.intake.is_empty() {
                        return;
                    }
                    shared.need.withdraw();
                }
            }
        }
        shared.need.withdraw();
    }

    /// Drops the dead handles once they are worth it.
    fn sweep(&mut self, shared: &Shared<B>, out: &mut Outbox<B>) {
        let dead = shared.dead.load(SeqCst);
        if !shared.is_worth_a_sweep(dead) {
            return;
        }
        // After the look at the number: whoever is counted in it has been pushed before.
        self.drain_intake(shared);
        self.pending.compact(&mut out.garbage);
        self.deadlines.compact(&mut out.garbage);
        let lobby = std::mem::take(&mut self.lobby);
        for handle in lobby {
            if handle.reply.is_in_lobby() {
                self.lobby.push_back(handle);
            } else {
                out.garbage.push(handle);
            }
        }
        shared.lobby.store(self.lobby.len(), SeqCst);
        shared.dead.fetch_sub(dead, SeqCst);
    }

    /// When the oldest pending request arrived.
    pub(crate) fn oldest(&mut self, shared: &Shared<B>, out: &mut Outbox<B>) -> Option<Nanos> {
        self.drain_intake(shared);
        self.pending.oldest(&mut out.garbage)
    }

    pub(crate) fn nothing_waits_for_room(&self) -> bool {
        self.lobby.is_empty() && self.backlogs.is_empty()
    }

    /// Closed, and nothing left that a slot could run.
    pub(crate) fn is_drained(&self, shared: &Shared<B>) -> bool {
        self.phase != Phase::Open && self.nothing_waits_for_room() && shared.admission.count() == 0
    }

    /// Closed, nothing pending, nothing in flight.
    pub(crate) fn has_ended(&self, shared: &Shared<B>) -> bool {
        self.is_drained(shared) && self.counters.in_flight == 0
    }
}
