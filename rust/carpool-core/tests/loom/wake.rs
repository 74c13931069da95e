//! The wake-up protocol of submitters and slots: no wake is lost, none goes to who has left.

use carpool_core::park::Parker;
use carpool_core::{Pulled, Reason};
use loom::thread;

use crate::support::{Model, Waiter, batcher, limits, model, pull, serve, submit};

#[test]
fn the_first_request_wakes_the_slot() {
    model(|| {
        let batcher = batcher(limits(4, 0));
        let submitters: Vec<_> = (1..=2)
            .map(|payload| {
                let batcher = batcher.clone();
                thread::spawn(move || submit(&batcher, payload).unwrap())
            })
            .collect();
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(serve(pull(&mut seat, &parker, 4).unwrap()));
        }
        for (i, submitter) in submitters.into_iter().enumerate() {
            let ticket = submitter.join().unwrap();
            assert_eq!(ticket.take(), Some(Ok((i as u8 + 1) * 10)));
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    });
}

#[test]
fn the_filling_request_wakes_the_slot() {
    model(|| {
        let batcher = batcher(limits(2, 1000));
        let submitters: Vec<_> = (1..=2)
            .map(|payload| {
                let batcher = batcher.clone();
                thread::spawn(move || submit(&batcher, payload).unwrap())
            })
            .collect();
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let batch = pull(&mut seat, &parker, 2).unwrap();
        assert_eq!((batch.len(), batch.reason()), (2, Reason::Full));
        for submitter in submitters {
            submitter.join().unwrap();
        }
    });
}

#[test]
fn the_request_that_uses_up_the_budget_wakes_the_slot() {
    use carpool_core::request::Terms;
    use carpool_core::submit::Announce;
    model(|| {
        let batcher = batcher(carpool_core::Limits {
            max_batch_cost: 10,
            ..limits(4, 1000)
        });
        let submitters: Vec<_> = (1..=2)
            .map(|payload| {
                let batcher = batcher.clone();
                let terms = Terms {
                    cost: 5,
                    ..Terms::at(0)
                };
                thread::spawn(move || {
                    let ticket =
                        batcher.submit_with(payload, Waiter::default(), terms, Announce::Yes);
                    drop(ticket.unwrap());
                })
            })
            .collect();
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let batch = pull(&mut seat, &parker, 4).unwrap();
        assert_eq!((batch.len(), batch.reason()), (2, Reason::Cost));
        for submitter in submitters {
            submitter.join().unwrap();
        }
    });
}

#[test]
fn the_end_of_a_batch_wakes_the_slot_that_waits_for_it() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let _first = submit(&batcher, 1).unwrap();
        let Pulled::Batch(running) = batcher.try_pull(1) else {
            panic!("due");
        };
        let worker = thread::spawn(move || serve(running));
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || submit(&batcher, 2).unwrap())
        };
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let batch = pull(&mut seat, &parker, 1).unwrap();
        assert_eq!(batch.payload(0), Some(&2));
        worker.join().unwrap();
        submitter.join().unwrap();
    });
}

#[test]
fn a_cancel_does_not_take_the_wake_along() {
    model(|| {
        let batcher = batcher(limits(2, 1000));
        let (mut seat, parker) = (batcher.seat(), Parker::here());
        let first = submit(&batcher, 1).unwrap();
        let canceller = thread::spawn(move || first.cancel().1.is_some());
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || [submit(&batcher, 2).unwrap(), submit(&batcher, 3).unwrap()])
        };
        let batch = pull(&mut seat, &parker, 2).unwrap();
        let payloads = serve(batch);
        let cancelled = canceller.join().unwrap();
        submitter.join().unwrap();
        if cancelled && payloads.len() == 2 {
            assert_eq!(payloads, [2, 3]);
        }
        // A batch that was full when its claim began may have lost the one cancelled meanwhile.
        assert!(payloads.len() == 2 || cancelled);
    });
}

/// Two slots wait; the one at the front goes away while a request wakes it.
#[test]
fn a_wake_for_a_slot_that_left_goes_to_the_next() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let (mut first, mut second) = (batcher.seat(), batcher.seat());
        let parker = Parker::here();
        let unheard = Parker::here();
        assert!(matches!(first.poll(unheard.waker(), 1), Pulled::Wait(None)));
        assert!(matches!(second.poll(parker.waker(), 1), Pulled::Wait(None)));
        let leaver = thread::spawn(move || drop(first));
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || submit(&batcher, 1).unwrap())
        };
        let batch = pull(&mut second, &parker, 1).unwrap();
        assert_eq!(serve(batch), [1]);
        leaver.join().unwrap();
        submitter.join().unwrap();
    });
}

/// The slot at the front leaves with a batch; the next in line must learn of what comes after.
#[test]
fn a_slot_that_leaves_with_a_batch_hands_the_lead_on() {
    model(|| {
        let batcher = batcher(carpool_core::Limits {
            slots: 2,
            ..limits(1, 0)
        });
        let (mut second, parker) = (batcher.seat(), Parker::here());
        let other = batcher.clone();
        let worker = thread::spawn(move || {
            let (mut first, parker) = (other.seat(), Parker::here());
            let batch = pull(&mut first, &parker, 1).unwrap();
            batch.len()
        });
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || {
                (1..=2).for_each(|payload| drop(submit(&batcher, payload).unwrap()));
            })
        };
        // The batch of the first is never answered before this one is there: both slots are needed.
        let batch: carpool_core::Batch<Model> = pull(&mut second, &parker, 1).unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(worker.join().unwrap(), 1);
        submitter.join().unwrap();
    });
}
