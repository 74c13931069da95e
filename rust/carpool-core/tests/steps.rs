//! Steps before the answer: each taken once and in order, bounded, told once; and the same against a
//! plain list, whatever giver, reader and canceller do.

mod support;

use std::collections::VecDeque;

use carpool_core::reply::Cancelled;
use carpool_core::{AnswerError, Batch, Batcher, Failure, Limits, Next, Pulled, Ticket};
use proptest::prelude::*;
use support::{Bell, Log, Plain, batcher};

struct Stream {
    batcher: Batcher<Plain>,
    batch: Batch<Plain>,
    tickets: Vec<Ticket<Plain>>,
    log: Log,
}

/// So many requests with a handler that may give each two steps ahead.
fn sealed(n: u64) -> Stream {
    let (batcher, _) = batcher(Limits {
        slots: 1,
        steps: 2,
        ..Limits::default()
    });
    let log = Log::default();
    let submit = |id| batcher.submit(id, log.waiter(id)).unwrap();
    let tickets = (0..n).map(submit).collect();
    let Pulled::Batch(batch) = batcher.try_pull(usize::MAX) else {
        panic!("due");
    };
    Stream {
        batcher,
        batch,
        tickets,
        log,
    }
}

fn figures(batcher: &Batcher<Plain>) -> (u64, u64, u64, u64, u64) {
    let s = batcher.snapshot();
    (s.submitted, s.answered, s.failed, s.cancelled, s.in_flight)
}

#[test]
fn steps_come_in_order_and_the_answer_after_them() {
    let Stream {
        batcher,
        mut batch,
        tickets,
        log,
    } = sealed(1);
    let ticket = &tickets[0];
    assert_eq!(ticket.next(), Next::Nothing);
    assert!(!batch.step(0, Ok(1)).ok().unwrap().send());
    batch.step(0, Ok(2)).ok().unwrap().send();
    assert_eq!(batch.payload(0), Some(&0), "it stays until the answer");
    assert_eq!(ticket.next(), Next::Step(Ok(1)));
    assert_eq!(ticket.next(), Next::Step(Ok(2)));
    assert_eq!(ticket.next(), Next::Nothing);
    batch.step(0, Ok(3)).ok().unwrap().send();
    assert_eq!(figures(&batcher), (1, 0, 0, 0, 1), "it counts at its end");
    assert!(batch.answer(0, Ok(4)).ok().unwrap().send());
    assert_eq!(figures(&batcher), (1, 1, 0, 0, 0));
    assert_eq!(ticket.next(), Next::Step(Ok(3)));
    assert_eq!(ticket.next(), Next::Last(Ok(4)));
    assert_eq!(ticket.next(), Next::Nothing);
    assert_eq!(ticket.take(), None);
    // Told of the first, of the third (it had found nothing since), and of the answer.
    assert_eq!(log.woken(), [0, 0, 0]);
}

#[test]
fn a_reply_without_steps_is_an_answer() {
    let mut stream = sealed(1);
    stream.batch.answer_all(vec![Ok(1)]).unwrap().send();
    assert_eq!(stream.tickets[0].next(), Next::Last(Ok(1)));
    assert_eq!(stream.tickets[0].next(), Next::Nothing);
}

#[test]
fn steps_of_many_wake_in_one_round_those_who_wait() {
    let mut stream = sealed(4);
    let all = |batch: &mut Batch<Plain>, step| {
        let (out, refused) = batch.steps((0..4).map(|at| (at, Ok(step))));
        assert!(refused.is_empty());
        out
    };
    all(&mut stream.batch, 1).send();
    assert_eq!(stream.log.woken(), [0, 1, 2, 3]);
    // Only the reader that has come to the end of what there is has to be told.
    assert_eq!(stream.tickets[2].next(), Next::Step(Ok(1)));
    assert_eq!(stream.tickets[2].next(), Next::Nothing);
    assert_eq!(stream.tickets[1].next(), Next::Step(Ok(1)));
    all(&mut stream.batch, 2).send();
    assert_eq!(stream.log.woken(), [0, 1, 2, 3, 2]);
}

#[test]
fn a_reader_that_looked_in_between_needs_no_wake() {
    let mut stream = sealed(1);
    let out = stream.batch.step(0, Ok(1)).ok().unwrap();
    assert_eq!(stream.tickets[0].next(), Next::Step(Ok(1)));
    assert_eq!(stream.tickets[0].next(), Next::Nothing);
    out.send();
    assert!(stream.log.woken().is_empty());
}

