//! The lobby, with `overflow="wait"`: whoever frees room lets the oldest in, nobody is stranded.

use carpool_core::{Limits, Overflow, Pulled};
use loom::thread;

use crate::support::{batcher, limits, model, serve, submit};

fn places(max_queue: usize) -> Limits {
    Limits {
        max_queue,
        overflow: Overflow::Wait,
        ..limits(1, 0)
    }
}

#[test]
fn a_cancel_lets_in_who_waits_for_room() {
    model(|| {
        // One stays, so that the cancel has no other reason to look after the queue.
        let batcher = batcher(places(2));
        let _stays = submit(&batcher, 0).unwrap();
        let first = submit(&batcher, 1).unwrap();
        let canceller = thread::spawn(move || {
            first.cancel();
        });
        let second = submit(&batcher, 2).unwrap();
        canceller.join().unwrap();
        // Nobody is left to help it: it must have room by now.
        assert!(second.request().reply().is_pending());
        assert_eq!(batcher.snapshot().pending, 2);
    });
}

#[test]
fn a_seal_lets_in_who_waits_for_room() {
    model(|| {
        let batcher = batcher(places(1));
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
        let batcher = batcher(places(1));
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
