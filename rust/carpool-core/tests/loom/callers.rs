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
