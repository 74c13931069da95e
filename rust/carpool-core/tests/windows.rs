//! Many at once: first step by step, then random lives in which every rule is checked after each step.
#![allow(missing_docs)]

mod support;

use std::collections::VecDeque;

use carpool_core::many::{Convoy, Item, Many, Told};
use carpool_core::request::Terms;
use carpool_core::{Batch, Batcher, Failure, Limits, Nanos, Overflow, Pulled, Refusal, Ticket};
use support::{Bell, Log, Plain, Time, batcher};

fn limits(max_batch_size: usize, max_queue: usize) -> Limits {
    Limits {
        max_batch_size,
        max_queue,
        slots: 1,
        ..Limits::default()
    }
}

fn many(batcher: &Batcher<Plain>, log: &Log, id: u64, items: std::ops::Range<u64>) -> Many<Plain> {
    until(batcher, log, id, items, u64::MAX, Told::AtTheEnd)
}

fn until(
    batcher: &Batcher<Plain>,
    log: &Log,
    id: u64,
    items: std::ops::Range<u64>,
    deadline: Nanos,
    told: Told,
) -> Many<Plain> {
    let terms = Terms {
        deadline,
        ..Terms::at(batcher.now())
    };
    let items = items.map(Item::of).collect();
    batcher
        .submit_many(items, log.waiter(id), terms, told)
        .expect("it is open")
}

fn payloads(batch: &Batch<Plain>) -> Vec<u64> {
    (0..batch.len())
        .filter_map(|at| batch.payload(at).copied())
        .collect()
}

fn pull(batcher: &Batcher<Plain>) -> Batch<Plain> {
    match batcher.try_pull(usize::MAX) {
        Pulled::Batch(batch) => batch,
        _ => panic!("a batch is due"),
    }
}

/// Answers each with ten times its payload.
fn serve(mut batch: Batch<Plain>) -> Vec<u64> {
    let payloads = payloads(&batch);
    let answers = payloads.iter().map(|payload| Ok(payload * 10)).collect();
    batch.answer_all(answers).unwrap().send();
    payloads
}

fn tens(range: std::ops::Range<u64>) -> Vec<Result<u64, Failure>> {
    range.map(|payload| Ok(payload * 10)).collect()
}

#[test]
fn a_list_longer_than_the_queue_is_answered_in_order_and_told_once() {
    let (batcher, _) = batcher(limits(4, 8));
    let log = Log::default();
    let list = many(&batcher, &log, 1, 0..30);
    assert_eq!((list.len(), list.left(), batcher.pending()), (30, 30, 4));
    let mut seen = Vec::new();
    while !list.is_over() {
        assert_eq!(log.woken(), []);
        assert!(batcher.pending() <= 4);
        seen.extend(serve(pull(&batcher)));
    }
    assert_eq!(seen, (0..30).collect::<Vec<_>>());
    assert_eq!(log.woken(), [1]);
    assert_eq!(list.take_all(), tens(0..30));
    assert_eq!(list.take_all(), []);
    let s = batcher.snapshot();
    assert_eq!((s.submitted, s.answered, s.pending), (30, 30, 0));
}

#[test]
fn two_batches_are_ahead_at_most() {
    let (batcher, _) = batcher(limits(4, 1000));
    let log = Log::default();
    let _list = many(&batcher, &log, 1, 0..100);
    assert_eq!(batcher.pending(), 8);
    let running = pull(&batcher);
    assert_eq!((running.len(), batcher.pending()), (4, 8));
    assert_eq!(batcher.snapshot().submitted, 12);
}

#[test]
fn what_is_to_leave_together_does_as_far_as_the_queue_holds_it() {
    for (max_queue, first) in [(1000, 4), (6, 4), (4, 4), (3, 3)] {
        let limits = Limits {
            wait: 1_000_000,
            ..limits(4, max_queue)
        };
        let (batcher, _) = batcher(limits);
        let log = Log::default();
        let terms = Terms::at(batcher.now());
        let items = (0..4).map(Item::of).collect();
        let list = batcher.submit_together(items, log.waiter(1), terms);
        assert_eq!(pull(&batcher).len(), first, "with room for {max_queue}");
        drop(list);
    }
}

