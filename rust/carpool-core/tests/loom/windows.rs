//! Many at once: the last outcome wakes the waiter, whoever brings it; room that is freed is given on.

use carpool_core::many::{Item, Many, Told};
use carpool_core::park::Parker;
use carpool_core::request::Terms;
use carpool_core::{Batcher, Limits, Pulled};
use loom::thread;

use crate::support::{Model, Waiter, batcher, limits, model, serve, submit};

fn submit_many(batcher: &Batcher<Model>, payloads: &[u8], parker: &Parker) -> Many<Model> {
    let waiter = Waiter {
        caller: Some(parker.waker().clone()),
        ..Waiter::default()
    };
    let items = payloads.iter().copied().map(Item::of).collect();
    let many = batcher.submit_many(items, waiter, Terms::at(0), Told::AtTheEnd);
    many.unwrap_or_else(|refused| panic!("{refused:?}"))
}

#[test]
fn the_last_of_two_batches_wakes_the_waiter_who_finds_both() {
    model(|| {
        let batcher = batcher(Limits {
            slots: 2,
            ..limits(1, 0)
        });
        let parker = Parker::here();
        let many = submit_many(&batcher, &[1, 2], &parker);
        let slots = [0, 1].map(|_| {
            let Pulled::Batch(batch) = batcher.try_pull(1) else {
                panic!("due");
            };
            thread::spawn(move || serve(batch))
        });
        while !many.is_over() {
            parker.park(None);
        }
        assert_eq!(many.take_all(), [Ok(10), Ok(20)]);
        for slot in slots {
            slot.join().unwrap();
        }
    });
}

/// Two slots pull what the window lets in, while the waiter sleeps.
#[test]
fn a_window_is_let_in_as_it_is_sealed() {
    model(|| {
        let batcher = batcher(Limits {
            max_queue: 2,
            ..limits(1, 0)
        });
        let parker = Parker::here();
        let many = submit_many(&batcher, &[1, 2, 3], &parker);
        let other = batcher.clone();
        let slot = thread::spawn(move || {
            let (mut seat, parker) = (other.seat(), Parker::here());
            let mut seen = Vec::new();
            while seen.len() < 3 {
                seen.extend(serve(crate::support::pull(&mut seat, &parker, 1).unwrap()));
            }
            seen
        });
        while !many.is_over() {
            parker.park(None);
        }
        assert_eq!(many.take_all(), [Ok(10), Ok(20), Ok(30)]);
        assert_eq!(slot.join().unwrap(), [1, 2, 3]);
    });
}

#[test]
fn a_cancel_lets_in_a_window_that_waits_for_room() {
    model(|| {
        // One stays, so that the cancel has no other reason to look after the queue.
        let batcher = batcher(Limits {
            max_queue: 2,
            ..limits(1, 0)
        });
        let _stays = submit(&batcher, 0).unwrap();
        let first = submit(&batcher, 1).unwrap();
        let canceller = thread::spawn(move || {
            first.cancel();
        });
        let many = submit_many(&batcher, &[2], &Parker::here());
        canceller.join().unwrap();
        // Nobody is left to help it: it must have room by now.
        assert_eq!((batcher.pending(), many.left()), (2, 1));
    });
}

#[test]
fn each_of_a_cancelled_window_has_one_owner() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let parker = Parker::here();
        let many = submit_many(&batcher, &[1, 2, 3, 4], &parker);
        let other = batcher.clone();
        let slot = thread::spawn(move || match other.try_pull(1) {
            Pulled::Batch(batch) => serve(batch),
            _ => Vec::new(),
        });
        let mut owned = many.cancel();
        owned.extend(slot.join().unwrap());
        owned.sort_unstable();
        assert_eq!(owned, [1, 2, 3, 4]);
        let s = batcher.snapshot();
        assert_eq!((s.submitted, s.pending, s.in_flight), (4, 0, 0));
        assert_eq!(s.answered + s.cancelled, 4);
    });
}

/// A failing close ends the backlog while a batch of the window is answered.
#[test]
fn a_failing_close_and_the_last_answer_end_a_window_once() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let parker = Parker::here();
        let many = submit_many(&batcher, &[1, 2, 3, 4], &parker);
        let Pulled::Batch(batch) = batcher.try_pull(1) else {
            panic!("due");
        };
        let slot = thread::spawn(move || serve(batch));
        let other = batcher.clone();
        let closer = thread::spawn(move || other.close(false));
        while !many.is_over() {
            parker.park(None);
        }
        let answers = many.take_all();
        assert_eq!((answers.len(), answers[0]), (4, Ok(10)));
        assert!(answers[1..].iter().all(Result::is_err));
        slot.join().unwrap();
        closer.join().unwrap();
    });
}
