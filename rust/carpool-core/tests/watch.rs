//! What is noted for those who watch, with a clock that moves when told to.

mod support;

use std::sync::{Arc, Mutex};

use carpool_core::border::{Border, Failure};
use carpool_core::clock::NEVER;
use carpool_core::reply::Cancelled;
use carpool_core::request::{Handle, Terms};
use carpool_core::submit::Announce;
use carpool_core::watch::{MINUTE, Said, rate_of};
use carpool_core::{
    Batch, Batcher, Clock, End, Ended, Followed, Item, Limits, ManualClock, Moments, Nanos,
    Overflow, Pulled, Reason, Ticket, Told,
};
use support::{Log, batcher};

fn limits(max_batch_size: usize) -> Limits {
    Limits {
        max_batch_size,
        slots: 1,
        ..Limits::default()
    }
}

fn pulled<B: Border>(batcher: &Batcher<B>) -> Batch<B> {
    match batcher.try_pull(usize::MAX) {
        Pulled::Batch(batch) => batch,
        _ => panic!("due"),
    }
}

/// A border that notes what it is told of moments.
struct Noting;

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<(u64, Moments)>>>);

impl Border for Noting {
    type Payload = u64;
    type Answer = u64;
    type Waiter = (u64, Notes);
    type Wakes = ();
    type Clock = ManualClock;

    fn failure(_: Failure) -> u64 {
        0
    }
    fn is_failure(answer: &u64) -> bool {
        *answer == 0
    }
    fn wake(request: &Handle<Self>, (): &mut ()) {
        // Told by now, so noted before.
        let (number, notes) = request.waiter();
        let noted = notes.0.lock().unwrap();
        assert!(noted.iter().any(|(one, _)| one == number) || noted.is_empty());
    }
    fn fire((): ()) {}
    fn note(requests: &[Handle<Self>], moments: &Moments) {
        for request in requests {
            let (number, notes) = request.waiter();
            notes.0.lock().unwrap().push((*number, *moments));
        }
    }
    fn wake_window(_: &Self::Waiter) {}
    fn arm(_: &Batcher<Self>, _: Nanos) {}
}

#[test]
fn the_moments_of_a_batch_in_the_order_of_its_way() {
    let clock = ManualClock::default();
    let batcher = Batcher::<Noting>::new(limits(2), clock.clone()).unwrap();
    let notes = Notes::default();
    batcher.keep_times();
    clock.set(10);
    let submit = |number| batcher.submit(number, (number, notes.clone())).unwrap();
    let _tickets: Vec<Ticket<Noting>> = (1..=2).map(submit).collect();
    clock.set(20);
    let mut batch = pulled(&batcher);
    clock.set(30);
    batch.start();
    clock.set(40);
    let outgoing = batch.answer_all(vec![5, 6]).map_err(drop).unwrap();
    clock.set(50);
    assert_eq!(notes.0.lock().unwrap().len(), 0, "nobody has been told");
    outgoing.send();
    let moments = Moments {
        sealed: 20,
        started: 30,
        finished: 40,
        delivered: 50,
    };
    assert_eq!(*notes.0.lock().unwrap(), [(1, moments), (2, moments)]);
}

#[test]
fn nothing_is_noted_before_somebody_asks_and_the_start_need_not_be_told() {
    let clock = ManualClock::default();
    let batcher = Batcher::<Noting>::new(limits(1), clock.clone()).unwrap();
    let notes = Notes::default();
    for number in [1, 2] {
        let _ticket = batcher.submit(number, (number, notes.clone())).unwrap();
        clock.advance(7);
        let mut batch = pulled(&batcher);
        clock.advance(1);
        let outgoing = batch.answer(0, 9).map_err(drop).unwrap();
        outgoing.send();
        batcher.keep_times();
    }
    let noted = notes.0.lock().unwrap().clone();
    let moments = Moments {
        sealed: 15,
        started: 15,
        finished: 16,
        delivered: 16,
    };
    assert_eq!(noted, [(2, moments)]);
}

#[test]
fn ends_are_told_to_whoever_asked_and_once() {
    let (batcher, time) = batcher(limits(4));
    let log = Log::default();
    let submit = |n| batcher.submit(n, log.waiter(n)).unwrap();
    let _unseen = submit(0);
    let mut batch = pulled(&batcher);
    let mut outgoing = batch.answer_all(vec![Ok(0)]).map_err(drop).unwrap();
    assert!(outgoing.follow().is_none(), "nobody has asked yet");
    outgoing.send();

    batcher.sample(rate_of(1.0));
    let tickets: Vec<_> = (1..=4)
        .map(|n| {
            time.set(n);
            submit(n)
        })
        .collect();
    let mut batch = pulled(&batcher);
    assert_eq!(tickets[2].cancel(), (Cancelled::InFlight, None));
    let mut outgoing = batch.answer(0, Ok(1)).map_err(drop).unwrap();
    let first = outgoing.follow().unwrap();
    assert_eq!(
        first.requests,
        [Ended {
            arrival: 1,
            end: End::Answered
        }]
    );
    assert!(outgoing.follow().is_none());
    outgoing.send();
    let mut outgoing = batch.answer_rest(|_| Err(Failure::Abandoned));
    let rest = outgoing.follow().unwrap();
    outgoing.send();
    let ends: Vec<_> = rest
        .requests
        .iter()
        .map(|one| (one.arrival, one.end))
        .collect();
    assert_eq!(
        ends,
        [(2, End::Failed), (3, End::Cancelled), (4, End::Failed)]
    );
    assert_eq!(rest.batch, Some((Reason::Full, 4)));
    assert_eq!(rest.moments.sealed, 4);
}

