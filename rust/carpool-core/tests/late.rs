//! Requests that cannot be answered before their deadlines any more, by what batches have taken: refused at once,
//! and only those.

mod support;

use carpool_core::many::{Item, Told};
use carpool_core::submit::Announce;
use carpool_core::{Batch, Batcher, Failure, Learning, Limits, Pulled, Refusal, Terms};
use support::{Log, Plain, Time};

const MS: u64 = 1_000_000;

struct World {
    batcher: Batcher<Plain>,
    time: Time,
    log: Log,
}

impl World {
    /// Batches of up to four, which take 10 ms each, known by then.
    fn new(refuse_late: bool) -> Self {
        let limits = Limits {
            max_batch_size: 4,
            slots: 1,
            ..Limits::default()
        };
        let learning = Learning {
            refuse_late,
            ..Learning::default()
        };
        let time = Time::default();
        let batcher = Batcher::learning(limits, learning, time.clone()).unwrap();
        let world = Self {
            batcher,
            time,
            log: Log::default(),
        };
        for size in [1, 4, 1, 4] {
            (0..size).for_each(|_| assert!(world.submit(1000).is_ok()));
            let batch = world.pull().unwrap();
            world.run(batch, 10);
        }
        world
    }

    fn submit_as(&self, left: u64, by: i64) -> Result<carpool_core::Ticket<Plain>, Refusal> {
        let now = self.batcher.now();
        let terms = Terms {
            deadline: now + left * MS,
            urgency: Terms::urgency(now, by),
            ..Terms::at(now)
        };
        let submitted = self
            .batcher
            .submit_with(7, self.log.waiter(0), terms, Announce::Yes);
        submitted.map_err(|refused| refused.why)
    }

    fn submit(&self, left: u64) -> Result<carpool_core::Ticket<Plain>, Refusal> {
        self.submit_as(left, 0)
    }

    fn pull(&self) -> Option<Batch<Plain>> {
        match self.batcher.try_pull(usize::MAX) {
            Pulled::Batch(batch) => Some(batch),
            _ => None,
        }
    }

    fn run(&self, mut batch: Batch<Plain>, ms: u64) {
        self.time.advance(ms * MS);
        drop(batch.answer_rest(|_| Ok(0)));
    }

    fn is_late(&self, left: u64) -> bool {
        match self.submit(left) {
            Ok(ticket) => {
                let _ = ticket.cancel();
                false
            }
            Err(Refusal::Late { needs, left: had }) => {
                assert!(needs > had && had == left * MS);
                true
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn who_would_be_late_is_refused_and_nobody_else() {
    let world = World::new(true);
    assert!(!world.is_late(1), "nothing is there: somebody has to try");
    let first = world.submit(1000).unwrap();
    let batch = world.pull().unwrap();
    // 10 ms until that one ends, 10 ms of its own.
    assert!(world.is_late(19));
    assert!(!world.is_late(21));
    world.time.advance(9 * MS);
    assert!(world.is_late(10));
    assert!(!world.is_late(12));
    // Four more go first, in a batch of their own.
    let others: Vec<_> = (0..4).map(|_| world.submit(1000).unwrap()).collect();
    assert!(world.is_late(20));
    assert!(!world.is_late(22));
    // It goes first itself.
    assert!(world.submit_as(12, -1).is_ok());
    world.run(batch, 1);
    assert!(first.take().is_some());
    assert_eq!(world.batcher.snapshot().rejected, 3);
    drop(others);
}

#[test]
fn it_has_to_be_asked_for() {
    let world = World::new(false);
    let _first = world.submit(1000).unwrap();
    let _batch = world.pull().unwrap();
    assert!(!world.is_late(1));
}

#[test]
fn a_pending_request_without_a_chance_goes_before_its_deadline() {
    for (asked, expired) in [(true, 1), (false, 0)] {
        let world = World::new(asked);
        let _first = world.submit(1000).unwrap();
        let batch = world.pull().unwrap();
        let tight = world.submit(25).unwrap();
        let wide = world.submit(1000).unwrap();
        // It takes twice as long as it should.
        world.run(batch, 20);
        let batch = world.pull().unwrap();
        assert_eq!(batch.len(), 2 - expired, "{asked}");
        assert_eq!(tight.request().reply().is_expired(), asked);
        world.run(batch, 10);
        assert!(wide.take().is_some());
    }
}

#[test]
fn a_handler_that_is_fast_again_is_found_out() {
    let world = World::new(true);
    for _ in 0..4 {
        assert!(world.submit(1000).is_ok());
        let batch = world.pull().unwrap();
        world.run(batch, 500);
    }
    // None of these has a chance by what is known; the only one there is runs all the same.
    for _ in 0..8 {
        let only = world.submit(50).unwrap();
        let batch = world.pull().unwrap();
        world.run(batch, 1);
        assert!(only.take().is_some());
    }
    let _first = world.submit(1000).unwrap();
    let _batch = world.pull().unwrap();
    assert!(!world.is_late(50));
}

#[test]
fn of_a_list_those_are_refused_that_would_be_late() {
    let world = World::new(true);
    let submit = |count: u64, left: u64| {
        let now = world.batcher.now();
        let terms = Terms {
            deadline: now + left * MS,
            ..Terms::at(now)
        };
        let items = (0..count).map(Item::of).collect();
        let told = Told::PerStep;
        let list = world
            .batcher
            .submit_many(items, world.log.waiter(9), terms, told);
        list.unwrap()
    };
    let late = Some(Err(Failure::Expired));
    // Four go in each batch of 10 ms, and nobody is before them.
    let list = submit(20, 25);
    let told = world.log.woken().iter().filter(|&&id| id == 9).count();
    assert_eq!((list.left(), told), (8, 1));
    assert_eq!(
        (list.take(7), list.take(8), list.take(19)),
        (None, late, late)
    );
    // Eight are before these; by then the time of all of them is over.
    let other = submit(5, 25);
    assert!(other.is_over());
    assert_eq!(other.take_all(), [Err(Failure::Expired); 5]);
    assert_eq!(world.batcher.snapshot().rejected, 12 + 5);
    // Whoever finds nothing in the way may try, however slow batches are known to be.
    while let Some(batch) = world.pull() {
        world.run(batch, 10);
    }
    assert!(list.is_over());
    let hopeful = submit(6, 5);
    assert_eq!(hopeful.left(), 4);
    let batch = world.pull().unwrap();
    world.run(batch, 1);
    assert!(hopeful.is_over());
    let s = world.batcher.snapshot();
    assert_eq!(s.submitted, s.answered + s.failed + s.rejected);
}

#[test]
fn what_of_a_list_has_no_chance_any_more_goes_before_its_deadline() {
    let world = World::new(true);
    let now = world.batcher.now();
    let terms = Terms {
        deadline: now + 45 * MS,
        ..Terms::at(now)
    };
    let items = (0..16).map(Item::of).collect();
    let (waiter, told) = (world.log.waiter(9), Told::AtTheEnd);
    let list = world.batcher.submit_many(items, waiter, terms, told);
    let list = list.unwrap();
    assert_eq!(list.left(), 16);
    // Each batch takes twice as long as it should.
    for left in [12, 1] {
        let batch = world.pull().unwrap();
        world.run(batch, 20);
        assert_eq!(list.left(), left);
    }
    // 5 ms are left, for 10 of work; but for luck, which the only one may try.
    let batch = world.pull().unwrap();
    assert_eq!(batch.len(), 1);
    world.run(batch, 1);
    let answers = list.take_all();
    assert_eq!(answers.iter().filter(|one| one.is_ok()).count(), 9);
}
