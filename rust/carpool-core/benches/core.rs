//! What the core costs per request: submit alone, the whole way, several producers, many pending.
//! `cargo bench -p carpool-core --bench core`. For counts that no neighbour disturbs:
//! `benches/instructions.py`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use carpool_core::border::{Border, Failure};
use carpool_core::park::Parker;
use carpool_core::request::Handle;
use carpool_core::{Batcher, Clock, Limits, Nanos, Pulled, SystemClock, Ticket, timer};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

struct Bare;

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
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        timer::arm(batcher, moment);
    }
}

const SIZE: usize = 64;

fn batcher(max_queue: usize) -> Batcher<Bare> {
    let limits = Limits {
        max_batch_size: SIZE,
        max_queue,
        slots: 1,
        ..Limits::default()
    };
    Batcher::new(limits, SystemClock).expect("limits")
}

fn fill(batcher: &Batcher<Bare>, n: usize, tickets: &mut Vec<Ticket<Bare>>) {
    for _ in 0..n {
        tickets.push(batcher.submit(black_box(7), ()).expect("there is room"));
    }
}

/// Seals and answers one batch; how many it held.
fn serve(batcher: &Batcher<Bare>) -> usize {
    let Pulled::Batch(mut batch) = batcher.try_pull(SIZE) else {
        return 0;
    };
    batch
        .answer_all(vec![1; batch.len()])
        .expect("one each")
        .send();
    batch.len()
}

/// Submits alone are timed; what they leave is served in between.
fn submit(c: &mut Criterion) {
    let mut group = c.benchmark_group("submit");
    group.bench_function("no slot waits", |b| {
        let batcher = batcher(1 << 20);
        let mut tickets = Vec::with_capacity(1024);
        b.iter_custom(|iterations| {
            let (mut left, mut total) = (iterations as usize, Duration::ZERO);
            while left > 0 {
                let n = left.min(1024);
                let start = Instant::now();
                fill(&batcher, n, &mut tickets);
                total += start.elapsed();
                left -= n;
                while serve(&batcher) > 0 {}
                tickets.clear();
            }
            total
        });
    });
    group.bench_function("its parts: clock", |b| b.iter(|| SystemClock.now()));
    group.bench_function("its parts: allocation", |b| {
        let mut kept = Vec::with_capacity(1024);
        b.iter_custom(|iterations| {
            let (mut left, mut total) = (iterations as usize, Duration::ZERO);
            while left > 0 {
                let n = left.min(1024);
                let start = Instant::now();
                kept.extend((0..n).map(|_| Box::new([0_u64; 14])));
                total += start.elapsed();
                left -= n;
                kept.clear();
            }
            total
        });
    });
    group.finish();
}

/// Submit, seal, answer, take.
fn whole_way(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole way, batches of 64");
    group.throughput(Throughput::Elements(SIZE as u64));
    for pending in [10, 1000, 100_000, 1_000_000] {
        group.bench_function(BenchmarkId::new("pending", pending), |b| {
            let batcher = batcher(pending + 2 * SIZE);
            let mut backlog = Vec::with_capacity(pending);
            fill(&batcher, pending, &mut backlog);
            drop(backlog);
            let mut tickets = Vec::with_capacity(SIZE);
            b.iter(|| {
                fill(&batcher, SIZE, &mut tickets);
                assert_eq!(serve(&batcher), SIZE);
                for ticket in tickets.drain(..) {
                    black_box(ticket.take());
                }
            });
        });
    }
    group.finish();
}

/// A slot serves while 1, 2 or 4 threads submit as fast as they can.
fn producers(c: &mut Criterion) {
    let mut group = c.benchmark_group("producers, one slot");
    group.throughput(Throughput::Elements(1));
    for producers in [1, 2, 4] {
        group.bench_function(BenchmarkId::from_parameter(producers), |b| {
            b.iter_custom(|iterations| {
                let batcher = batcher(1 << 20);
                let each = iterations.div_ceil(producers);
                let done = AtomicBool::new(false);
                thread::scope(|scope| {
                    let slot = scope.spawn(|| {
                        let (mut seat, parker) = (batcher.seat(), Parker::here());
                        while let Pulled::Batch(mut batch) =
                            seat.pull(&parker, SIZE, None, || done.load(Relaxed))
                        {
                            batch
                                .answer_all(vec![1; batch.len()])
                                .expect("one each")
                                .send();
                        }
                    });
                    let start = Instant::now();
                    let all: Vec<_> = (0..producers)
                        .map(|_| {
                            scope.spawn(|| {
                                for _ in 0..each {
                                    while batcher.submit(black_box(7), ()).is_err() {
                                        thread::yield_now();
                                    }
                                }
                            })
                        })
                        .collect();
                    for producer in all {
                        producer.join().expect("it does not panic");
                    }
                    batcher.close(true);
                    slot.join().expect("it does not panic");
                    start.elapsed()
                })
            });
        });
    }
    group.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = config();
    targets = submit, whole_way, producers
}
criterion_main!(benches);
