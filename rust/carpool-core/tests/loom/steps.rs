//! Steps: in order, each once, the answer after them; who waits for one, or for room, is told.

use carpool_core::park::Parker;
use carpool_core::reply::{Cancelled, Reply, Unstored};
use carpool_core::{Failure, Next, Pulled};
use loom::sync::Arc;
use loom::thread;

use crate::support::{Model, Waiter, batcher, limits, model, whole_model};

/// Loom notices a value that is never dropped if it is one of its own.
type Value = Arc<u8>;

fn claimed() -> Arc<Reply<Value, Value>> {
    let reply = Reply::new(Arc::new(0), false);
    assert!(reply.claim());
    Arc::new(reply)
}

/// Whether the answer was taken; the payload stayed until now, and comes back.
fn deliver(reply: &Reply<Value, Value>, answer: u8) -> bool {
    // SAFETY: called by the one thread that has claimed the reply, which looks at no payload meanwhile.
    let (payload, stored) = unsafe { reply.deliver(Arc::new(answer)) };
    assert!(payload.is_some_and(|payload| *payload == 0));
    stored.is_ok()
}

/// What there is, up to the answer or the first `Nothing`.
fn read(reply: &Reply<Value, Value>, seen: &mut Vec<Next<u8>>) {
    loop {
        match reply.next() {
            Next::Step(step) => seen.push(Next::Step(*step)),
            Next::Last(last) => return seen.push(Next::Last(*last)),
            Next::Nothing => return,
        }
    }
}

#[test]
fn the_answer_comes_after_all_steps() {
    whole_model(|| {
        let reply = claimed();
        let other = reply.clone();
        let handler = thread::spawn(move || {
            other.step(Arc::new(1), 2).unwrap();
            other.step(Arc::new(2), 2).unwrap();
            assert!(deliver(&other, 3));
            other.publish();
        });
        let mut seen = Vec::new();
        read(&reply, &mut seen);
        handler.join().unwrap();
        read(&reply, &mut seen);
        assert_eq!(seen, [Next::Step(1), Next::Step(2), Next::Last(3)]);
        assert!(matches!(reply.next(), Next::Nothing));
    });
}

#[test]
fn of_two_readers_each_step_goes_to_one() {
    model(|| {
        let reply = claimed();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reply = reply.clone();
                thread::spawn(move || {
                    let mut seen = Vec::new();
                    read(&reply, &mut seen);
                    seen
                })
            })
            .collect();
        reply.step(Arc::new(1), 2).unwrap();
        assert!(deliver(&reply, 2));
        reply.publish();
        let mut seen: Vec<_> = readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap())
            .collect();
        read(&reply, &mut seen);
        assert_eq!(seen.len(), 2);
        assert!(seen.contains(&Next::Step(1)) && seen.contains(&Next::Last(2)));
    });
}

#[test]
fn a_step_and_the_answer_reach_the_caller_or_nobody() {
    whole_model(|| {
        let reply = claimed();
        let other = reply.clone();
        let handler = thread::spawn(move || {
            let stepped = other.step(Arc::new(1), 2).map_err(|(why, _)| why);
            // SAFETY: only this thread delivers.
            assert!(unsafe { other.payload() }.is_some());
            let delivered = deliver(&other, 2);
            other.publish();
            (stepped, delivered, other.is_wanted())
        });
        let met = reply.cancel().0;
        let mut seen = Vec::new();
        read(&reply, &mut seen);
        let (stepped, delivered, wanted) = handler.join().unwrap();
        assert!(!wanted);
        if met == Cancelled::InFlight {
            assert!(!delivered && seen.is_empty());
            assert!(matches!(stepped, Ok(()) | Err(Unstored::Gone)));
            // Nothing is kept for who has stopped.
            assert!(matches!(reply.next(), Next::Nothing));
        } else {
            assert_eq!(
                (met, stepped, delivered),
                (Cancelled::TooLate, Ok(()), true)
            );
            read(&reply, &mut seen);
            assert_eq!(seen, [Next::Step(1), Next::Last(2)]);
        }
    });
}

