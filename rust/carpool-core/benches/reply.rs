//! The one-shot state machine between a request and its caller: its ways, on one thread and across two.
//! `cargo bench -p carpool-core --bench reply`.
#![allow(missing_docs)]

mod support;

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::thread;

use carpool_core::reply::Reply;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use support::{SIZE, config};

fn answered(reply: &Reply<u64, u64>) {
    assert!(reply.claim());
    // SAFETY: claimed here, by the only thread that delivers.
    let (payload, stored) = unsafe { reply.deliver(black_box(7)) };
    black_box(payload);
    stored.expect("somebody waits");
    reply.publish();
}

fn ways(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    group.bench_function("claim, deliver, publish, take", |b| {
        b.iter(|| {
            let reply = Reply::new(black_box(1), false);
            answered(&reply);
            black_box(reply.take())
        });
    });
    group.bench_function("cancel while pending", |b| {
        b.iter(|| {
            let reply = Reply::<u64, u64>::new(black_box(1), false);
            black_box(reply.cancel())
        });
    });
    group.bench_function("cancel in flight, the answer comes back", |b| {
        b.iter(|| {
            let reply = Reply::new(black_box(1), false);
            assert!(reply.claim());
            black_box(reply.cancel());
            // SAFETY: claimed here, by the only thread.
            black_box(unsafe { reply.deliver(7) })
                .1
                .expect_err("nobody waits")
        });
    });
    group.bench_function("let in from the lobby", |b| {
        b.iter(|| {
            let reply = Reply::new(black_box(1), true);
            assert!(reply.admit());
            answered(&reply);
            black_box(reply.take())
        });
    });
    group.finish();
}

/// A batch of replies is answered by another thread while this one looks for them.
fn across(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply across threads");
    group.throughput(Throughput::Elements(SIZE as u64));
    group.bench_function("a batch of 64", |b| {
        thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel::<Arc<Vec<Reply<u64, u64>>>>();
            scope.spawn(move || {
                for batch in receive {
                    batch.iter().for_each(answered);
                }
            });
            b.iter_batched(
                || {
                    Arc::new(
                        (0..SIZE)
                            .map(|_| Reply::new(black_box(1), false))
                            .collect::<Vec<_>>(),
                    )
                },
                |batch| {
                    send.send(Arc::clone(&batch)).expect("it serves");
                    for reply in batch.iter() {
                        while reply.take().is_none() {
                            spin_loop();
                        }
                    }
                },
                BatchSize::SmallInput,
            );
            drop(send);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = config();
    targets = ways, across
}
criterion_main!(benches);
