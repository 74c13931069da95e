//! Streams on real threads, the real clock, no sleeps: a handler that waits for room, readers that park
//! until they are told, some that stop half-way, batches split in between. Each reads its own steps, in
//! order, each once.
#![allow(missing_docs)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Waker;
use std::thread;

use carpool_core::border::{Border, Failure};
use carpool_core::park::Parker;
use carpool_core::reply::Cancelled;
use carpool_core::request::Handle;
use carpool_core::{AnswerError, Batch, Batcher, Limits, Next, Pulled, SystemClock, Ticket};

struct Streaming;

impl Border for Streaming {
    type Payload = u64;
    type Answer = Result<u64, Failure>;
    type Waiter = Waker;
    type Wakes = Vec<Waker>;
    type Clock = SystemClock;

    fn failure(why: Failure) -> Self::Answer {
        Err(why)
    }
    fn is_failure(answer: &Self::Answer) -> bool {
        answer.is_err()
    }
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes) {
        wakes.push(request.waiter().clone());
    }
    fn fire(wakes: Self::Wakes) {
        wakes.into_iter().for_each(Waker::wake);
    }
    fn wake_window(_: &Self::Waiter) {}
    fn arm(_: &Batcher<Self>, _: u64) {
        panic!("nothing has a deadline");
    }
}

/// How many steps a request gets, and where its caller stops reading.
fn plan(payload: u64) -> (u64, Option<u64>) {
    let steps = payload % 23;
    (steps, (payload % 5 == 3).then_some(steps / 2))
}

fn step(payload: u64, at: u64) -> Result<u64, Failure> {
    Ok(payload << 16 | at)
}

/// Gives all requests of the batch their steps, as far as there is room, then waits for some.
fn serve(mut batch: Batch<Streaming>, turn: u64) {
    if turn % 3 == 0 && batch.len() > 1 {
        let half = batch.split_off(batch.len() / 2).unwrap();
        return thread::scope(|scope| {
            scope.spawn(|| serve(half, turn + 1));
            serve(batch, turn + 2);
        });
    }
    let parker = Parker::here();
    let mut todo: VecDeque<(usize, u64)> = (0..batch.len()).map(|at| (at, 0)).collect();
    while !todo.is_empty() {
        let (mut next, mut waits) = (VecDeque::new(), Vec::new());
        let mut steps = Vec::new();
        for (index, given) in todo.drain(..) {
            let payload = *batch.payload(index).unwrap();
            if given < plan(payload).0 && batch.is_wanted(index) {
                steps.push((index, step(payload, given)));
                next.push_back((index, given + 1));
            } else if batch.len() > 1 {
                let answer = step(payload, given);
                batch.answer(index, answer).unwrap().send();
            }
            // One that is alone is left to the drop of the batch.
        }
        let (out, refused) = batch.steps(steps);
        out.send();
        for (error, _) in refused {
            match error {
                AnswerError::Full { index } => {
                    let at = next.iter_mut().find(|(at, _)| *at == index).unwrap();
                    at.1 -= 1;
                    waits.push(index);
                }
                AnswerError::Gone { .. } => {}
                other => panic!("{other}"),
            }
        }
        let stuck = waits.len() == next.len() && !waits.is_empty();
        let room = |&index: &usize| batch.poll_room(index, parker.waker());
        if stuck && waits.iter().filter(|index| !room(index)).count() == waits.len() {
            parker.park(None);
        }
        todo = next;
    }
}

/// Reads to the end, or to where it stops; true when it was cancelled in time.
fn read(ticket: &Ticket<Streaming>, payload: u64, parker: &Parker) -> bool {
    let (steps, stops) = plan(payload);
    let mut seen = 0;
    loop {
        if stops == Some(seen) && ticket.cancel().0 != Cancelled::TooLate {
            assert_eq!(ticket.next(), Next::Nothing);
            return true;
        }
        match ticket.next() {
            Next::Step(value) => {
                assert_eq!(
                    value,
                    step(payload, seen),
                    "a step of another, or out of order"
                );
                seen += 1;
            }
            Next::Last(last) => {
                assert!(last == step(payload, seen) || last == Err(Failure::Abandoned));
                assert_eq!(seen, steps);
                assert_eq!(ticket.next(), Next::Nothing);
                return false;
            }
            Next::Nothing => parker.park(None),
        }
    }
}

#[test]
fn everybody_reads_their_own_steps() {
    let limits = Limits {
        max_batch_size: 6,
        slots: 2,
        steps: 3,
        ..Limits::default()
    };
    let batcher = Batcher::<Streaming>::new(limits, SystemClock).unwrap();
    let (cancelled, turn) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            let (batcher, turn) = (&batcher, &turn);
            scope.spawn(move || {
                let (mut seat, parker) = (batcher.seat(), Parker::here());
                while let Pulled::Batch(batch) = seat.pull(&parker, usize::MAX, None, || false) {
                    serve(batch, turn.fetch_add(1, SeqCst));
                }
            });
        }
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (batcher, cancelled) = (&batcher, &cancelled);
                scope.spawn(move || {
                    let parker = Parker::here();
                    for round in 0..300 {
                        let window: Vec<_> = (0..1 + round % 4)
                            .map(|at| {
                                let payload = reader * 10_000 + round * 10 + at;
                                let waiter = parker.waker().clone();
                                (payload, batcher.submit(payload, waiter).ok().unwrap())
                            })
                            .collect();
                        for (payload, ticket) in window {
                            let stopped = read(&ticket, payload, &parker);
                            cancelled.fetch_add(u64::from(stopped), SeqCst);
                        }
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.join().unwrap();
        }
        batcher.close(true);
    });
    let shown = batcher.snapshot();
    assert_eq!(shown.cancelled, cancelled.load(SeqCst));
    assert_eq!(shown.submitted, 4 * 300 * 5 / 2);
    assert_eq!(
        shown.answered + shown.failed + shown.cancelled,
        shown.submitted
    );
}
