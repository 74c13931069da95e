//! Callers that run their own batches: the baton goes on, however its holder ends.

use carpool_core::park::Parker;
use carpool_core::{Batcher, Pulled, Ticket};
use loom::thread;

use crate::support::{Model, batcher, limits, model, serve, submit_own};

/// What a blocking call does: run its own batch, or wait until it is answered.
fn call(batcher: &Batcher<Model>, ticket: &Ticket<Model>, parker: &Parker) -> u8 {
    loop {
        if let Some(answer) = ticket.take() {
            return answer.unwrap();
        }
        match batcher.pull_own(ticket) {
            Pulled::Batch(batch) => drop(serve(batch)),
            Pulled::Wait(_) => parker.park(None),
            Pulled::Closed => panic!("nobody closed it"),
        }
    }
}

#[test]
fn two_callers_answer_each_other() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let other = batcher.clone();
        let rival = thread::spawn(move || {
            let parker = Parker::here();
            let ticket = submit_own(&other, 2, &parker);
            call(&other, &ticket, &parker)
        });
        let parker = Parker::here();
        let ticket = submit_own(&batcher, 1, &parker);
        assert_eq!(call(&batcher, &ticket, &parker), 10);
        assert_eq!(rival.join().unwrap(), 20);
    });
}

#[test]
fn two_callers_fill_one_batch() {
    model(|| {
        let batcher = batcher(limits(2, 1000));
        let other = batcher.clone();
        let rival = thread::spawn(move || {
            let parker = Parker::here();
            let ticket = submit_own(&other, 2, &parker);
            call(&other, &ticket, &parker)
        });
        let parker = Parker::here();
        let ticket = submit_own(&batcher, 1, &parker);
        assert_eq!(call(&batcher, &ticket, &parker), 10);
        assert_eq!(rival.join().unwrap(), 20);
        assert_eq!(batcher.snapshot().batches, 1);
    });
}

/// The caller that keeps the time gives up; another must take the time over.
#[test]
fn a_caller_that_gives_up_hands_the_time_on() {
    model(|| {
        let batcher = batcher(limits(4, 1000));
        let unheard = Parker::here();
        let first = submit_own(&batcher, 1, &unheard);
        assert!(matches!(batcher.pull_own(&first), Pulled::Wait(Some(1000))));
        let leaver = thread::spawn(move || {
            first.cancel();
        });
        let parker = Parker::here();
        let second = submit_own(&batcher, 2, &parker);
        while let Pulled::Wait(None) = batcher.pull_own(&second) {
            parker.park(None);
        }
        leaver.join().unwrap();
    });
}

/// A runner that keeps the slot until it has woken its callers; whoever comes meanwhile waits for it.
#[test]
fn a_kept_slot_goes_to_who_waits_for_it() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let other = batcher.clone();
        let rival = thread::spawn(move || {
            let parker = Parker::here();
            let ticket = submit_own(&other, 2, &parker);
            call(&other, &ticket, &parker)
        });
        let parker = Parker::here();
        let ticket = submit_own(&batcher, 1, &parker);
        let answer = loop {
            if let Some(answer) = ticket.take() {
                break answer.unwrap();
            }
            match batcher.pull_own(&ticket) {
                Pulled::Batch(mut batch) => {
                    let answers = (0..batch.len()).map(|at| Ok(batch.payload(at).unwrap() * 10));
                    let answers = answers.collect();
                    let outgoing = batch
                        .answer_all(answers)
                        .unwrap_or_else(|_| panic!("refused"));
                    drop(outgoing.send_keeping());
                }
                Pulled::Wait(_) => parker.park(None),
                Pulled::Closed => panic!("nobody closed it"),
            }
        };
        assert_eq!(answer, 10);
        assert_eq!(rival.join().unwrap(), 20);
    });
}

/// What a blocking call does that need not be seen: run alone, or as above.
fn call_alone(batcher: &Batcher<Model>, payload: u8, parker: &Parker) -> u8 {
    match batcher.alone() {
        Some(lease) => {
            thread::yield_now();
            lease.answered();
            payload * 10
        }
        None => {
            let ticket = submit_own(batcher, payload, parker);
            call(batcher, &ticket, parker)
        }
    }
}

/// The one that comes while the other runs alone is told when that has ended.
#[test]
fn a_call_that_runs_alone_tells_who_came_meanwhile() {
    model(|| {
        let batcher = batcher(limits(2, 0));
        let other = batcher.clone();
        let rival = thread::spawn(move || call_alone(&other, 2, &Parker::here()));
        assert_eq!(call_alone(&batcher, 1, &Parker::here()), 10);
        assert_eq!(rival.join().unwrap(), 20);
        let shown = batcher.snapshot();
        assert_eq!((shown.answered, shown.in_flight, shown.pending), (2, 0, 0));
    });
}

/// The one who gathers is answered by the one it waits for: no timer is ever over in a model.
#[test]
fn who_gathers_is_answered_by_who_comes_back() {
    model(|| {
        let batcher = batcher(limits(8, 0));
        let parker = Parker::here();
        let (one, two) = (
            submit_own(&batcher, 1, &parker),
            submit_own(&batcher, 2, &parker),
        );
        let Pulled::Batch(batch) = batcher.pull_own(&one) else {
            panic!("nobody else is there");
        };
        batcher.clock().clock.advance(100_000);
        drop(serve(batch));
        assert!(one.take().is_some() && two.take().is_some());
        let other = batcher.clone();
        let rival = thread::spawn(move || {
            let parker = Parker::here();
            let ticket = submit_own(&other, 2, &parker);
            call(&other, &ticket, &parker)
        });
        let ticket = submit_own(&batcher, 1, &parker);
        assert_eq!(call(&batcher, &ticket, &parker), 10);
        assert_eq!(rival.join().unwrap(), 20);
        assert_eq!(batcher.snapshot().batches, 2);
    });
}
