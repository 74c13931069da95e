//! Deadlines, step by step with a clock that moves when told to; then with the timer thread itself.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Waker;
use std::thread;

use carpool_core::border::{Border, Failure};
use carpool_core::park::Parker;
use carpool_core::reply::Cancelled;
use carpool_core::request::{Handle, Terms};
use carpool_core::submit::Announce;
use carpool_core::{Batcher, Limits, Nanos, Overflow, Pulled, Refusal, SystemClock, Ticket, timer};
use support::{Bell, Log, Plain, batcher};

fn limits(max_batch_size: usize, wait: u64) -> Limits {
    Limits {
        max_batch_size,
        wait,
        slots: 1,
        ..Limits::default()
    }
}

fn submit(batcher: &Batcher<Plain>, log: &Log, payload: u64, deadline: Nanos) -> Ticket<Plain> {
    let terms = Terms {
        deadline,
        ..Terms::at(batcher.now())
    };
    batcher
        .submit_with(payload, log.waiter(payload), terms, Announce::Yes)
        .expect("there is room")
}

#[test]
fn an_overdue_request_gives_its_place_back_while_every_slot_is_busy() {
    let (batcher, time) = batcher(Limits {
        max_queue: 1,
        ..limits(1, 0)
    });
    let log = Log::default();
    let _first = batcher.submit(0, log.waiter(0)).unwrap();
    let Pulled::Batch(_running) = batcher.try_pull(1) else {
        panic!("due");
    };
    let late = submit(&batcher, &log, 1, 10);
    assert_eq!(time.armed(), [10]);
    let refused = batcher.submit(2, log.waiter(2)).err().unwrap();
    assert_eq!(refused.why, Refusal::Full);
    time.set(9);
    batcher.expire_due();
    assert_eq!(
        (batcher.pending(), late.request().reply().is_expired()),
        (1, false)
    );
    time.set(10);
    batcher.expire_due();
    assert_eq!(
        (batcher.pending(), late.request().reply().is_expired()),
        (0, true)
    );
    assert_eq!(log.woken(), [1]);
    assert_eq!(late.cancel(), (Cancelled::TooLate, None));
    assert_eq!((late.take(), late.request().reclaim()), (None, None));
    let _next = batcher.submit(3, log.waiter(3)).unwrap();
    let s = batcher.snapshot();
    assert_eq!((s.failed, s.rejected, s.pending, s.in_flight), (1, 1, 1, 1));
}

#[test]
fn only_an_earlier_deadline_asks_to_be_looked_after() {
    let (batcher, time) = batcher(limits(8, 1000));
    let log = Log::default();
    let mut all = vec![submit(&batcher, &log, 0, 50)];
    assert_eq!(time.armed(), [50]);
    all.push(submit(&batcher, &log, 1, 60));
    all.push(submit(&batcher, &log, 2, 50));
    all.push(batcher.submit(3, log.waiter(3)).unwrap());
    assert_eq!(time.armed(), []);
    all.push(submit(&batcher, &log, 4, 40));
    assert_eq!(time.armed(), [40]);
    time.set(40);
    batcher.expire_due();
    assert_eq!((log.woken(), time.armed()), (vec![4], vec![50]));
    time.set(50);
    batcher.expire_due();
    // Asked for twice, since 40 came after 50.
    batcher.expire_due();
    assert_eq!((log.woken(), time.armed()), (vec![4, 0, 2], vec![60]));
}

#[test]
fn what_has_left_in_a_batch_is_not_looked_after() {
    let (batcher, time) = batcher(limits(4, 0));
    let log = Log::default();
    let tickets: Vec<_> = (0..4).map(|i| submit(&batcher, &log, i, 20 + i)).collect();
    let Pulled::Batch(mut batch) = batcher.try_pull(4) else {
        panic!("due");
    };
    assert_eq!(time.armed(), [20]);
    time.set(100);
    batcher.expire_due();
    assert_eq!((log.woken(), time.armed()), (vec![], vec![]));
    // Late, but in a batch: the answer counts.
    batch.answer_all(vec![Ok(1); 4]).unwrap().send();
    assert!(tickets.iter().all(|ticket| ticket.take() == Some(Ok(1))));
}

#[test]
fn who_waits_for_room_expires_too_and_others_get_the_place_of_the_overdue() {
    let (batcher, time) = batcher(Limits {
        max_queue: 1,
        overflow: Overflow::Wait,
        ..limits(4, 1000)
    });
    let log = Log::default();
    let first = submit(&batcher, &log, 0, 30);
    let hurried = submit(&batcher, &log, 1, 10);
    let patient = batcher.submit(2, log.waiter(2)).unwrap();
    assert!(hurried.request().reply().is_in_lobby());
    time.set(10);
    batcher.expire_due();
    assert!(hurried.request().reply().is_expired());
    assert!(patient.request().reply().is_in_lobby());
    time.set(30);
    batcher.expire_due();
    assert!(first.request().reply().is_expired());
    assert!(patient.request().reply().is_pending());
    assert_eq!(log.woken(), [1, 0]);
    let s = batcher.snapshot();
    assert_eq!((s.submitted, s.failed, s.pending), (3, 2, 1));
}

