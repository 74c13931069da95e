//! The decision, and the pending requests behind it: batches of 64 in and out with ten to a million pending, under
//! one key and under a thousand, with one priority and with eight. `cargo bench -p carpool-core --bench scheduler`.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;

use carpool_core::scheduler::pending::{Pending, Queued};
use carpool_core::scheduler::policy::{View, decide};
use carpool_core::{Limits, Terms};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{PENDING, SIZE, config};

#[derive(Debug, Clone, Copy)]
struct Item(Terms);

impl Queued for Item {
    fn terms(&self) -> &Terms {
        &self.0
    }
    fn is_live(&self) -> bool {
        true
    }
    fn address(&self) -> u64 {
        self.0.arrival
    }
}

fn limits() -> Limits {
    Limits {
        max_batch_size: SIZE,
        ..Limits::default()
    }
}

fn decision(c: &mut Criterion) {
    let limits = Limits {
        wait: 2_000_000,
        ..limits()
    };
    let view = View {
        count: 7,
        cost: 7,
        oldest: Some(1_000_000),
        ..View::default()
    };
    c.bench_function("decide", |b| {
        b.iter(|| decide(black_box(&limits), SIZE, black_box(&view), 2_000_000, 1));
    });
}

/// As many go in as go out: a batch of the most urgent, again and again.
fn in_and_out(c: &mut Criterion) {
    for (keys, levels) in [(1, 1), (1, 8), (1000, 1)] {
        let name = format!("pending, {keys} keys, {levels} priorities");
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(SIZE as u64));
        for count in PENDING {
            group.bench_function(BenchmarkId::new("pending", count), |b| {
                let mut pending = Pending::new(limits());
                let mut now = 1;
                let mut push = |pending: &mut Pending<Item>| {
                    let mut terms = Terms::at(now);
                    terms.key = now % keys;
                    terms.urgency += now % levels * 1_000_000;
                    pending.push(Item(terms));
                    now += 1;
                };
                for _ in 0..count {
                    push(&mut pending);
                }
                let mut garbage = Vec::new();
                b.iter(|| {
                    for _ in 0..SIZE {
                        push(&mut pending);
                    }
                    let mut left = SIZE;
                    while left > 0 {
                        let key = pending.next(Some(u64::MAX), &mut garbage).expect("one");
                        black_box(pending.view(key, SIZE, false));
                        pending.take(key, left, u64::MAX, |item| {
                            black_box(item);
                            left -= 1;
                            true
                        });
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = config();
    targets = decision, in_and_out
}
criterion_main!(benches);