#[test]
fn a_single_call_overtakes_the_backlog() {
    let (batcher, _) = batcher(limits(4, 1000));
    let log = Log::default();
    let list = many(&batcher, &log, 1, 0..100);
    let running = pull(&batcher);
    let single = batcher.submit(500, log.waiter(2)).unwrap();
    serve(running);
    assert_eq!(serve(pull(&batcher)), [4, 5, 6, 7]);
    assert_eq!(serve(pull(&batcher)), [8, 9, 10, 11]);
    // Two batches were ahead of it, and no more.
    assert_eq!(serve(pull(&batcher)), [500, 12, 13, 14]);
    assert_eq!((single.take(), log.woken()), (Some(Ok(5000)), vec![2]));
    assert!(!list.is_over());
}

#[test]
fn a_small_queue_keeps_room_for_single_calls() {
    let (batcher, _) = batcher(limits(4, 4));
    let log = Log::default();
    let _list = many(&batcher, &log, 1, 0..100);
    assert_eq!(batcher.pending(), 2);
    for id in 0..2 {
        assert!(batcher.submit(500, log.waiter(id)).is_ok());
    }
    let refused = batcher.submit(500, log.waiter(2)).err().unwrap();
    assert_eq!(refused.why, Refusal::Full);
}

#[test]
fn windows_take_turns_where_room_is_short() {
    let (batcher, _) = batcher(limits(1, 2));
    let log = Log::default();
    let lists = [0, 10, 20].map(|from| many(&batcher, &log, from, from..from + 5));
    let mut seen = Vec::new();
    while !lists.iter().all(Many::is_over) {
        seen.extend(serve(pull(&batcher)));
    }
    // There is room for two of the three at a time, and none is passed over twice.
    for from in [0, 10, 20] {
        let own = (from..from + 5).map(|item| seen.iter().position(|&at| at == item));
        let places: Vec<_> = own.map(|place| place.unwrap()).collect();
        let gaps = places.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(places[0] <= 4 && gaps.max() <= Some(4), "{seen:?}");
    }
    assert_eq!(log.woken().len(), 3);
}

#[test]
fn errors_stand_in_their_places() {
    let (batcher, _) = batcher(limits(3, 100));
    let log = Log::default();
    let list = many(&batcher, &log, 1, 0..6);
    let mut first = pull(&batcher);
    first
        .answer_all(vec![Ok(1), Err(Failure::Abandoned), Ok(2)])
        .unwrap()
        .send();
    assert_eq!((list.left(), log.woken()), (3, vec![]));
    drop(pull(&batcher));
    let lost = Err(Failure::Abandoned);
    assert_eq!(list.take_all(), [Ok(1), lost, Ok(2), lost, lost, lost]);
    assert_eq!(log.woken(), [1]);
}

#[test]
fn who_wants_to_is_told_at_each_batch() {
    let (batcher, _) = batcher(limits(4, 100));
    let log = Log::default();
    let list = until(&batcher, &log, 1, 0..10, u64::MAX, Told::PerStep);
    for told in 1..=3 {
        let batch = serve(pull(&batcher));
        assert_eq!(log.woken().len(), told);
        for payload in batch {
            assert_eq!(list.take(payload as usize), Some(Ok(payload * 10)));
            assert_eq!(list.take(payload as usize), None);
        }
        assert_eq!(list.is_over(), told == 3);
    }
    assert_eq!(list.take(10), None);
}

#[test]
fn a_cancel_ends_all_that_is_not_sealed() {
    let (batcher, _) = batcher(limits(4, 100));
    let log = Log::default();
    let list = many(&batcher, &log, 1, 0..50);
    let running = pull(&batcher);
    let mut back = list.cancel();
    back.sort_unstable();
    assert_eq!(back, (4..50).collect::<Vec<_>>());
    assert_eq!(batcher.pending(), 0);
    serve(running);
    let s = batcher.snapshot();
    assert_eq!((s.submitted, s.cancelled, s.answered), (50, 50, 0));
    assert_eq!((log.woken(), list.cancel()), (vec![], vec![]));
    assert!(batcher.is_idle());
}