#[test]
fn an_overdue_request_fills_no_batch() {
    let (batcher, time) = batcher(limits(2, 1000));
    let log = Log::default();
    let _late = submit(&batcher, &log, 0, 10);
    let (bell, waker) = Bell::new();
    let mut seat = batcher.seat();
    assert!(matches!(seat.poll(&waker, 2), Pulled::Wait(Some(1000))));
    time.set(10);
    // Nobody has looked since: the submit finds two counted in, the slot only one that lives.
    let _next = batcher.submit(1, log.waiter(1)).unwrap();
    assert!(matches!(seat.poll(&waker, 2), Pulled::Wait(Some(1010))));
    assert_eq!(log.woken(), [0]);
    drop(bell);
}

#[test]
fn the_last_one_to_expire_ends_a_draining_batcher() {
    let (batcher, time) = batcher(limits(8, 1000));
    let log = Log::default();
    let _late = submit(&batcher, &log, 0, 10);
    batcher.close(true);
    let (bell, waker) = Bell::new();
    assert!(!batcher.poll_ended(&waker));
    time.set(10);
    batcher.expire_due();
    assert_eq!(bell.rings(), 1);
    assert!(batcher.poll_ended(&waker));
}

#[test]
fn cancelled_requests_with_deadlines_do_not_pile_up() {
    let (batcher, _) = batcher(Limits {
        max_queue: 1 << 20,
        ..limits(8, 1000)
    });
    let log = Log::default();
    let _stays = submit(&batcher, &log, 0, 1 << 40);
    let tickets: Vec<_> = (0..100_000)
        .map(|i| {
            let ticket = submit(&batcher, &log, i, (1 << 40) + i);
            ticket.cancel();
            ticket
        })
        .collect();
    let kept = tickets
        .iter()
        .filter(|ticket| Handle::count(ticket.request()) > 1);
    let held = kept.count();
    assert!(held <= 2 * 65, "{held} handles of dead requests are kept");
}

// ------------------------------------------------------------------------------- the thread itself

struct Real;

#[derive(Default)]
struct Caller {
    waker: Option<Waker>,
    told: AtomicUsize,
}

impl Border for Real {
    type Payload = u64;
    type Answer = Result<u64, Failure>;
    type Waiter = Arc<Caller>;
    type Wakes = Vec<Arc<Caller>>;
    type Clock = SystemClock;

    fn failure(why: Failure) -> Self::Answer {
        Err(why)
    }
    fn is_failure(answer: &Self::Answer) -> bool {
        answer.is_err()
    }
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes) {
        wakes.push(request.waiter().clone());
    }
    fn fire(wakes: Self::Wakes) {
        for caller in wakes {
            caller.told.fetch_add(1, SeqCst);
            if let Some(waker) = &caller.waker {
                waker.wake_by_ref();
            }
        }
    }
    fn expired(requests: Vec<Handle<Self>>) {
        assert!(timer::is_here(), "nobody else looks at this batcher");
        let payloads: Vec<_> = requests.iter().map(|request| request.reclaim()).collect();
        assert!(payloads.iter().all(Option::is_some));
        Self::tell(requests);
    }
    fn wake_window(_: &Self::Waiter) {}
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        timer::arm(batcher, moment);
    }
}

/// Nobody pulls: only the timer thread can end these calls.
#[test]
fn the_timer_thread_serves_many_batchers_and_callers() {
    timer::start().unwrap();
    let batchers: Vec<_> = (0..3)
        .map(|_| Batcher::<Real>::new(Limits::default(), SystemClock).unwrap())
        .collect();
    thread::scope(|scope| {
        for tag in 0..4_u64 {
            let batchers = &batchers;
            scope.spawn(move || {
                let parker = Parker::here();
                for round in 0..150 {
                    let batcher = &batchers[(tag + round) as usize % batchers.len()];
                    let tickets: Vec<_> = (0..8_u64)
                        .map(|at| {
                            let now = batcher.now();
                            // In no order, some of them overdue at once.
                            let terms = Terms {
                                deadline: now + (at * 7 + round) % 8 * 40_000,
                                ..Terms::at(now)
                            };
                            let waker = Some(parker.waker().clone());
                            let caller = Arc::new(Caller {
                                waker,
                                ..Caller::default()
                            });
                            let ticket = batcher
                                .submit_with(at, caller, terms, Announce::Yes)
                                .unwrap();
                            (terms.deadline, ticket)
                        })
                        .collect();
                    for (deadline, ticket) in tickets {
                        let request = ticket.request();
                        while !request.reply().is_over() {
                            parker.park(None);
                        }
                        assert!(batcher.now() >= deadline, "expired early");
                        // Told after it was ended, perhaps a moment later.
                        while request.waiter().told.load(SeqCst) == 0 {
                            parker.park(None);
                        }
                        assert_eq!(request.waiter().told.load(SeqCst), 1);
                    }
                }
            });
        }
    });
    for batcher in &batchers {
        let s = batcher.snapshot();
        assert_eq!(
            (s.pending, s.failed, s.submitted),
            (0, s.submitted, s.submitted)
        );
    }
}

#[test]
fn a_batcher_that_is_gone_is_not_kept_by_its_deadlines() {
    timer::start().unwrap();
    let batcher = Batcher::<Real>::new(Limits::default(), SystemClock).unwrap();
    let caller = Arc::new(Caller::default());
    let terms = Terms {
        deadline: batcher.now() + 3_600_000_000_000,
        ..Terms::at(batcher.now())
    };
    let ticket = batcher.submit_with(0, caller.clone(), terms, Announce::Yes);
    drop((ticket, batcher));
    assert_eq!(Arc::strong_count(&caller), 1);
}
