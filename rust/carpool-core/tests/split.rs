//! A sealed batch in parts: each is run, answered and dropped by itself, and the slot is one.

mod support;

use carpool_core::{AnswerError, Batch, Batcher, Failure, Limits, Pulled, SplitError, Ticket};
use support::{Bell, Log, Plain, batcher};

const POISON: u64 = 5;

/// A batch of so many requests, of the one slot there is.
fn sealed(n: u64) -> (Batcher<Plain>, Batch<Plain>, Vec<Ticket<Plain>>, Log) {
    let (batcher, clock) = batcher(Limits {
        slots: 1,
        ..Limits::default()
    });
    let log = Log::default();
    let tickets: Vec<_> = (0..n)
        .map(|id| {
            clock.advance(10);
            batcher.submit(id, log.waiter(id)).unwrap()
        })
        .collect();
    clock.advance(10);
    let Pulled::Batch(batch) = batcher.try_pull(usize::MAX) else {
        panic!("due");
    };
    (batcher, batch, tickets, log)
}

fn payloads(batch: &Batch<Plain>) -> Vec<Option<u64>> {
    let all = 0..batch.len();
    all.map(|at| batch.payload(at).copied()).collect()
}

/// A handler that fails as a whole where the poison is among its items.
fn run(batch: &Batch<Plain>) -> Option<Vec<Result<u64, Failure>>> {
    let items: Vec<u64> = payloads(batch).into_iter().flatten().collect();
    let poisoned = items.contains(&POISON);
    (!poisoned).then(|| items.into_iter().map(|item| Ok(item * 10)).collect())
}

#[test]
fn halving_leaves_the_poison_alone() {
    let (batcher, batch, tickets, log) = sealed(11);
    the_slot_is_taken(&batcher);
    let (mut todo, mut runs) = (vec![batch], 0);
    while let Some(mut part) = todo.pop() {
        runs += 1;
        let free = match run(&part) {
            Some(answers) => part.answer_all(answers).unwrap().send(),
            None if part.len() == 1 => part.answer(0, Err(Failure::Abandoned)).unwrap().send(),
            None => {
                todo.push(part.split_off(part.len() / 2).unwrap());
                todo.push(part);
                false
            }
        };
        assert_eq!(free, todo.is_empty(), "the slot is free with the last part");
        let shown = batcher.snapshot();
        assert_eq!(shown.runs.count(), u64::from(free));
        assert_eq!((shown.submitted, shown.batches), (11, 1));
    }
    assert_eq!(runs, 7);
    for (id, ticket) in (0..).zip(tickets) {
        let expected = match id {
            POISON => Err(Failure::Abandoned),
            _ => Ok(id * 10),
        };
        assert_eq!(ticket.take(), Some(expected));
    }
    let mut woken = log.woken();
    woken.sort_unstable();
    assert!(woken.into_iter().eq(0..11), "each is woken once");
    let shown = batcher.snapshot();
    assert_eq!((shown.answered, shown.failed, shown.in_flight), (10, 1, 0));
    assert_eq!((shown.sizes.count(), shown.sizes.max()), (1, 11));
}

/// There is one slot, and the batch has it.
fn the_slot_is_taken(batcher: &Batcher<Plain>) {
    assert!(matches!(batcher.try_pull(usize::MAX), Pulled::Wait(None)));
}

#[test]
fn each_part_shows_its_own() {
    let (_batcher, mut batch, _tickets, _) = sealed(4);
    assert_eq!(batch.waited(), 40);
    let reason = batch.reason();
    batch.answer(3, Ok(30)).unwrap().send();
    let mut rest = batch.split_off(1).unwrap();
    assert_eq!(payloads(&batch), [Some(0)]);
    assert_eq!(payloads(&rest), [Some(1), Some(2), None]);
    assert_eq!((batch.len(), batch.left(), batch.waited()), (1, 1, 40));
    assert_eq!((rest.len(), rest.left(), rest.waited()), (3, 2, 30));
    assert_eq!((batch.reason(), rest.reason()), (reason, reason));
    let (error, _) = rest.answer(3, Ok(0)).err().unwrap();
    assert_eq!(error, AnswerError::OutOfRange { index: 3, len: 3 });
    let (error, _) = rest.answer(2, Ok(0)).err().unwrap();
    assert_eq!(error, AnswerError::Answered { index: 2 });
}

