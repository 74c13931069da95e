//! Schemes that choose size and moment of batches for a latency target, on the same arrivals and the same handler,
//! in virtual time. Everything comes from a seed.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod schemes;
pub mod shipped;
pub mod traces;

use traces::{Dice, Trace};

/// What became of one trace under one scheme.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Of all latencies, in milliseconds; a dropped request has none, and counts as endless.
    pub p99: f64,
    pub mean: f64,
    /// Parts of all requests.
    pub in_time: f64,
    pub dropped: f64,
    /// Answers per second of the handler's time.
    pub throughput: f64,
    pub size: f64,
}

/// Latencies and handler time, as they come.
#[derive(Debug, Default)]
pub struct Book {
    latencies: Vec<u64>,
    dropped: usize,
    busy: u64,
    batches: usize,
}

impl Book {
    /// A batch ran for `run` until `end`.
    pub fn ran(&mut self, arrivals: impl Iterator<Item = u64>, run: u64, end: u64) {
        self.latencies.extend(arrivals.map(|arrival| end - arrival));
        self.busy += run;
        self.batches += 1;
    }

    pub fn dropped(&mut self) {
        self.dropped += 1;
    }

    pub fn outcome(mut self, trace: &Trace) -> Outcome {
        let all = self.latencies.len() + self.dropped;
        assert_eq!(all, trace.arrivals.len(), "somebody was forgotten");
        self.latencies.sort_unstable();
        let in_time = self
            .latencies
            .partition_point(|&latency| latency <= trace.target);
        let sum: u64 = self.latencies.iter().sum();
        let rank = (all * 99).div_ceil(100) - 1;
        Outcome {
            p99: self
                .latencies
                .get(rank)
                .map_or(f64::INFINITY, |&ns| ns as f64 / 1e6),
            mean: sum as f64 / self.latencies.len().max(1) as f64 / 1e6,
            in_time: in_time as f64 / all as f64,
            dropped: self.dropped as f64 / all as f64,
            throughput: self.latencies.len() as f64 * 1e9 / self.busy.max(1) as f64,
            size: self.latencies.len() as f64 / self.batches.max(1) as f64,
        }
    }
}

/// How long batches really take.
#[derive(Debug, Clone)]
pub struct Handler {
    /// In nanoseconds: a batch, and a request of it.
    pub fixed: f64,
    pub each: f64,
    dice: Dice,
}

impl Handler {
    pub fn new(trace: &Trace, seed: u64) -> Self {
        Self {
            fixed: trace.fixed,
            each: trace.each,
            dice: Dice::new(seed ^ 0x5eed),
        }
    }

    /// A batch of `n` that starts at `now`: a twentieth of noise, and one in 400 takes three times as long.
    pub fn run(&mut self, trace: &Trace, n: usize, now: u64) -> u64 {
        let noise = (0.05 * self.dice.normal()).exp();
        let odd = if self.dice.unit() < 1.0 / 400.0 {
            3.0
        } else {
            1.0
        };
        let run = (self.fixed + self.each * n as f64) * trace.level(now);
        (run * noise * odd) as u64
    }
}
