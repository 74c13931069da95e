//! Real threads, the real clock, no sleeps: many callers, cancellers, slots and a close at once. Every
//! request is resolved once, with the answer to its own tag.
#![allow(missing_docs, unreachable_pub)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::Waker;
use std::thread;

use carpool_core::border::{Border, Failure};
use carpool_core::park::Parker;
use carpool_core::reply::Cancelled;
use carpool_core::request::{Handle, Terms};
use carpool_core::submit::Announce;
use carpool_core::{
    Batch, Batcher, Limits, Nanos, Overflow, Pulled, Refusal, Snapshot, SystemClock, Ticket, timer,
};

struct Real;

#[derive(Default)]
struct Waiter {
    caller: Option<Waker>,
    runs: bool,
}

impl Border for Real {
    type Payload = u64;
    type Answer = Result<u64, Failure>;
    type Waiter = Waiter;
    type Wakes = Vec<Waker>;
    type Clock = SystemClock;

    fn failure(why: Failure) -> Self::Answer {
        Err(why)
    }
    fn is_failure(answer: &Self::Answer) -> bool {
        answer.is_err()
    }
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes) {
        wakes.extend(request.waiter().caller.clone());
    }
    fn fire(wakes: Self::Wakes) {
        wakes.into_iter().for_each(Waker::wake);
    }
    fn wake_window(waiter: &Self::Waiter) {
        waiter.caller.iter().for_each(Waker::wake_by_ref);
    }
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        timer::arm(batcher, moment);
    }
    fn runner(waiter: &Waiter) -> Option<&Waker> {
        waiter.caller.as_ref().filter(|_| waiter.runs)
    }
}

