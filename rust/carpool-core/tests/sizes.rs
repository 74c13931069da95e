//! Allowed sizes, all the way: what runs at which size after what was learned, and that every request is answered
//! in order whatever the sizes cost. The clock stands still until it is told to move.

mod support;

use carpool_core::scheduler::sizes::Sizes as Allowed;
use carpool_core::{Batch, Batcher, Learning, Limits, Pulled, Sizes};
use proptest::prelude::*;
use support::{Log, Plain, Time};

const SIZES: [usize; 4] = [1, 2, 4, 8];

fn batcher(sizes: &[usize], limits: Limits) -> (Batcher<Plain>, Time) {
    let learning = Learning {
        sizes: Sizes::new(sizes),
        ..Learning::default()
    };
    let time = Time::default();
    let made = Batcher::learning(limits, learning, time.clone());
    (made.expect("limits"), time)
}

fn pull(batcher: &Batcher<Plain>) -> Option<Batch<Plain>> {
    match batcher.try_pull(usize::MAX) {
        Pulled::Batch(batch) => Some(batch),
        Pulled::Wait(_) => None,
        Pulled::Closed => panic!("it is open"),
    }
}

/// Runs a batch for as long as its size takes; how many requests it held.
fn run(mut batch: Batch<Plain>, time: &Time, takes: impl Fn(usize) -> u64) -> usize {
    time.advance(takes(batch.padded_len()));
    let answers = (0..batch.len()).map(|at| Ok(*batch.payload(at).unwrap()));
    let answers = answers.collect();
    let held = batch.len();
    assert!(batch.answer_all(answers).ok().unwrap().send());
    held
}

/// Batches of `n` requests, sizes as they come, after each size ran twice.
fn split(n: u64, takes: impl Fn(usize) -> u64 + Copy) -> Vec<(usize, usize)> {
    let (batcher, time) = batcher(&SIZES, Limits::default());
    let log = Log::default();
    for size in SIZES.into_iter().chain(SIZES) {
        let items = (0..size as u64).map(carpool_core::Item::of).collect();
        let terms = carpool_core::Terms::at(batcher.now());
        let many = batcher
            .submit_together(items, log.waiter(0), terms)
            .unwrap();
        let batch = pull(&batcher).unwrap();
        assert_eq!((batch.len(), batch.padded_len()), (size, size));
        run(batch, &time, takes);
        assert!(many.is_over());
        // Long enough for nobody to be expected.
        time.advance(60_000_000_000);
    }
    let tickets: Vec<_> = (0..n)
        .map(|id| batcher.submit(id, log.waiter(id)).ok().unwrap())
        .collect();
    let mut seen = Vec::new();
    while let Some(batch) = pull(&batcher) {
        let padded = batch.padded_len();
        seen.push((run(batch, &time, takes), padded));
    }
    let answers: Vec<_> = tickets.iter().map(|ticket| ticket.take()).collect();
    assert_eq!(answers, (0..n).map(|id| Some(Ok(id))).collect::<Vec<_>>());
    seen
}

#[test]
fn a_batch_is_filled_up_where_rows_are_cheap_and_held_back_where_they_are_not() {
    // A batch costs a millisecond, whatever is in it.
    assert_eq!(split(5, |_| 1_000_000), [(5, 8)]);
    // Each row costs one.
    let by_row = |size| 1_000_000 * size as u64 + 1000;
    assert_eq!(split(5, by_row), [(4, 4), (1, 1)]);
    assert_eq!(split(7, by_row), [(4, 4), (2, 2), (1, 1)]);
    // In between.
    let both = |size| 2_000_000 + 1_000_000 * size as u64;
    assert_eq!(split(5, both), [(4, 4), (1, 1)]);
    assert_eq!(split(6, both), [(6, 8)]);
    assert_eq!(split(11, both), [(8, 8), (3, 4)]);
    // The largest is worse than two of half its size.
    let thrashes = |size| {
        if size == 8 {
            90_000_000
        } else {
            1_000_000 * size as u64
        }
    };
    assert_eq!(split(8, thrashes), [(4, 4), (4, 4)]);
}

#[test]
fn before_anything_is_known_all_leave_together() {
    let (batcher, time) = batcher(&SIZES, Limits::default());
    let log = Log::default();
    let tickets: Vec<_> = (0..3)
        .map(|id| batcher.submit(id, log.waiter(id)))
        .collect();
    let batch = pull(&batcher).unwrap();
    assert_eq!((batch.len(), batch.padded_len()), (3, 4));
    run(batch, &time, |_| 1000);
    drop(tickets);
}

