//! The way of a request through the core, step by step, with a clock that only moves when told to.

mod support;

use carpool_core::reply::Cancelled;
use carpool_core::{Failure, Limits, Overflow, Pulled, Reason, Refusal};
use support::{Bell, Log, Plain, batcher};

const MS: u64 = 1_000_000;

fn limits(max_batch_size: usize, wait_ms: u64) -> Limits {
    Limits {
        max_batch_size,
        wait: wait_ms * MS,
        slots: 1,
        ..Limits::default()
    }
}

fn taken(batch: &carpool_core::Batch<Plain>) -> Vec<u64> {
    (0..batch.len())
        .filter_map(|i| batch.payload(i).copied())
        .collect()
}

fn batch(pulled: Pulled<Plain>) -> carpool_core::Batch<Plain> {
    match pulled {
        Pulled::Batch(batch) => batch,
        Pulled::Wait(until) => panic!("no batch, wait until {until:?}"),
        Pulled::Closed => panic!("closed"),
    }
}

fn waits(pulled: Pulled<Plain>) -> Option<u64> {
    match pulled {
        Pulled::Wait(until) => until,
        _ => panic!("should wait"),
    }
}

#[test]
fn a_lone_request_leaves_at_once_without_wait() {
    let (batcher, _) = batcher(limits(4, 0));
    let log = Log::default();
    let ticket = batcher.submit(7, log.waiter(1)).unwrap();
    let mut b = batch(batcher.try_pull(usize::MAX));
    assert_eq!((taken(&b), b.reason()), (vec![7], Reason::Idle));
    b.answer_all(vec![Ok(70)]).unwrap().send();
    assert_eq!(ticket.take(), Some(Ok(70)));
    assert_eq!(ticket.take(), None);
    assert_eq!(log.woken(), [1]);
}

#[test]
fn the_first_request_and_the_filling_one_wake_the_slot_and_no_other() {
    let (batcher, clock) = batcher(limits(4, 10));
    let log = Log::default();
    let (bell, waker) = Bell::new();
    let mut seat = batcher.seat();
    assert_eq!(waits(seat.poll(&waker, 4)), None);
    let mut tickets = vec![batcher.submit(0, log.waiter(0)).unwrap()];
    assert_eq!(bell.rings(), 1);
    assert_eq!(waits(seat.poll(&waker, 4)), Some(10 * MS));
    clock.advance(MS);
    tickets.push(batcher.submit(1, log.waiter(1)).unwrap());
    tickets.push(batcher.submit(2, log.waiter(2)).unwrap());
    assert_eq!(bell.rings(), 1);
    tickets.push(batcher.submit(3, log.waiter(3)).unwrap());
    assert_eq!(bell.rings(), 2);
    let b = batch(seat.poll(&waker, 4));
    assert_eq!(
        (taken(&b), b.reason(), b.waited()),
        (vec![0, 1, 2, 3], Reason::Full, MS)
    );
}

#[test]
fn the_wait_runs_from_the_oldest_and_is_never_cut_short() {
    let (batcher, clock) = batcher(limits(4, 10));
    let log = Log::default();
    let mut seat = batcher.seat();
    let (_, waker) = Bell::new();
    let _a = batcher.submit(0, log.waiter(0)).unwrap();
    clock.advance(6 * MS);
    let _b = batcher.submit(1, log.waiter(1)).unwrap();
    assert_eq!(waits(seat.poll(&waker, 4)), Some(10 * MS));
    clock.set(10 * MS - 1);
    assert_eq!(waits(seat.poll(&waker, 4)), Some(10 * MS));
    clock.set(10 * MS);
    let b = batch(seat.poll(&waker, 4));
    assert_eq!((taken(&b), b.reason()), (vec![0, 1], Reason::Wait));
}

#[test]
fn a_busy_slot_lets_the_next_batch_fill() {
    let (batcher, clock) = batcher(limits(32, 1));
    let log = Log::default();
    let mut seat = batcher.seat();
    let (bell, waker) = Bell::new();
    let _first = batcher.submit(99, log.waiter(99)).unwrap();
    clock.advance(MS);
    let mut running = batch(seat.poll(&waker, 32));
    let _held: Vec<_> = (0..20)
        .map(|i| {
            clock.advance(MS);
            batcher.submit(i, log.waiter(i)).unwrap()
        })
        .collect();
    assert_eq!(waits(seat.poll(&waker, 32)), None);
    assert_eq!(bell.rings(), 0);
    running.answer_all(vec![Ok(0)]).unwrap().send();
    assert_eq!(bell.rings(), 1);
    assert_eq!(
        taken(&batch(seat.poll(&waker, 32))),
        (0..20).collect::<Vec<_>>()
    );
}

