//! What the border hands in may run code of its own when it is dropped, woken or told: it may come back
//! to the batcher from there, so no lock may be held.
#![allow(missing_docs, unreachable_pub)]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use carpool_core::border::{Border, Failure};
use carpool_core::request::{Handle, Terms};
use carpool_core::submit::Announce;
use carpool_core::{Batcher, Limits, ManualClock, Nanos, Overflow, Pulled, Ticket};

/// Looks at the batcher when it is dropped.
struct Curious {
    batcher: Batcher<Back>,
    looks: Arc<AtomicUsize>,
    /// Whose next step it asks for, too.
    stream: Option<Ticket<Back>>,
}

impl Curious {
    fn look(&self) {
        let _ = self.batcher.snapshot();
        if let Some(stream) = &self.stream {
            drop(stream.next());
        }
        self.looks.fetch_add(1, SeqCst);
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        self.look();
    }
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

struct Back;

impl Border for Back {
    type Payload = Curious;
    type Answer = Option<Curious>;
    type Waiter = Curious;
    type Wakes = Vec<Handle<Self>>;
    type Clock = ManualClock;

    fn failure(_: Failure) -> Self::Answer {
        None
    }
    fn is_failure(answer: &Self::Answer) -> bool {
        answer.is_none()
    }
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes) {
        wakes.push(request.clone());
    }
    fn fire(wakes: Self::Wakes) {
        wakes.iter().for_each(|request| request.waiter().look());
    }
    fn wake_window(waiter: &Self::Waiter) {
        waiter.look();
    }
    fn arm(batcher: &Batcher<Self>, _: Nanos) {
        let _ = batcher.snapshot();
    }
}

struct World {
    batcher: Batcher<Back>,
    clock: ManualClock,
    looks: Arc<AtomicUsize>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let clock = ManualClock::default();
        let batcher = Batcher::new(limits, clock.clone()).unwrap();
        let looks = Arc::default();
        Self {
            batcher,
            clock,
            looks,
        }
    }

    fn curious(&self) -> Curious {
        Curious {
            batcher: self.batcher.clone(),
            looks: self.looks.clone(),
            stream: None,
        }
    }

    /// That looks at a stream as well.
    fn reader(&self, stream: &Ticket<Back>) -> Curious {
        Curious {
            stream: Some(stream.clone()),
            batcher: self.batcher.clone(),
            looks: self.looks.clone(),
        }
    }

    fn waker(&self) -> Waker {
        Arc::new(self.curious()).into()
    }

    /// Leaves no ticket behind: the batcher holds the last handle.
    fn submit(&self, deadline: u64) {
        let terms = Terms {
            deadline,
            ..Terms::at(self.clock_now())
        };
        let (payload, waiter) = (self.curious(), self.curious());
        let submitted = self
            .batcher
            .submit_with(payload, waiter, terms, Announce::Yes);
        drop(submitted);
    }

    fn submit_and_hold(&self) -> Ticket<Back> {
        let (payload, waiter) = (self.curious(), self.curious());
        let submitted = self.batcher.submit(payload, waiter);
        submitted.expect("there is room, or it waits")
    }

    fn clock_now(&self) -> u64 {
        self.batcher.now()
    }

    fn serve(&self) {
        if let Pulled::Batch(mut batch) = self.batcher.try_pull(8) {
            let answers = (0..batch.len()).map(|_| Some(self.curious())).collect();
            let sent = batch.answer_all(answers).ok().expect("one each");
            sent.send();
        }
    }
}

/// Runs `life` on a thread of its own: a lock that is taken twice would hang it.
fn ends(life: impl FnOnce() + Send + 'static) {
    let (end, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        life();
        end.send(()).unwrap();
    });
    match ended.recv_timeout(Duration::from_secs(20)) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            panic!("it hangs: something came back under a lock")
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("it panicked: {:?}", thread.join()),
    }
}

fn limits() -> Limits {
    Limits {
        max_batch_size: 2,
        max_queue: 3,
        wait: 10,
        overflow: Overflow::Wait,
        slots: 1,
        ..Limits::default()
    }
}