#[test]
fn a_close_drains_the_backlog_or_fails_it() {
    for drain in [true, false] {
        let (batcher, _) = batcher(limits(4, 100));
        let log = Log::default();
        let list = many(&batcher, &log, 1, 0..50);
        let running = pull(&batcher);
        batcher.close(drain);
        let (_, waker) = Bell::new();
        assert!(!batcher.poll_ended(&waker));
        serve(running);
        while let Pulled::Batch(batch) = batcher.try_pull(4) {
            assert!(drain);
            serve(batch);
        }
        assert!(batcher.poll_ended(&waker));
        let mut expected = tens(0..if drain { 50 } else { 4 });
        expected.resize(50, Err(Failure::Closed));
        assert_eq!((list.take_all(), log.woken()), (expected, vec![1]));
        let s = batcher.snapshot();
        assert_eq!((s.submitted, s.answered + s.failed), (50, 50));
        let refused = batcher.submit_many(
            vec![Item::of(1)],
            log.waiter(2),
            Terms::at(0),
            Told::AtTheEnd,
        );
        let refused = refused.err().unwrap();
        assert_eq!(
            (refused.why, refused.items.len(), refused.waiter.id),
            (Refusal::Closed, 1, 2)
        );
        assert_eq!(batcher.snapshot().rejected, 1);
    }
}

#[test]
fn the_backlog_expires_too() {
    let (batcher, time) = batcher(limits(4, 100));
    let log = Log::default();
    let list = until(&batcher, &log, 1, 0..50, 10, Told::AtTheEnd);
    assert_eq!(time.armed(), [10]);
    let running = pull(&batcher);
    time.set(10);
    batcher.expire_due();
    assert_eq!(
        (batcher.pending(), list.left(), log.woken()),
        (0, 4, vec![])
    );
    serve(running);
    let mut expected = tens(0..4);
    expected.resize(50, Err(Failure::Expired));
    assert_eq!((list.take_all(), log.woken()), (expected, vec![1]));
    let s = batcher.snapshot();
    assert_eq!((s.submitted, s.answered, s.failed), (50, 4, 46));
}

#[test]
fn a_waiting_slot_is_woken_by_a_list_and_an_empty_list_is_over() {
    let (batcher, _) = batcher(limits(4, 100));
    let log = Log::default();
    let (bell, waker) = Bell::new();
    let mut seat = batcher.seat();
    assert!(matches!(seat.poll(&waker, 4), Pulled::Wait(None)));
    assert!(many(&batcher, &log, 1, 0..0).is_over());
    assert_eq!(bell.rings(), 0);
    let _list = many(&batcher, &log, 1, 0..9);
    assert_eq!(bell.rings(), 1);
}

#[test]
fn room_freed_by_a_cancel_goes_to_a_window() {
    let (batcher, _) = batcher(limits(8, 2));
    let log = Log::default();
    let singles: Vec<_> = (0..2)
        .map(|id| batcher.submit(id, log.waiter(id)).unwrap())
        .collect();
    let list = many(&batcher, &log, 9, 10..13);
    for single in &singles {
        single.cancel();
    }
    while !list.is_over() {
        serve(pull(&batcher));
    }
    assert_eq!((list.take_all(), log.woken()), (tens(10..13), vec![9]));
}

#[test]
fn keys_and_costs_are_each_items_own() {
    let (batcher, _) = batcher(Limits {
        max_batch_cost: 10,
        ..limits(8, 100)
    });
    let log = Log::default();
    let items = |cost| {
        let item = move |payload| Item {
            payload,
            cost,
            key: payload % 2,
            length: 0,
        };
        (0..6).map(item).collect::<Vec<_>>()
    };
    let terms = Terms::at(0);
    let refused = batcher.submit_many(items(11), log.waiter(1), terms, Told::AtTheEnd);
    assert_eq!(refused.err().unwrap().why, Refusal::TooLarge);
    let list = batcher
        .submit_many(items(5), log.waiter(1), terms, Told::AtTheEnd)
        .unwrap();
    let mut batches = Vec::new();
    while !list.is_over() {
        batches.push(serve(pull(&batcher)));
    }
    assert_eq!(batches, [vec![0, 2], vec![4], vec![1, 3], vec![5]]);
}