#[test]
fn steps_sent_in_another_order_than_given_lose_no_wake() {
    let mut stream = sealed(1);
    let first = stream.batch.step(0, Ok(1)).ok().unwrap();
    let second = stream.batch.step(0, Ok(2)).ok().unwrap();
    drop(second);
    assert_eq!(stream.log.woken(), [0]);
    first.send();
    assert_eq!(stream.log.woken(), [0]);
}

#[test]
fn a_full_buffer_gives_the_step_back_and_says_when_there_is_room() {
    let mut stream = sealed(2);
    let (bell, waker) = Bell::new();
    assert!(stream.batch.poll_room(0, &waker));
    for step in 1..=2 {
        stream.batch.step(0, Ok(step)).ok().unwrap().send();
    }
    let (out, refused) = stream.batch.steps([(0, Ok(3)), (1, Ok(3)), (2, Ok(3))]);
    out.send();
    let full = AnswerError::Full { index: 0 };
    let beyond = AnswerError::OutOfRange { index: 2, len: 2 };
    assert_eq!(refused, [(full, Ok(3)), (beyond, Ok(3))]);
    assert_eq!(full.to_string(), "request 0 has no room for a step");
    // The neighbour got its own.
    assert_eq!(stream.tickets[1].next(), Next::Step(Ok(3)));
    assert!(!stream.batch.poll_room(0, &waker));
    assert!(!stream.batch.poll_room(0, &waker));
    assert_eq!(bell.rings(), 0);
    assert_eq!(stream.tickets[0].next(), Next::Step(Ok(1)));
    assert_eq!(bell.rings(), 1);
    assert!(stream.batch.poll_room(0, &waker));
    stream.batch.step(0, Ok(3)).ok().unwrap().send();
    let (other, later) = Bell::new();
    assert!(!stream.batch.poll_room(0, &waker));
    assert!(!stream.batch.poll_room(0, &later), "it takes the place");
    assert_eq!(stream.tickets[0].next(), Next::Step(Ok(2)));
    assert_eq!((bell.rings(), other.rings()), (1, 1));
}

#[test]
fn the_answer_needs_no_room() {
    let mut stream = sealed(1);
    for step in 1..=2 {
        stream.batch.step(0, Ok(step)).ok().unwrap().send();
    }
    stream.batch.answer_all(vec![Ok(3)]).unwrap().send();
    assert_eq!(stream.tickets[0].next(), Next::Step(Ok(1)));
    assert_eq!(stream.tickets[0].next(), Next::Step(Ok(2)));
    assert_eq!(stream.tickets[0].next(), Next::Last(Ok(3)));
}

#[test]
fn who_reads_no_steps_gets_the_answer() {
    let mut stream = sealed(1);
    stream.batch.step(0, Ok(1)).ok().unwrap().send();
    assert_eq!(stream.tickets[0].take(), None);
    stream.batch.answer_all(vec![Ok(2)]).unwrap().send();
    assert_eq!(stream.tickets[0].take(), Some(Ok(2)));
    assert_eq!(stream.tickets[0].next(), Next::Nothing);
}

#[test]
fn a_handler_sees_who_has_stopped() {
    for steps in [0, 2] {
        let mut stream = sealed(2);
        let (bell, waker) = Bell::new();
        for step in 0..steps {
            stream.batch.step(0, Ok(step)).ok().unwrap().send();
        }
        assert!(stream.batch.is_wanted(0));
        assert_eq!(stream.batch.poll_room(0, &waker), steps < 2);
        assert_eq!(stream.tickets[0].cancel(), (Cancelled::InFlight, None));
        assert_eq!(bell.rings(), usize::from(steps == 2), "it waits no longer");
        assert!(!stream.batch.is_wanted(0) && stream.batch.is_wanted(1));
        assert!(!stream.batch.is_wanted(2));
        assert!(stream.batch.poll_room(0, &waker));
        let (error, _) = stream.batch.step(0, Ok(9)).err().unwrap();
        assert_eq!(error, AnswerError::Gone { index: 0 });
        assert_eq!(
            error.to_string(),
            "the caller of request 0 has stopped waiting"
        );
        assert_eq!(stream.tickets[0].next(), Next::Nothing);
        stream.batch.answer_all(vec![Ok(1); 2]).unwrap().send();
        assert_eq!(stream.tickets[0].next(), Next::Nothing);
        assert!(!stream.batch.is_wanted(1));
        assert_eq!(figures(&stream.batcher), (2, 1, 0, 1, 0));
    }
}

