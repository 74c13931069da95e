//! Latency targets, compared: carpool's `target_ms` with fixed settings, AIMD and a fit of `a·n + b`, on Poisson
//! arrivals at 30 to 95 % of capacity, bursts, and a handler that becomes ten times slower; 20 seeds each, in
//! virtual time. `make bench-target` prints the tables; `CARPOOL_SEEDS` and `CARPOOL_REQUESTS` change how many,
//! `CARPOOL_FIRST_SEED` which.
#![allow(missing_docs)]

#[path = "../tests/contest/mod.rs"]
mod contest;

use contest::schemes::{Aimd, Fit, Fixed, play};
use contest::traces::{Trace, all, others};
use contest::{Outcome, shipped};

const MS: u64 = 1_000_000;

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().expect("a number"))
}

type Scheme = (&'static str, fn(&Trace, u64) -> Outcome);

const SCHEMES: [Scheme; 8] = [
    ("target_ms", shipped::with_target),
    ("fixed, no wait", |trace, seed| {
        play(
            trace,
            seed,
            &mut Fixed {
                most: trace.most,
                wait: 0,
            },
        )
    }),
    ("fixed, 8, no wait", |trace, seed| {
        play(trace, seed, &mut Fixed { most: 8, wait: 0 })
    }),
    ("fixed, 2 ms", |trace, seed| {
        play(
            trace,
            seed,
            &mut Fixed {
                most: trace.most,
                wait: 2 * MS,
            },
        )
    }),
    ("fixed, 10 ms", |trace, seed| {
        play(
            trace,
            seed,
            &mut Fixed {
                most: trace.most,
                wait: 10 * MS,
            },
        )
    }),
    ("fixed, half the target", |trace, seed| {
        play(
            trace,
            seed,
            &mut Fixed {
                most: trace.most,
                wait: trace.target / 2,
            },
        )
    }),
    ("AIMD", |trace, seed| {
        play(trace, seed, &mut Aimd::new(trace))
    }),
    ("a·n + b", |trace, seed| {
        play(trace, seed, &mut Fit::new(trace))
    }),
];

fn mean(outcomes: &[Outcome], of: fn(&Outcome) -> f64) -> f64 {
    outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64
}

fn main() {
    let (seeds, requests) = (
        number("CARPOOL_SEEDS", 20),
        number("CARPOOL_REQUESTS", 60_000),
    );
    let first = number("CARPOOL_FIRST_SEED", 0);
    for (what, traces) in [
        ("by which its constants were chosen", all as Traces),
        ("by which nothing was chosen", others),
    ] {
        println!("\nRequests {what}:");
        compare(
            first..first + seeds,
            |seed| traces(seed, requests as usize),
            what,
        );
    }
}

type Traces = fn(u64, usize) -> Vec<Trace>;

fn compare(seeds: std::ops::Range<u64>, traces: impl Fn(u64) -> Vec<Trace>, what: &str) {
    let traces: Vec<Vec<Trace>> = seeds.clone().map(traces).collect();
    let (mut as_good, mut better, mut pairs) = (0, 0, 0);
    for (at, first) in traces[0].iter().enumerate() {
        let target = first.target as f64 / 1e6;
        println!("\n{}, target {target:.0} ms", first.name);
        println!(
            "  {:24} {:>9} {:>9} {:>8} {:>8} {:>11} {:>6}",
            "", "p99 ms", "mean ms", "in time", "dropped", "per busy s", "size"
        );
        let mut own = Vec::new();
        for (name, scheme) in SCHEMES {
            let outcomes: Vec<_> = seeds
                .clone()
                .zip(&traces)
                .map(|(seed, traces)| scheme(&traces[at], seed))
                .collect();
            let (p99, throughput) = (
                mean(&outcomes, |o| o.p99),
                mean(&outcomes, |o| o.throughput),
            );
            let mut verdict = "";
            if own.is_empty() {
                own.clone_from(&outcomes);
            } else {
                pairs += 1;
                // Below the target nobody gains.
                let good = mean(&own, |o| o.p99) <= 1.02 * p99.max(target);
                let more = mean(&own, |o| o.throughput) > throughput;
                as_good += usize::from(good);
                better += usize::from(more);
                verdict = match (good, more) {
                    (true, true) => "",
                    (true, false) => "less throughput than this",
                    (false, _) => "WORSE P99 THAN THIS",
                };
            }
            println!(
                "  {name:24} {p99:9.1} {:9.1} {:7.2}% {:7.2}% {throughput:11.0} {:6.1}  {verdict}",
                mean(&outcomes, |o| o.mean),
                100.0 * mean(&outcomes, |o| o.in_time),
                100.0 * mean(&outcomes, |o| o.dropped),
                mean(&outcomes, |o| o.size),
            );
        }
    }
    println!(
        "\n{pairs} comparisons on requests {what}: p99 as good in {as_good} (below the target nobody gains), throughput better in {better}"
    );
}
