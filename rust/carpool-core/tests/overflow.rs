//! A full queue where requests give way: who does, what becomes of it, and what the figures say.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use carpool_core::clock::NEVER;
use carpool_core::many::{Item, Told};
use carpool_core::submit::Announce;
use carpool_core::{Batch, Batcher, Failure, Limits, Overflow, Pulled, Refusal, Terms, Ticket};
use support::{Log, Plain, Waiter, batcher};

const AGE: i64 = 100;

fn shedding(max_queue: usize) -> Limits {
    Limits {
        max_batch_size: 8,
        max_queue,
        overflow: Overflow::Shed,
        ..Limits::default()
    }
}

fn terms(now: u64, level: i64, deadline: u64) -> Terms {
    Terms {
        urgency: Terms::urgency(now, level * AGE),
        deadline,
        ..Terms::at(now)
    }
}

fn submit(
    batcher: &Batcher<Plain>,
    log: &Log,
    id: u64,
    terms: Terms,
) -> Result<Ticket<Plain>, Refusal> {
    let submitted = batcher.submit_with(id, log.waiter(id), terms, Announce::Yes);
    submitted.map_err(|refused| {
        assert_eq!((refused.payload, refused.waiter.id), (id, id));
        refused.why
    })
}

fn pulled(batcher: &Batcher<Plain>) -> Option<Batch<Plain>> {
    match batcher.try_pull(usize::MAX) {
        Pulled::Batch(batch) => Some(batch),
        _ => None,
    }
}

fn payloads(batch: &Batch<Plain>) -> Vec<u64> {
    (0..batch.len())
        .filter_map(|at| batch.payload(at).copied())
        .collect()
}

#[test]
fn who_gives_way() {
    // Pending: (level, deadline); the newcomer; which of them gives way, none: the newcomer.
    type Row = (
        &'static str,
        &'static [(i64, u64)],
        (i64, u64),
        Option<usize>,
    );
    let rows: [Row; 9] = [
        (
            "of equals the newest: the newcomer",
            &[(0, NEVER), (0, NEVER)],
            (0, NEVER),
            None,
        ),
        (
            "the least urgent",
            &[(0, NEVER), (2, 900), (1, NEVER)],
            (0, NEVER),
            Some(1),
        ),
        (
            "of those the one with the latest deadline",
            &[(1, 900), (1, 950), (1, 910)],
            (0, NEVER),
            Some(1),
        ),
        (
            "none is the latest of all",
            &[(1, 900), (1, NEVER), (1, 910)],
            (0, NEVER),
            Some(1),
        ),
        (
            "of those the newest",
            &[(1, 900), (1, 900), (0, NEVER)],
            (1, 800),
            Some(1),
        ),
        (
            "a newcomer of the same level with an earlier deadline",
            &[(0, 900), (0, 901)],
            (0, 890),
            Some(1),
        ),
        (
            "a newcomer of the same level with a later deadline",
            &[(0, 900), (0, 901)],
            (0, 902),
            None,
        ),
        (
            "a newcomer of the same level and deadline",
            &[(0, 900), (0, 900)],
            (0, 900),
            None,
        ),
        (
            "a less urgent newcomer, however near its deadline",
            &[(0, NEVER), (0, NEVER)],
            (1, 700),
            None,
        ),
    ];
    for (what, pending, newcomer, expected) in rows {
        let (batcher, _) = batcher(shedding(pending.len()));
        let log = Log::default();
        let tickets: Vec<_> = pending
            .iter()
            .zip(0..)
            .map(|(&(level, deadline), id)| {
                submit(&batcher, &log, id, terms(0, level, deadline)).unwrap()
            })
            .collect();
        let made = submit(&batcher, &log, 99, terms(0, newcomer.0, newcomer.1));
        match expected {
            None => assert_eq!(made.err(), Some(Refusal::Shed), "{what}"),
            Some(_) => assert!(made.is_ok(), "{what}"),
        }
        let gave: Vec<_> = tickets
            .iter()
            .enumerate()
            .filter_map(|(at, ticket)| ticket.take().map(|answer| (at, answer)))
            .collect();
        let expected: Vec<_> = expected
            .map(|at| (at, Err(Failure::Shed)))
            .into_iter()
            .collect();
        assert_eq!(gave, expected, "{what}");
        assert_eq!(
            log.woken(),
            expected
                .iter()
                .map(|&(at, _)| at as u64)
                .collect::<Vec<_>>(),
            "{what}"
        );
        assert_eq!(batcher.pending(), pending.len(), "{what}");
    }
}

#[test]
fn what_has_waited_is_no_more_urgent_for_it() {
    let (batcher, time) = batcher(shedding(1));
    let log = Log::default();
    let old = submit(&batcher, &log, 0, terms(0, 1, NEVER)).unwrap();
    time.set(1_000_000);
    submit(&batcher, &log, 1, terms(1_000_000, 0, NEVER)).unwrap();
    assert_eq!(old.take(), Some(Err(Failure::Shed)));
}

