//! The learned run times against handlers whose times are known: any line, any mix of sizes, noise and odd runs, and a
//! change of speed by up to ten in either direction.

use carpool_core::scheduler::curve::Curve;
use proptest::prelude::*;

/// A handler: nanoseconds for a batch, and for each request.
#[derive(Debug, Clone, Copy)]
struct Handler {
    fixed: f64,
    each: f64,
}

impl Handler {
    fn run(&self, size: usize, level: f64) -> f64 {
        (self.fixed + self.each * size as f64) * level
    }
}

prop_compose! {
    fn handlers()(fixed in 0.0..20e6_f64, each in 1e3..2e6_f64) -> Handler {
        Handler { fixed, each }
    }
}

/// Sizes, with the noise of each run: mostly a tenth, rarely anything.
fn runs(count: usize) -> impl Strategy<Value = Vec<(usize, f64)>> {
    let noise = prop_oneof![40 => 0.9..1.1_f64, 1 => 0.2..30.0_f64];
    prop::collection::vec((1..65_usize, noise), count)
}

fn teach(curve: &mut Curve, handler: Handler, runs: &[(usize, f64)], level: f64) {
    for &(size, noise) in runs {
        curve.learn(size, size as u64, (handler.run(size, level) * noise) as u64);
    }
}

/// How far off, as a part of what such a batch takes and a quarter of what one of 16 does: what is small beside the others
/// is known less well than they are.
fn off(curve: &Curve, handler: Handler, size: usize, level: f64) -> f64 {
    let expected = curve.expected(size, size as u64).expect("it has learned");
    let run = handler.run(size, level);
    (expected - run).abs() / (run + handler.run(16, level) / 4.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_line_is_learned_through_noise_and_odd_runs(handler in handlers(), runs in runs(120)) {
        let mut curve = Curve::new(&[], 64);
        teach(&mut curve, handler, &runs, 1.0);
        for size in [1, 2, 5, 13, 40, 64] {
            let off = off(&curve, handler, size, 1.0);
            prop_assert!(off < 1.0, "{} is off by {}", size, off);
            prop_assert!(curve.at_most(size, size as u64) >= curve.expected(size, size as u64));
        }
    }

    #[test]
    fn a_change_of_speed_is_followed(
        handler in handlers(),
        before in prop::collection::vec((1..65_usize, 0.9..1.1_f64), 80),
        after in prop::collection::vec((1..65_usize, 0.9..1.1_f64), 20),
        level in prop_oneof![0.1..0.5_f64, 2.0..10.0_f64],
    ) {
        let mut curve = Curve::new(&[], 64);
        teach(&mut curve, handler, &before, 1.0);
        teach(&mut curve, handler, &after, level);
        for size in [1, 13, 64] {
            let off = off(&curve, handler, size, level);
            prop_assert!(off < 1.0, "{} at {} is off by {}", size, level, off);
        }
    }
}