#[test]
fn a_cancelled_request_never_leaves_and_frees_its_place() {
    let (batcher, _) = batcher(Limits {
        max_queue: 2,
        ..limits(4, 0)
    });
    let log = Log::default();
    let a = batcher.submit(0, log.waiter(0)).unwrap();
    let _b = batcher.submit(1, log.waiter(1)).unwrap();
    let refused = batcher.submit(2, log.waiter(2)).err().unwrap();
    assert_eq!(
        (refused.why, refused.payload, refused.waiter.id),
        (Refusal::Full, 2, 2)
    );
    assert_eq!(a.cancel(), (Cancelled::Pending, Some(0)));
    assert_eq!(a.cancel(), (Cancelled::TooLate, None));
    let _c = batcher.submit(3, log.waiter(3)).unwrap();
    assert_eq!(taken(&batch(batcher.try_pull(4))), [1, 3]);
    let s = batcher.snapshot();
    assert_eq!(
        (s.submitted, s.cancelled, s.rejected, s.failed, s.batches),
        (4, 1, 1, 2, 1)
    );
}

#[test]
fn a_batch_is_not_full_of_cancelled_requests() {
    let (batcher, _) = batcher(limits(2, 10));
    let log = Log::default();
    let a = batcher.submit(0, log.waiter(0)).unwrap();
    a.cancel();
    let b = batcher.submit(1, log.waiter(1)).unwrap();
    let c = batcher.submit(2, log.waiter(2)).unwrap();
    b.cancel();
    assert_eq!(waits(batcher.try_pull(2)), Some(10 * MS));
    let _d = batcher.submit(3, log.waiter(3)).unwrap();
    assert_eq!(taken(&batch(batcher.try_pull(2))), [2, 3]);
    drop(c);
}

#[test]
fn a_cancel_in_flight_drops_the_answer_alone() {
    let (batcher, _) = batcher(limits(4, 0));
    let log = Log::default();
    let a = batcher.submit(0, log.waiter(0)).unwrap();
    let b = batcher.submit(1, log.waiter(1)).unwrap();
    let mut running = batch(batcher.try_pull(4));
    assert_eq!(a.cancel(), (Cancelled::InFlight, None));
    assert_eq!(batcher.snapshot().in_flight, 2);
    running.answer_all(vec![Ok(0), Ok(10)]).unwrap().send();
    assert_eq!((a.take(), b.take()), (None, Some(Ok(10))));
    assert_eq!(log.woken(), [1]);
    let s = batcher.snapshot();
    assert_eq!(
        (s.submitted, s.answered, s.cancelled, s.in_flight),
        (2, 1, 1, 0)
    );
}

#[test]
fn an_unanswered_batch_abandons_and_gives_the_slot_back() {
    let (batcher, _) = batcher(limits(4, 0));
    let log = Log::default();
    let tickets: Vec<_> = (0..3)
        .map(|i| batcher.submit(i, log.waiter(i)).unwrap())
        .collect();
    let mut running = batch(batcher.try_pull(4));
    running.answer(1, Ok(11)).unwrap().send();
    assert!(running.answer(1, Ok(12)).is_err());
    assert!(running.answer(3, Ok(12)).is_err());
    let _next = batcher.submit(9, log.waiter(9)).unwrap();
    assert_eq!(waits(batcher.try_pull(4)), None);
    drop(running);
    let got: Vec<_> = tickets.iter().map(|t| t.take().unwrap()).collect();
    assert_eq!(
        got,
        [Err(Failure::Abandoned), Ok(11), Err(Failure::Abandoned)]
    );
    assert_eq!(taken(&batch(batcher.try_pull(4))), [9]);
}

#[test]
fn wrong_lengths_come_back_and_change_nothing() {
    let (batcher, _) = batcher(limits(4, 0));
    let log = Log::default();
    let _t: Vec<_> = (0..2)
        .map(|i| batcher.submit(i, log.waiter(i)).unwrap())
        .collect();
    let mut running = batch(batcher.try_pull(4));
    let (_, back) = running.answer_all(vec![Ok(1)]).err().unwrap();
    assert_eq!(back, [Ok(1)]);
    assert_eq!(running.left(), 2);
    running.answer_all(vec![Ok(1), Ok(2)]).unwrap().send();
}

