//! The decision when a batch leaves, against the rules of late sealing written down a second time.

use carpool_core::scheduler::policy::{Decision, Gather, Reason, View, decide};
use carpool_core::{Limits, Overflow};
use proptest::prelude::*;

/// Small numbers meet each other; the end of the range finds what overflows. The last moment of all
/// stands for "never": no clock shows it.
fn moment() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..40_u64, 1 => (u64::MAX - 40)..=u64::MAX]
}

prop_compose! {
    fn case()(
        max_batch_size in 1..6_usize,
        max_batch_cost in prop_oneof![Just(u64::MAX), 1..12_u64],
        wait in prop_oneof![2 => Just(0), 4 => 1..20_u64, 1 => moment()],
        size in prop_oneof![Just(0), 1..8_usize, Just(usize::MAX)],
        count in 0..8_usize,
        cost in 0..14_u64,
        oldest in moment(),
        age in prop_oneof![0..40_u64, Just(u64::MAX)],
        flushed in any::<bool>(),
        draining in any::<bool>(),
        gather in prop_oneof![Just(None), (0..8_usize, moment()).prop_map(Some)],
        free_slots in 0..3_usize,
        padded in any::<bool>(),
    ) -> (Limits, usize, View, u64, usize) {
        let limits = Limits {
            max_batch_size,
            max_batch_cost,
            wait,
            max_queue: 100,
            overflow: Overflow::Raise,
            slots: 2,
            padded,
            ..Limits::default()
        };
        let view = View {
            count,
            cost: if count == 0 { 0 } else { cost },
            oldest: (count > 0).then_some(oldest),
            flushed,
            draining,
            gather: gather.map(|(company, until)| Gather { company, until }),
        };
        (limits, size, view, oldest.saturating_add(age).min(u64::MAX - 1), free_slots)
    }
}

/// Every reason for which a batch may leave now, in the order in which they are named.
fn reasons(limits: &Limits, size: usize, view: &View, now: u64, free_slots: usize) -> Vec<Reason> {
    let Some(oldest) = view.oldest else {
        return Vec::new();
    };
    if free_slots == 0 {
        return Vec::new();
    }
    let room = match size {
        0 => 1,
        size => size.min(limits.max_batch_size),
    };
    let waited = u128::from(now) >= u128::from(oldest) + u128::from(limits.wait);
    // Who gathers holds what would leave at once, unless somebody wants it to leave.
    let gathers = view.gather.filter(|_| !view.draining && !view.flushed);
    let gathered = gathers.map(|it| view.count >= it.company || now >= it.until);
    let rules = [
        (view.count >= room, Reason::Full),
        (view.cost >= limits.max_batch_cost, Reason::Cost),
        (limits.wait == 0 && gathers.is_none(), Reason::Idle),
        (limits.wait == 0 && gathered == Some(true), Reason::Gather),
        (limits.wait > 0 && waited, Reason::Wait),
        (view.draining, Reason::Close),
        (view.flushed, Reason::Flush),
    ];
    let holding = rules.into_iter().filter(|&(holds, _)| holds);
    holding.map(|(_, reason)| reason).collect()
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_batch_leaves_exactly_when_a_rule_says_so((limits, size, view, now, free) in case()) {
        let expected = reasons(&limits, size, &view, now, free);
        match decide(&limits, size, &view, now, free) {
            Decision::Leave(reason) => assert_eq!(Some(&reason), expected.first()),
            Decision::Wait { .. } => assert!(expected.is_empty(), "should leave: {expected:?}"),
        }
    }

    /// What a waiting slot is told is exactly what changes the decision, no more and no less.
    #[test]
    fn what_it_waits_for_is_what_changes_it((limits, size, view, now, free) in case()) {
        let Decision::Wait { until, count, cost } = decide(&limits, size, &view, now, free) else {
            return Ok(());
        };
        if free == 0 {
            assert_eq!((until, count, cost), (None, usize::MAX, u64::MAX));
            return Ok(());
        }
        let leaves = |view: View, now| matches!(decide(&limits, size, &view, now, free), Decision::Leave(_));
        if limits.padded && view.count > 0 {
            // Any one may: whoever comes looks.
            assert_eq!(count, 1);
            return Ok(());
        }
        assert!(count > view.count && count <= limits.max_batch_size);
        if let Some(until) = until {
            assert!(until > now || until == u64::MAX);
            assert!(leaves(view, until));
            assert!(!leaves(view, until - 1));
            assert!(leaves(View { count, ..view }, now));
            assert!(count == view.count + 1 || !leaves(View { count: count - 1, ..view }, now));
            assert!(cost > view.cost && (cost == u64::MAX || leaves(View { cost, ..view }, now)));
            assert!(!leaves(View { cost: cost - 1, ..view }, now));
        } else {
            assert_eq!((view.oldest, count), (None, 1));
        }
    }

    /// A longer wait, fewer requests, a larger limit: never an earlier batch.
    #[test]
    fn patience_is_monotone((limits, size, view, now, free) in case(), more in 0..20_u64) {
        let leaves = |limits: &Limits, view: &View, now| {
            matches!(decide(limits, size, view, now, free), Decision::Leave(_))
        };
        let patient = Limits { wait: limits.wait.saturating_add(more), ..limits };
        if view.gather.is_none() && leaves(&patient, &view, now) {
            assert!(leaves(&limits, &view, now));
        }
        if leaves(&limits, &view, now) {
            assert!(leaves(&limits, &view, now.saturating_add(more).min(u64::MAX - 1)));
            assert!(leaves(&limits, &View { count: view.count + 1, ..view }, now));
        }
    }
}
