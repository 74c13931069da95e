//! Who comes while others wait: how fast requests arrive, and whether holding for them has been worth it.
//!
//! What counts is who comes *while others are waiting or in flight*. A caller that calls again as soon as it
//! has its answer comes often, but never to one who is held for it: where one request is outstanding and nobody
//! else calls, nobody is expected. Nor are more expected than have been outstanding at once of late: where eight
//! threads call, a ninth will not come. (Who comes without waiting for answers comes also while a batch runs, and so
//! raises that number as far as it matters.) And where some come but not those who were hoped for, holding pauses, twice as
//! long each time, until it gains again.

use crate::clock::Nanos;

/// What lies so far back counts a third as much.
const MEMORY: f64 = 43e6;
const LONG_MEMORY: f64 = 2e9;
/// After so many times the usual gap without anybody, nobody is on the way.
const PATIENCE: f64 = 7.0;
/// Of those who were hoped for, so many must have come, on average over some holds.
const ENOUGH: f64 = 0.25;
/// What is left per batch of the most that were outstanding.
const PEAK: f64 = 0.99;
/// The longest pause, in batches.
const LONGEST_PAUSE: u32 = 1024;

/// Arrivals of late.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    arrived: u64,
    /// How long there have been others, in all.
    all: f64,
    at: Nanos,
    /// The last look at which somebody had come.
    news: Nanos,
    /// Somebody was outstanding at the last look.
    busy: bool,
    /// How many were outstanding at once, at most, of late.
    peak: f64,
    rate: f64,
    long_rate: f64,
    /// Who came to those who were held, and who was hoped for.
    came: f64,
    hoped: f64,
    /// The hold under way: who had arrived when it began, and who was hoped for.
    hold: Option<(u64, f64)>,
    /// Batches for which nobody is held, left and in all.
    pause: (u32, u32),
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            arrived: 0,
            all: 0.0,
            at: 0,
            news: 0,
            busy: false,
            peak: 0.0,
            rate: 0.0,
            long_rate: 0.0,
            came: 4.0,
            hoped: 4.0,
            hold: None,
            pause: (0, 1),
        }
    }
}

impl Flow {
    /// A look: `arrived` requests had arrived in all, `there` were outstanding up to now, and some still are.
    pub fn see(&mut self, arrived: u64, there: u64, outstanding: bool, now: Nanos) {
        self.peak = self.peak.max(there as f64);
        let passed = now.saturating_sub(self.at) as f64;
        if arrived > self.arrived {
            self.news = now;
        }
        if self.busy && passed <= 0.0 {
            // At the same moment: it counts with the next.
            self.busy = outstanding;
            return;
        }
        if self.busy {
            let news = arrived.saturating_sub(self.arrived) as f64 / passed;
            // At first the mean of all: nothing is known of a time before.
            self.all += passed;
            let mix = |rate: f64, memory: f64| {
                let kept = (1.0 - passed / self.all).min((-passed / memory).exp());
                rate * kept + news * (1.0 - kept)
            };
            (self.rate, self.long_rate) =
                (mix(self.rate, MEMORY), mix(self.long_rate, LONG_MEMORY));
        }
        self.arrived = arrived;
        self.at = now;
        self.busy = outstanding;
    }

    /// How many come per nanosecond, to those who wait or are in flight.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The same over some seconds.
    pub fn long_rate(&self) -> f64 {
        self.long_rate
    }

    /// How many more than the `there` that are outstanding there may be.
    pub fn room(&self, there: usize) -> f64 {
        (self.peak - there as f64).max(0.0)
    }

    /// Whether anybody should be held at all.
    pub fn is_worth_it(&self) -> bool {
        self.pause.0 == 0
    }

    /// Until when somebody may be on the way, if nobody comes.
    pub fn patience(&self) -> Nanos {
        let gap = 1.0 / self.rate.max(f64::MIN_POSITIVE);
        self.news
            .saturating_add((PATIENCE * gap).min(1e18) as Nanos)
    }

    /// Requests are held, for `company` more.
    pub fn holds(&mut self, company: f64) {
        self.hold.get_or_insert((self.arrived, company));
    }

