//! How much one run of the handler has memory for, learned from where it ran out: in requests or, where a batch has a
//! budget, in cost.
//!
//! A batch that was too large is followed by batches of half its size. After a while of those in which nothing
//! went wrong the size is raised by an eighth, to see whether there is room for more, and so on: memory that was
//! short for another reason, or is larger requests' need, is not given up for good. A trial that fails goes back
//! to the size that was known to fit, and the next one waits twice as long; so at the edge of the memory hardly
//! any batch is lost to trying. (Multiplicative decrease as in congestion control, V. Jacobson 1988, with
//! exponential backoff of the probes.)

/// How many batches of the present size leave before a larger one is tried.
pub(super) const PATIENCE: u32 = 16;
/// The most of them, after trials that failed.
pub(super) const MOST_PATIENCE: u32 = 4096;

/// The most requests, or cost, in a batch, while that is less than what was asked for.
#[derive(Debug, Clone, Copy)]
struct Bound {
    most: u64,
    /// The largest size that has lasted.
    good: u64,
    /// Batches of `most` since it was set.
    seen: u32,
}

/// What was learned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cap {
    bound: Option<Bound>,
    patience: u32,
}

impl Default for Cap {
    fn default() -> Self {
        Self {
            bound: None,
            patience: PATIENCE,
        }
    }
}

impl Cap {
    /// The most in a batch, where `asked` is allowed.
    #[inline]
    pub(crate) fn of(&self, asked: u64) -> u64 {
        self.bound.map_or(asked, |bound| bound.most.min(asked))
    }

    /// The handler ran out of memory with so much.
    pub(crate) fn failed(&mut self, size: u64) {
        let bound = match self.bound {
            // A trial.
            Some(bound) if size > bound.good && bound.good > 0 && size <= bound.most => {
                self.patience = (2 * self.patience).min(MOST_PATIENCE);
                Bound {
                    most: bound.good,
                    good: bound.good,
                    seen: 0,
                }
            }
            // Of a batch that left before the last one failed.
            Some(bound) if size > bound.most => bound,
            _ => Bound {
                most: (size / 2).max(1),
                good: 0,
                seen: 0,
            },
        };
        self.bound = Some(bound);
    }

    /// Whether there is a limit.
    #[inline]
    pub(crate) fn holds(&self) -> bool {
        self.bound.is_some()
    }

    /// A batch of `size` leaves, where `most` leave at most now and `asked` are allowed; true when that changes what the next ones may be.
    #[inline]
    pub(crate) fn leaves(&mut self, size: u64, most: u64, asked: u64) -> bool {
        match self.bound {
            None => false,
            Some(_) => self.tries(size >= most, asked),
        }
    }

    fn tries(&mut self, full: bool, asked: u64) -> bool {
        let Some(bound) = &mut self.bound else {
            return false;
        };
        bound.seen += u32::from(full);
        if bound.seen < self.patience {
            return false;
        }
        bound.good = bound.most;
        bound.most = bound.most.saturating_add((bound.most / 8).max(1));
        bound.seen = 0;
        if bound.good >= asked {
            // What was asked for has lasted.
            *self = Self::default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKED: u64 = 64;

    /// A handler that has memory for `room` requests, and the batches that leave for it, halved where they fail
    /// and where they are larger than what is known to fail.
    struct Life {
        cap: Cap,
        failed: u64,
        runs: u64,
    }

    impl Life {
        fn new() -> Self {
            Self {
                cap: Cap::default(),
                failed: 0,
                runs: 0,
            }
        }

        fn run(&mut self, size: u64, room: u64) {
            if size <= self.cap.of(u64::MAX) {
                self.runs += 1;
                if size <= room {
                    return;
                }
                self.failed += 1;
                self.cap.failed(size);
            }
            if size > 1 {
                self.run(size.div_ceil(2), room);
                self.run(size / 2, room);
            }
        }

        fn batches(&mut self, count: u64, asked: u64, room: u64) {
            for _ in 0..count {
                let size = self.cap.of(asked);
                self.cap.leaves(size, size, asked);
                self.run(size, room);
            }
        }
    }

    #[test]
    fn table() {
        let mut cap = Cap::default();
        assert_eq!(cap.of(ASKED), 64);
        assert!(
            !cap.leaves(64, cap.of(ASKED), ASKED),
            "nothing learned, nothing counted"
        );
        cap.failed(64);
        assert_eq!(cap.of(ASKED), 32);
        cap.failed(64);
        assert_eq!(cap.of(ASKED), 32, "one that left before");
        cap.failed(32);
        assert_eq!((cap.of(ASKED), cap.of(9)), (16, 9));
        cap.failed(64);
        assert_eq!(cap.of(ASKED), 16, "one that left long before");
        for _ in 0..100 {
            assert!(
                !cap.leaves(15, cap.of(ASKED), ASKED),
                "smaller batches prove nothing"
            );
        }
        for _ in 1..PATIENCE {
            assert!(!cap.leaves(16, cap.of(ASKED), ASKED));
        }
        assert!(cap.leaves(16, cap.of(ASKED), ASKED));
        assert_eq!(cap.of(ASKED), 18, "a trial");
        cap.failed(18);
        assert_eq!(cap.of(ASKED), 16, "back to what has lasted");
        for _ in 1..2 * PATIENCE {
            assert!(!cap.leaves(16, cap.of(ASKED), ASKED), "the next one later");
        }
        assert!(cap.leaves(16, cap.of(ASKED), ASKED));
        cap.failed(16);
        assert_eq!(cap.of(ASKED), 8, "what had lasted lasts no longer");
        cap.failed(1);
        assert_eq!(cap.of(ASKED), 1);
        cap.failed(1);
        assert_eq!(cap.of(ASKED), 1, "nothing is smaller");
    }

    #[test]
    fn memory_that_is_there_again_is_used_again() {
        let mut life = Life::new();
        life.batches(1, ASKED, 5);
        assert_eq!(life.cap.of(ASKED), 4);
        life.batches(4000, ASKED, u64::MAX);
        assert_eq!(life.cap.of(ASKED), ASKED);
        assert!(life.cap.bound.is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_finds_the_edge_and_hardly_ever_steps_over_it(asked in 2..300_u64, room in 1..300_u64) {
            let mut life = Life::new();
            life.batches(5000, asked, room);
            let most = life.cap.of(asked);
            prop_assert!((1..=asked).contains(&most));
            if room >= asked {
                prop_assert_eq!((most, life.failed), (asked, 0));
            } else {
                // One step of an eighth, or of one, below the edge at most; above it only to try.
                let step = (room / 8).max(1);
                prop_assert!(most + step >= room, "{most} of {room}");
                prop_assert!(most <= room + step, "{most} of {room}");
                prop_assert!(life.failed <= 40, "{} of {} runs", life.failed, life.runs);
            }
        }

        #[test]
        fn whatever_happens_a_batch_is_never_empty_nor_larger_than_asked(
            steps in prop::collection::vec((any::<bool>(), 1..100_u64, 1..100_u64), 1..200),
        ) {
            let mut cap = Cap::default();
            for (fails, size, asked) in steps {
                if fails {
                    cap.failed(size);
                    prop_assert!(cap.of(u64::MAX) < size || size == 1 || cap.of(u64::MAX) <= size);
                } else {
                    cap.leaves(size, cap.of(asked), asked);
                }
                prop_assert!((1..=asked).contains(&cap.of(asked)));
            }
        }
    }
}