#[test]
fn a_dropped_batch_ends_its_streams_after_what_they_hold() {
    let Stream {
        batcher,
        mut batch,
        tickets,
        log,
    } = sealed(2);
    batch.step(0, Ok(1)).ok().unwrap().send();
    drop(batch);
    assert_eq!(tickets[0].next(), Next::Step(Ok(1)));
    assert_eq!(tickets[0].next(), Next::Last(Err(Failure::Abandoned)));
    assert_eq!(tickets[1].next(), Next::Last(Err(Failure::Abandoned)));
    assert_eq!(log.woken(), [0, 0, 1]);
    assert_eq!(figures(&batcher), (2, 0, 2, 0, 0));
}

#[test]
fn an_answered_request_takes_no_steps() {
    let mut stream = sealed(2);
    stream.batch.answer(0, Ok(1)).ok().unwrap().send();
    let (error, back) = stream.batch.step(0, Ok(2)).err().unwrap();
    assert_eq!((error, back), (AnswerError::Answered { index: 0 }, Ok(2)));
}

#[test]
fn a_close_lets_a_stream_go_on() {
    for drain in [true, false] {
        let mut stream = sealed(1);
        stream.batch.step(0, Ok(1)).ok().unwrap().send();
        stream.batcher.close(drain);
        stream.batch.step(0, Ok(2)).ok().unwrap().send();
        let (bell, waker) = Bell::new();
        assert!(!stream.batcher.poll_ended(&waker));
        stream.batch.answer_all(vec![Ok(3)]).unwrap().send();
        assert_eq!(bell.rings(), 1);
        let all: Vec<_> = (0..4).map(|_| stream.tickets[0].next()).collect();
        let [one, two, last] = [Next::Step(Ok(1)), Next::Step(Ok(2)), Next::Last(Ok(3))];
        assert_eq!(all, [one, two, last, Next::Nothing]);
    }
}

#[test]
fn parts_of_a_batch_go_on_with_their_streams() {
    let mut stream = sealed(2);
    stream.batch.step(1, Ok(1)).ok().unwrap().send();
    let mut rest = stream.batch.split_off(1).unwrap();
    rest.step(0, Ok(2)).ok().unwrap().send();
    rest.answer_all(vec![Ok(3)]).unwrap().send();
    let all: Vec<_> = (0..3).map(|_| stream.tickets[1].next()).collect();
    let [one, two] = [Next::Step(Ok(1)), Next::Step(Ok(2))];
    assert_eq!(all, [one, two, Next::Last(Ok(3))]);
}

// ------------------------------------------------------------------------------ against a list

#[derive(Debug, Clone)]
enum Act {
    /// Steps for requests, told at once or later.
    Steps(Vec<usize>, bool),
    TellOldest,
    Next(usize),
    Take(usize),
    Cancel(usize),
    Room(usize),
    Answer(usize),
    Drop,
}

const REQUESTS: usize = 3;

fn act() -> impl Strategy<Value = Act> {
    let one = || 0..REQUESTS;
    prop_oneof![
        8 => (proptest::collection::vec(one(), 1..5), any::<bool>()).prop_map(|(to, now)| Act::Steps(to, now)),
        2 => Just(Act::TellOldest),
        10 => one().prop_map(Act::Next),
        1 => one().prop_map(Act::Take),
        1 => one().prop_map(Act::Cancel),
        3 => one().prop_map(Act::Room),
        2 => one().prop_map(Act::Answer),
        1 => Just(Act::Drop),
    ]
}

/// What one stream should be.
#[derive(Default)]
struct Expected {
    given: VecDeque<u64>,
    last: Option<Result<u64, Failure>>,
    answered: bool,
    gone: bool,
    /// Has seen everything, and was not told since.
    waits: bool,
    giver_waits: bool,
}