#[test]
fn who_waits_for_room_comes_in_by_order_of_arrival() {
    let (batcher, _) = batcher(Limits {
        max_queue: 1,
        overflow: Overflow::Wait,
        ..limits(1, 0)
    });
    let log = Log::default();
    let tickets: Vec<_> = (0..5)
        .map(|i| batcher.submit(i, log.waiter(i)).unwrap())
        .collect();
    assert_eq!(batcher.snapshot().pending, 1);
    assert_eq!(tickets[2].cancel(), (Cancelled::InLobby, Some(2)));
    assert_eq!(tickets[0].cancel(), (Cancelled::Pending, Some(0)));
    let mut order = Vec::new();
    for _ in 0..3 {
        let mut b = batch(batcher.try_pull(1));
        order.extend(taken(&b));
        b.answer_all(vec![Ok(0)]).unwrap().send();
    }
    assert_eq!(order, [1, 3, 4]);
    let s = batcher.snapshot();
    assert_eq!(
        (s.submitted, s.answered, s.cancelled, s.pending),
        (5, 3, 2, 0)
    );
}

#[test]
fn a_drain_runs_what_is_pending_and_a_failure_does_not() {
    for drain in [true, false] {
        let (batcher, _) = batcher(limits(4, 1000));
        let log = Log::default();
        let ticket = batcher.submit(5, log.waiter(5)).unwrap();
        let (bell, waker) = Bell::new();
        batcher.close(drain);
        assert_eq!(
            batcher.submit(6, log.waiter(6)).err().unwrap().why,
            Refusal::Closed
        );
        assert_eq!(batcher.poll_ended(&waker), !drain);
        if drain {
            let mut b = batch(batcher.try_pull(4));
            assert_eq!(b.reason(), Reason::Close);
            b.answer_all(vec![Ok(50)]).unwrap().send();
            assert_eq!(bell.rings(), 1);
            assert_eq!(ticket.take(), Some(Ok(50)));
        } else {
            assert_eq!(ticket.take(), Some(Err(Failure::Closed)));
        }
        assert!(matches!(batcher.try_pull(4), Pulled::Closed));
        assert!(batcher.poll_ended(&waker));
    }
}

#[test]
fn a_flush_makes_leave_what_is_there_and_nothing_later() {
    let (batcher, clock) = batcher(limits(4, 1000));
    let log = Log::default();
    let (bell, waker) = Bell::new();
    let mut seat = batcher.seat();
    let _a = batcher.submit(1, log.waiter(1)).unwrap();
    waits(seat.poll(&waker, 4));
    batcher.flush();
    assert_eq!(bell.rings(), 1);
    let mut b = batch(seat.poll(&waker, 4));
    assert_eq!((taken(&b), b.reason()), (vec![1], Reason::Flush));
    b.answer_all(vec![Ok(1)]).unwrap().send();
    clock.advance(1);
    let _b = batcher.submit(2, log.waiter(2)).unwrap();
    assert_eq!(waits(seat.poll(&waker, 4)), Some(1000 * MS + 1));
}

#[test]
fn callers_that_run_their_own_batches_hand_the_time_on() {
    let (batcher, clock) = batcher(limits(2, 10));
    let log = Log::default();
    let (first, wakes_first) = Bell::new();
    let (second, wakes_second) = Bell::new();
    let mut one = log.waiter(1);
    one.runner = Some(wakes_first);
    let a = batcher.submit(1, one).unwrap();
    assert_eq!(waits(batcher.pull_own(&a)), Some(10 * MS));
    a.cancel();
    clock.advance(MS);
    let mut two = log.waiter(2);
    two.runner = Some(wakes_second);
    let b = batcher.submit(2, two).unwrap();
    assert_eq!(waits(batcher.pull_own(&b)), Some(11 * MS));
    assert_eq!((first.rings(), second.rings()), (0, 0));
    let c = batcher.submit(3, log.waiter(3)).unwrap();
    assert_eq!(taken(&batch(batcher.pull_own(&c))), [2, 3]);
}

#[test]
fn the_end_of_a_batch_wakes_the_caller_of_the_oldest() {
    let (batcher, _) = batcher(limits(2, 0));
    let log = Log::default();
    let a = batcher.submit(1, log.waiter(1)).unwrap();
    let mut running = batch(batcher.pull_own(&a));
    let (bell, waker) = Bell::new();
    let mut waiter = log.waiter(2);
    waiter.runner = Some(waker);
    let b = batcher.submit(2, waiter).unwrap();
    assert_eq!(waits(batcher.pull_own(&b)), None);
    running.answer_all(vec![Ok(1)]).unwrap().send();
    assert_eq!(bell.rings(), 1);
    assert_eq!(taken(&batch(batcher.pull_own(&b))), [2]);
}