#[test]
fn it_is_counted_and_the_figures_add_up() {
    let (batcher, _) = batcher(shedding(2));
    let log = Log::default();
    for (id, level) in [(0, 1), (1, 1), (2, 0), (3, 1), (4, 0), (5, 0)] {
        drop(submit(&batcher, &log, id, terms(0, level, NEVER)));
    }
    // 1 for 2, 3 itself, 0 for 4, 5 itself.
    assert_eq!(log.woken(), [1, 0]);
    let shown = batcher.snapshot();
    assert_eq!(
        (shown.submitted, shown.failed, shown.rejected, shown.shed),
        (6, 2, 2, 4)
    );
    assert_eq!((shown.pending, shown.answered), (2, 0));
    let mut batch = pulled(&batcher).expect("two are pending");
    assert_eq!(payloads(&batch), [2, 4]);
    batch.answer_all(vec![Ok(2), Ok(4)]).unwrap().send();
    let shown = batcher.snapshot();
    assert_eq!((shown.submitted, shown.answered, shown.pending), (6, 2, 0));
}

#[test]
fn the_place_of_what_is_overdue_comes_first() {
    let (batcher, time) = batcher(shedding(2));
    let log = Log::default();
    let late = submit(&batcher, &log, 0, terms(0, 0, 50)).unwrap();
    let other = submit(&batcher, &log, 1, terms(0, 5, NEVER)).unwrap();
    time.set(50);
    submit(&batcher, &log, 2, terms(50, 0, NEVER)).unwrap();
    assert!(late.request().reply().is_expired());
    assert!(
        other.request().reply().is_pending(),
        "nobody had to give way"
    );
}

#[test]
fn one_that_costs_too_much_or_comes_too_late_makes_nobody_give_way() {
    let limits = Limits {
        max_batch_cost: 10,
        ..shedding(1)
    };
    let (batcher, _) = batcher(limits);
    let log = Log::default();
    let pending = submit(&batcher, &log, 0, terms(0, 3, NEVER)).unwrap();
    let dear = Terms {
        cost: 11,
        ..terms(0, 0, NEVER)
    };
    assert_eq!(
        submit(&batcher, &log, 1, dear).err(),
        Some(Refusal::TooLarge)
    );
    batcher.close(true);
    let urgent = terms(0, -1, NEVER);
    assert_eq!(
        submit(&batcher, &log, 2, urgent).err(),
        Some(Refusal::Closed)
    );
    assert!(pending.request().reply().is_pending());
    assert_eq!(batcher.snapshot().shed, 0);
}

#[test]
fn its_cost_goes_with_it() {
    let limits = Limits {
        max_batch_cost: 10,
        wait: 1000,
        ..shedding(2)
    };
    let (batcher, _) = batcher(limits);
    let log = Log::default();
    let costs = |cost, level| Terms {
        cost,
        ..terms(0, level, NEVER)
    };
    submit(&batcher, &log, 0, costs(4, 0)).unwrap();
    submit(&batcher, &log, 1, costs(5, 1)).unwrap();
    submit(&batcher, &log, 2, costs(4, 0)).unwrap();
    assert!(pulled(&batcher).is_none(), "4 + 4 of 10, and young");
    submit(&batcher, &log, 3, costs(6, -1)).unwrap();
    let batch = pulled(&batcher).expect("4 + 6 of 10");
    assert_eq!(payloads(&batch), [3, 0]);
}

/// One that gives way from between the others lies there until somebody meets it; nobody takes it for alive.
#[test]
fn who_gave_way_fills_no_batch() {
    let limits = Limits {
        max_batch_size: 4,
        wait: 1000,
        ..shedding(3)
    };
    let (batcher, time) = batcher(limits);
    let log = Log::default();
    submit(&batcher, &log, 0, terms(0, 0, 5000)).unwrap();
    submit(&batcher, &log, 1, terms(0, 0, NEVER)).unwrap();
    submit(&batcher, &log, 2, terms(0, 0, 5000)).unwrap();
    submit(&batcher, &log, 3, terms(0, 0, 5000)).unwrap();
    assert_eq!(log.woken(), [1]);
    assert!(
        pulled(&batcher).is_none(),
        "three live, and four fill a batch"
    );
    time.set(1000);
    let batch = pulled(&batcher).expect("the wait is over");
    assert_eq!(payloads(&batch), [0, 2, 3]);
}