/// The least time in which `n` requests can run, found by trying everything.
fn least(n: usize, sizes: &[usize], runs: &[f64]) -> f64 {
    if n == 0 {
        return 0.0;
    }
    let all = sizes.iter().zip(runs);
    all.map(|(&size, run)| run + least(n.saturating_sub(size), sizes, runs))
        .fold(f64::INFINITY, f64::min)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the sizes take: never more than there are or than fit, never none, all or an allowed size; and
    /// where the larger sizes are no worse per row, the time it takes is close to the least there is.
    #[test]
    fn a_choice_is_allowed_and_close_to_the_best(
        mut sizes in prop::collection::btree_set(1..12_usize, 1..5),
        fixed in 0.0..20.0_f64,
        each in 0.01..5.0_f64,
        n in 1..14_usize,
    ) {
        // All can run without padding, as `[1, 2, 4, 8]` and most others can.
        sizes.insert(1);
        let sizes: Vec<_> = sizes.into_iter().collect();
        let allowed = Allowed::new(&sizes).unwrap();
        let runs: Vec<_> = sizes.iter().map(|&size| fixed + each * size as f64).collect();
        let (mut left, mut took) = (n, 0.0);
        while left > 0 {
            let taken = allowed.choose(left, &runs, 0.0);
            let all = left.min(allowed.largest());
            prop_assert!(taken > 0 && taken <= all);
            prop_assert!(taken == all || sizes.contains(&taken), "{} of {}", taken, left);
            let padded = allowed.fit(taken);
            took += runs[sizes.iter().position(|&size| size == padded).unwrap()];
            left -= taken;
        }
        prop_assert!(took <= 1.5 * least(n, &sizes, &runs), "{} took {}", n, took);
    }

    /// Any times at all, learned or not.
    #[test]
    fn no_times_are_too_odd(
        runs in prop::collection::vec(prop_oneof![Just(0.0), 1e-3..1e18_f64], 4),
        n in 1..40_usize,
        coming in prop_oneof![Just(0.0), 1e-12..1.0_f64],
    ) {
        let allowed = Allowed::new(&SIZES).unwrap();
        let taken = allowed.choose(n, &runs, coming);
        prop_assert!(taken > 0 && taken <= n.min(8));
        prop_assert!(taken == n.min(8) || SIZES.contains(&taken));
    }
}

/// Rows that fill a size up are as long as the longest, so they cost as much.
#[test]
fn no_padded_batch_exceeds_its_budget_with_the_rows_that_fill_it_up() {
    let mut seed = 1_u64;
    let mut below = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % n
    };
    for life in 0..200 {
        let sizes = [&[1, 2, 4, 8][..], &[2, 8], &[3, 4, 6], &[8]][life % 4];
        let limits = Limits {
            max_batch_size: 8,
            max_batch_cost: 24 + below(40),
            padded: true,
            look_ahead: below(3) as usize,
            length_window: below(2) as usize,
            ..Limits::default()
        };
        let (batcher, time) = batcher(sizes, limits);
        assert_eq!(
            batcher.most_of_one(),
            limits.max_batch_cost / sizes[0] as u64
        );
        let log = Log::default();
        let (mut sent, mut ran) = (0, 0);
        for id in 0..60 {
            let cost = below(14);
            let terms = carpool_core::Terms {
                cost,
                length: cost,
                ..carpool_core::Terms::at(batcher.now())
            };
            let submitted = batcher.submit_with(
                id,
                log.waiter(id),
                terms,
                carpool_core::submit::Announce::Yes,
            );
            assert_eq!(submitted.is_ok(), cost <= batcher.most_of_one());
            sent += usize::from(submitted.is_ok());
            if id % 7 != 6 && id != 59 {
                continue;
            }
            while let Some(batch) = pull(&batcher) {
                let dearest = batch.requests().map(|one| one.terms.cost).max().unwrap();
                let cost = batch.padded_len() as u64 * dearest;
                assert!(cost <= limits.max_batch_cost, "{sizes:?}: {cost}");
                ran += run(batch, &time, |n| n as u64);
            }
        }
        assert_eq!(ran, sent);
    }
}