const US: u64 = 1_000;

/// A batch of `n` callers that run it themselves, sealed now, with what wakes the first of them.
fn company(
    batcher: &carpool_core::Batcher<Plain>,
    log: &Log,
    n: u64,
) -> (carpool_core::Batch<Plain>, Vec<carpool_core::Ticket<Plain>>) {
    let tickets: Vec<_> = (0..n).map(|id| caller(batcher, log, id).1).collect();
    (batch(batcher.pull_own(&tickets[0])), tickets)
}

/// A caller that runs its own batch, submitted.
fn caller(
    batcher: &carpool_core::Batcher<Plain>,
    log: &Log,
    id: u64,
) -> (std::sync::Arc<Bell>, carpool_core::Ticket<Plain>) {
    let (bell, waker) = Bell::new();
    let mut waiter = log.waiter(id);
    waiter.runner = Some(waker);
    (bell, batcher.submit(id, waiter).unwrap())
}

#[test]
fn a_caller_waits_for_those_who_were_there_last_time() {
    let (batcher, clock) = batcher(limits(8, 0));
    let log = Log::default();
    let (mut running, _tickets) = company(&batcher, &log, 3);
    clock.advance(100 * US);
    running.answer_all(vec![Ok(0); 3]).unwrap().send();
    clock.advance(US);
    let (first, a) = caller(&batcher, &log, 10);
    assert_eq!(waits(batcher.pull_own(&a)), Some(151 * US), "half the run");
    let (second, b) = caller(&batcher, &log, 11);
    assert_eq!(waits(batcher.pull_own(&b)), None);
    clock.advance(US);
    let (_, c) = caller(&batcher, &log, 12);
    let b = batch(batcher.pull_own(&c));
    assert_eq!((taken(&b), b.reason()), (vec![10, 11, 12], Reason::Gather));
    assert_eq!(
        (first.rings(), second.rings()),
        (0, 0),
        "the last one runs it"
    );
}

#[test]
fn a_caller_waits_no_longer_than_half_the_last_run() {
    let (batcher, clock) = batcher(limits(8, 0));
    let log = Log::default();
    let (mut running, _tickets) = company(&batcher, &log, 3);
    clock.advance(100 * US);
    running.answer_all(vec![Ok(0); 3]).unwrap().send();
    let (_, a) = caller(&batcher, &log, 10);
    assert_eq!(waits(batcher.pull_own(&a)), Some(150 * US));
    clock.set(150 * US - 1);
    assert_eq!(waits(batcher.pull_own(&a)), Some(150 * US));
    clock.set(150 * US);
    let mut late = batch(batcher.pull_own(&a));
    assert_eq!((taken(&late), late.reason()), (vec![10], Reason::Gather));
    clock.advance(100 * US);
    late.answer_all(vec![Ok(0)]).unwrap().send();
    // Half of those who did not come are waited for once more, and then nobody.
    let (_, b) = caller(&batcher, &log, 11);
    assert_eq!(waits(batcher.pull_own(&b)), Some(300 * US));
    clock.set(300 * US);
    let mut late = batch(batcher.pull_own(&b));
    assert_eq!((taken(&late), late.reason()), (vec![11], Reason::Gather));
    clock.advance(100 * US);
    late.answer_all(vec![Ok(0)]).unwrap().send();
    let (_, c) = caller(&batcher, &log, 12);
    let c = batch(batcher.pull_own(&c));
    assert_eq!((taken(&c), c.reason()), (vec![12], Reason::Idle));
}

#[test]
fn nobody_gathers_where_it_is_switched_off_or_somebody_else_runs_the_batch() {
    for gather in [false, true] {
        let (batcher, clock) = batcher(Limits {
            gather,
            ..limits(8, 0)
        });
        let log = Log::default();
        let (mut running, _tickets) = company(&batcher, &log, 3);
        clock.advance(100 * US);
        running.answer_all(vec![Ok(0); 3]).unwrap().send();
        let (_, a) = caller(&batcher, &log, 10);
        let b = match gather {
            true => batch(batcher.try_pull(8)),
            false => batch(batcher.pull_own(&a)),
        };
        assert_eq!((taken(&b), b.reason()), (vec![10], Reason::Idle));
    }
}

