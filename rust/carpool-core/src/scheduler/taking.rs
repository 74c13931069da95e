//! Which requests of a group leave in one batch: in order as far as they fit, and, where that was asked for,
//! later ones in the room that is left, or those of similar length.

use super::budget::{Budget, Load};
use super::group::Group;
use super::objective::Aside;
use super::pending::Queued;
use super::similar::{Candidate, nearest};
use super::sizes::Sizes;
use crate::clock::{NEVER, Nanos};
use crate::limits::Limits;

/// A batch in the making. What is offered to `claim` and ended meanwhile does not count.
struct Taking<'a, F> {
    limits: &'a Limits,
    budget: Budget<'a>,
    load: Load,
    longest: u64,
    /// Something was left behind for its cost.
    misfit: bool,
    claim: F,
}

/// Takes up to `size` requests of `group` that `claim` accepts. True where it could have been more, had they cost
/// less. `aside` says who lets others pass, where nothing is counted but their number.
#[inline]
pub(super) fn take<H: Queued>(
    group: &mut Group<H>,
    limits: &Limits,
    sizes: Option<&Sizes>,
    size: usize,
    now: Nanos,
    aside: Option<&mut Aside>,
    mut claim: impl FnMut(H) -> bool,
) -> bool {
    if limits.max_batch_cost == u64::MAX && limits.length_window == 0 {
        match aside {
            None => plain(group, size, claim),
            Some(aside) => in_time(group, size, aside, &mut claim),
        }
        return false;
    }
    // One body for every way of claiming: the short loop above is the one that is made for each.
    choose(group, limits, sizes, size, now, &mut claim)
}

fn choose<H: Queued>(
    group: &mut Group<H>,
    limits: &Limits,
    sizes: Option<&Sizes>,
    size: usize,
    now: Nanos,
    claim: &mut dyn FnMut(H) -> bool,
) -> bool {
    let mut taking = Taking {
        limits,
        budget: Budget::of(limits, sizes),
        load: Load::default(),
        longest: 0,
        misfit: false,
        claim,
    };
    if limits.length_window > 0 {
        taking.similar(group, size, now);
    }
    if !taking.misfit {
        taking.in_order(group, size);
    }
    if taking.misfit && limits.look_ahead > 0 {
        taking.later(group, size);
    }
    taking.misfit && taking.load.count < size
}

/// The most urgent ones, where nothing is counted but their number.
#[inline]
fn plain<H: Queued>(group: &mut Group<H>, size: usize, mut claim: impl FnMut(H) -> bool) {
    let mut taken = 0;
    while taken < size {
        let Some(item) = group.first_lane().and_then(|lane| group.pop(lane)) else {
            break;
        };
        taken += usize::from(claim(item));
    }
}

/// Takes up to `size` requests of `group` that `claim` accepts: those that can be in time before those that will be late
/// in any case, where there is only one priority and these are not too many. Whoever has a deadline goes before
/// both: passed over it might not be answered at all.
#[cold]
fn in_time<H: Queued>(
    group: &mut Group<H>,
    size: usize,
    aside: &mut Aside,
    claim: &mut dyn FnMut(H) -> bool,
) {
    let (late, passed) = (aside.late, aside.aged..aside.late);
    let steps_aside = |item: &H| {
        let terms = item.terms();
        passed.contains(&terms.arrival) && terms.deadline == NEVER
    };
    let mut left = 0;
    let mut claim = |item: H| {
        let is_late = item.terms().arrival < late;
        let claimed = claim(item);
        left += usize::from(claimed && is_late);
        claimed
    };
    let mut taken = 0;
    if let Some(lane) = group.only_lane().filter(|_| group.len() > size) {
        // Those before the last one that the batch has room for.
        let (mut passing, mut others) = (0, 0);
        for item in group.lanes[lane].queue.iter().filter(|item| item.is_live()) {
            if others == size || passing > aside.most {
                break;
            }
            let steps = steps_aside(item);
            passing += usize::from(steps);
            others += usize::from(!steps);
        }
        aside.too_many = passing > aside.most;
        let all_leave = passing + others <= size;
        let mut place = if aside.too_many || all_leave {
            usize::MAX
        } else {
            0
        };
        while taken < size {
            match group.at(lane, place).map(steps_aside) {
                None => break,
                Some(true) => place += 1,
                Some(false) => {
                    let item = group.remove(lane, place);
                    taken += usize::from(item.is_some_and(&mut claim));
                }
            }
        }
    }
    plain(group, size - taken, claim);
    aside.left = left;
}

