//! A border with nothing behind it, and a batcher of it, for all benches.
#![allow(dead_code)]

use std::hint::black_box;
use std::time::Duration;

use carpool_core::border::{Border, Failure};
use carpool_core::request::Handle;
use carpool_core::{Batcher, Limits, Nanos, Pulled, SystemClock, Ticket, timer};
use criterion::Criterion;

pub(crate) struct Bare;

impl Border for Bare {
    type Payload = u64;
    type Answer = u64;
    type Waiter = ();
    type Wakes = u64;
    type Clock = SystemClock;

    fn failure(_: Failure) -> u64 {
        u64::MAX
    }
    fn is_failure(answer: &u64) -> bool {
        *answer == u64::MAX
    }
    fn wake(_: &Handle<Self>, wakes: &mut u64) {
        *wakes += 1;
    }
    fn fire(wakes: u64) {
        black_box(wakes);
    }
    fn wake_window((): &Self::Waiter) {}
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        timer::arm(batcher, moment);
    }
}

/// Requests in a full batch.
pub(crate) const SIZE: usize = 64;

/// How many are pending, from few to very many.
pub(crate) const PENDING: [usize; 4] = [10, 1000, 100_000, 1_000_000];

/// A batcher with one slot.
pub(crate) fn batcher(max_queue: usize) -> Batcher<Bare> {
    let limits = Limits {
        max_batch_size: SIZE,
        max_queue,
        slots: 1,
        ..Limits::default()
    };
    Batcher::new(limits, SystemClock).expect("limits")
}

/// Submits `n` requests.
pub(crate) fn fill(batcher: &Batcher<Bare>, n: usize, tickets: &mut Vec<Ticket<Bare>>) {
    for _ in 0..n {
        tickets.push(batcher.submit(black_box(7), ()).expect("there is room"));
    }
}

/// Seals and answers one batch; how many it held.
pub(crate) fn serve(batcher: &Batcher<Bare>) -> usize {
    let Pulled::Batch(mut batch) = batcher.try_pull(SIZE) else {
        return 0;
    };
    batch
        .answer_all(vec![1; batch.len()])
        .expect("one each")
        .send();
    batch.len()
}

/// Short enough to run all benches in a few minutes.
pub(crate) fn config() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}
