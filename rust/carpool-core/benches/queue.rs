//! The way in: admission alone, requests going in from 1, 2 and 4 threads, and the scheduler taking in what has
//! gathered, from ten to a million. `cargo bench -p carpool-core --bench queue`.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use carpool_core::queue::admission::Admission;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{PENDING, batcher, config, fill};

const PRODUCERS: [u64; 3] = [1, 2, 4];

/// `each` steps on each of so many threads, from a common start to the last one's end.
fn together(producers: u64, each: u64, step: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(producers as usize + 1);
    thread::scope(|scope| {
        let all: Vec<_> = (0..producers)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..each {
                        step();
                    }
                })
            })
            .collect();
        start.wait();
        let begin = Instant::now();
        for producer in all {
            producer.join().expect("it does not panic");
        }
        begin.elapsed()
    })
}

/// One place counted in and out again.
fn admission(c: &mut Criterion) {
    let mut group = c.benchmark_group("admission, in and out");
    group.throughput(Throughput::Elements(1));
    for producers in PRODUCERS {
        group.bench_function(BenchmarkId::new("threads", producers), |b| {
            let admission = Admission::new(1 << 20);
            b.iter_custom(|iterations| {
                together(producers, iterations.div_ceil(producers), || {
                    admission.enter().expect("there is room");
                    admission.leave(1);
                })
            });
        });
    }
    group.finish();
}

/// Requests go in and nobody takes them: clock, allocation, admission and push.
fn going_in(c: &mut Criterion) {
    let mut group = c.benchmark_group("going in, nobody serves");
    group.throughput(Throughput::Elements(1));
    for producers in PRODUCERS {
        group.bench_function(BenchmarkId::new("threads", producers), |b| {
            b.iter_custom(|iterations| {
                let each = iterations.div_ceil(producers);
                let batcher = batcher((each * producers) as usize);
                let took = together(producers, each, || {
                    // A dropped ticket leaves the request pending.
                    drop(batcher.submit(black_box(7), ()).expect("there is room"));
                });
                batcher.close(false);
                took
            });
        });
    }
    group.finish();
}

/// The look of the scheduler that finds so many new ones and seals a batch of one.
fn taking_in(c: &mut Criterion) {
    let mut group = c.benchmark_group("taking in");
    group.sample_size(10);
    for gathered in PENDING {
        group.throughput(Throughput::Elements(gathered as u64));
        group.bench_function(BenchmarkId::new("gathered", gathered), |b| {
            b.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let batcher = batcher(gathered);
                    let mut tickets = Vec::with_capacity(gathered);
                    fill(&batcher, gathered, &mut tickets);
                    let begin = Instant::now();
                    let pulled = black_box(batcher.try_pull(1));
                    total += begin.elapsed();
                    drop(pulled);
                    batcher.close(false);
                }
                total
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = config();
    targets = admission, going_in, taking_in
}
criterion_main!(benches);