#[test]
fn a_part_needs_a_request() {
    let (_batcher, mut batch, _tickets, _) = sealed(2);
    for at in [0, 2, 3, usize::MAX] {
        let error = batch.split_off(at).err().unwrap();
        assert_eq!(error, SplitError { at, len: 2 });
        assert_eq!(
            error.to_string(),
            format!("a batch of 2 cannot be split at {at}: each part needs a request")
        );
    }
    assert_eq!(batch.len(), 2);
}

#[test]
fn a_dropped_part_abandons_its_own_and_keeps_no_slot() {
    let (batcher, mut batch, tickets, _) = sealed(3);
    let _next = batcher.submit(9, Log::default().waiter(9)).unwrap();
    let (bell, waker) = Bell::new();
    let mut seat = batcher.seat();
    assert!(matches!(seat.poll(&waker, 4), Pulled::Wait(None)));
    drop(batch.split_off(1).unwrap());
    assert_eq!(bell.rings(), 0, "the first part holds the slot");
    assert_eq!(tickets[0].take(), None);
    assert_eq!(tickets[1].take(), Some(Err(Failure::Abandoned)));
    assert_eq!(tickets[2].take(), Some(Err(Failure::Abandoned)));
    assert!(batch.answer_all(vec![Ok(0)]).unwrap().send());
    assert_eq!(bell.rings(), 1);
    assert_eq!(tickets[0].take(), Some(Ok(0)));
    assert!(matches!(seat.poll(&waker, 4), Pulled::Batch(_)));
}

#[test]
fn a_part_that_had_ended_holds_nothing() {
    for (ended, at) in [(0..2, 2), (2..4, 2)] {
        let (batcher, mut batch, _tickets, _) = sealed(4);
        for index in ended {
            assert!(!batch.answer(index, Ok(0)).unwrap().send());
        }
        let mut rest = batch.split_off(at).unwrap();
        assert_eq!(batch.left() + rest.left(), 2);
        let last = if batch.left() > 0 {
            &mut batch
        } else {
            &mut rest
        };
        let out = last.answer_rest(|_| Ok(0));
        assert!(out.is_last() && out.send());
        assert_eq!(batcher.snapshot().runs.count(), 1);
    }
}

#[test]
fn an_ended_batch_can_be_split_and_nothing_comes_of_it() {
    let (batcher, mut batch, _tickets, log) = sealed(4);
    let out = batch.answer_all(vec![Ok(0); 4]).unwrap();
    let rest = batch.split_off(1).unwrap();
    assert_eq!((batch.len(), rest.len(), rest.left()), (1, 3, 0));
    assert_eq!(payloads(&rest), [None; 3]);
    drop((batch, rest));
    assert!(log.woken().is_empty());
    assert!(out.send());
    assert_eq!(batcher.snapshot().answered, 4);
}

#[test]
fn parts_end_on_any_thread() {
    let (batcher, mut batch, tickets, _) = sealed(16);
    let mut parts = Vec::new();
    for at in (1..16).rev() {
        parts.push(batch.split_off(at).unwrap());
    }
    parts.push(batch);
    let free: usize = std::thread::scope(|scope| {
        let run = |mut part: Batch<Plain>| {
            let answers = run(&part).unwrap_or_else(|| vec![Ok(POISON * 10)]);
            usize::from(part.answer_all(answers).unwrap().send())
        };
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || run(part)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(free, 1, "the slot comes back once");
    for (id, ticket) in (0..).zip(tickets) {
        assert_eq!(ticket.take(), Some(Ok(id * 10)));
    }
    assert!(batcher.is_idle());
}

#[test]
fn an_id_names_the_same_request_whatever_part_it_is_in() {
    let (batcher, mut batch, _tickets, log) = sealed(5);
    let whole: Vec<_> = (0..5).map(|at| batch.id(at)).collect();
    let mut rest = batch.split_off(2).unwrap();
    let last = rest.split_off(2).unwrap();
    let of = |part: &Batch<Plain>| -> Vec<_> { (0..part.len()).map(|at| part.id(at)).collect() };
    assert_eq!([of(&batch), of(&rest), of(&last)].concat(), whole);
    assert_eq!(
        whole.iter().map(|id| id.index).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
    drop((batch, rest, last));
    batcher.submit(9, log.waiter(9)).unwrap();
    let Pulled::Batch(next) = batcher.try_pull(usize::MAX) else {
        panic!("due");
    };
    assert_eq!((whole[0].batch, next.id(0).batch), (1, 2));
}