fn of(payload: u64, key: u64, cost: u64) -> Item<u64> {
    Item {
        key,
        cost,
        ..Item::of(payload)
    }
}

fn list_of(batcher: &Batcher<Plain>, log: &Log, id: u64, items: Vec<Item<u64>>) -> Many<Plain> {
    batcher
        .submit_many(
            items,
            log.waiter(id),
            Terms::at(batcher.now()),
            Told::AtTheEnd,
        )
        .unwrap()
}

/// How many batches leave before the one of `payload`.
fn before(batcher: &Batcher<Plain>, payload: u64) -> usize {
    (0..1000)
        .find(|_| serve(pull(batcher)).contains(&payload))
        .expect("it is pending")
}

#[test]
fn two_batches_are_ahead_at_most_however_few_requests_fit_one() {
    for padded in [false, true] {
        let (batcher, time) = batcher(Limits {
            max_batch_cost: 10,
            padded,
            ..limits(1000, 100_000)
        });
        let log = Log::default();
        // One fills a batch, or three do.
        for (cost, pending) in [(10, 2), (3, 6)] {
            let items = (0..300).map(|payload| of(payload, 0, cost)).collect();
            let list = list_of(&batcher, &log, 1, items);
            assert_eq!(batcher.pending(), pending);
            time.advance(1);
            let single = batcher.submit(1000, log.waiter(2)).unwrap();
            // It may find room in the second.
            assert!((1..=2).contains(&before(&batcher, 1000)));
            assert!(single.take().is_some());
            list.cancel();
        }
    }
}

#[test]
fn two_batches_are_ahead_at_most_whatever_their_keys() {
    let (batcher, time) = batcher(limits(4, 1000));
    let log = Log::default();
    let items = (0..300)
        .map(|payload| of(payload, 1 + payload, 1))
        .collect();
    let list = list_of(&batcher, &log, 1, items);
    assert_eq!(batcher.pending(), 2);
    time.advance(1);
    let _single = batcher.submit(1000, log.waiter(2)).unwrap();
    assert_eq!(before(&batcher, 1000), 2);
    while !list.is_over() {
        assert_eq!(serve(pull(&batcher)).len(), 1);
    }
    assert_eq!(list.take_all(), tens(0..300));
}

/// What completes a batch overtakes what has another key; of its own key it overtakes nobody.
#[test]
fn a_list_of_several_keys_fills_its_batches() {
    let (batcher, time) = batcher(limits(4, 1000));
    let log = Log::default();
    let items = (0..24)
        .map(|payload| of(payload, 1 + payload % 3, 1))
        .collect();
    let list = list_of(&batcher, &log, 1, items);
    assert_eq!(batcher.pending(), 8);
    let mut seen = Vec::new();
    while !list.is_over() {
        time.advance(1);
        let batch = serve(pull(&batcher));
        assert_eq!(batch.len(), 4);
        seen.extend(batch);
    }
    for key in 0..3 {
        let own = seen.iter().filter(|&payload| payload % 3 == key);
        assert!(own.is_sorted());
    }
    assert_eq!((list.take_all(), log.woken()), (tens(0..24), vec![1]));
}

/// Those that are held for company would be held one pair after the other.
#[test]
fn where_requests_are_held_small_batches_are_not_counted_one_by_one() {
    let (batcher, time) = batcher(Limits {
        wait: 5,
        ..limits(4, 1000)
    });
    let log = Log::default();
    let items = (0..300)
        .map(|payload| of(payload, 1 + payload, 1))
        .collect();
    let list = list_of(&batcher, &log, 1, items);
    assert_eq!(batcher.pending(), 8);
    time.advance(5);
    for payload in 0..8 {
        assert_eq!(serve(pull(&batcher)), [payload]);
    }
    list.cancel();
}

