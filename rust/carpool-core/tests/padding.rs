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
/// Nanoseconds: of each run, and of each padded element.
const RUN: u64 = 1_000_000;
const ELEMENT: u64 = 1_000;

fn run_time(count: usize, longest: u64) -> u64 {
    RUN + count as u64 * longest * ELEMENT
}

/// Requests per nanosecond that the handler does in order of arrival, when there are always enough.
fn capacity() -> f64 {
    let mut dice = Dice(1);
    let batches = 2000;
    let time: u64 = (0..batches)
        .map(|_| (0..SIZE).map(|_| dice.length()).max().unwrap_or(0))
        .map(|longest| run_time(SIZE, longest))
        .sum();
    (batches * SIZE) as f64 / time as f64
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
    fn new(arrivals: Arrivals, seed: u64) -> Self {
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
        let (gap, mut at) = (at_once as f64 / (capacity() * load), 0);
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

fn play(limits: Limits, arrivals: Arrivals, seed: u64) -> Outcome {
    let mut world = World::new(arrivals, seed);
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
                    running = Some((now + run_time(batch.len(), longest), batch));
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

fn in_order() -> Limits {
    Limits {
        max_batch_size: SIZE,
        wait: 5_000_000,
        max_queue: 1_000_000,
        slots: 1,
        ..Limits::default()
    }
}

fn sorting(age: u64) -> Limits {
    Limits {
        length_window: 8,
        length_age: age,
        ..in_order()
    }
}

const AGE: u64 = 1_000_000_000;

/// Plays the same arrivals in order and sorted, with several seeds, and shows both.
fn compare(arrivals: Arrivals) -> Vec<(Outcome, Outcome)> {
    let seeds = 100..104;
    let played: Vec<_> = seeds
        .map(|seed| {
            let in_order = play(in_order(), arrivals, seed);
            (in_order, play(sorting(AGE), arrivals, seed))
        })
        .collect();
    let mean = |of: fn(&Outcome) -> f64, sorted: bool| {
        let all = played
            .iter()
            .map(|(plain, by)| of(if sorted { by } else { plain }));
        all.sum::<f64>() / played.len() as f64
    };
    for (how, sorted) in [("in order", false), ("length", true)] {
        println!(
            "{:24} {how:9} {:7.2} {:9.1} {:9.1} {:9.1} {:6.1} {:8.0}",
            format!("{arrivals:?}"),
            mean(|of| of.padding, sorted),
            mean(|of| of.p50, sorted),
            mean(|of| of.p99, sorted),
            mean(|of| of.worst, sorted),
            mean(|of| of.size, sorted),
            mean(|of| of.rate, sorted),
        );
    }
    played
}

#[test]
fn similar_lengths_save_two_fifths_of_the_padding_and_delay_nobody() {
    println!(
        "log-normal lengths (median 60, sigma 1), at most {SIZE} requests and 1 + 0.001 × rows × longest ms a batch"
    );
    println!(
        "arrivals                 batches   padding    p50 ms    p99 ms  worst ms   size  per s"
    );
    // Where more wait than a batch takes, there is something to choose from.
    for arrivals in [
        Arrivals::Bursts(128, 0.7),
        Arrivals::Bursts(256, 0.7),
        Arrivals::Bursts(256, 0.9),
        Arrivals::Callers(128),
        Arrivals::Callers(256),
        Arrivals::Callers(512),
    ] {
        for (plain, sorted) in compare(arrivals) {
            assert!(
                sorted.padding <= 0.6 * plain.padding,
                "{arrivals:?}: {sorted:?} after {plain:?}"
            );
            assert!(
                sorted.p99 <= plain.p99,
                "{arrivals:?}: {sorted:?} after {plain:?}"
            );
        }
    }
    // Where there is less, what is saved shortens the queue.
    for arrivals in [
        Arrivals::Random(0.5),
        Arrivals::Random(0.7),
        Arrivals::Random(0.9),
    ] {
        for (plain, sorted) in compare(arrivals) {
            assert!(
                sorted.padding <= plain.padding && sorted.p99 <= plain.p99,
                "{arrivals:?}: {sorted:?} after {plain:?}"
            );
        }
    }
}

/// Nobody is passed over who has waited for the age: without any, the order is that of arrival.
#[test]
fn without_patience_nothing_changes() {
    for arrivals in [Arrivals::Bursts(256, 0.9), Arrivals::Callers(128)] {
        let (plain, sorted) = (play(in_order(), arrivals, 7), play(sorting(0), arrivals, 7));
        assert_eq!(format!("{plain:?}"), format!("{sorted:?}"));
    }
}

/// The longer anybody may be passed over, the less padding, and the longer it may take.
#[test]
fn patience_buys_padding() {
    let padding = |age_ms: u64| {
        let of = play(sorting(age_ms * 1_000_000), Arrivals::Callers(256), 7);
        (of.padding, of.worst)
    };
    let (impatient, some, patient) = (padding(10), padding(40), padding(1000));
    assert!(patient.0 < some.0 && some.0 < impatient.0, "{some:?}");
    let plain = play(in_order(), Arrivals::Callers(256), 7);
    assert!(impatient.0 <= plain.padding);
}
