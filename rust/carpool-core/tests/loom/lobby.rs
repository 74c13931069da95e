//! The lobby, with `overflow="wait"`: whoever frees room lets the oldest in, nobody is stranded.

use carpool_core::{Limits, Overflow, Pulled};
use loom::thread;

use crate::support::{batcher, limits, model, serve, submit};

fn one_place() -> Limits {
    Limits {
        max_queue: 1,
        overflow: Overflow::Wait,
        ..limits(1, 0)
    }
}

#[test]
fn a_cancel_lets_in_who_waits_for_room() {
    model(|| {
        let batcher = batcher(one_place());
        let first = submit(&batcher, 1).unwrap();
        let canceller = thread::spawn(move || {
            first.cancel();
        });
        let second = submit(&batcher, 2).unwrap();
        canceller.join().unwrap();
        // Nobody is left to help it: it must have room by now.
        assert!(second.request().reply().is_pending());
        assert_eq!(batcher.snapshot().pending, 1);
    });
}

#[test]
fn a_seal_lets_in_who_waits_for_room() {
    model(|| {
        let batcher = batcher(one_place());
        let _first = submit(&batcher, 1).unwrap();
        let other = batcher.clone();
        let worker = thread::spawn(move || match other.try_pull(1) {
            Pulled::Batch(batch) => serve(batch),
            _ => panic!("due"),
        });
        let second = submit(&batcher, 2).unwrap();
        assert_eq!(worker.join().unwrap(), [1]);
        assert!(second.request().reply().is_pending());
        assert_eq!(batcher.snapshot().pending, 1);
    });
}

#[test]
fn who_gives_up_in_the_lobby_takes_no_room() {
    model(|| {
        let batcher = batcher(one_place());
        let first = submit(&batcher, 1).unwrap();
        let second = submit(&batcher, 2).unwrap();
        let third = submit(&batcher, 3).unwrap();
        let cancellers = [first, second].map(|ticket| {
            thread::spawn(move || {
                ticket.cancel();
            })
        });
        for canceller in cancellers {
            canceller.join().unwrap();
        }
        assert!(third.request().reply().is_pending());
        let s = batcher.snapshot();
        assert_eq!((s.pending, s.cancelled), (1, 2));
    });
}