#[test]
fn lists_of_one_reader_have_two_batches_ahead_together() {
    let (batcher, time) = batcher(limits(4, 1000));
    let log = Log::default();
    let convoy = Convoy::default();
    let lists: Vec<_> = (0..6)
        .map(|n| {
            let items = (n * 3..n * 3 + 3).map(Item::of).collect();
            let terms = Terms::at(batcher.now());
            let list = batcher.submit_in(&convoy, items, log.waiter(n), terms, Told::AtTheEnd);
            list.unwrap()
        })
        .collect();
    assert_eq!(batcher.pending(), 8);
    let running = pull(&batcher);
    time.advance(1);
    let _single = batcher.submit(500, log.waiter(9)).unwrap();
    serve(running);
    assert_eq!(serve(pull(&batcher)), [4, 5, 6, 7]);
    assert_eq!(serve(pull(&batcher)), [8, 9, 10, 11]);
    assert_eq!(serve(pull(&batcher)), [500, 12, 13, 14]);
    // One that is given up makes room for those behind it.
    lists[5].cancel();
    let _more = batcher
        .submit_in(
            &convoy,
            (20..26).map(Item::of).collect(),
            log.waiter(7),
            Terms::at(batcher.now()),
            Told::AtTheEnd,
        )
        .unwrap();
    assert_eq!(serve(pull(&batcher)), [20, 21, 22, 23]);
    assert_eq!(log.woken(), [0, 1, 2, 3, 9, 4]);
}