fn answer_to(payload: u64) -> u64 {
    payload.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Runs a batch: answers it whole, in pieces, or forgets the rest of it.
fn serve(mut batch: Batch<Real>, how: u64, limits: &Limits) {
    assert!(batch.len() <= limits.max_batch_size);
    let answers: Vec<_> = (0..batch.len())
        .map(|at| Ok(answer_to(*batch.payload(at).unwrap())))
        .collect();
    match how % 16 {
        0 => {
            batch.answer(0, answers[0]).unwrap().send();
        }
        1 => {
            let outs: Vec<_> = answers
                .into_iter()
                .enumerate()
                .map(|(at, answer)| batch.answer(at, answer).unwrap())
                .collect();
            // The last prepared is sent first.
            outs.into_iter().rev().for_each(drop);
        }
        _ => {
            batch.answer_all(answers).unwrap().send();
        }
    }
}

/// Waits for the answer, parked.
fn wait(ticket: &Ticket<Real>, parker: &Parker) -> Result<u64, Failure> {
    loop {
        match ticket.take() {
            Some(answer) => return answer,
            None => parker.park(None),
        }
    }
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    rejected: AtomicU64,
}

impl Tally {
    fn check(&self, shown: &Snapshot) {
        let of = |count: &AtomicU64| count.load(SeqCst);
        assert_eq!(shown.answered, of(&self.answered));
        assert_eq!(shown.failed, of(&self.failed));
        assert_eq!(shown.cancelled, of(&self.cancelled));
        assert_eq!(shown.rejected, of(&self.rejected));
        assert_eq!((shown.pending, shown.in_flight), (0, 0));
    }

    fn count(&self, outcome: Result<u64, Failure>, payload: u64) {
        match outcome {
            Ok(answer) => {
                assert_eq!(answer, answer_to(payload), "the answer to another request");
                self.answered.fetch_add(1, SeqCst);
            }
            Err(Failure::Abandoned | Failure::Closed | Failure::Shed) => {
                self.failed.fetch_add(1, SeqCst);
            }
            Err(Failure::Expired) => {
                self.failed.fetch_add(1, SeqCst);
            }
        }
    }
}

/// One caller thread: submits windows of requests, cancels some, waits for the rest. True once the
/// batcher was closed.
fn calls(batcher: &Batcher<Real>, tally: &Tally, tag: u64, rounds: u64, cancels: bool) -> bool {
    let parker = Parker::here();
    for round in 0..rounds {
        let mut window = Vec::new();
        for at in 0..1 + round % 8 {
            let payload = tag << 32 | round << 4 | at;
            let waiter = Waiter {
                caller: Some(parker.waker().clone()),
                runs: false,
            };
            match batcher.submit(payload, waiter) {
                Ok(ticket) => window.push((payload, ticket)),
                Err(refused) => {
                    assert_eq!(refused.payload, payload);
                    tally.rejected.fetch_add(1, SeqCst);
                    if refused.why == Refusal::Closed {
                        finish(tally, window, &parker);
                        return true;
                    }
                }
            }
        }
        if cancels {
            window.retain(|(payload, ticket)| {
                if (payload + round) % 3 != 0 {
                    return true;
                }
                match ticket.cancel() {
                    (Cancelled::TooLate, None) => return true,
                    (Cancelled::InFlight, None) => {}
                    (_, back) => assert_eq!(back, Some(*payload)),
                }
                tally.cancelled.fetch_add(1, SeqCst);
                false
            });
        }
        finish(tally, window, &parker);
    }
    false
}

fn finish(tally: &Tally, window: Vec<(u64, Ticket<Real>)>, parker: &Parker) {
    for (payload, ticket) in window {
        tally.count(wait(&ticket, parker), payload);
        assert_eq!(ticket.take(), None);
    }
}

fn end(batcher: &Batcher<Real>) {
    let parker = Parker::here();
    while !batcher.poll_ended(parker.waker()) {
        parker.park(None);
    }
}

/// Four callers, two slots, and a close in the midst of it.
fn run(limits: Limits, cancels: bool, drain: bool, close_after: u64) {
    let batcher = Batcher::<Real>::new(limits, SystemClock).unwrap();
    let tally = Tally::default();
    let (served, closing) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for slot in 0..2 {
            let (batcher, served, closing) = (&batcher, &served, &closing);
            scope.spawn(move || {
                let (mut seat, parker) = (batcher.seat(), Parker::here());
                loop {
                    match seat.pull(&parker, usize::MAX, None, || false) {
                        Pulled::Batch(batch) => {
                            let n = served.fetch_add(1, SeqCst);
                            serve(batch, n + slot, &batcher.limits());
                            if n >= close_after && !closing.swap(true, SeqCst) {
                                batcher.close(drain);
                            }
                        }
                        Pulled::Closed => return,
                        Pulled::Wait(_) => panic!("nobody told it to stop"),
                    }
                }
            });
        }
        let callers: Vec<_> = (0..4)
            .map(|tag| {
                let (batcher, tally) = (&batcher, &tally);
                scope.spawn(move || calls(batcher, tally, tag, 4000, cancels))
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
        batcher.close(drain);
        end(&batcher);
        tally.check(&batcher.snapshot());
    });
}

fn limits(max_batch_size: usize, wait: u64, max_queue: usize, overflow: Overflow) -> Limits {
    Limits {
        max_batch_size,
        wait,
        max_queue,
        overflow,
        slots: 2,
        ..Limits::default()
    }
}

#[test]
fn callers_and_slots() {
    run(limits(8, 0, 1000, Overflow::Raise), false, true, u64::MAX);
    run(
        limits(8, 20_000, 1000, Overflow::Raise),
        true,
        true,
        u64::MAX,
    );
}

#[test]
fn a_bounded_queue_that_refuses() {
    run(limits(4, 0, 3, Overflow::Raise), true, true, u64::MAX);
}

#[test]
fn a_bounded_queue_with_a_lobby() {
    run(limits(4, 0, 3, Overflow::Wait), true, true, u64::MAX);
    run(limits(3, 10_000, 2, Overflow::Wait), false, true, u64::MAX);
}

#[test]
fn a_close_in_the_midst() {
    for round in 0..40 {
        let overflow = [Overflow::Raise, Overflow::Wait][round as usize % 2];
        run(limits(4, 0, 5, overflow), true, round % 4 < 2, round * 7);
    }
}

/// Callers that run their own batches, one slot: nobody else is there to help.
#[test]
fn callers_that_run_their_own_batches() {
    let limits = Limits {
        slots: 1,
        ..limits(4, 5_000, 1000, Overflow::Raise)
    };
    let batcher = Batcher::<Real>::new(limits, SystemClock).unwrap();
    let (tally, served) = (Tally::default(), AtomicU64::new(0));
    thread::scope(|scope| {
        for tag in 0..4_u64 {
            let (batcher, tally, served) = (&batcher, &tally, &served);
            scope.spawn(move || {
                let parker = Parker::here();
                for round in 0..3000 {
                    let payload = tag << 32 | round;
                    let waiter = Waiter {
                        caller: Some(parker.waker().clone()),
                        runs: true,
                    };
                    let terms = Terms::at(batcher.now());
                    let ticket = batcher.submit_with(payload, waiter, terms, Announce::No);
                    let ticket = ticket.unwrap_or_else(|refused| panic!("{refused:?}"));
                    if (tag + round) % 7 == 0 && ticket.cancel().0 != Cancelled::TooLate {
                        tally.cancelled.fetch_add(1, SeqCst);
                        continue;
                    }
                    let outcome = loop {
                        if let Some(answer) = ticket.take() {
                            break answer;
                        }
                        match batcher.pull_own(&ticket) {
                            Pulled::Batch(batch) => {
                                let own = batch.requests().any(|r| r.reply().is_sealed());
                                assert!(own);
                                serve(batch, served.fetch_add(1, SeqCst), &batcher.limits());
                            }
                            Pulled::Wait(until) => {
                                let now = batcher.now();
                                parker.park(until.map(|until| until.saturating_sub(now)));
                            }
                            Pulled::Closed => panic!("nobody closed it"),
                        }
                    };
                    tally.count(outcome, payload);
                }
            });
        }
    });
    batcher.close(true);
    end(&batcher);
    tally.check(&batcher.snapshot());
}

/// Callers that run alone where they can, and gather where they cannot: whoever is not woken hangs.
#[test]
fn callers_that_run_alone_and_gather() {
    let limits = Limits {
        slots: 1,
        ..limits(4, 0, 1000, Overflow::Raise)
    };
    let batcher = Batcher::<Real>::new(limits, SystemClock).unwrap();
    let tally = Tally::default();
    // Long enough for the others to be expected back.
    let work = || {
        let began = batcher.now();
        while batcher.now() - began < 30_000 {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        for tag in 0..3_u64 {
            let (batcher, tally, work) = (&batcher, &tally, &work);
            scope.spawn(move || {
                let parker = Parker::here();
                for round in 0..1000 {
                    let payload = tag << 32 | round;
                    if let Some(lease) = batcher.alone() {
                        work();
                        lease.answered();
                        tally.count(Ok(answer_to(payload)), payload);
                        continue;
                    }
                    let waiter = Waiter {
                        caller: Some(parker.waker().clone()),
                        runs: true,
                    };
                    let terms = Terms::at(batcher.now());
                    let ticket = batcher.submit_with(payload, waiter, terms, Announce::No);
                    let ticket = ticket.unwrap_or_else(|refused| panic!("{refused:?}"));
                    let outcome = loop {
                        if let Some(answer) = ticket.take() {
                            break answer;
                        }
                        match batcher.pull_own(&ticket) {
                            Pulled::Batch(mut batch) => {
                                work();
                                let answers = (0..batch.len())
                                    .map(|at| Ok(answer_to(*batch.payload(at).unwrap())))
                                    .collect();
                                drop(batch.answer_all(answers).unwrap().send_keeping());
                            }
                            Pulled::Wait(until) => {
                                let now = batcher.now();
                                parker.park(until.map(|until| until.saturating_sub(now)));
                            }
                            Pulled::Closed => panic!("nobody closed it"),
                        }
                    };
                    tally.count(outcome, payload);
                }
            });
        }
    });
    batcher.close(true);
    end(&batcher);
    tally.check(&batcher.snapshot());
}
