//! Whether a request can still be answered before its deadline, by what batches have taken.
//!
//! The answer leans towards yes: of what stands before it full batches count and nothing else, run times are those to
//! be expected, nobody is held for company, and one that is more urgent than usual has nobody before it. So
//! whoever is refused would have been late but for luck. And where nothing is pending or in flight a request is
//! always let in: how else could it be known that the handler has become faster?

use crate::clock::Nanos;

/// What stands before a request that arrives now.
#[derive(Debug, Clone, Copy)]
pub struct Ahead<'a> {
    /// The present moment.
    pub now: Nanos,
    /// When the batches in flight are expected to end; in the past, if they are overdue.
    pub ends: &'a [Nanos],
    /// How many slots are free besides.
    pub free_slots: usize,
    /// How many requests go first.
    pub pending: usize,
    /// How many a batch takes at most.
    pub most: usize,
}

/// When a request is answered at the earliest, if `run` is what a batch of so many takes; no further
/// than just beyond `deadline`. `None` where nothing is in the way.
pub fn earliest(ahead: &Ahead<'_>, deadline: Nanos, run: impl Fn(usize) -> f64) -> Option<Nanos> {
    if ahead.pending == 0 && ahead.ends.is_empty() {
        return None;
    }
    let most = ahead.most.max(1);
    let (full, rest) = (ahead.pending / most, ahead.pending % most);
    let of_all = run(most) as Nanos;
    // When each slot is free; of free ones no more than there are batches.
    let mut slots: Vec<Nanos> = ahead.ends.iter().map(|&end| end.max(ahead.now)).collect();
    slots.extend(std::iter::repeat_n(
        ahead.now,
        ahead.free_slots.min(full + 1),
    ));
    let mut left = full;
    loop {
        let first = slots.iter_mut().min()?;
        if left == 0 || *first > deadline {
            return Some(first.saturating_add(run(rest + 1) as Nanos));
        }
        *first = first.saturating_add(of_all.max(1));
        left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        // Ten for a batch and one for a request.
        let run = |n: usize| (10 + n) as f64;
        let ahead = |ends: &'static [Nanos], free_slots, pending| Ahead {
            now: 100,
            ends,
            free_slots,
            pending,
            most: 4,
        };
        let rows = [
            ("nobody there", ahead(&[], 1, 0), None),
            ("the slot is free", ahead(&[], 1, 2), Some(100 + 13)),
            ("a batch runs", ahead(&[107], 0, 0), Some(107 + 11)),
            ("one that is overdue", ahead(&[50], 0, 0), Some(100 + 11)),
            (
                "a full batch before it",
                ahead(&[107], 0, 4),
                Some(107 + 14 + 11),
            ),
            (
                "two, and three to share with",
                ahead(&[107], 0, 11),
                Some(107 + 28 + 14),
            ),
            (
                "two slots, one batch each",
                ahead(&[107, 110], 0, 8),
                Some(121 + 11),
            ),
            ("another slot is free", ahead(&[107], 1, 5), Some(107 + 12)),
            (
                "as many as one likes",
                ahead(&[107], usize::MAX, 9),
                Some(100 + 12),
            ),
        ];
        for (what, ahead, expected) in rows {
            assert_eq!(earliest(&ahead, 1000, run), expected, "{what}");
        }
        let far = Ahead {
            pending: usize::MAX,
            ..ahead(&[107], 0, 0)
        };
        let beyond = earliest(&far, 1000, run).unwrap();
        assert!(
            (1000..1100).contains(&beyond),
            "it looks no further: {beyond}"
        );
    }
}
