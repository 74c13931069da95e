//! Similar lengths in one batch: how much padding that saves, and what it does to the slowest requests. The
//! shipped scheduler under a virtual clock; arrivals at random, log-normal lengths, a handler whose run time grows
//! with rows × longest row.
//!
//! `make bench-padding` shows the table.

mod support;

use std::collections::VecDeque;

use carpool_core::submit::Announce;
use carpool_core::{Batch, Limits, Pulled, Terms};
use support::{Log, Plain, batcher};

/// SplitMix64. (Steele, Lea, Flood, OOPSLA 2014.)
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1, neither of them.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// By G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Log-normal: half are shorter than 60, one in a hundred is longer than 600; no more than 2048.
    fn length(&mut self) -> u64 {
        let length = (60.0_f64.ln() + self.normal()).exp();
        (length.ceil() as u64).clamp(1, 2048)
    }

    fn gap(&mut self, mean: f64) -> u64 {
        (-mean * self.unit().ln()) as u64
    }
}

const SIZE: usize = 32;
/// Nanoseconds of each padded element.
const ELEMENT: u64 = 1_000;

/// What each batch takes besides its elements, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Handler(u64);

const LIGHT: Handler = Handler(1_000_000);
/// Its start takes as long as a fifth of the work on a full batch in order of arrival.
const HEAVY: Handler = Handler(4_000_000);

impl Handler {
    fn run_time(self, count: usize, longest: u64) -> u64 {
        self.0 + count as u64 * longest * ELEMENT
    }

    /// Requests per nanosecond in order of arrival, when there are always enough.
    fn capacity(self) -> f64 {
        let mut dice = Dice(1);
        let batches = 2000;
        let time: u64 = (0..batches)
            .map(|_| (0..SIZE).map(|_| dice.length()).max().unwrap_or(0))
            .map(|longest| self.run_time(SIZE, longest))
            .sum();
        (batches * SIZE) as f64 / time as f64
    }
}

/// Classes of lengths that never share a batch: each of lengths up to twice the shortest.
fn class(length: u64) -> u64 {
    u64::from(u64::BITS - length.leading_zeros())
}

#[derive(Debug, Clone, Copy)]
struct Outcome {
    /// Padded elements over those of use.
    padding: f64,
    /// From arrival to answer, milliseconds.
    p50: f64,
    p99: f64,
    worst: f64,
    size: f64,
    /// Answered per second.
    rate: f64,
}

/// When requests come.
#[derive(Debug, Clone, Copy)]
enum Arrivals {
    /// One by one, at random: so much of the capacity in order of arrival.
    Random(f64),
    /// So many at once, at random: so much of that capacity on average.
    Bursts(usize, f64),
    /// From so many callers, each with its next as soon as it has its answer.
    Callers(usize),
}

const REQUESTS: usize = 20_000;

struct World {
    dice: Dice,
    arrivals: Arrivals,
    /// When who comes next: none, where callers do.
    due: VecDeque<(u64, u64)>,
}

impl World {
    fn new(handler: Handler, arrivals: Arrivals, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut due = VecDeque::new();
        let (at_once, load) = match arrivals {
            Arrivals::Random(load) => (1, load),
            Arrivals::Bursts(count, load) => (count, load),
            Arrivals::Callers(count) => {
                due.extend((0..count).map(|_| (0, dice.length())));
                return Self {
                    dice,
                    arrivals,
                    due,
                };
            }
        };
        let (gap, mut at) = (at_once as f64 / (handler.capacity() * load), 0);
        while due.len() < REQUESTS {
            at += dice.gap(gap);
            due.extend((0..at_once).map(|_| (at, dice.length())));
        }
        Self {
            dice,
            arrivals,
            due,
        }
    }

    /// So many have their answers.
    fn answered(&mut self, count: usize, now: u64) {
        if matches!(self.arrivals, Arrivals::Callers(_)) {
            let again = (0..count).map(|_| (now, self.dice.length()));
            self.due.extend(again.collect::<Vec<_>>());
        }
    }
}

