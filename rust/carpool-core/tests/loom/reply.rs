//! The reply: of a cancel and a claim one happens; an answer is seen whole, and once.

use carpool_core::Pulled;
use carpool_core::count::Count;
use carpool_core::reply::{Cancelled, Reply};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::support::{batcher, limits, submit, whole_model};

/// Loom notices when it is never dropped.
type Payload = Arc<()>;

fn shared(in_lobby: bool) -> Arc<Reply<Payload, Box<u8>>> {
    Arc::new(Reply::new(Arc::new(()), in_lobby))
}

/// The payload comes back where it never reaches a batch, and only there.
fn cancel(reply: &Reply<Payload, Box<u8>>) -> Cancelled {
    let (met, payload) = reply.cancel();
    let unsealed = matches!(met, Cancelled::InLobby | Cancelled::Pending);
    assert_eq!(payload.is_some(), unsealed);
    met
}

/// Whether the answer was taken; the payload comes back in any case.
fn deliver(reply: &Reply<Payload, Box<u8>>) -> bool {
    // SAFETY: called by the one thread that has claimed the reply.
    let (payload, stored) = unsafe { reply.deliver(Box::new(7)) };
    assert!(payload.is_some());
    stored.is_ok()
}

#[test]
fn of_cancel_and_claim_exactly_one_wins() {
    whole_model(|| {
        let reply = shared(false);
        let other = reply.clone();
        let claimer = thread::spawn(move || other.claim());
        let met = cancel(&reply);
        match claimer.join().unwrap() {
            true => assert_eq!(met, Cancelled::InFlight),
            false => assert_eq!(met, Cancelled::Pending),
        }
        assert_eq!(cancel(&reply), Cancelled::TooLate);
    });
}

#[test]
fn of_cancel_expire_and_admit_each_ends_it_once() {
    whole_model(|| {
        let reply = shared(true);
        let other = reply.clone();
        let scheduler = thread::spawn(move || {
            let admitted = other.admit();
            (admitted, other.expire() || other.expire_in_lobby())
        });
        let met = cancel(&reply);
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
        let reply = shared(false);
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let reply = reply.clone();
                thread::spawn(move || reply.reclaim().is_some())
            })
            .collect();
        assert!(reply.expire() && !reply.claim());
        let mut won: Vec<_> = takers.into_iter().map(|t| t.join().unwrap()).collect();
        won.push(reply.reclaim().is_some());
        assert_eq!(won.into_iter().filter(|&won| won).count(), 1);
        assert!(reply.is_over() && reply.is_expired());
    });
}

#[test]
fn a_withdrawal_ends_what_is_not_sealed() {
    whole_model(|| {
        let reply = shared(true);
        let other = reply.clone();
        let scheduler = thread::spawn(move || other.admit());
        let (met, payload) = reply.withdraw();
        assert!(payload.is_some());
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
        let reply = shared(false);
        assert!(reply.claim());
        let other = reply.clone();
        let handler = thread::spawn(move || {
            let delivered = deliver(&other);
            other.publish();
            delivered
        });
        let met = cancel(&reply);
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
        let reply = shared(false);
        assert!(reply.claim());
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let reply = reply.clone();
                thread::spawn(move || reply.take())
            })
            .collect();
        assert!(deliver(&reply));
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

/// In whatever state a reply ends, what lies in it is dropped with it, once: loom counts.
#[test]
fn what_is_left_is_dropped_with_the_reply() {
    type Left = Reply<Payload, Payload>;
    fn answer(reply: &Left) {
        // SAFETY: one thread, which has claimed the reply.
        drop(unsafe { reply.deliver(Arc::new(())) });
        reply.publish();
    }
    whole_model(|| {
        let pending = || Left::new(Arc::new(()), false);
        let claimed = || {
            let reply = pending();
            assert!(reply.claim());
            reply
        };
        let streaming = || {
            let reply = claimed();
            reply.step(Arc::new(()), 2).unwrap();
            reply
        };
        drop(Left::new(Arc::new(()), true));
        drop(pending());
        drop(pending().cancel());
        assert!(pending().expire());
        let overdue = pending();
        assert!(overdue.expire() && overdue.reclaim().is_some());
        for reply in [claimed(), streaming()] {
            reply.cancel();
        }
        for make in [&claimed as &dyn Fn() -> Left, &streaming] {
            drop(make());
            answer(&make());
            let forsaken = make();
            forsaken.cancel();
            answer(&forsaken);
            let taken = make();
            answer(&taken);
            assert!(taken.take().is_some() && taken.take().is_none());
        }
    });
}

/// Whoever lets go last frees the cell: after everything that others did with it, and once.
#[test]
fn the_last_handle_sees_what_all_did() {
    whole_model(|| {
        let cell = Arc::new((Count::of(2), UnsafeCell::new([0; 2])));
        // As in `Handle`: a second handle is made from a living one.
        cell.0.add();
        let holders = [0, 1].map(|at| {
            let cell = cell.clone();
            thread::spawn(move || {
                // SAFETY: nobody else is at this half; loom sees the access.
                cell.1.with(|halves| unsafe { (*halves)[at] });
                free(&cell)
            })
        });
        let own = free(&cell);
        let freed = holders.map(|holder| holder.join().unwrap());
        let freed = freed.into_iter().chain([own]).filter(|&last| last);
        assert_eq!((freed.count(), cell.0.get()), (1, 0));
    });
}

fn free(cell: &(Count, UnsafeCell<[u8; 2]>)) -> bool {
    let last = cell.0.let_go();
    if last {
        // SAFETY: the last handle is alone with the cell; loom sees it if not.
        cell.1.with_mut(|halves| unsafe { *halves = [1; 2] });
    }
    last
}
