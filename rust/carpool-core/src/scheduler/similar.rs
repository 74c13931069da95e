//! Which requests of similar length share a batch: a pure choice among those that stand first.
//!
//! The oldest request is always taken, and with it all that have waited for as long as they may be passed over.
//! Around them the nearest in length are gathered, one by one, each time the one that adds the least padding: a
//! shorter one is padded to the longest so far, a longer one has all so far padded to itself. So nobody waits
//! for company of its length, and nobody is overtaken for its length once that long has passed.

use super::budget::{Budget, Load};

/// A request that may be passed over, as far as the choice goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What is padded to the longest of a batch.
    pub length: u64,
    /// What it counts against the budget.
    pub cost: u64,
}

/// Of the `candidates`, which stand in their order, up to `room` that go with what is taken already: so much of a
/// `load`, the longest of them `longest`. Their places, sorted; and whether one was left out for its cost
/// while there was room.
///
/// Of those that add as little padding a shorter one goes first, of equally long ones the first.
pub fn nearest(
    candidates: &[Candidate],
    mut longest: u64,
    mut load: Load,
    room: usize,
    budget: &Budget<'_>,
) -> (Vec<usize>, bool) {
    let length = |&at: &usize| candidates[at].length;
    let (mut shorter, mut longer): (Vec<usize>, Vec<usize>) =
        (0..candidates.len()).partition(|at| length(at) <= longest);
    // Each with the next one at its end.
    shorter.sort_by_key(|at| (length(at), std::cmp::Reverse(*at)));
    longer.sort_by_key(|at| (std::cmp::Reverse(length(at)), std::cmp::Reverse(*at)));
    let (mut chosen, mut misfit) = (Vec::with_capacity(room), false);
    while chosen.len() < room {
        let below = shorter.last().map(|at| u128::from(longest - length(at)));
        let above = longer.last().map(|at| {
            let more = u128::from(length(at).saturating_sub(longest));
            more * load.count as u128
        });
        let from = match (below, above) {
            (None, None) => break,
            (Some(below), Some(above)) if above < below => &mut longer,
            (None, Some(_)) => &mut longer,
            (Some(_), _) => &mut shorter,
        };
        let Some(at) = from.pop() else { break };
        let Candidate { length, cost } = candidates[at];
        if !budget.fits(&load, cost) {
            misfit = true;
            continue;
        }
        load = load.with(cost);
        longest = longest.max(length);
        chosen.push(at);
    }
    chosen.sort_unstable();
    (chosen, misfit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn who_goes_with_whom() {
        // Lengths; the longest and the number so far; room; who is chosen.
        type Row = (
            &'static str,
            &'static [u64],
            (u64, usize),
            usize,
            &'static [usize],
        );
        let rows: [Row; 10] = [
            ("nobody is there", &[], (5, 1), 3, &[]),
            ("no room", &[5, 5], (5, 1), 0, &[]),
            (
                "all, where there is room",
                &[9, 1, 5],
                (5, 1),
                3,
                &[0, 1, 2],
            ),
            ("the nearest", &[1, 4, 90, 6, 50], (5, 1), 2, &[1, 3]),
            ("equals first", &[4, 5, 6, 5], (5, 1), 2, &[1, 3]),
            ("of equals the first", &[5, 5, 5], (5, 1), 1, &[0]),
            ("of longer equals the first", &[7, 6, 6], (5, 1), 1, &[1]),
            ("a shorter one, if as near", &[6, 4], (5, 1), 1, &[1]),
            (
                "a longer one costs as often as there are others",
                &[6, 2],
                (5, 4),
                1,
                &[1],
            ),
            (
                "once one is longer, so may others be",
                &[8, 1, 8, 8],
                (5, 1),
                3,
                &[0, 2, 3],
            ),
        ];
        let budget = Budget::of(&Limits::default(), None);
        for (what, lengths, (longest, count), room, expected) in rows {
            let candidates: Vec<_> = lengths
                .iter()
                .map(|&length| Candidate { length, cost: 1 })
                .collect();
            let load = Load {
                count,
                sum: count as u64,
                largest: 1,
            };
            let (chosen, misfit) = nearest(&candidates, longest, load, room, &budget);
            assert_eq!((chosen.as_slice(), misfit), (expected, false), "{what}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_for_what_does() {
        let limits = Limits {
            max_batch_cost: 10,
            ..Limits::default()
        };
        let of = |costs: &[(u64, u64)]| -> Vec<Candidate> {
            let all = costs.iter();
            all.map(|&(length, cost)| Candidate { length, cost })
                .collect()
        };
        let load = Load::default().with(6);
        let budget = Budget::of(&limits, None);
        let all = of(&[(5, 5), (4, 2), (3, 3), (2, 2)]);
        assert_eq!(nearest(&all, 5, load, 4, &budget), (vec![1, 3], true));
        assert_eq!(nearest(&all, 5, load, 1, &budget), (vec![1], true));

        let padded = Budget::of(
            &Limits {
                padded: true,
                ..limits
            },
            None,
        );
        let load = Load::default().with(3);
        let all = of(&[(3, 3), (5, 5), (2, 2), (1, 1)]);
        assert_eq!(nearest(&all, 3, load, 4, &padded), (vec![0, 2], true));
    }
}