fn play(way: Way, handler: Handler, arrivals: Arrivals, seed: u64) -> Outcome {
    let (limits, key) = (way.limits(), way.key());
    let mut world = World::new(handler, arrivals, seed);
    let (batcher, time) = batcher(limits);
    let log = Log::default();
    let mut running: Option<(u64, Batch<Plain>)> = None;
    let mut latencies = Vec::with_capacity(REQUESTS);
    let (mut padded, mut useful, mut batches) = (0, 0, 0);
    let mut now = 0;
    while latencies.len() < REQUESTS {
        if running.as_ref().is_some_and(|(end, _)| *end <= now) {
            let (_, mut batch) = running.take().expect("just seen");
            for request in batch.requests() {
                latencies.push(now - request.terms.arrival);
            }
            world.answered(batch.len(), now);
            let answers = vec![Ok(0); batch.len()];
            batch.answer_all(answers).expect("as many").send();
        }
        while world.due.front().is_some_and(|&(at, _)| at <= now) {
            let (arrival, length) = world.due.pop_front().expect("just seen");
            let terms = Terms {
                length,
                key: key(length),
                ..Terms::at(arrival)
            };
            batcher
                .submit_with(0, log.waiter(0), terms, Announce::Yes)
                .expect("there is room");
        }
        let mut timer = None;
        if running.is_none() {
            match batcher.try_pull(SIZE) {
                Pulled::Batch(batch) => {
                    let lengths = batch.requests().map(|request| request.terms.length);
                    let lengths: Vec<_> = lengths.collect();
                    let longest = lengths.iter().copied().max().unwrap_or(0);
                    useful += lengths.iter().sum::<u64>();
                    padded += batch.len() as u64 * longest;
                    batches += 1;
                    running = Some((now + handler.run_time(batch.len(), longest), batch));
                }
                Pulled::Wait(until) => timer = until,
                Pulled::Closed => unreachable!("nobody closes it"),
            }
        }
        let arrival = world.due.front().map(|&(at, _)| at);
        let end = running.as_ref().map(|(end, _)| *end);
        let next = [arrival, end, timer].into_iter().flatten().min();
        let Some(next) = next else { break };
        now = next.max(now);
        time.set(now);
    }
    latencies.sort_unstable();
    let last = latencies.len() - 1;
    let percentile = |p: f64| latencies[(p * last as f64) as usize] as f64 / 1e6;
    Outcome {
        padding: (padded - useful) as f64 / useful as f64,
        p50: percentile(0.5),
        p99: percentile(0.99),
        worst: percentile(1.0),
        size: latencies.len() as f64 / f64::from(batches),
        rate: latencies.len() as f64 / now as f64 * 1e9,
    }
}

/// Which requests share a batch.
#[derive(Debug, Clone, Copy)]
enum Way {
    InOrder,
    /// Those of similar length; for how long anybody may be passed over.
    ByLength(u64),
    /// Those of one class of lengths.
    ByClass,
}

const AGE: u64 = 1_000_000_000;
const BY_LENGTH: Way = Way::ByLength(AGE);

impl Way {
    fn limits(self) -> Limits {
        let in_order = Limits {
            max_batch_size: SIZE,
            wait: 5_000_000,
            max_queue: 1_000_000,
            slots: 1,
            ..Limits::default()
        };
        match self {
            Way::InOrder | Way::ByClass => in_order,
            Way::ByLength(age) => Limits {
                length_window: 8,
                length_age: age,
                ..in_order
            },
        }
    }

    fn key(self) -> fn(u64) -> u64 {
        match self {
            Way::ByClass => class,
            _ => |_| 0,
        }
    }
}

/// Plays the same arrivals in each of three ways, with several seeds, and shows them all.
fn compare(handler: Handler, arrivals: Arrivals) -> Vec<[Outcome; 3]> {
    let ways = [Way::InOrder, BY_LENGTH, Way::ByClass];
    let played: Vec<_> = (100..104)
        .map(|seed| ways.map(|way| play(way, handler, arrivals, seed)))
        .collect();
    for (at, how) in ["in order", "length", "class"].into_iter().enumerate() {
        let mean = |of: fn(&Outcome) -> f64| {
            let all = played.iter().map(|ways| of(&ways[at]));
            all.sum::<f64>() / played.len() as f64
        };
        println!(
            "{:2} {:20} {how:9} {:7.2} {:9.1} {:9.1} {:9.1} {:6.1} {:8.0}",
            handler.0 / 1_000_000,
            format!("{arrivals:?}"),
            mean(|of| of.padding),
            mean(|of| of.p50),
            mean(|of| of.p99),
            mean(|of| of.worst),
            mean(|of| of.size),
            mean(|of| of.rate),
        );
    }
    played
}

