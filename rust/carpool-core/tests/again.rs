//! Running what is left of a batch again: who gave up or is overdue is left out, and what was too large for the
//! handler's memory makes the next ones smaller.

mod support;

use carpool_core::request::Terms;
use carpool_core::submit::Announce;
use carpool_core::{
    Batch, Batcher, Failure, Fits, Limits, Pulled, Reason, Refusal, RequestId, Ticket,
};
use proptest::prelude::*;
use support::{Log, Plain, Time, batcher};

type Sealed = (Batcher<Plain>, Time, Batch<Plain>, Vec<Ticket<Plain>>, Log);

/// A batch of requests with these deadlines, sealed at moment 10.
fn sealed(deadlines: &[u64]) -> Sealed {
    let (batcher, clock) = batcher(Limits {
        slots: 1,
        max_batch_size: 1000,
        ..Limits::default()
    });
    let log = Log::default();
    clock.set(1);
    let submit = |(id, &deadline): (usize, &u64)| {
        let id = id as u64;
        let terms = Terms {
            deadline,
            ..Terms::at(1)
        };
        let submitted = batcher.submit_with(id, log.waiter(id), terms, Announce::Yes);
        submitted.unwrap_or_else(|refused| panic!("{refused:?}"))
    };
    let tickets = deadlines.iter().enumerate().map(submit).collect();
    clock.set(10);
    let Pulled::Batch(batch) = batcher.try_pull(usize::MAX) else {
        panic!("due");
    };
    assert_eq!(batch.len(), deadlines.len());
    (batcher, clock, batch, tickets, log)
}

fn payloads(batch: &Batch<Plain>) -> Vec<Option<u64>> {
    let all = 0..batch.len();
    all.map(|at| batch.payload(at).copied()).collect()
}

fn leave_out(batch: &mut Batch<Plain>, now: u64) -> (bool, Option<u64>) {
    let (outgoing, next) = batch.leave_out(now);
    (outgoing.send(), next)
}

#[test]
fn who_gave_up_or_is_overdue_is_left_out() {
    let never = u64::MAX;
    let (batcher, clock, mut batch, tickets, log) = sealed(&[never, 50, never, 40, 60, never]);
    tickets[2].cancel();
    batch.answer(5, Ok(55)).unwrap().send();
    assert_eq!(leave_out(&mut batch, 30), (false, Some(40)));
    assert_eq!(payloads(&batch), [Some(0), Some(1), Some(3), Some(4)]);
    let ids: Vec<_> = (0..4).map(|at| batch.id(at)).collect();
    assert_eq!(ids, [0, 1, 3, 4].map(|index| RequestId { batch: 1, index }));
    assert_eq!(log.woken(), [5]);

    clock.set(40);
    assert_eq!(leave_out(&mut batch, 40), (false, Some(50)));
    assert_eq!(tickets[3].take(), Some(Err(Failure::Expired)));
    let mut rest = batch.split_off(1).unwrap();
    assert_eq!(rest.id(1), RequestId { batch: 1, index: 4 });
    assert_eq!(payloads(&rest), [Some(1), Some(4)]);
    tickets[1].cancel();
    assert_eq!(leave_out(&mut rest, 40), (false, Some(60)));
    assert_eq!((payloads(&rest), rest.id(0).index), (vec![Some(4)], 4));
    assert!(!rest.answer_all(vec![Ok(44)]).unwrap().send());
    assert_eq!(leave_out(&mut batch, 99), (false, None));
    assert!(
        batch.answer_all(vec![Ok(11)]).unwrap().send(),
        "the last part"
    );
    assert_eq!(tickets[4].take(), Some(Ok(44)));

    let shown = batcher.snapshot();
    assert_eq!((shown.answered, shown.failed, shown.cancelled), (3, 1, 2));
    assert_eq!((shown.in_flight, shown.runs.count()), (0, 1));
}

#[test]
fn with_nobody_left_the_slot_is_free() {
    let (batcher, _, mut batch, tickets, _) = sealed(&[u64::MAX, 20]);
    tickets[0].cancel();
    assert_eq!(leave_out(&mut batch, 20), (true, None));
    assert_eq!((batch.left(), batcher.snapshot().in_flight), (0, 0));
    assert_eq!(leave_out(&mut batch, 20), (false, None));
    assert_eq!(tickets[1].take(), Some(Err(Failure::Expired)));
}

