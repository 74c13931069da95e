//! The others: fixed settings, AIMD, and a fit of `a·n + b`, written down from their descriptions.

use std::collections::VecDeque;

use super::traces::Trace;
use super::{Book, Handler, Outcome};

pub enum Choice {
    /// Run so many of the oldest.
    Take(usize),
    /// Look again then, or at the next arrival.
    Until(u64),
    /// Refuse the oldest.
    Drop,
}

/// Decides whenever the slot is free and something is pending.
pub trait Scheme {
    fn choose(&mut self, pending: &VecDeque<u64>, now: u64) -> Choice;
    /// A batch of `n` was sealed after its oldest had waited `wait`, and ran for `run`.
    fn ran(&mut self, n: usize, wait: u64, run: u64);
}

/// `max_batch_size` and `wait_ms`, late sealing: what carpool does without a target.
pub struct Fixed {
    pub most: usize,
    pub wait: u64,
}

impl Scheme for Fixed {
    fn choose(&mut self, pending: &VecDeque<u64>, now: u64) -> Choice {
        let due = pending[0] + self.wait;
        if pending.len() >= self.most || due <= now {
            Choice::Take(self.most)
        } else {
            Choice::Until(due)
        }
    }
    fn ran(&mut self, _: usize, _: u64, _: u64) {}
}

/// The batch may be one larger after each that was full and ran within the target, and is a tenth smaller after one
/// that did not; nobody is held. (Crankshaw and others, "Clipper", NSDI 2017, section 4.3.)
pub struct Aimd {
    limit: f64,
    most: usize,
    target: u64,
}

impl Aimd {
    pub fn new(trace: &Trace) -> Self {
        Self {
            limit: 1.0,
            most: trace.most,
            target: trace.target,
        }
    }
}

impl Scheme for Aimd {
    fn choose(&mut self, _: &VecDeque<u64>, _: u64) -> Choice {
        Choice::Take(self.limit as usize)
    }
    fn ran(&mut self, n: usize, _: u64, run: u64) {
        if run > self.target {
            self.limit = (self.limit * 0.9).max(1.0);
        } else if n >= self.limit as usize {
            self.limit = (self.limit + 1.0).min(self.most as f64);
        }
    }
}

/// Run time as `a·n + b` by least squares over the last 50 batches, fitted anew every 5 s. Holds while the sum of
/// the waits so gained is below the usual wait; refuses the oldest where the fit says that it will be late.
/// (BentoML's dispatcher, `marshal/dispatcher.py`, as published.)
pub struct Fit {
    a: f64,
    b: f64,
    wait: f64,
    samples: VecDeque<(f64, f64, f64)>,
    refreshed: u64,
    most: usize,
    target: f64,
}

impl Fit {
    pub fn new(trace: &Trace) -> Self {
        Self {
            a: 0.0,
            b: 0.0,
            wait: 1e6,
            samples: VecDeque::new(),
            refreshed: 0,
            most: trace.most,
            target: trace.target as f64,
        }
    }

    fn refresh(&mut self) {
        let n = self.samples.len() as f64;
        let mean = |of: fn(&(f64, f64, f64)) -> f64| self.samples.iter().map(of).sum::<f64>() / n;
        let (size, run) = (mean(|one| one.0), mean(|one| one.1));
        let spread: f64 = self.samples.iter().map(|one| (one.0 - size).powi(2)).sum();
        let joint: f64 = self
            .samples
            .iter()
            .map(|one| (one.0 - size) * (one.1 - run))
            .sum();
        if spread > 0.0 {
            self.a = (joint / spread).max(0.0);
            self.b = (run - self.a * size).max(0.0);
        } else {
            (self.a, self.b) = (0.0, run);
        }
        self.wait = mean(|one| one.2);
    }
}

impl Scheme for Fit {
    fn choose(&mut self, pending: &VecDeque<u64>, now: u64) -> Choice {
        const TICK: f64 = 1e6;
        if now > self.refreshed + 5_000_000_000 && self.samples.len() > 2 {
            self.refreshed = now;
            self.refresh();
        }
        let n = pending.len() as f64;
        let (oldest, newest) = (pending[0], pending[pending.len() - 1]);
        let waited = (now - oldest) as f64;
        if pending.len() > 1 && waited + self.a * n + self.b >= self.target {
            return Choice::Drop;
        }
        let holding = n * ((now - newest) as f64 + TICK + self.a);
        if pending.len() < self.most && holding <= self.wait * 0.95 {
            return Choice::Until(now + TICK as u64);
        }
        Choice::Take(self.most)
    }
    fn ran(&mut self, n: usize, wait: u64, run: u64) {
        if self.samples.len() == 50 {
            self.samples.pop_front();
        }
        self.samples.push_back((n as f64, run as f64, wait as f64));
    }
}

/// One slot, first come, first served.
pub fn play(trace: &Trace, seed: u64, scheme: &mut dyn Scheme) -> Outcome {
    let mut handler = Handler::new(trace, seed);
    let mut book = Book::default();
    let (mut pending, mut next, mut now) = (VecDeque::new(), 0, 0);
    let arrivals = &trace.arrivals;
    loop {
        while next < arrivals.len() && arrivals[next] <= now {
            pending.push_back(arrivals[next]);
            next += 1;
        }
        let coming = arrivals.get(next).copied();
        if pending.is_empty() {
            match coming {
                Some(arrival) => now = arrival,
                None => return book.outcome(trace),
            }
            continue;
        }
        match scheme.choose(&pending, now) {
            Choice::Take(n) => {
                let n = n.clamp(1, pending.len());
                let run = handler.run(trace, n, now);
                let wait = now - pending[0];
                now += run;
                book.ran(pending.drain(..n), run, now);
                scheme.ran(n, wait, run);
            }
            Choice::Until(then) => {
                now = coming
                    .map_or(then, |arrival| arrival.min(then))
                    .max(now + 1)
            }
            Choice::Drop => {
                pending.pop_front();
                book.dropped();
            }
        }
    }
}
