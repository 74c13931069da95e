//! What arrives when, and how fast the handler is by then.

/// SplitMix64: small, and the same everywhere. (Steele, Lea, Flood, OOPSLA 2014.)
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed);
        dice.next();
        dice
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Above 0, below 1.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }
    /// Of mean 0 and deviation 1. (Box and Muller, 1958.)
    pub fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// How the speed of the handler changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Drift {
    None,
    /// Slower by this factor, evenly over the whole trace.
    Slowly(f64),
    /// By this factor from the middle on.
    AtOnce(f64),
}

#[derive(Debug, Clone)]
pub struct Trace {
    pub name: String,
    pub arrivals: Vec<u64>,
    pub target: u64,
    pub most: usize,
    pub fixed: f64,
    pub each: f64,
    pub drift: Drift,
}

const MS: f64 = 1e6;

impl Trace {
    pub fn level(&self, now: u64) -> f64 {
        let end = self.arrivals.last().copied().unwrap_or(1) as f64;
        let at = (now as f64 / end).min(1.0);
        match self.drift {
            Drift::None => 1.0,
            Drift::Slowly(by) => by.powf(at),
            Drift::AtOnce(by) if at >= 0.5 => by,
            Drift::AtOnce(_) => 1.0,
        }
    }
}

/// A handler and a target.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    fixed: f64,
    each: f64,
    most: usize,
    target: f64,
}

impl Kind {
    /// Requests per nanosecond, in batches of the most.
    fn capacity(&self) -> f64 {
        self.most as f64 / (self.fixed + self.each * self.most as f64)
    }
}

/// A batch costs as much as 25 requests; the largest takes 18 ms.
const LIGHT: Kind = Kind {
    name: "light rows",
    fixed: 5.0 * MS,
    each: 0.2 * MS,
    most: 64,
    target: 50.0 * MS,
};
/// A batch costs as much as two requests; the largest takes 34 ms.
const HEAVY: Kind = Kind {
    name: "heavy rows",
    fixed: 2.0 * MS,
    each: 1.0 * MS,
    most: 32,
    target: 100.0 * MS,
};

fn poisson(dice: &mut Dice, rate: f64, count: usize) -> Vec<u64> {
    let mut now = 0.0;
    let mut next = || {
        now += dice.exponential() / rate;
        now as u64
    };
    (0..count).map(|_| next()).collect()
}

fn trace(kind: Kind, name: &str, arrivals: Vec<u64>, target: f64, drift: Drift) -> Trace {
    Trace {
        name: format!("{}, {name}", kind.name),
        arrivals,
        target: target as u64,
        most: kind.most,
        fixed: kind.fixed,
        each: kind.each,
        drift,
    }
}

/// All traces of one seed, each of about `count` requests.
pub fn all(seed: u64, count: usize) -> Vec<Trace> {
    let mut all = Vec::new();
    for (number, kind) in [LIGHT, HEAVY].into_iter().enumerate() {
        let mut dice = Dice::new(seed.wrapping_mul(1000) + number as u64);
        for load in [0.30, 0.50, 0.70, 0.80, 0.90, 0.95] {
            let arrivals = poisson(&mut dice, load * kind.capacity(), count);
            let name = format!("Poisson at {:.0} %", load * 100.0);
            all.push(trace(kind, &name, arrivals, kind.target, Drift::None));
        }
        // A burst of as many as a batch holds within 2 ms, on top of a light load; half of all is in bursts.
        let rate = 0.2 * kind.capacity();
        let mut arrivals = poisson(&mut dice, rate, count / 2);
        let bursts = count / 2 / kind.most;
        let end = arrivals.last().copied().unwrap_or(0) as f64;
        for _ in 0..bursts {
            let start = dice.unit() * end;
            arrivals.extend((0..kind.most).map(|_| (start + dice.unit() * 2.0 * MS) as u64));
        }
        arrivals.sort_unstable();
        all.push(trace(kind, "bursts", arrivals, kind.target, Drift::None));
        // From 8 to 80 % of capacity, because the handler becomes ten times slower.
        let arrivals = poisson(&mut dice, 0.08 * kind.capacity(), count);
        let slow = Drift::Slowly(10.0);
        all.push(trace(
            kind,
            "drift by 10",
            arrivals,
            8.0 * kind.target,
            slow,
        ));
        let arrivals = poisson(&mut dice, 0.08 * kind.capacity(), count);
        let jump = Drift::AtOnce(10.0);
        all.push(trace(kind, "jump by 10", arrivals, 8.0 * kind.target, jump));
    }
    all
}

/// As often as a coin says, so many times as many come, for `length` nanoseconds on average.
fn switching(dice: &mut Dice, rate: f64, peak: f64, length: f64, count: usize) -> Vec<u64> {
    let (mut now, mut end, mut high) = (0.0, 0.0, true);
    let mut next = || {
        while now >= end {
            high = !high;
            end += dice.exponential() * length;
        }
        now += dice.exponential() / if high { peak * rate } else { rate };
        now as u64
    };
    (0..count).map(|_| next()).collect()
}

/// Small and fast; a batch costs as much as 20 requests, the largest takes 7.4 ms.
const SMALL: Kind = Kind {
    name: "small and fast",
    fixed: 1.0 * MS,
    each: 0.05 * MS,
    most: 128,
    target: 20.0 * MS,
};
/// A batch costs as much as ten requests; the largest takes 52 ms, the target is six of those.
const SLOW: Kind = Kind {
    name: "slow, patient",
    fixed: 20.0 * MS,
    each: 2.0 * MS,
    most: 16,
    target: 300.0 * MS,
};
/// The target is 1.5 of the largest batches.
const TIGHT: Kind = Kind {
    name: "tight",
    fixed: 4.0 * MS,
    each: 0.25 * MS,
    most: 64,
    target: 30.0 * MS,
};

/// Others than [`all`], by which no constant was chosen: other handlers and targets, arrivals that change between two
/// rates, a second of overload now and then, a handler that becomes ten times faster.
pub fn others(seed: u64, count: usize) -> Vec<Trace> {
    let mut all = Vec::new();
    for (number, kind) in [SMALL, SLOW, TIGHT].into_iter().enumerate() {
        let mut dice = Dice::new(seed.wrapping_mul(1000) + 500 + number as u64);
        for load in [0.40, 0.60, 0.85, 0.92] {
            let arrivals = poisson(&mut dice, load * kind.capacity(), count);
            let name = format!("Poisson at {:.0} %", load * 100.0);
            all.push(trace(kind, &name, arrivals, kind.target, Drift::None));
        }
        let rate = 0.2 * kind.capacity();
        let arrivals = switching(&mut dice, rate, 4.0, 10.0 * kind.target, count);
        all.push(trace(
            kind,
            "20 or 80 %",
            arrivals,
            kind.target,
            Drift::None,
        ));
        let rate = 0.5 * kind.capacity();
        let arrivals = switching(&mut dice, rate, 2.4, 5.0 * kind.target, count);
        all.push(trace(
            kind,
            "50 or 120 %",
            arrivals,
            kind.target,
            Drift::None,
        ));
        let arrivals = poisson(&mut dice, 0.8 * kind.capacity(), count);
        let fast = Drift::AtOnce(0.1);
        all.push(trace(kind, "faster by 10", arrivals, kind.target, fast));
        let arrivals = poisson(&mut dice, 1.1 * kind.capacity(), count / 4);
        all.push(trace(
            kind,
            "Poisson at 110 %",
            arrivals,
            kind.target,
            Drift::None,
        ));
    }
    all
}
