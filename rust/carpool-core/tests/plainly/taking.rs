//! Which of the pending requests of one key leave together, written down a second time: a plain list, looked
//! through from its beginning at every step.

#![allow(dead_code, missing_docs, unreachable_pub)]

use carpool_core::Limits;
use carpool_core::request::Terms;

#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub id: usize,
    pub terms: Terms,
    /// It ends just before it would be taken.
    pub refuses: bool,
}

impl Waiting {
    fn level(&self) -> u64 {
        self.terms.urgency.wrapping_sub(self.terms.arrival)
    }
}

pub struct Taken {
    pub ids: Vec<usize>,
    /// There could have been more, had they cost less.
    pub misfit: bool,
}

/// The allowed size that so many requests are filled up to.
pub fn rows(sizes: &[usize], n: usize) -> usize {
    let enough = sizes.iter().copied().filter(|&size| size >= n);
    enough.min().unwrap_or(n)
}

pub fn total(limits: &Limits, sizes: &[usize], costs: &[u64]) -> u64 {
    match limits.padded {
        true => rows(sizes, costs.len()) as u64 * costs.iter().max().unwrap_or(&0),
        false => costs.iter().sum(),
    }
}

struct Making<'a> {
    limits: &'a Limits,
    sizes: &'a [usize],
    /// In their order.
    waiting: Vec<Waiting>,
    taken: Vec<Waiting>,
    misfit: bool,
}

impl Making<'_> {
    fn fits(&self, one: &Waiting) -> bool {
        let mut costs: Vec<_> = self.taken.iter().map(|one| one.terms.cost).collect();
        costs.push(one.terms.cost);
        self.taken.is_empty()
            || total(self.limits, self.sizes, &costs) <= self.limits.max_batch_cost
    }

    fn take(&mut self, at: usize) {
        let one = self.waiting.remove(at);
        if !one.refuses {
            self.taken.push(one);
        }
    }

    fn in_order(&mut self, most: usize) {
        while self.taken.len() < most && !self.waiting.is_empty() && !self.misfit {
            if self.fits(&self.waiting[0]) {
                self.take(0);
            } else {
                self.misfit = true;
            }
        }
    }

    fn later(&mut self, size: usize) {
        let mut at = 0;
        for _ in 0..=self.limits.look_ahead {
            if at == self.waiting.len() || self.taken.len() == size {
                break;
            }
            match self.fits(&self.waiting[at]) {
                true => self.take(at),
                false => at += 1,
            }
        }
    }

    /// How many of one level stand together at the front.
    fn run(&self, level: u64, most: usize) -> usize {
        let waiting = self.waiting.iter().take(most);
        waiting.take_while(|one| one.level() == level).count()
    }

    fn similar(&mut self, size: usize, now: u64) {
        let Some(level) = self.waiting.first().map(Waiting::level) else {
            return;
        };
        let window = size * self.limits.length_window;
        let run = self.run(level, window);
        let costs: Vec<_> = self.waiting[..run]
            .iter()
            .map(|one| one.terms.cost)
            .collect();
        if run <= size && total(self.limits, self.sizes, &costs) <= self.limits.max_batch_cost {
            return;
        }
        let age = self.limits.length_age;
        let aged = |waiting: &[Waiting]| {
            let aged = |one: &&Waiting| now - one.terms.arrival >= age;
            waiting.iter().take_while(aged).count()
        };
        let mut first = aged(&self.waiting[..run]).max(1);
        while first > 0 && !self.misfit && self.taken.len() < size {
            self.in_order(size.min(self.taken.len() + first));
            first = aged(&self.waiting[..self.run(level, window - self.taken.len())]);
        }
        if self.misfit || self.taken.len() == size {
            return;
        }
        let mut chosen: Vec<Waiting> = Vec::new();
        let run = self.run(level, window - self.taken.len());
        let mut left = self.waiting[..run].to_vec();
        let room = size - self.taken.len();
        while chosen.len() < room && !left.is_empty() {
            let lengths = self.taken.iter().chain(&chosen).map(|one| one.terms.length);
            let longest = lengths.max().unwrap_or(0);
            let count = (self.taken.len() + chosen.len()) as u64;
            let padding = |one: &Waiting| match one.terms.length > longest {
                true => ((one.terms.length - longest) * count, true),
                false => (longest - one.terms.length, false),
            };
            let nearest = (0..left.len()).min_by_key(|&at| (padding(&left[at]), at));
            let one = left.remove(nearest.unwrap());
            let costs: Vec<_> = self
                .taken
                .iter()
                .chain(&chosen)
                .chain([&one])
                .map(|one| one.terms.cost)
                .collect();
            if costs.len() > 1
                && total(self.limits, self.sizes, &costs) > self.limits.max_batch_cost
            {
                self.misfit = true;
            } else {
                chosen.push(one);
            }
        }
        chosen.sort_by_key(|one| self.waiting.iter().position(|other| other.id == one.id));
        for one in chosen {
            let at = self.waiting.iter().position(|other| other.id == one.id);
            self.take(at.unwrap());
        }
    }
}

/// Of `waiting`, in any order, what leaves now.
pub fn take(limits: &Limits, sizes: &[usize], waiting: &[Waiting], size: usize, now: u64) -> Taken {
    let mut waiting = waiting.to_vec();
    waiting.sort_by_key(|one| (one.terms.urgency, one.id));
    let mut making = Making {
        limits,
        sizes,
        waiting,
        taken: Vec::new(),
        misfit: false,
    };
    if limits.length_window > 0 {
        making.similar(size, now);
    }
    making.in_order(size);
    if making.misfit && limits.look_ahead > 0 {
        making.later(size);
    }
    Taken {
        misfit: making.misfit && making.taken.len() < size,
        ids: making.taken.iter().map(|one| one.id).collect(),
    }
}

/// The same where those that arrived from `aged` on and before `late` let others pass, as long as they are no more than
/// `most`. Who leaves, and how many of them are late.
pub fn in_time(
    waiting: &[Waiting],
    size: usize,
    (aged, late): (u64, u64),
    most: usize,
) -> (Vec<usize>, usize) {
    let mut waiting = waiting.to_vec();
    waiting.sort_by_key(|one| (one.terms.urgency, one.id));
    let lets_pass =
        |one: &Waiting| (aged..late).contains(&one.terms.arrival) && one.terms.deadline == u64::MAX;
    let one_level = waiting.iter().all(|one| one.level() == waiting[0].level());
    let others: Vec<_> = (0..waiting.len())
        .filter(|&at| !lets_pass(&waiting[at]))
        .collect();
    // Those before the last that the batch has room for.
    let end = others.get(size - 1).copied().unwrap_or(waiting.len());
    let passing = waiting[..end].iter().filter(|one| lets_pass(one)).count();
    if one_level && waiting.len() > size && passing <= most {
        // Stable: each of both in order.
        waiting.sort_by_key(lets_pass);
    }
    waiting.truncate(size);
    let late = waiting.iter().filter(|one| one.terms.arrival < late);
    (waiting.iter().map(|one| one.id).collect(), late.count())
}