#[test]
fn lists_of_one_reader_keep_their_order_where_room_is_short() {
    let (batcher, _) = batcher(limits(4, 2));
    let log = Log::default();
    let convoy = Convoy::default();
    let lists = [0, 10, 20].map(|from| {
        let items = (from..from + 3).map(Item::of).collect();
        let (waiter, terms) = (log.waiter(from), Terms::at(batcher.now()));
        let list = batcher.submit_in(&convoy, items, waiter, terms, Told::AtTheEnd);
        list.unwrap()
    });
    let mut seen = Vec::new();
    while !lists.iter().all(Many::is_over) {
        seen.extend(serve(pull(&batcher)));
    }
    assert_eq!(seen, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
}

#[test]
fn what_expires_or_gives_way_is_ahead_no_more() {
    let (batcher, time) = batcher(Limits {
        max_batch_cost: 4,
        overflow: Overflow::Shed,
        ..limits(100, 4)
    });
    let log = Log::default();
    let convoy = Convoy::default();
    let submit = |id, deadline, items| {
        let terms = Terms {
            deadline,
            ..Terms::at(batcher.now())
        };
        batcher
            .submit_in(&convoy, items, log.waiter(id), terms, Told::AtTheEnd)
            .unwrap()
    };
    let short = submit(1, 5, vec![of(0, 0, 4), of(1, 0, 4)]);
    let long = submit(2, u64::MAX, (10..16).map(|item| of(item, 0, 4)).collect());
    assert_eq!(batcher.pending(), 2);
    time.set(5);
    batcher.expire_due();
    assert!(short.is_over() && batcher.pending() == 2);
    let urgent = |id| {
        let terms = Terms {
            urgency: Terms::urgency(batcher.now(), -10),
            ..Terms::at(batcher.now())
        };
        let submitted = batcher.submit_with(
            id,
            log.waiter(id),
            terms,
            carpool_core::submit::Announce::Yes,
        );
        submitted.unwrap()
    };
    // The queue is full with the third; who gives way is of the list.
    let _urgent = [100, 101, 102].map(urgent);
    assert_eq!((batcher.pending(), long.left()), (4, 5));
    // Its place is another's of the list, once there is room.
    assert_eq!(serve(pull(&batcher)), [100, 101, 102]);
    assert_eq!(batcher.pending(), 2);
    while !long.is_over() {
        serve(pull(&batcher));
    }
    let failed = long.take_all().iter().filter(|one| one.is_err()).count();
    assert_eq!((failed, batcher.snapshot().shed), (1, 1));
}

// ------------------------------------------------------------------------------------ random lives

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

struct Listed {
    id: u64,
    many: Many<Plain>,
    /// Payloads not sealed yet, in order.
    rest: VecDeque<u64>,
    sealed: Vec<u64>,
    deadline: Nanos,
    cancelled: bool,
    convoy: Option<usize>,
}

struct Life {
    dice: Dice,
    batcher: Batcher<Plain>,
    time: Time,
    log: Log,
    lists: Vec<Listed>,
    singles: Vec<(u64, Ticket<Plain>)>,
    running: Vec<Batch<Plain>>,
    /// The next payload, and waiter; all differ.
    next: u64,
    closed: bool,
    convoys: [Convoy; 2],
    keys: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let limits = Limits {
            max_batch_size: 1 + dice.below(4) as usize,
            max_queue: 1 + dice.below(12) as usize,
            overflow: [Overflow::Raise, Overflow::Wait][dice.below(2) as usize],
            slots: 1 + dice.below(2) as usize,
            max_batch_cost: [u64::MAX, 3, 5][dice.below(3) as usize],
            padded: dice.below(2) == 0,
            ..Limits::default()
        };
        let (batcher, time) = batcher(limits);
        Self {
            convoys: Default::default(),
            keys: 1 + dice.below(3),
            dice,
            batcher,
            time,
            log: Log::default(),
            lists: Vec::new(),
            singles: Vec::new(),
            running: Vec::new(),
            next: 0,
            closed: false,
        }
    }

    fn new_list(&mut self) {
        let (from, n) = (self.next, self.dice.below(20));
        self.next += n + 1;
        let deadline = match self.dice.below(4) {
            0 => self.batcher.now() + 1 + self.dice.below(30),
            _ => u64::MAX,
        };
        let id = from + n;
        let items = (from..from + n)
            .map(|payload| of(payload, payload % self.keys, 1 + payload % 3))
            .collect();
        let terms = Terms {
            deadline,
            ..Terms::at(self.batcher.now())
        };
        let convoy = [None, Some(0), Some(1)][self.dice.below(3) as usize];
        let (waiter, told) = (self.log.waiter(id), Told::AtTheEnd);
        let submitted = match convoy {
            None => self.batcher.submit_many(items, waiter, terms, told),
            Some(at) => self
                .batcher
                .submit_in(&self.convoys[at], items, waiter, terms, told),
        };
        match submitted {
            Ok(many) => self.lists.push(Listed {
                id,
                many,
                rest: (from..from + n).collect(),
                sealed: Vec::new(),
                deadline,
                cancelled: false,
                convoy,
            }),
            Err(refused) => {
                assert!(self.closed);
                assert_eq!(refused.items.len(), n as usize);
            }
        }
    }

    fn single(&mut self) {
        let id = self.next;
        self.next += 1;
        if let Ok(ticket) = self.batcher.submit(id, self.log.waiter(id)) {
            self.singles.push((id, ticket));
        }
    }

    /// Takes a batch: of each list the first that are left, in order.
    fn pull(&mut self) {
        let Pulled::Batch(batch) = self.batcher.try_pull(usize::MAX) else {
            return;
        };
        let now = self.batcher.now();
        for payload in payloads(&batch) {
            let of = self
                .lists
                .iter_mut()
                .find(|list| list.rest.contains(&payload));
            let Some(list) = of else { continue };
            assert!(!list.cancelled && list.deadline > now, "{payload} ran");
            let key = payload % self.keys;
            let first = list.rest.iter().position(|other| other % self.keys == key);
            let first = list.rest.remove(first.unwrap());
            assert_eq!(first, Some(payload), "out of order");
            list.sealed.push(payload);
        }
        self.running.push(batch);
    }

    fn finish(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let which = self.dice.below(self.running.len() as u64) as usize;
        let batch = self.running.swap_remove(which);
        match self.dice.below(8) {
            0 => drop(batch),
            _ => drop(serve(batch)),
        }
    }

    fn cancel(&mut self) {
        if self.dice.below(2) == 0 {
            if let Some((_, single)) = self.singles.pop() {
                single.cancel();
            }
        } else if !self.lists.is_empty() {
            let which = self.dice.below(self.lists.len() as u64) as usize;
            let list = &mut self.lists[which];
            let mut back = list.many.cancel();
            back.sort_unstable();
            if !list.many.is_over() && !self.closed && !list.cancelled {
                assert!(back.len() <= list.rest.len());
                assert!(back.iter().all(|payload| list.rest.contains(payload)));
            }
            list.cancelled = true;
        }
    }

    fn check(&self) {
        let limits = self.batcher.limits();
        let s = self.batcher.snapshot();
        let ended = s.answered + s.failed + s.cancelled + s.rejected;
        assert_eq!(s.submitted, ended + s.pending + s.in_flight);
        assert!(s.pending as usize <= limits.max_queue, "over the bound");
        assert!(self.running.len() <= limits.slots);
        let woken = self.log.woken();
        for list in &self.lists {
            let told = woken.iter().filter(|&&id| id == list.id).count();
            let over = list.many.is_over() && !list.many.is_empty() && !list.cancelled;
            assert!(told <= 1, "told twice");
            assert!(
                list.cancelled || told == usize::from(over),
                "{told} of {over}"
            );
        }
        // Not more than two batches of any list are ahead, or of those of one convoy; so of all together.
        let alone = self.lists.iter().filter(|list| list.convoy.is_none());
        let lists = alone.count() + self.convoys.len();
        let most = lists * 2 * limits.max_batch_size + self.singles.len();
        assert!(s.pending as usize <= most);
    }

    fn run(mut self) {
        for _ in 0..self.dice.below(120) {
            match self.dice.below(20) {
                0..3 => self.new_list(),
                3..7 => self.single(),
                7..12 => self.pull(),
                12..16 => self.finish(),
                16 => self.cancel(),
                17 => {
                    self.time.advance(self.dice.below(9));
                    self.batcher.expire_due();
                }
                18 if self.dice.below(12) == 0 => {
                    self.batcher.close(self.dice.below(2) == 0);
                    self.closed = true;
                }
                _ => {}
            }
            self.check();
        }
        // Whoever pulls and answers long enough comes to an end: nothing is stranded in a backlog.
        for _ in 0..400 {
            self.pull();
            self.finish();
            self.check();
        }
        assert!(self.batcher.is_idle(), "something is stranded");
        for list in &self.lists {
            if list.cancelled {
                continue;
            }
            assert!(list.many.is_over());
            let answers = list.many.take_all();
            assert_eq!(answers.len(), list.many.len());
            let first = list.id - list.many.len() as u64;
            for (at, answer) in answers.into_iter().enumerate() {
                let sealed = list.sealed.contains(&(first + at as u64));
                match answer {
                    Ok(answer) => assert_eq!(answer, (first + at as u64) * 10, "another's"),
                    Err(Failure::Abandoned) => assert!(sealed),
                    Err(Failure::Closed) => assert!(self.closed && !sealed),
                    Err(Failure::Shed) => panic!("nobody gives way here"),
                    Err(Failure::Expired) => {
                        assert!(list.deadline <= self.batcher.now() && !sealed);
                    }
                }
            }
        }
    }
}

#[test]
fn every_life_with_windows_goes_by_the_rules() {
    let seeds = std::env::var("CARPOOL_SEEDS").map_or(1000, |n| n.parse().expect("a number"));
    let only = std::env::var("CARPOOL_SEED").map(|n| n.parse().expect("a number"));
    for seed in only.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        let life = std::panic::catch_unwind(|| Life::new(seed).run());
        if let Err(panic) = life {
            eprintln!("again: CARPOOL_SEED={seed} cargo test -p carpool-core --test windows every");
            std::panic::resume_unwind(panic);
        }
    }
}