/// What nobody has followed: arrival, end and when that was.
fn due<B: Border>(batcher: &Batcher<B>) -> Vec<(Nanos, End, Nanos)> {
    let due = batcher.take_due().ended;
    assert!(
        !batcher.is_due() && batcher.take_due().ended.is_empty(),
        "told once"
    );
    let of = |followed: Followed| {
        assert_eq!(followed.batch, None);
        let at = followed.moments.delivered;
        followed
            .requests
            .into_iter()
            .map(move |one| (one.arrival, one.end, at))
    };
    due.into_iter().flat_map(of).collect()
}

#[test]
fn ends_without_a_batch_are_due() {
    let shedding = Limits {
        max_queue: 1,
        overflow: Overflow::Shed,
        ..limits(4)
    };
    let (batcher, time) = batcher(shedding);
    let log = Log::default();
    let submit = |n: u64, level: i64, deadline: Nanos| {
        time.set(n);
        let arrival = time.now();
        let urgency = Terms::urgency(arrival, level);
        let terms = Terms {
            deadline,
            urgency,
            ..Terms::at(arrival)
        };
        batcher.submit_with(n, log.waiter(n), terms, Announce::Yes)
    };
    assert_eq!(submit(1, 0, NEVER).unwrap().cancel().0, Cancelled::Pending);
    assert!(!batcher.is_due(), "nobody has asked yet");
    batcher.sample(rate_of(1.0));

    let ticket = submit(10, 0, NEVER).unwrap();
    time.set(11);
    assert_eq!(ticket.withdraw().0, Cancelled::Pending);
    assert_eq!(due(&batcher), [(10, End::Cancelled, 11)]);
    assert_eq!(ticket.cancel().0, Cancelled::TooLate);
    assert!(!batcher.is_due());

    let _late = submit(20, 0, 25).unwrap();
    time.set(26);
    batcher.expire_due();
    assert_eq!(due(&batcher), [(20, End::Expired, 26)]);

    let _victim = submit(30, 5_000, NEVER).unwrap();
    let _urgent = submit(31, 0, NEVER).unwrap();
    assert_eq!(due(&batcher), [(30, End::Shed, 31)]);
    assert!(submit(32, 9_000, NEVER).is_err());
    assert_eq!(due(&batcher), [(32, End::Shed, 32)]);

    time.set(40);
    batcher.close(false);
    assert_eq!(due(&batcher), [(31, End::Closed, 40)]);
    assert!(submit(41, 0, NEVER).is_err());
    assert_eq!(due(&batcher), [(41, End::Refused, 41)]);
}

#[test]
fn requests_of_a_list_that_never_were_in_a_batch_are_due_too() {
    let (batcher, time) = batcher(Limits {
        max_queue: 3,
        ..limits(1)
    });
    batcher.sample(rate_of(1.0));
    let log = Log::default();
    let items = |n: u64| {
        (0..n)
            .map(|payload| Item {
                payload,
                cost: 1,
                key: 0,
                length: 0,
            })
            .collect()
    };
    let list = |at, n, deadline| {
        time.set(at);
        let terms = Terms {
            deadline,
            ..Terms::at(at)
        };
        batcher.submit_many(items(n), log.waiter(0), terms, Told::AtTheEnd)
    };
    let ends = || {
        let mut ends: Vec<_> = due(&batcher)
            .into_iter()
            .map(|(_, end, at)| (end, at))
            .collect();
        ends.sort_by_key(|&(_, at)| at);
        ends
    };
    let _late = list(10, 5, 15).unwrap();
    time.set(16);
    batcher.expire_due();
    assert_eq!(ends(), [(End::Expired, 16); 5]);

    let many = list(20, 5, NEVER).unwrap();
    let mut batch = pulled(&batcher);
    time.set(21);
    drop(many.cancel());
    assert_eq!(ends(), [(End::Cancelled, 21); 4]);
    let mut outgoing = batch.answer_all(vec![Ok(1)]).map_err(drop).unwrap();
    assert_eq!(outgoing.follow().unwrap().requests[0].end, End::Cancelled);
    outgoing.send();

    let _closed = list(30, 5, NEVER).unwrap();
    batcher.close(false);
    assert_eq!(ends(), [(End::Closed, 30); 5]);
    assert!(list(31, 5, NEVER).is_err());
    assert_eq!(ends(), [(End::Refused, 31); 5]);
    let shown = batcher.snapshot();
    assert_eq!((shown.failed, shown.cancelled, shown.rejected), (10, 5, 5));
}