#[test]
fn a_flush_ends_the_gathering() {
    let (batcher, clock) = batcher(limits(8, 0));
    let log = Log::default();
    let (mut running, _tickets) = company(&batcher, &log, 3);
    clock.advance(100 * US);
    running.answer_all(vec![Ok(0); 3]).unwrap().send();
    let (bell, a) = caller(&batcher, &log, 10);
    assert!(waits(batcher.pull_own(&a)).is_some());
    batcher.flush();
    assert_eq!(bell.rings(), 1);
    assert_eq!(taken(&batch(batcher.pull_own(&a))), [10]);
}

#[test]
fn a_call_alone_is_a_batch_of_one() {
    let (batcher, clock) = batcher(limits(4, 0));
    let lease = batcher.alone().unwrap();
    let during = batcher.snapshot();
    assert_eq!(
        (during.submitted, during.in_flight, during.batches),
        (1, 1, 1)
    );
    clock.advance(5 * US);
    lease.answered();
    drop(batcher.alone().unwrap());
    batcher.alone().unwrap().failed();
    let after = batcher.snapshot();
    assert_eq!((after.submitted, after.answered, after.failed), (3, 1, 2));
    assert_eq!((after.in_flight, after.batches), (0, 3));
    assert_eq!(after.reasons[Reason::Idle as usize], 3);
    assert_eq!((after.sizes.count(), after.sizes.max()), (3, 1));
    assert_eq!((after.waits.count(), after.waits.max()), (3, 0));
    assert_eq!((after.runs.count(), after.runs.max()), (3, 5 * US));
}

#[test]
fn who_comes_while_a_call_runs_alone_is_told_of_its_end() {
    let (batcher, _) = batcher(limits(4, 0));
    let log = Log::default();
    let lease = batcher.alone().unwrap();
    assert!(batcher.alone().is_none(), "the only slot is taken");
    let (bell, a) = caller(&batcher, &log, 1);
    assert_eq!(waits(batcher.pull_own(&a)), None);
    lease.answered();
    assert_eq!(bell.rings(), 1);
    assert!(batcher.alone().is_none(), "not before those who wait");
    assert_eq!(taken(&batch(batcher.pull_own(&a))), [1]);
}

#[test]
fn a_close_waits_for_a_call_that_runs_alone() {
    let (batcher, _) = batcher(limits(4, 0));
    let (bell, waker) = Bell::new();
    let lease = batcher.alone().unwrap();
    batcher.close(true);
    assert!(!batcher.poll_ended(&waker));
    lease.answered();
    assert_eq!(bell.rings(), 1);
    assert!(batcher.poll_ended(&waker));
    assert!(batcher.alone().is_none());
}

#[test]
fn no_call_runs_alone_where_it_would_be_held_or_passes_somebody_by() {
    let (held, _) = batcher(limits(4, 1));
    assert!(held.alone().is_none(), "held for company");

    let (served, _) = batcher(limits(4, 0));
    let (_, waker) = Bell::new();
    let mut seat = served.seat();
    assert_eq!(waits(seat.poll(&waker, 4)), None);
    assert!(served.alone().is_none(), "somebody is in line");

    let (gathering, clock) = batcher(limits(4, 0));
    let log = Log::default();
    let (mut running, _tickets) = company(&gathering, &log, 3);
    clock.advance(100 * US);
    running.answer_all(vec![Ok(0); 3]).unwrap().send();
    assert!(gathering.alone().is_none(), "the others come back");
    clock.advance(100 * US);
    assert!(gathering.alone().is_some(), "they did not");
}

#[test]
fn a_slot_that_is_kept_seals_nothing_until_it_is_given_back() {
    let (batcher, _) = batcher(limits(4, 0));
    let log = Log::default();
    let (mut running, tickets) = company(&batcher, &log, 1);
    let (bell, a) = caller(&batcher, &log, 1);
    let slot = running.answer_all(vec![Ok(7)]).unwrap().send_keeping();
    assert_eq!(tickets[0].take(), Some(Ok(7)), "the answer is there");
    assert_eq!(batcher.snapshot().in_flight, 0);
    assert_eq!(waits(batcher.pull_own(&a)), None);
    assert_eq!(bell.rings(), 0);
    drop(slot.expect("the last answer"));
    assert_eq!(bell.rings(), 1);
    assert_eq!(taken(&batch(batcher.pull_own(&a))), [1]);
}