/// The reader of a bare reply, parked, with a giver that tells it of steps only.
#[test]
fn who_waits_for_a_step_is_told() {
    model(|| {
        let reply = claimed();
        let parker = Parker::here();
        let (other, reader) = (reply.clone(), parker.waker().clone());
        let handler = thread::spawn(move || {
            for step in 1..=2 {
                other.step(Arc::new(step), 2).unwrap();
                if other.must_tell() {
                    reader.wake_by_ref();
                }
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match reply.next() {
                Next::Step(step) => seen.push(*step),
                Next::Last(_) => panic!("there is no answer"),
                Next::Nothing => parker.park(None),
            }
        }
        assert_eq!(seen, [1, 2]);
        handler.join().unwrap();
    });
}

#[test]
fn who_waits_for_room_is_told() {
    model(|| {
        let reply = claimed();
        let other = reply.clone();
        let handler = thread::spawn(move || {
            let parker = Parker::here();
            for step in 1..=2 {
                while other.step(Arc::new(step), 1).is_err() {
                    if !other.poll_room(1, parker.waker()) {
                        parker.park(None);
                    }
                }
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match reply.next() {
                Next::Step(step) => seen.push(*step),
                Next::Last(_) => panic!("there is no answer"),
                Next::Nothing => thread::yield_now(),
            }
        }
        assert_eq!(seen, [1, 2]);
        handler.join().unwrap();
    });
}

#[test]
fn who_waits_for_room_is_told_of_a_cancel() {
    model(|| {
        let reply = claimed();
        let other = reply.clone();
        let handler = thread::spawn(move || {
            let parker = Parker::here();
            let mut given = 0;
            loop {
                match other.step(Arc::new(1), 1) {
                    Ok(()) => {
                        given += 1;
                        assert_eq!(given, 1, "nobody has taken it");
                    }
                    Err((Unstored::Gone, _)) => break,
                    Err((Unstored::Full, _)) => {
                        if !other.poll_room(1, parker.waker()) {
                            parker.park(None);
                        }
                    }
                }
            }
        });
        assert_eq!(reply.cancel().0, Cancelled::InFlight);
        handler.join().unwrap();
        assert!(matches!(reply.next(), Next::Nothing));
    });
}

/// Through a batch: the reader parks until it is told, of a step and of the end.
#[test]
fn a_stream_reaches_its_parked_caller() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let parker = Parker::here();
        let waiter = Waiter {
            caller: Some(parker.waker().clone()),
            ..Waiter::default()
        };
        let ticket = batcher.submit(7, waiter).ok().unwrap();
        let Pulled::Batch(mut batch) = batcher.try_pull(1) else {
            panic!("due");
        };
        let handler = thread::spawn(move || {
            let given = batch.step(0, Ok(1)).ok().unwrap();
            given.send();
            // Dropped: what is unfinished ends.
        });
        let mut seen: Vec<Next<<Model as carpool_core::Border>::Answer>> = Vec::new();
        while !matches!(seen.last(), Some(Next::Last(_))) {
            match ticket.next() {
                Next::Nothing => parker.park(None),
                other => seen.push(other),
            }
        }
        assert_eq!(
            seen,
            [Next::Step(Ok(1)), Next::Last(Err(Failure::Abandoned))]
        );
        handler.join().unwrap();
    });
}

#[test]
fn a_step_reaches_a_parked_caller_before_the_answer() {
    model(|| {
        let batcher = batcher(limits(1, 0));
        let parker = Parker::here();
        let waiter = Waiter {
            caller: Some(parker.waker().clone()),
            ..Waiter::default()
        };
        let ticket = batcher.submit(7, waiter).ok().unwrap();
        let Pulled::Batch(mut batch) = batcher.try_pull(1) else {
            panic!("due");
        };
        let handler = thread::spawn(move || {
            batch.step(0, Ok(1)).ok().unwrap().send();
            batch
        });
        while ticket.next() != Next::Step(Ok(1)) {
            parker.park(None);
        }
        drop(handler.join().unwrap());
        assert_eq!(ticket.next(), Next::Last(Err(Failure::Abandoned)));
    });
}