#[test]
fn a_batch_that_nobody_followed_is_due_when_it_is_dropped() {
    let (batcher, time) = batcher(limits(2));
    batcher.sample(rate_of(1.0));
    let log = Log::default();
    let _tickets: Vec<_> = (0..2)
        .map(|n| batcher.submit(n, log.waiter(n)).unwrap())
        .collect();
    let batch = pulled(&batcher);
    time.set(7);
    drop(batch);
    let ended = batcher.take_due().ended;
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].batch, Some((Reason::Full, 2)));
    assert_eq!(ended[0].moments.delivered, 7);
    assert!(ended[0].requests.iter().all(|one| one.end == End::Failed));
}

#[test]
fn a_sample_takes_its_share_over_all_batches() {
    let (batcher, _) = batcher(limits(8));
    batcher.sample(rate_of(0.25));
    let log = Log::default();
    let mut taken = 0;
    for _ in 0..500 {
        let _tickets: Vec<_> = (0..8)
            .map(|n| batcher.submit(n, log.waiter(n)).unwrap())
            .collect();
        let mut batch = pulled(&batcher);
        let mut outgoing = batch.answer_all(vec![Ok(1); 8]).map_err(drop).unwrap();
        taken += outgoing
            .follow()
            .map_or(0, |followed| followed.requests.len());
        outgoing.send();
    }
    assert!((900..1100).contains(&taken), "{taken} of 4000");
}

#[test]
fn a_slow_run_is_said_once_a_minute() {
    let (batcher, time) = batcher(limits(1));
    let log = Log::default();
    let run = |took| {
        let _ticket = batcher.submit(0, log.waiter(0)).unwrap();
        let mut batch = pulled(&batcher);
        time.advance(took);
        batch.answer_rest(|_| Ok(1)).send();
    };
    run(1_000_000);
    assert_eq!(
        batcher.take_due().slow,
        None,
        "nobody has said what slow is"
    );
    batcher.set_slow(1000);
    run(999);
    assert!(!batcher.is_due());
    run(1000);
    assert!(batcher.is_due());
    let said = |count, worst| Some(Said { count, worst });
    assert_eq!(batcher.take_due().slow, said(1, 1000));
    assert_eq!(batcher.take_due().slow, None, "said once");
    run(5000);
    run(3000);
    assert_eq!(batcher.take_due().slow, None, "within the minute");
    time.advance(MINUTE);
    run(2000);
    assert_eq!(batcher.take_due().slow, said(3, 5000));
    assert_eq!(batcher.snapshot().slow, 4);
    batcher.set_slow(NEVER);
    time.advance(MINUTE);
    run(9000);
    assert_eq!(batcher.take_due().slow, None, "switched off");
}

#[test]
fn a_lone_call_can_be_slow_too() {
    let (batcher, time) = batcher(limits(1));
    batcher.set_slow(1000);
    let lease = batcher.alone().unwrap();
    time.advance(1000);
    lease.answered();
    assert_eq!(batcher.take_due().slow.map(|said| said.worst), Some(1000));
    assert_eq!(
        batcher.snapshot().inside.max(),
        0,
        "nobody else can have been there"
    );
}

#[test]
fn the_figures_say_what_expired_who_was_inside_and_how_old_the_oldest_is() {
    let (batcher, time) = batcher(limits(2));
    let log = Log::default();
    let submit = |n, deadline| {
        let terms = Terms {
            deadline,
            ..Terms::at(batcher.now())
        };
        let waiter = log.waiter(n);
        batcher
            .submit_with(n, waiter, terms, Announce::Yes)
            .unwrap()
    };
    time.set(100);
    let s = batcher.snapshot();
    assert_eq!(
        (s.inside.max(), s.oldest, s.slots, s.expired),
        (0, None, 1, 0)
    );
    let _first: Vec<_> = (0..2).map(|n| submit(n, NEVER)).collect();
    let mut running = pulled(&batcher);
    time.set(110);
    let late = submit(2, 200);
    time.set(130);
    let _others: Vec<_> = (3..6).map(|n| submit(n, NEVER)).collect();
    time.set(150);
    assert_eq!(batcher.snapshot().oldest, Some(40));
    assert_eq!(late.cancel(), (Cancelled::Pending, Some(2)));
    assert_eq!(batcher.snapshot().oldest, Some(20), "the oldest living");
    let _expires = submit(6, 160);
    time.set(170);
    batcher.expire_due();
    running.answer_rest(|_| Ok(1)).send();
    let mut next = pulled(&batcher);
    let s = batcher.snapshot();
    assert_eq!(
        (s.expired, s.failed, s.inside.max(), s.open),
        (1, 1, 5, 170)
    );
    next.answer_rest(|_| Ok(1)).send();
    let last = pulled(&batcher);
    assert_eq!(batcher.snapshot().inside.max(), 5, "the most so far");
    assert_eq!(batcher.snapshot().padding, (0, 0));
    last.padded(6, 8);
    last.padded(1, 2);
    assert_eq!(batcher.snapshot().padding, (7, 10));
    assert_eq!(batcher.clock().now(), 170);
}