    /// Whether requests are held.
    pub fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// A batch was sealed: what came of the hold, if it was one.
    pub fn sealed(&mut self) {
        self.pause.0 = self.pause.0.saturating_sub(1);
        self.peak *= PEAK;
        let Some((before, hoped)) = self.hold.take() else {
            return;
        };
        let came = self.arrived.saturating_sub(before) as f64;
        // No more than was hoped for: a burst makes up for nothing.
        self.came += (came.min(hoped) - self.came) / 8.0;
        self.hoped += (hoped - self.hoped) / 8.0;
        if self.came < ENOUGH * self.hoped {
            let pause = (self.pause.1 * 2).min(LONGEST_PAUSE);
            self.pause = (pause, pause);
            // The next one decides for itself.
            (self.came, self.hoped) = (1.0, 3.0);
        } else if came >= hoped * 0.5 {
            self.pause.1 = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn the_rate_follows_those_who_come_to_others() {
        let mut flow = Flow::default();
        for arrived in 1..=1000 {
            flow.see(arrived, 5, true, arrived * MS);
        }
        assert!((flow.rate() * 1e6 - 1.0).abs() < 0.01, "{}", flow.rate());
        assert!((flow.long_rate() * 1e6 - 1.0).abs() < 0.01);
        // Nobody for a second, with some outstanding.
        flow.see(1000, 5, true, 2000 * MS);
        assert!(flow.rate() * 1e6 < 0.01 && flow.long_rate() * 1e6 > 0.3);
    }

    #[test]
    fn a_caller_that_comes_back_is_no_company() {
        let mut flow = Flow::default();
        let mut now = 0;
        for call in 1..=1000 {
            // It arrives where nobody is, runs, and has its answer.
            now += MS / 10;
            flow.see(call, 5, true, now);
            now += MS;
            flow.see(call, 5, false, now);
        }
        assert_eq!(flow.rate(), 0.0);
    }

    #[test]
    fn looks_at_one_moment_change_nothing() {
        let mut flow = Flow::default();
        flow.see(1, 5, true, MS);
        flow.see(2, 5, true, 2 * MS);
        let before = flow.rate();
        flow.see(9, 5, true, 2 * MS);
        assert_eq!(flow.rate(), before);
        flow.see(9, 5, true, 3 * MS);
        assert!(flow.rate() > before, "they count with the next");
    }

    #[test]
    fn holding_in_vain_pauses_longer_each_time_and_gains_end_that() {
        let mut flow = Flow::default();
        let mut held = Vec::new();
        for batch in 0..400 {
            if flow.is_worth_it() {
                held.push(batch);
                flow.holds(10.0);
            }
            flow.sealed();
        }
        let gaps: Vec<_> = held.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(held.len() < 20 && gaps.is_sorted(), "{held:?}");
        // Somebody comes at last.
        let mut flow = Flow { arrived: 0, ..flow };
        for batch in 1..2000_u64 {
            if flow.is_worth_it() {
                flow.holds(10.0);
                flow.see(10 * batch, 5, true, batch * MS);
            }
            flow.sealed();
        }
        assert!(flow.is_worth_it() && flow.pause.1 == 1);
    }

    #[test]
    fn no_more_are_expected_than_have_been_there() {
        let mut flow = Flow::default();
        flow.see(8, 8, true, MS);
        assert_eq!((flow.room(3), flow.room(8), flow.room(9)), (5.0, 0.0, 0.0));
        for _ in 0..100 {
            flow.sealed();
        }
        assert!(flow.room(3) < 0.1, "of late");
    }

    #[test]
    fn patience_ends_some_gaps_after_the_last() {
        let mut flow = Flow::default();
        for arrived in 1..=1000 {
            flow.see(arrived, 5, true, arrived * MS);
        }
        let patience = flow.patience() - 1000 * MS;
        assert!((6 * MS..8 * MS).contains(&patience), "{patience}");
        assert!(
            Flow::default().patience() > 1000 * MS,
            "nobody was expected"
        );
    }
}