#[test]
fn wakers_of_seats_and_closers() {
    ends(|| {
        let world = World::new(limits());
        let (mut one, mut two) = (world.batcher.seat(), world.batcher.seat());
        for _ in 0..2 {
            // The line holds the last reference to each waker.
            let _ = one.poll(&world.waker(), 8);
            let _ = two.poll(&world.waker(), 8);
        }
        world.submit(u64::MAX);
        one.leave();
        drop(two);
        let _ = world.batcher.poll_ended(&world.waker());
        let _ = one.poll(&world.waker(), 8);
        world.batcher.close(false);
        let _ = one.poll(&world.waker(), 8);
        drop(one);
        assert!(world.batcher.poll_ended(&world.waker()));
        assert!(world.looks.load(SeqCst) >= 8);
    });
}

#[test]
fn what_was_cancelled_in_the_queue() {
    ends(|| {
        let world = World::new(Limits {
            max_queue: 1000,
            ..limits()
        });
        // Behind one that lives: those at the front are dropped by whoever looks.
        world.submit(u64::MAX);
        let tickets: Vec<_> = (0..200).map(|_| world.submit_and_hold()).collect();
        tickets.into_iter().for_each(|ticket| drop(ticket.cancel()));
        assert_eq!(world.batcher.snapshot().cancelled, 200);
        // Swept, but for the last few: payload and waiter of each have looked.
        assert!(world.looks.load(SeqCst) >= 2 * 100);
    });
}

#[test]
fn payloads_answers_and_waiters() {
    ends(|| {
        let world = World::new(limits());
        // Answered, with nobody who takes the answer; and dropped unanswered.
        (0..4).for_each(|_| world.submit(u64::MAX));
        world.serve();
        drop(world.batcher.try_pull(8));
        // Expired.
        (0..3).for_each(|_| world.submit(5));
        world.clock.set(20);
        world.serve();
        // Cancelled, and swept.
        let tickets: Vec<_> = (0..200).map(|_| world.submit_and_hold()).collect();
        tickets.into_iter().for_each(|ticket| drop(ticket.cancel()));
        // Refused, failed by the close, in the lobby too.
        (0..6).for_each(|_| world.submit(u64::MAX));
        world.batcher.close(false);
        world.submit(u64::MAX);
        let shown = world.batcher.snapshot();
        assert_eq!((shown.pending, shown.in_flight), (0, 0));
        assert_eq!((shown.answered, shown.cancelled), (2, 200));
    });
}

#[test]
fn steps_and_who_waits_for_room() {
    ends(|| {
        let world = World::new(Limits {
            steps: 2,
            wait: 0,
            ..limits()
        });
        for end in 0..6 {
            let stream = world.submit_and_hold();
            let Pulled::Batch(mut batch) = world.batcher.try_pull(8) else {
                panic!("due");
            };
            let give = |batch: &mut carpool_core::Batch<Back>| {
                let given = batch.step(0, Some(world.reader(&stream)));
                given.ok().expect("there is room").send();
            };
            give(&mut batch);
            give(&mut batch);
            let refused = batch.step(0, Some(world.reader(&stream))).err();
            let wait = |batch: &carpool_core::Batch<Back>| {
                let waker: Waker = Arc::new(world.reader(&stream)).into();
                assert!(!batch.poll_room(0, &waker));
            };
            wait(&batch);
            let before = world.looks.load(SeqCst);
            match end {
                0 => drop(stream.next()),
                1 => drop(stream.cancel()),
                2 => drop(batch.answer_all(vec![Some(world.reader(&stream))]).ok()),
                3 => {
                    drop(batch.answer_all(vec![Some(world.curious())]).ok());
                    drop(stream.take());
                }
                4 => wait(&batch),
                _ => drop(batch),
            }
            assert!(world.looks.load(SeqCst) > before, "end {end}");
            drop(refused);
        }
        assert_eq!(world.batcher.snapshot().in_flight, 0);
    });
}