#[test]
fn after_one_that_was_too_large_batches_are_smaller_and_slowly_larger_again() {
    let (batcher, _) = batcher(Limits {
        max_batch_size: 8,
        wait: 1000,
        ..Limits::default()
    });
    let log = Log::default();
    let pull = |n: u64| {
        (0..n).for_each(|id| drop(batcher.submit(id, log.waiter(id)).unwrap()));
        match batcher.try_pull(usize::MAX) {
            Pulled::Batch(batch) => batch,
            _ => panic!("due"),
        }
    };
    let batch = pull(8);
    assert_eq!(batch.was_too_large(), Fits::Requests(4));
    drop(batch);
    assert_eq!(
        (batcher.max_batch_size(), batcher.limits().max_batch_size),
        (4, 8)
    );
    for _ in 0..16 {
        assert_eq!(batcher.max_batch_size(), 4);
        let batch = pull(4);
        assert_eq!((batch.len(), batch.reason()), (4, Reason::Full));
    }
    assert_eq!(batcher.max_batch_size(), 5, "a trial");
    let batch = pull(5);
    assert_eq!((batch.len(), batch.was_too_large()), (5, Fits::Requests(4)));
    drop(batch);
    // What is asked for and what there is memory for hold both.
    batcher
        .configure(Limits {
            max_batch_size: 3,
            ..batcher.limits()
        })
        .unwrap();
    assert_eq!(batcher.max_batch_size(), 3);
    batcher
        .configure(Limits {
            max_batch_size: 64,
            ..batcher.limits()
        })
        .unwrap();
    assert_eq!(batcher.max_batch_size(), 4);
}

#[test]
fn with_a_budget_it_is_the_cost_that_was_too_large() {
    for padded in [false, true] {
        let (batcher, _) = batcher(Limits {
            max_batch_size: 64,
            max_batch_cost: 1000,
            padded,
            ..Limits::default()
        });
        let log = Log::default();
        let submit = |cost: u64| {
            let terms = Terms {
                cost,
                ..Terms::at(0)
            };
            batcher.submit_with(0, log.waiter(0), terms, Announce::Yes)
        };
        let pull = |costs: &[u64]| {
            costs.iter().for_each(|&cost| drop(submit(cost).unwrap()));
            match batcher.try_pull(usize::MAX) {
                Pulled::Batch(batch) => batch,
                _ => panic!("due"),
            }
        };
        let batch = pull(&[100; 10]);
        assert_eq!((batch.len(), batch.was_too_large()), (10, Fits::Cost(500)));
        drop(batch);
        assert_eq!(pull(&[100; 10]).len(), 5);
        assert_eq!(pull(&[]).len(), 5, "the rest of them");
        // Many small ones are no more than a few large ones.
        assert_eq!(pull(&[5; 60]).len(), 60);
        // A larger one is not refused: it leaves alone.
        assert_eq!(pull(&[900, 5]).len(), 1);
        assert_eq!(pull(&[]).len(), 1);
        assert_eq!(batcher.limits().max_batch_cost, 1000);
        assert!(matches!(submit(1001), Err(refused) if refused.why == Refusal::TooLarge));
        for _ in 0..16 {
            let _ = pull(&[100; 5]);
        }
        assert_eq!(
            pull(&[100, 100, 100, 100, 150]).len(),
            if padded { 4 } else { 5 },
            "a trial of 562"
        );
    }
}

#[test]
fn who_waits_for_a_full_batch_leaves_when_that_is_smaller() {
    let (batcher, _) = batcher(Limits {
        max_batch_size: 8,
        wait: 1000,
        slots: 2,
        ..Limits::default()
    });
    let log = Log::default();
    let _tickets: Vec<_> = (0..13)
        .map(|id| batcher.submit(id, log.waiter(id)).unwrap())
        .collect();
    let Pulled::Batch(batch) = batcher.try_pull(usize::MAX) else {
        panic!("full");
    };
    let (bell, waker) = support::Bell::new();
    let mut seat = batcher.seat();
    assert!(matches!(seat.poll(&waker, 99), Pulled::Wait(Some(_))));
    batch.was_too_large();
    assert_eq!(bell.rings(), 1, "five are pending, four are enough");
    assert!(matches!(seat.poll(&waker, 99), Pulled::Batch(next) if next.len() == 4));
}