proptest! {
    #[test]
    fn streams_are_what_the_list_says(acts in proptest::collection::vec(act(), 0..60)) {
        let Stream { batcher, batch, tickets, log } = sealed(REQUESTS as u64);
        let mut batch = Some(batch);
        let mut unsent = VecDeque::new();
        let bells: Vec<_> = (0..REQUESTS).map(|_| Bell::new()).collect();
        let mut rings = [0; REQUESTS];
        let mut list: Vec<Expected> = (0..REQUESTS)
            .map(|_| Expected { waits: true, ..Expected::default() })
            .collect();
        let (mut tag, mut woken) = (0, Vec::new());
        for act in acts {
            match act {
                Act::Steps(to, now) => {
                    let Some(batch) = &mut batch else { continue };
                    let steps: Vec<_> = to.iter().map(|&at| { tag += 1; (at, tag) }).collect();
                    let (mut expected, mut stepped) = (Vec::new(), Vec::new());
                    for &(at, tag) in &steps {
                        let one = &mut list[at];
                        let index = at;
                        if one.answered {
                            expected.push((AnswerError::Answered { index }, Ok(tag)));
                        } else if one.gone {
                            expected.push((AnswerError::Gone { index }, Ok(tag)));
                        } else if one.given.len() == 2 {
                            expected.push((AnswerError::Full { index }, Ok(tag)));
                        } else {
                            one.given.push_back(tag);
                            stepped.push(at);
                        }
                    }
                    let (out, refused) = batch.steps(steps.into_iter().map(|(at, tag)| (at, Ok(tag))));
                    prop_assert_eq!(refused, expected);
                    unsent.push_back((out, stepped));
                    if now {
                        let (out, stepped) = unsent.pop_back().unwrap();
                        out.send();
                        woken.extend(told(&mut list, &stepped));
                    }
                }
                Act::TellOldest => {
                    let Some((out, stepped)) = unsent.pop_front() else { continue };
                    drop(out);
                    woken.extend(told(&mut list, &stepped));
                }
                Act::Next(at) => {
                    let one = &mut list[at];
                    let expected = match one.given.pop_front() {
                        Some(step) => {
                            rings[at] += usize::from(std::mem::take(&mut one.giver_waits));
                            Next::Step(Ok(step))
                        }
                        None => {
                            one.waits = true;
                            one.last.take().map_or(Next::Nothing, Next::Last)
                        }
                    };
                    prop_assert_eq!(tickets[at].next(), expected);
                }
                Act::Take(at) => {
                    let one = &mut list[at];
                    let last = one.last.take();
                    if last.is_some() {
                        one.given.clear();
                    }
                    prop_assert_eq!(tickets[at].take(), last);
                }
                Act::Cancel(at) => {
                    let one = &mut list[at];
                    let met = if one.answered || one.gone {
                        Cancelled::TooLate
                    } else {
                        one.gone = true;
                        one.given.clear();
                        rings[at] += usize::from(std::mem::take(&mut one.giver_waits));
                        Cancelled::InFlight
                    };
                    prop_assert_eq!(tickets[at].cancel(), (met, None));
                }
                Act::Room(at) => {
                    let Some(batch) = &batch else { continue };
                    let one = &mut list[at];
                    let room = one.answered || one.gone || one.given.len() < 2;
                    one.giver_waits |= !room;
                    prop_assert_eq!(batch.poll_room(at, &bells[at].1), room);
                    prop_assert_eq!(batch.is_wanted(at), !one.answered && !one.gone);
                }
                Act::Answer(at) => {
                    let Some(batch) = &mut batch else { continue };
                    tag += 1;
                    match batch.answer(at, Ok(tag)) {
                        Ok(out) => {
                            out.send();
                            woken.extend(ended(&mut list[at], at, Ok(tag)));
                        }
                        Err((error, _)) => {
                            prop_assert_eq!(error, AnswerError::Answered { index: at });
                            prop_assert!(list[at].answered);
                        }
                    }
                }
                Act::Drop => {
                    if batch.take().is_some() {
                        for (at, one) in list.iter_mut().enumerate().filter(|(_, one)| !one.answered) {
                            woken.extend(ended(one, at, Err(Failure::Abandoned)));
                        }
                    }
                }
            }
            let expected: Vec<u64> = woken.iter().map(|&at| at as u64).collect();
            prop_assert_eq!(log.woken(), expected);
            let rung: Vec<_> = bells.iter().map(|(bell, _)| bell.rings()).collect();
            prop_assert_eq!(&rung[..], &rings[..]);
            let shown = batcher.snapshot();
            let over = list.iter().filter(|one| one.answered).count() as u64;
            prop_assert_eq!(shown.in_flight, REQUESTS as u64 - over);
            prop_assert_eq!(shown.submitted, REQUESTS as u64);
        }
    }
}

/// Who of those who got a step must be told: once, and only while there is something to be had.
fn told(list: &mut [Expected], stepped: &[usize]) -> Vec<usize> {
    let mut must = |at: &usize| {
        let one = &mut list[*at];
        !one.given.is_empty() && std::mem::take(&mut one.waits)
    };
    stepped.iter().copied().filter(&mut must).collect()
}

/// The answer is there: its caller is told unless it has gone.
fn ended(one: &mut Expected, at: usize, last: Result<u64, Failure>) -> Option<usize> {
    one.answered = true;
    one.giver_waits = false;
    if one.gone {
        return None;
    }
    one.last = Some(last);
    Some(at)
}