#[test]
fn of_a_list_those_that_are_pending_may_give_way() {
    let (batcher, _) = batcher(shedding(8));
    let log = Log::default();
    let items = (0..20).map(|n| Item::of(100 + n)).collect();
    let many = batcher
        .submit_many(items, log.waiter(7), terms(0, 1, NEVER), Told::AtTheEnd)
        .unwrap();
    let fill: Vec<_> = (0..4)
        .map(|id| submit(&batcher, &log, id, terms(0, 0, NEVER)).unwrap())
        .collect();
    // Half the queue is the list's: its four give way, one by one, and the next cannot be let in.
    let more: Vec<_> = (4..8)
        .map(|id| submit(&batcher, &log, id, terms(0, 0, NEVER)).unwrap())
        .collect();
    assert_eq!(
        submit(&batcher, &log, 8, terms(0, 0, NEVER)).err(),
        Some(Refusal::Shed)
    );
    assert_eq!(many.left(), 16);
    assert_eq!(
        (0..5).map(|at| many.take(at)).collect::<Vec<_>>(),
        [
            Some(Err(Failure::Shed)),
            Some(Err(Failure::Shed)),
            Some(Err(Failure::Shed)),
            Some(Err(Failure::Shed)),
            None
        ]
    );
    for ticket in fill.iter().chain(&more) {
        assert!(ticket.request().reply().is_pending());
    }
    // The rest of the list goes on when there is room.
    let mut ran = Vec::new();
    while let Some(mut batch) = pulled(&batcher) {
        let batch_of = payloads(&batch);
        let answers = batch_of.iter().map(|&id| Ok(id)).collect();
        batch.answer_all(answers).unwrap().send();
        ran.extend(batch_of);
    }
    assert_eq!(ran, (0..8).chain(104..120).collect::<Vec<_>>());
    assert!(many.is_over());
}

#[test]
fn an_idle_batcher_keeps_nothing_of_what_gave_way() {
    let (batcher, _) = batcher(shedding(4));
    let log = Log::default();
    let mut tickets = Vec::new();
    for id in 0..400 {
        let level = 3 - (id as i64 * 7) % 5;
        tickets.extend(submit(&batcher, &log, id, terms(0, level, NEVER)));
    }
    while let Some(mut batch) = pulled(&batcher) {
        let n = batch.len();
        batch.answer_all(vec![Ok(0); n]).unwrap().send();
    }
    for ticket in &tickets {
        assert_eq!(carpool_core::request::Handle::count(ticket.request()), 1);
    }
}

/// Four threads, ten times what fits: everybody has an answer, at no moment more are pending than may be.
#[test]
fn threads_against_a_small_queue() {
    let (batcher, _) = batcher(shedding(8));
    let log = Log::default();
    let (accepted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let tickets: Vec<Ticket<Plain>> = std::thread::scope(|scope| {
        let submitters: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (batcher, log, accepted, refused) = (&batcher, &log, &accepted, &refused);
                scope.spawn(move || {
                    let mut tickets = Vec::new();
                    for n in 0..2000_u64 {
                        let level = (n * 7 + thread) as i64 % 3;
                        let id = thread * 10_000 + n;
                        let waiter = Waiter {
                            id,
                            log: log.clone(),
                            runner: None,
                        };
                        let terms = terms(n, level, NEVER);
                        match batcher.submit_with(id, waiter, terms, Announce::Yes) {
                            Ok(ticket) => {
                                accepted.fetch_add(1, Ordering::Relaxed);
                                tickets.push(ticket);
                            }
                            Err(error) => {
                                assert_eq!(error.why, Refusal::Shed);
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        assert!(batcher.pending() <= 8);
                        if n % 40 == 0 {
                            if let Some(mut batch) = pulled(batcher) {
                                let answers = payloads(&batch).into_iter().map(Ok).collect();
                                batch.answer_all(answers).unwrap().send();
                            }
                        }
                    }
                    tickets
                })
            })
            .collect();
        submitters
            .into_iter()
            .flat_map(|submitter| submitter.join().unwrap())
            .collect()
    });
    batcher.close(true);
    while let Some(mut batch) = pulled(&batcher) {
        let answers = payloads(&batch).into_iter().map(Ok).collect();
        batch.answer_all(answers).unwrap().send();
    }
    let (mut answered, mut gave_way) = (0, 0);
    for ticket in &tickets {
        let id = ticket.request().waiter().id;
        match ticket.take().expect("an answer for everybody") {
            Ok(value) => {
                assert_eq!(value, id);
                answered += 1;
            }
            Err(why) => {
                assert_eq!(why, Failure::Shed);
                gave_way += 1;
            }
        }
    }
    let shown = batcher.snapshot();
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    assert_eq!(accepted + refused, 8000);
    assert_eq!((shown.answered, shown.failed), (answered, gave_way));
    assert_eq!(shown.rejected, refused);
    assert_eq!(shown.shed, refused + gave_way);
    assert!(gave_way > 0 && refused > 0 && answered > 0);
}
