//! What the core costs per request: submit alone, the whole way, several producers, many pending.
//! `cargo bench -p carpool-core --bench core`; the parts alone: `queue`, `reply`, `scheduler`. For counts
//! that no neighbour disturbs: `benches/instructions.py`.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use carpool_core::park::Parker;
use carpool_core::{Clock, Pulled, SystemClock};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{PENDING, SIZE, batcher, config, fill, serve};

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
    for pending in PENDING {
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

criterion_group! {
    name = benches;
    config = config();
    targets = submit, whole_way, producers
}
criterion_main!(benches);
