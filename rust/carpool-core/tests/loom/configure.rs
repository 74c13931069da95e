//! Limits that change while requests come and slots wait: whoever acted by the old ones is told.

use carpool_core::park::Parker;
use carpool_core::{Limits, Overflow, Pulled, Reason};
use loom::thread;

use crate::support::{batcher, limits, model, pull, serve, submit};

#[test]
fn a_smaller_batch_size_lets_a_waiting_slot_leave_with_what_is_there() {
    model(|| {
        let batcher = batcher(limits(3, 1000));
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || [1, 2].map(|payload| submit(&batcher, payload).unwrap()))
        };
        let changer = {
            let batcher = batcher.clone();
            thread::spawn(move || batcher.configure(limits(2, 1000)).unwrap())
        };
        let batch = pull(&mut seat, &parker, 3).unwrap();
        assert_eq!((batch.len(), batch.reason()), (2, Reason::Full));
        serve(batch);
        submitter.join().unwrap();
        changer.join().unwrap();
    });
}

#[test]
fn a_wait_of_nothing_lets_a_waiting_slot_leave() {
    model(|| {
        let batcher = batcher(limits(3, 1000));
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || submit(&batcher, 1).unwrap())
        };
        let changer = {
            let batcher = batcher.clone();
            thread::spawn(move || batcher.configure(limits(3, 0)).unwrap())
        };
        let batch = pull(&mut seat, &parker, 3).unwrap();
        assert_eq!((batch.len(), batch.reason()), (1, Reason::Idle));
        serve(batch);
        submitter.join().unwrap();
        changer.join().unwrap();
    });
}

#[test]
fn a_longer_queue_lets_in_who_waits_for_room() {
    let queue = |max_queue| Limits {
        max_queue,
        overflow: Overflow::Wait,
        ..limits(1, 0)
    };
    model(move || {
        let batcher = batcher(queue(1));
        let _first = submit(&batcher, 1).unwrap();
        let changer = {
            let batcher = batcher.clone();
            thread::spawn(move || batcher.configure(queue(2)).unwrap())
        };
        let second = submit(&batcher, 2).unwrap();
        changer.join().unwrap();
        assert!(second.request().reply().is_pending());
        assert_eq!(batcher.snapshot().pending, 2);
    });
}

#[test]
fn another_slot_takes_what_waits_for_one() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let _first = submit(&batcher, 1).unwrap();
        let Pulled::Batch(running) = batcher.try_pull(1) else {
            panic!("due");
        };
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || submit(&batcher, 2).unwrap())
        };
        let changer = {
            let batcher = batcher.clone();
            let two = Limits {
                slots: 2,
                ..limits(1, 0)
            };
            thread::spawn(move || batcher.configure(two).unwrap())
        };
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let batch = pull(&mut seat, &parker, 1).unwrap();
        assert_eq!(batch.payload(0), Some(&2));
        serve(batch);
        serve(running);
        submitter.join().unwrap();
        changer.join().unwrap();
    });
}
