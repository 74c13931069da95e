//! Close: what was accepted is resolved, what was not is refused, and the closer is told the end.

use carpool_core::park::Parker;
use carpool_core::{Batcher, Failure, Pulled};
use loom::thread;

use crate::support::{Model, batcher, limits, model, pull, serve, submit};

fn wait_for_the_end(batcher: &Batcher<Model>) {
    let parker = Parker::here();
    while !batcher.poll_ended(parker.waker()) {
        parker.park(None);
    }
}

#[test]
fn a_drain_answers_what_was_accepted() {
    model(|| {
        let batcher = batcher(limits(4, 1000));
        let submitter = {
            let batcher = batcher.clone();
            thread::spawn(move || submit(&batcher, 1))
        };
        let worker = {
            let batcher = batcher.clone();
            thread::spawn(move || {
                let (mut seat, parker) = (batcher.seat(), Parker::here());
                while let Some(batch) = pull(&mut seat, &parker, 4) {
                    serve(batch);
                }
            })
        };
        batcher.close(true);
        wait_for_the_end(&batcher);
        let s = batcher.snapshot();
        worker.join().unwrap();
        match submitter.join().unwrap() {
            Some(ticket) => assert_eq!((ticket.take(), s.answered), (Some(Ok(10)), 1)),
            None => assert_eq!(batcher.snapshot().rejected, 1),
        }
    });
}

#[test]
fn a_failing_close_fails_what_was_accepted_and_needs_no_slot() {
    model(|| {
        let batcher = batcher(limits(4, 1000));
        let submitters: Vec<_> = (1..=2)
            .map(|payload| {
                let batcher = batcher.clone();
                thread::spawn(move || submit(&batcher, payload))
            })
            .collect();
        batcher.close(false);
        wait_for_the_end(&batcher);
        let (mut failed, mut rejected) = (0, 0);
        for submitter in submitters {
            match submitter.join().unwrap() {
                Some(ticket) => {
                    assert_eq!(ticket.take(), Some(Err(Failure::Closed)));
                    failed += 1;
                }
                None => rejected += 1,
            }
        }
        let s = batcher.snapshot();
        assert_eq!((s.failed, s.rejected, s.submitted), (failed, rejected, 2));
    });
}

/// A look by a slot and the settling of a late submit both fail what is pending: counted once.
#[test]
fn a_failing_close_counts_each_request_once() {
    model(|| {
        let batcher = batcher(limits(4, 1000));
        let others = [batcher.clone(), batcher.clone(), batcher.clone()];
        let [submitter, closer, slot] = others;
        let submitter = thread::spawn(move || submit(&submitter, 1).is_some());
        let closer = thread::spawn(move || closer.close(false));
        let slot = thread::spawn(move || drop(slot.try_pull(4)));
        let accepted = submitter.join().unwrap();
        closer.join().unwrap();
        slot.join().unwrap();
        let s = batcher.snapshot();
        assert_eq!(
            (s.failed, s.rejected),
            (accepted.into(), (!accepted).into())
        );
    });
}

#[test]
fn the_last_answer_tells_the_closer() {
    model(|| {
        let batcher = batcher(limits(4, 0));
        let ticket = submit(&batcher, 1).unwrap();
        let Pulled::Batch(running) = batcher.try_pull(4) else {
            panic!("due");
        };
        let worker = thread::spawn(move || serve(running));
        batcher.close(true);
        wait_for_the_end(&batcher);
        assert_eq!(batcher.snapshot().answered, 1);
        worker.join().unwrap();
        assert_eq!(ticket.take(), Some(Ok(10)));
    });
}

/// Answers of one batch may be sent from several threads, in any order.
#[test]
fn the_last_answer_sent_tells_the_closer() {
    model(|| {
        let batcher = batcher(limits(4, 0));
        let _tickets = [1, 2].map(|payload| submit(&batcher, payload).unwrap());
        let Pulled::Batch(mut running) = batcher.try_pull(4) else {
            panic!("due");
        };
        let first = running.answer(0, Ok(10)).unwrap();
        let last = running.answer(1, Ok(20)).unwrap();
        assert!(last.is_last() && !first.is_last());
        let senders = [first, last].map(|out| thread::spawn(move || out.send()));
        batcher.close(true);
        wait_for_the_end(&batcher);
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(batcher.snapshot().answered, 2);
    });
}

/// Parts of one batch end on two threads; whoever ends last tells the closer.
#[test]
fn the_last_part_tells_the_closer() {
    model(|| {
        let batcher = batcher(limits(4, 0));
        let _tickets = [1, 2].map(|payload| submit(&batcher, payload).unwrap());
        let Pulled::Batch(mut running) = batcher.try_pull(4) else {
            panic!("due");
        };
        let rest = running.split_off(1).unwrap();
        let workers = [running, rest]
            .map(|mut part| thread::spawn(move || part.answer_all(vec![Ok(0)]).unwrap().send()));
        batcher.close(true);
        wait_for_the_end(&batcher);
        let shown = batcher.snapshot();
        assert_eq!((shown.answered, shown.runs.count()), (2, 1));
        let freed = workers.map(|worker| usize::from(worker.join().unwrap()));
        assert_eq!(freed.iter().sum::<usize>(), 1);
    });
}

#[test]
fn the_last_cancel_tells_the_closer_and_the_slot() {
    model(|| {
        let batcher = batcher(limits(4, 1000));
        let ticket = submit(&batcher, 1).unwrap();
        let canceller = thread::spawn(move || {
            ticket.cancel();
        });
        let worker = {
            let batcher = batcher.clone();
            thread::spawn(move || {
                let (mut seat, parker) = (batcher.seat(), Parker::here());
                while let Some(batch) = pull(&mut seat, &parker, 4) {
                    serve(batch);
                }
            })
        };
        batcher.close(true);
        wait_for_the_end(&batcher);
        canceller.join().unwrap();
        worker.join().unwrap();
    });
}