impl<F> Taking<'_, F> {
    #[inline]
    fn offer<H: Queued>(&mut self, item: H)
    where
        F: FnMut(H) -> bool,
    {
        let (cost, length) = (item.terms().cost, item.terms().length);
        if (self.claim)(item) {
            self.load = self.load.with(cost);
            self.longest = self.longest.max(length);
        }
    }

    #[inline]
    fn fits<H: Queued>(&self, item: &H) -> bool {
        // What ended while it was queued takes up no budget.
        self.budget.fits(&self.load, item.terms().cost) || !item.is_live()
    }

    /// The most urgent ones, until there are `most`; the first that does not fit stays the head.
    fn in_order<H: Queued>(&mut self, group: &mut Group<H>, most: usize)
    where
        F: FnMut(H) -> bool,
    {
        while self.load.count < most {
            let Some(lane) = group.first_lane() else {
                break;
            };
            if group.front(lane).is_some_and(|head| !self.fits(head)) {
                self.misfit = true;
                break;
            }
            if let Some(item) = group.pop(lane) {
                self.offer(item);
            }
        }
    }

    /// What fits among as many as may be looked at behind the first that does not; in order, each passed over
    /// keeps its place.
    fn later<H: Queued>(&mut self, group: &mut Group<H>, size: usize)
    where
        F: FnMut(H) -> bool,
    {
        let mut places = vec![0; group.lanes.len()];
        // The first one is the misfit itself.
        let mut left = self.limits.look_ahead.saturating_add(1);
        while left > 0 && self.load.count < size {
            let Some(lane) = group.first_lane_from(&places) else {
                break;
            };
            let place = places[lane];
            let item = group.at(lane, place);
            let (fits, live) = item.map_or((true, true), |item| (self.fits(item), item.is_live()));
            left -= usize::from(live);
            if !fits {
                places[lane] += 1;
            } else if let Some(item) = group.remove(lane, place) {
                self.offer(item);
            }
        }
    }

    /// Those of similar length among the first of one priority: around the oldest, and all that have waited for as
    /// long as they may be passed over. Where there is nothing to choose from it takes nothing.
    fn similar<H: Queued>(&mut self, group: &mut Group<H>, size: usize, now: Nanos)
    where
        F: FnMut(H) -> bool,
    {
        let window = size.saturating_mul(self.limits.length_window);
        let Some(lane) = group.first_lane() else {
            return;
        };
        let run = group.run(lane, window);
        let all = run.iter().filter_map(|&place| group.at(lane, place));
        let together = all.fold(Load::default(), |load, item| load.with(item.terms().cost));
        if run.len() <= size && self.budget.allows(&together) {
            return;
        }
        let age = self.limits.length_age;
        let aged = |group: &Group<H>, run: &[usize]| {
            let waited = |&place: &usize| {
                let item = group.at(lane, place);
                item.map(|item| now.saturating_sub(item.terms().arrival))
            };
            run.iter()
                .take_while(|&place| waited(place) >= Some(age))
                .count()
        };
        let mut first = aged(group, &run).max(1);
        // Again where some ended meanwhile and others took their places: more that are aged may stand first now.
        let run = loop {
            self.in_order(group, size.min(self.load.count + first));
            if self.misfit || self.load.count == size {
                return;
            }
            let run = group.run(lane, window - self.load.count);
            first = aged(group, &run);
            if first == 0 {
                break run;
            }
        };
        let all = run.iter().filter_map(|&place| group.at(lane, place));
        let candidates: Vec<_> = all
            .map(|item| Candidate {
                length: item.terms().length,
                cost: item.terms().cost,
            })
            .collect();
        let room = size - self.load.count;
        let (chosen, misfit) = nearest(&candidates, self.longest, self.load, room, &self.budget);
        self.misfit = misfit;
        // From behind, so that the places stay what they are; offered in order.
        let mut taken: Vec<_> = chosen
            .iter()
            .rev()
            .filter_map(|&at| group.remove(lane, run[at]))
            .collect();
        while let Some(item) = taken.pop() {
            self.offer(item);
        }
    }
}
