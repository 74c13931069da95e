//! The reply: of a cancel and a claim one happens; an answer is seen whole, and once.

use carpool_core::Pulled;
use carpool_core::reply::{Cancelled, Reply};
use loom::sync::Arc;
use loom::thread;

use crate::support::{batcher, limits, submit, whole_model};

#[test]
fn of_cancel_and_claim_exactly_one_wins() {
    whole_model(|| {
        let reply = Arc::new(Reply::<Box<u8>>::new(false));
        let other = reply.clone();
        let claimer = thread::spawn(move || other.claim());
        let met = reply.cancel();
        match claimer.join().unwrap() {
            true => assert_eq!(met, Cancelled::InFlight),
            false => assert_eq!(met, Cancelled::Pending),
        }
        assert_eq!(reply.cancel(), Cancelled::TooLate);
    });
}

#[test]
fn of_cancel_expire_and_admit_each_ends_it_once() {
    whole_model(|| {
        let reply = Arc::new(Reply::<Box<u8>>::new(true));
        let other = reply.clone();
        let scheduler = thread::spawn(move || {
            let admitted = other.admit();
            (admitted, other.expire() || other.expire_in_lobby())
        });
        let met = reply.cancel();
        let expected = match scheduler.join().unwrap() {
            (false, false) => Cancelled::InLobby,
            (true, false) => Cancelled::Pending,
            (true, true) => Cancelled::TooLate,
            (false, true) => panic!("expired in the lobby"),
        };
        assert_eq!(met, expected);
    });
}

#[test]
fn what_an_expired_request_leaves_has_one_owner() {
    whole_model(|| {
        let reply = Arc::new(Reply::<Box<u8>>::new(false));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let reply = reply.clone();
                thread::spawn(move || reply.reclaim())
            })
            .collect();
        assert!(reply.expire() && !reply.claim());
        let mut won: Vec<_> = takers.into_iter().map(|t| t.join().unwrap()).collect();
        won.push(reply.reclaim());
        assert_eq!(won.into_iter().filter(|&won| won).count(), 1);
        assert!(reply.is_over() && reply.is_expired());
    });
}

#[test]
fn a_withdrawal_ends_what_is_not_sealed() {
    whole_model(|| {
        let reply = Arc::new(Reply::<Box<u8>>::new(true));
        let other = reply.clone();
        let scheduler = thread::spawn(move || other.admit());
        let met = reply.withdraw();
        // Never too late: nobody seals it.
        match scheduler.join().unwrap() {
            true => assert_eq!(met, Cancelled::Pending),
            false => assert_eq!(met, Cancelled::InLobby),
        }
        assert!(!reply.claim());
    });
}

#[test]
fn an_answer_reaches_the_caller_or_goes_back() {
    whole_model(|| {
        let reply = Arc::new(Reply::<Box<u8>>::new(false));
        assert!(reply.claim());
        let other = reply.clone();
        let handler = thread::spawn(move || {
            let delivered = other.deliver(Box::new(7)).is_ok();
            other.publish();
            delivered
        });
        let met = reply.cancel();
        let early = reply.take();
        let delivered = handler.join().unwrap();
        let late = reply.take();
        match met {
            Cancelled::InFlight => assert!(!delivered && early.is_none() && late.is_none()),
            Cancelled::TooLate => {
                assert!(delivered);
                assert_eq!(early.or(late), Some(Box::new(7)));
            }
            Cancelled::InLobby | Cancelled::Pending => panic!("{met:?} after the claim"),
        }
    });
}

#[test]
fn of_two_takers_one_gets_the_answer() {
    whole_model(|| {
        let reply = Arc::new(Reply::<Box<u8>>::new(false));
        assert!(reply.claim());
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let reply = reply.clone();
                thread::spawn(move || reply.take())
            })
            .collect();
        reply.deliver(Box::new(7)).unwrap();
        reply.publish();
        let mut got: Vec<_> = takers.into_iter().map(|t| t.join().unwrap()).collect();
        got.push(reply.take());
        assert_eq!(got.into_iter().flatten().collect::<Vec<_>>(), [Box::new(7)]);
    });
}

#[test]
fn the_payload_has_one_owner() {
    whole_model(|| {
        let batcher = batcher(limits(2, 0));
        let ticket = submit(&batcher, 7).unwrap();
        let other = ticket.clone();
        let canceller = thread::spawn(move || other.cancel().1);
        let in_batch = match batcher.try_pull(2) {
            Pulled::Batch(mut batch) => {
                let payload = *batch.payload(0).unwrap();
                batch.answer_all(vec![Ok(70)]).unwrap().send();
                Some(payload)
            }
            _ => None,
        };
        let given_back = canceller.join().unwrap();
        assert_eq!([in_batch, given_back].into_iter().flatten().count(), 1);
        let s = batcher.snapshot();
        assert_eq!((s.submitted, s.pending, s.in_flight), (1, 0, 0));
        assert_eq!(s.answered + s.cancelled, 1);
    });
}