const CROWDS: [Arrivals; 6] = [
    Arrivals::Bursts(128, 0.7),
    Arrivals::Bursts(256, 0.7),
    Arrivals::Bursts(256, 0.9),
    Arrivals::Callers(128),
    Arrivals::Callers(256),
    Arrivals::Callers(512),
];
const ONE_BY_ONE: [Arrivals; 4] = [
    Arrivals::Random(0.3),
    Arrivals::Random(0.5),
    Arrivals::Random(0.7),
    Arrivals::Random(0.9),
];

/// Two fifths less padding, and the slowest are no slower.
fn is_better(other: &Outcome, plain: &Outcome) -> bool {
    other.padding <= 0.6 * plain.padding && other.p99 <= plain.p99
}

#[test]
fn similar_lengths_save_two_fifths_of_the_padding_and_delay_nobody() {
    println!(
        "log-normal lengths (median 60, sigma 1), at most {SIZE} requests and a + 0.001 × rows × longest ms a batch"
    );
    println!(
        " a arrivals             batches   padding    p50 ms    p99 ms  worst ms   size  per s"
    );
    for arrivals in CROWDS {
        // More wait than a batch takes: there is something to choose from.
        for ways @ [plain, by_length, by_class] in compare(LIGHT, arrivals) {
            assert!(is_better(&by_length, &plain), "{arrivals:?}: {ways:?}");
            assert!(is_better(&by_class, &plain), "{arrivals:?}: {ways:?}");
        }
    }
    for arrivals in ONE_BY_ONE {
        for ways @ [plain, by_length, by_class] in compare(LIGHT, arrivals) {
            // There is less of it, and what is saved shortens the queue.
            let saved = by_length.padding <= plain.padding && by_length.p99 <= plain.p99;
            assert!(saved, "{arrivals:?}: {ways:?}");
            // Classes need no choice: each waits for its own company.
            assert!(is_better(&by_class, &plain), "{arrivals:?}: {ways:?}");
        }
    }
}

/// Classes make smaller batches. Where each costs a good deal for being one they save as much padding, but a
/// light load waits longer for its answers.
#[test]
fn where_batches_cost_more_classes_save_as_much_padding() {
    for arrivals in CROWDS.into_iter().chain(ONE_BY_ONE) {
        for ways @ [plain, _, by_class] in compare(HEAVY, arrivals) {
            assert!(by_class.padding <= 0.6 * plain.padding, "{ways:?}");
        }
    }
}

/// Nobody is passed over who has waited for the age: without any, the order is that of arrival.
#[test]
fn without_patience_nothing_changes() {
    for arrivals in [Arrivals::Bursts(256, 0.9), Arrivals::Callers(128)] {
        let plain = play(Way::InOrder, LIGHT, arrivals, 7);
        let sorted = play(Way::ByLength(0), LIGHT, arrivals, 7);
        assert_eq!(format!("{plain:?}"), format!("{sorted:?}"));
    }
}

/// The longer anybody may be passed over, the less padding, and the longer it may take.
#[test]
fn patience_buys_padding() {
    let padding = |age_ms: u64| {
        let way = Way::ByLength(age_ms * 1_000_000);
        let of = play(way, LIGHT, Arrivals::Callers(256), 7);
        (of.padding, of.worst)
    };
    let (impatient, some, patient) = (padding(10), padding(40), padding(1000));
    assert!(patient.0 < some.0 && some.0 < impatient.0, "{some:?}");
    let plain = play(Way::InOrder, LIGHT, Arrivals::Callers(256), 7);
    assert!(impatient.0 <= plain.padding);
}
