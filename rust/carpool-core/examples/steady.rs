//! A batcher in a steady state, for counting instructions: `steady <pending> <requests>` holds that many
//! pending and passes so many requests through, 64 to a batch. What a request costs is the difference
//! between two runs that differ in `<requests>` alone (`benches/instructions.py`).

use carpool_core::border::{Border, Failure};
use carpool_core::request::Handle;
use carpool_core::{Batcher, Limits, Nanos, Pulled, SystemClock, Ticket, timer};

struct Bare;

impl Border for Bare {
    type Payload = u64;
    type Answer = u64;
    type Waiter = ();
    type Wakes = u64;
    type Clock = SystemClock;

    fn failure(_: Failure) -> u64 {
        u64::MAX
    }
    fn is_failure(answer: &u64) -> bool {
        *answer == u64::MAX
    }
    fn wake(_: &Handle<Self>, wakes: &mut u64) {
        *wakes += 1;
    }
    fn fire(_: u64) {}
    fn wake_window((): &Self::Waiter) {}
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        timer::arm(batcher, moment);
    }
}

const SIZE: usize = 64;

fn submit(batcher: &Batcher<Bare>, tickets: &mut std::collections::VecDeque<Ticket<Bare>>) {
    for _ in 0..SIZE {
        tickets.push_back(batcher.submit(7, ()).expect("there is room"));
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<usize>());
    let (Some(Ok(pending)), Some(Ok(requests))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: steady <pending> <requests>");
        std::process::exit(2);
    };
    let limits = Limits {
        max_batch_size: SIZE,
        max_queue: pending + 2 * SIZE,
        slots: 1,
        ..Limits::default()
    };
    let batcher = Batcher::<Bare>::new(limits, SystemClock).expect("limits");
    let mut tickets = std::collections::VecDeque::with_capacity(pending + 2 * SIZE);
    for _ in 0..pending {
        tickets.push_back(batcher.submit(7, ()).expect("there is room"));
    }
    for _ in 0..requests / SIZE {
        submit(&batcher, &mut tickets);
        let Pulled::Batch(mut batch) = batcher.try_pull(SIZE) else {
            panic!("a full batch is due");
        };
        let answers = vec![1; batch.len()];
        batch.answer_all(answers).expect("one each").send();
        for ticket in tickets.drain(..SIZE) {
            assert_eq!(ticket.take(), Some(1));
        }
    }
    // As many are pending as at the start: leave them to the end of the process.
    std::mem::forget((batcher, tickets));
}
