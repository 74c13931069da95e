//! Who may come back: what a caller that runs the next batch knows of the last one.
//!
//! A handler that holds the interpreter keeps all others from submitting while it runs. If the next
//! runner set out at once, it would find only those who came in by chance; batches would stay at one, and
//! single callers would wait for long. So it gathers: it expects as many as were there last time, and
//! waits for them, at most half as long as the last run took, since longer would cost more than it gains.

use super::policy::Gather;
use crate::clock::Nanos;

/// Runs shorter than this are over before anybody could come back.
pub(super) const SHORTEST_RUN: Nanos = 20_000;
/// Whoever wants to come back has done so by then, however long the runs.
pub(super) const LONGEST_GATHER: Nanos = 10_000_000;

/// How many were there when the last batch ended, and how long it took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Company {
    /// Requests in the batch that was sealed last.
    size: usize,
    /// That one had gathered and found fewer than it expected.
    fewer: bool,
    /// How many callers were there when a batch last ended: its own, and those pending.
    there: usize,
    key: u64,
    window: Nanos,
    ended: Nanos,
}

impl Company {
    /// A batch was sealed.
    pub(crate) fn sealed(&mut self, size: usize, key: u64, gathered: bool) {
        self.fewer = gathered && size < self.there;
        self.size = size;
        self.key = key;
    }

    /// A batch was answered after running for `run`, and `pending` requests were there by then.
    pub(crate) fn answered(&mut self, run: Nanos, pending: usize) {
        self.there = if self.fewer {
            // Of those who were expected and did not come only half are expected again: some may just
            // have been late, held up by others at the interpreter.
            let again = self.size + (self.there - self.size) / 2;
            again.max(self.size + pending).min(self.there.max(pending))
        } else {
            self.size + pending
        };
        self.window = if run < SHORTEST_RUN {
            0
        } else {
            (run / 2).min(LONGEST_GATHER)
        };
    }

    /// Its slot is free.
    pub(crate) fn ended(&mut self, now: Nanos) {
        self.ended = now;
    }

    /// The same for a call that ran alone; the moment matters only if others have come meanwhile.
    #[inline]
    pub(crate) fn was_alone(&mut self, now: impl FnOnce() -> Nanos, run: Nanos, pending: usize) {
        self.size = 1;
        self.fewer = false;
        self.key = 0;
        if pending == 0 {
            self.there = 1;
        } else {
            self.answered(run, pending);
            self.ended(now());
        }
    }

    /// Whether somebody may be on the way back: for a request that arrives now and finds nobody.
    #[inline]
    pub(crate) fn may_come(&self, now: impl FnOnce() -> Nanos) -> bool {
        self.there > 1 && self.window > 0 && now() < self.back_by()
    }

    /// Whoever comes back at all has set out by then: as long after the last run as that one took.
    fn back_by(&self) -> Nanos {
        self.ended.saturating_add(2 * self.window)
    }

    /// For whom and until when a batch of `key`, whose oldest request arrived at `oldest`, may be held.
    pub(crate) fn gather(&self, key: u64, oldest: Nanos) -> Option<Gather> {
        if self.there < 2 || self.window == 0 || self.key != key {
            return None;
        }
        // Of those who come later nobody is known to be about.
        (oldest < self.back_by()).then(|| Gather {
            company: self.there,
            until: oldest.max(self.ended).saturating_add(self.window),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Nanos = 100_000;

    /// After a batch of `size` that began with `pending` more there at its end, which is moment 1000.
    fn after(size: usize, run: Nanos, pending: usize) -> Company {
        let mut company = Company::default();
        company.sealed(size, 0, false);
        company.answered(run, pending);
        company.ended(1000);
        company
    }

    fn until(company: &Company, oldest: Nanos) -> Option<(usize, Nanos)> {
        let gather = company.gather(0, oldest);
        gather.map(|gather| (gather.company, gather.until))
    }

    #[test]
    fn all_who_were_there_are_expected_back_for_half_the_run() {
        let company = after(3, RUN, 2);
        assert_eq!(until(&company, 1200), Some((5, 51_200)));
        // Whoever came during the run waits from its end on.
        assert_eq!(until(&company, 7), Some((5, 51_000)));
        // After that nobody is known to be about.
        assert_eq!(until(&company, 100_999), Some((5, 150_999)));
        assert_eq!(until(&company, 101_000), None);
        assert_eq!(company.gather(7, 1200), None, "another key");
    }

    #[test]
    fn nobody_is_expected_after_a_single_call_a_short_run_or_none() {
        assert_eq!(until(&Company::default(), 0), None);
        assert_eq!(until(&after(1, RUN, 0), 1200), None);
        assert_eq!(until(&after(3, SHORTEST_RUN - 1, 2), 1200), None);
        assert_eq!(until(&after(3, SHORTEST_RUN, 2), 1200), Some((5, 11_200)));
    }

    #[test]
    fn no_run_is_so_long_that_it_is_worth_more_than_some_milliseconds() {
        let company = after(3, 1_000_000_000, 0);
        assert_eq!(until(&company, 1200), Some((3, 1200 + LONGEST_GATHER)));
    }

    #[test]
    fn who_was_expected_and_did_not_come_is_expected_by_halves() {
        let mut company = after(5, RUN, 0);
        for expected in [3, 2, 1] {
            company.sealed(1, 0, true);
            company.answered(RUN, 0);
            let there = until(&company, 1200).map_or(1, |(there, _)| there);
            assert_eq!(there, expected);
        }
        let mut company = after(5, RUN, 0);
        company.sealed(2, 0, true);
        company.answered(RUN, 3);
        assert_eq!(until(&company, 1200), Some((5, 51_200)), "none was missing");
    }

    #[test]
    fn a_call_that_ran_alone_expects_those_who_came_meanwhile() {
        let mut company = after(9, RUN, 0);
        assert!(company.may_come(|| 100_999) && !company.may_come(|| 101_000));
        company.was_alone(|| 2000, RUN, 0);
        assert!(!company.may_come(|| 2001));
        company.was_alone(|| 3000, RUN, 3);
        assert_eq!(until(&company, 3100), Some((4, 53_100)));
        assert!(company.may_come(|| 3100));
    }
}
