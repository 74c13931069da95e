//! Deadlines: each is looked after, of all that may end a request one does, and a place that the timer
//! thread frees is given on.

use carpool_core::park::Parker;
use carpool_core::request::Terms;
use carpool_core::submit::Announce;
use carpool_core::timer::Alarms;
use carpool_core::{Batcher, Limits, Overflow, Pulled, Ticket};
use loom::sync::Arc;
use loom::thread;

use crate::support::{Model, Waiter, batcher, limits, model, serve, whole_model};

fn submit(batcher: &Batcher<Model>, payload: u8, deadline: u64) -> Ticket<Model> {
    let terms = Terms {
        deadline,
        ..Terms::at(0)
    };
    let ticket = batcher.submit_with(payload, Waiter::default(), terms, Announce::Yes);
    ticket.unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// What the timer thread does, until `ends` requests have expired.
fn keep_time(batcher: &Batcher<Model>, ends: u64) {
    let ended = || batcher.snapshot().failed == ends;
    let call = |()| batcher.expire_due();
    let time = batcher.clock();
    time.alarms
        .serve(&Parker::here(), || batcher.now(), call, ended);
}

/// Two submitters, deadlines that are over in any order; nobody else looks at the batcher.
#[test]
fn every_deadline_is_looked_after() {
    model(|| {
        let batcher = batcher(limits(4, 1000));
        batcher.clock().clock.set(10);
        let submitters = [5, 3].map(|deadline| {
            let batcher = batcher.clone();
            thread::spawn(move || submit(&batcher, 1, deadline))
        });
        keep_time(&batcher, 2);
        for submitter in submitters {
            let ticket = submitter.join().unwrap();
            assert_eq!(ticket.request().reclaim(), Some(1));
        }
        assert_eq!(batcher.pending(), 0);
    });
}

/// The second is submitted while the timer thread looks for the first.
#[test]
fn a_deadline_that_comes_while_the_timer_looks_is_not_missed() {
    model(|| {
        let batcher = batcher(limits(4, 1000));
        batcher.clock().clock.set(10);
        let _first = submit(&batcher, 1, 5);
        let other = batcher.clone();
        let submitter = thread::spawn(move || submit(&other, 2, 7));
        keep_time(&batcher, 2);
        submitter.join().unwrap();
    });
}

#[test]
fn an_earlier_alarm_wakes_the_sleeper() {
    whole_model(|| {
        let alarms = Arc::new(Alarms::default());
        // The sleeper would sleep until this, for ever in a model.
        alarms.set(1000, 9_u8);
        let other = alarms.clone();
        let setter = thread::spawn(move || {
            other.set(5, 1);
            other.set(3, 2);
        });
        let (mut called, done) = (Vec::new(), std::cell::Cell::new(0));
        let call = |whom| {
            called.push(whom);
            done.set(done.get() + 1);
        };
        alarms.serve(&Parker::here(), || 10, call, || done.get() == 2);
        setter.join().unwrap();
        called.sort_unstable();
        assert_eq!(called, [1, 2]);
    });
}

/// The timer thread, a slot that looked at the clock before the deadline, and a caller that gives up.
#[test]
fn of_expiry_claim_and_cancel_exactly_one_happens() {
    model(|| {
        let batcher = batcher(limits(4, 0));
        let ticket = submit(&batcher, 7, 5);
        let (other, own) = (batcher.clone(), ticket.clone());
        let timer = thread::spawn(move || {
            other.clock().clock.set(5);
            other.expire_due();
            own.request().reclaim()
        });
        let own = ticket.clone();
        let canceller = thread::spawn(move || own.cancel().1);
        let ran = match batcher.try_pull(4) {
            Pulled::Batch(batch) => Some(serve(batch)[0]),
            _ => None,
        };
        let (expired, cancelled) = (timer.join().unwrap(), canceller.join().unwrap());
        // The slot may have found it overdue: then its payload waits for whoever was told.
        let expired = expired.or(ticket.request().reclaim());
        let owners = [expired, cancelled, ran];
        assert_eq!(owners.into_iter().flatten().count(), 1, "{owners:?}");
        let s = batcher.snapshot();
        assert_eq!((s.submitted, s.pending, s.in_flight), (1, 0, 0));
        assert_eq!(
            (s.failed, s.answered + s.cancelled),
            match expired {
                Some(_) => (1, 0),
                None => (0, 1),
            }
        );
    });
}

#[test]
fn a_place_freed_by_a_deadline_is_given_on() {
    model(|| {
        let batcher = batcher(Limits {
            max_queue: 1,
            overflow: Overflow::Wait,
            ..limits(4, 1000)
        });
        let first = submit(&batcher, 1, 5);
        let other = batcher.clone();
        let timer = thread::spawn(move || {
            other.clock().clock.set(5);
            other.expire_due();
        });
        let second = submit(&batcher, 2, u64::MAX);
        timer.join().unwrap();
        assert!(first.request().reply().is_expired());
        assert!(second.request().reply().is_pending());
        assert_eq!(batcher.pending(), 1);
    });
}