#[derive(Debug, Clone)]
enum Step {
    Cancel(usize),
    Answer(usize, usize),
    LeaveOut(usize, u64),
    Split(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<usize>;
    prop_oneof![
        any().prop_map(Step::Cancel),
        (any(), any()).prop_map(|(part, at)| Step::Answer(part, at)),
        (any(), 0..15_u64).prop_map(|(part, later)| Step::LeaveOut(part, later)),
        (any(), any()).prop_map(|(part, at)| Step::Split(part, at)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a plain list of which requests each part holds, and which of them are open.
    #[test]
    fn each_request_ends_once_and_keeps_its_name(
        deadlines in prop::collection::vec(prop_oneof![Just(u64::MAX), 20..120_u64], 1..12),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let (batcher, clock, batch, tickets, _log) = sealed(&deadlines);
        let mut now = 10;
        // The part, its requests, and which of them have ended.
        let mut parts = vec![(batch, (0..deadlines.len()).map(|id| (id, false)).collect::<Vec<_>>())];
        let (mut gone, mut ended) = (vec![false; deadlines.len()], vec![None; deadlines.len()]);
        for step in steps {
            match step {
                Step::Cancel(which) => {
                    let id = which % deadlines.len();
                    gone[id] |= ended[id].is_none();
                    tickets[id].cancel();
                }
                Step::Answer(part, at) => {
                    let count = parts.len();
                    let (batch, plain) = &mut parts[part % count];
                    let at = at % plain.len();
                    let (id, over) = plain[at];
                    prop_assert_eq!(batch.answer(at, Ok(id as u64)).map(|out| out.send()).is_err(), over);
                    plain[at].1 = true;
                    ended[id] = ended[id].or(Some(Ok(id as u64)));
                }
                Step::LeaveOut(part, later) => {
                    now += later;
                    clock.set(now);
                    let count = parts.len();
                    let (batch, plain) = &mut parts[part % count];
                    let (_, next) = leave_out(batch, now);
                    for (id, over) in plain.iter_mut().filter(|(_, over)| !over) {
                        let overdue = deadlines[*id] <= now && !gone[*id];
                        *over = gone[*id] || overdue;
                        if overdue {
                            ended[*id] = Some(Err(Failure::Expired));
                        }
                    }
                    if plain.iter().any(|(_, over)| !over) {
                        plain.retain(|(_, over)| !over);
                        let first = plain.iter().map(|&(id, _)| deadlines[id]).min();
                        prop_assert_eq!(next, first.filter(|&deadline| deadline != u64::MAX));
                    } else {
                        prop_assert_eq!((batch.left(), next), (0, None));
                    }
                }
                Step::Split(part, at) => {
                    let part = part % parts.len();
                    let at = at % (parts[part].1.len() + 1);
                    if let Ok(rest) = parts[part].0.split_off(at) {
                        let plain = parts[part].1.split_off(at);
                        parts.push((rest, plain));
                    }
                }
            }
            for (batch, plain) in &parts {
                prop_assert_eq!(batch.left(), plain.iter().filter(|(_, over)| !over).count());
                prop_assert_eq!(batch.len(), plain.len());
                for (at, &(id, over)) in plain.iter().enumerate() {
                    prop_assert_eq!(batch.id(at), RequestId { batch: 1, index: id });
                    prop_assert_eq!(batch.payload(at).copied(), (!over).then_some(id as u64));
                }
            }
        }
        for (batch, _) in &mut parts {
            batch.answer_rest(|_| Err(Failure::Abandoned)).send();
        }
        for (id, ticket) in tickets.iter().enumerate() {
            let expected = if gone[id] { None } else { ended[id].or(Some(Err(Failure::Abandoned))) };
            prop_assert_eq!(ticket.take(), expected);
        }
        let shown = batcher.snapshot();
        prop_assert_eq!((shown.in_flight, shown.runs.count()), (0, 1));
    }
}
