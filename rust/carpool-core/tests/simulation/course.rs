//! The course of a run: steps by the die, rest before time moves on, the end; and the books that are
//! checked after everything that happens.

use carpool_core::request::Handle;
use carpool_core::{End, Failure, Limits, Snapshot};

use super::border::{Answer, Bell};
use super::plain::{Phase, State};
use super::setting::Setting;
use super::world::{Standing, World};

/// Who may look.
#[derive(Clone, Copy)]
enum Ready {
    Seat(usize),
    Caller(usize),
    Timer,
}

impl World {
    /// Takes what request `id` got, once, and checks the tag.
    pub fn receive(&mut self, id: usize) {
        let entry = &self.plain.all[id];
        match (entry.state, entry.ticket.take()) {
            (State::Answered, Some(Answer::Result(value))) => assert_eq!(value.id, id),
            (State::Failed, Some(Answer::Error(value))) => assert_eq!(value.id, id),
            (State::Failed, Some(Answer::Failure(why))) => match why {
                Failure::Closed => assert_eq!(self.plain.phase, Phase::Failing),
                other => assert_eq!(other, Failure::Abandoned),
            },
            (State::Shed, Some(Answer::Failure(why))) => assert_eq!(why, Failure::Shed),
            (State::Expired, None) => {}
            (state, answer) => panic!("{id} is {state:?}, with an answer: {}", answer.is_some()),
        }
        assert!(entry.ticket.take().is_none(), "{id} was answered twice");
    }

    /// Notes what the last step has ended without an answer, and who got room; whom it tells.
    pub fn note_endings(&mut self) -> Vec<usize> {
        let (now, failing) = (self.now(), self.plain.phase == Phase::Failing);
        let mut told = Vec::new();
        loop {
            let before = told.len();
            for (id, entry) in self.plain.all.iter_mut().enumerate() {
                let reply = entry.ticket.request().reply();
                match entry.state {
                    State::Pending | State::Lobby if reply.is_expired() => {
                        assert!(entry.terms.deadline <= now, "{id} expired early");
                        entry.state = State::Expired;
                        told.push(id);
                    }
                    State::Pending | State::Lobby if failing => {
                        entry.state = State::Failed;
                        told.push(id);
                    }
                    _ => {}
                }
            }
            self.plain.let_in();
            if told.len() == before {
                break;
            }
        }
        told.sort_unstable();
        told
    }

    /// Everything that can be seen from outside is as the plain list has it.
    pub fn check_books(&mut self) {
        let told = self.note_endings();
        self.check_told(told);
    }

    /// The same, where the endings have been noted.
    pub fn check_told(&mut self, told: Vec<usize>) {
        let failing = self.plain.phase == Phase::Failing;
        let mut woken = self.diary.read().concat();
        woken.sort_unstable();
        assert_eq!(woken, told);
        for id in told {
            self.receive(id);
        }
        for (id, entry) in self.plain.all.iter().enumerate() {
            let reply = entry.ticket.request().reply();
            let shown = (
                reply.is_in_lobby(),
                reply.is_pending(),
                reply.is_sealed(),
                reply.is_over(),
            );
            let failed_unsealed = failing && entry.state == State::Failed;
            let expected = match entry.state {
                State::Lobby => (true, false, false, false),
                State::Pending => (false, true, false, false),
                State::InFlight { .. } | State::Prepared { .. } => (false, false, true, false),
                State::Expired => (false, false, false, true),
                State::Answered | State::Failed => (false, false, true, true),
                // Claimed, to be answered.
                State::Shed => (false, false, true, true),
                // Before or after it was sealed.
                State::Cancelled => (false, false, shown.2, false),
            };
            assert!(
                shown == expected || failed_unsealed,
                "{id}: {:?}, {shown:?}",
                entry.state
            );
        }
        self.plain.check(&self.batcher.snapshot());
    }

    pub fn anything_left(&self) -> bool {
        self.plain
            .count(|state| matches!(state, State::Pending | State::Lobby))
            > 0
    }

    /// Somebody would take a batch if there were one.
    fn somebody_waits(&self) -> bool {
        let waits = |chair: &super::world::Chair| matches!(chair.standing, Standing::Waiting(_));
        !self.callers.is_empty() || self.chairs.iter().any(waits)
    }

    /// Lets everybody look who was woken or whose time is over, in any order, until nobody is left.
    pub fn rest(&mut self) {
        let over =
            |bell: &Bell, timer: Option<u64>, now| bell.rang() || timer.is_some_and(|t| t <= now);
        for _ in 0..2000 {
            let now = self.now();
            let all = &self.plain.all;
            self.callers
                .retain(|caller| matches!(all[caller.id].state, State::Lobby | State::Pending));
            let chairs = self.chairs.iter().enumerate().filter_map(|(at, chair)| {
                let Standing::Waiting(timer) = chair.standing else {
                    return None;
                };
                over(&chair.bell, timer, now).then_some(Ready::Seat(at))
            });
            let callers = self.callers.iter().enumerate();
            let callers = callers.filter(|(_, caller)| over(&caller.bell, caller.timer, now));
            let alarm = self.time.armed().filter(|&armed| armed <= now);
            let ready: Vec<_> = chairs
                .chain(callers.map(|(at, _)| Ready::Caller(at)))
                .chain(alarm.map(|_| Ready::Timer))
                .collect();
            if ready.is_empty() {
                return self.check_rest();
            }
            match self.dice.pick(&ready) {
                Ready::Seat(at) => self.poll(at),
                Ready::Caller(at) => self.call(at),
                Ready::Timer => self.expire_due(),
            }
        }
        panic!("no rest: somebody is woken again and again");
    }

    /// The timer thread looks, for a reason or without.
    fn expire_due(&mut self) {
        self.note(|| "the timer thread looks".into());
        if self.time.armed() <= Some(self.now()) {
            self.time.disarm();
        }
        self.batcher.expire_due();
        self.check_books();
    }

    /// Nobody was woken, no time is over: then nothing may be due that a free slot could run, and what
    /// is overdue has ended, whether a slot is free or not.
    fn check_rest(&mut self) {
        let now = self.now();
        for (id, entry) in self.plain.all.iter().enumerate() {
            let open = matches!(entry.state, State::Lobby | State::Pending);
            let overdue = open && entry.terms.deadline <= now;
            assert!(!overdue, "{id} is overdue, and all sleep");
        }
        let due = self.plain.anything_due(self.setting.size, self.now());
        let served = !self.somebody_waits() || !self.plain.has_slot();
        assert!(
            served || due.is_none(),
            "a batch of key {due:?} is due, a slot is free, and all sleep"
        );
        if !self.anything_left() && self.running.is_empty() {
            for (id, entry) in self.plain.all.iter().enumerate() {
                let handles = Handle::count(entry.ticket.request());
                assert_eq!(handles, 1, "an idle batcher keeps request {id}");
            }
        }
        if self.plain.phase != Phase::Open && !self.anything_left() {
            let waiting = self
                .chairs
                .iter()
                .any(|c| matches!(c.standing, Standing::Waiting(_)));
            assert!(!waiting, "a seat waits for a batch that will never come");
        }
    }

    /// Time goes on, no further than to the next timer.
    pub fn advance(&mut self) {
        self.rest();
        let chairs = self.chairs.iter().filter_map(|chair| match chair.standing {
            Standing::Waiting(timer) => timer,
            _ => None,
        });
        let timers = chairs.chain(self.callers.iter().filter_map(|caller| caller.timer));
        let by = 1 + self.dice.below(30) as u64;
        let timers = timers.chain(self.time.armed());
        let next = timers.chain([self.now() + by]).min().expect("at least one");
        if self.somebody_waits() && self.plain.has_slot() {
            let due = self.plain.next_due().unwrap_or(u64::MAX);
            assert!(
                due >= next,
                "nobody keeps the time: something is due at {due}, not {next}"
            );
        }
        self.time.clock.set(next);
        self.note(|| "time".into());
        self.rest();
    }

    pub fn configure(&mut self) {
        let limits = Setting::other_limits(&mut self.dice, self.plain.limits);
        self.note(|| format!("other limits: {limits:?}"));
        let refused = Limits {
            max_queue: 0,
            ..limits
        };
        assert!(self.batcher.configure(refused).is_err());
        assert_eq!(self.batcher.limits(), self.plain.limits);
        let largest = self.setting.learning.sizes.as_ref();
        let largest = largest.map_or(limits.max_batch_size, |sizes| sizes.largest());
        if largest > limits.max_batch_size {
            assert!(self.batcher.configure(limits).is_err());
            assert_eq!(self.batcher.limits(), self.plain.limits);
            return;
        }
        self.batcher.configure(limits).unwrap();
        let limits = Limits {
            max_batch_size: largest,
            ..limits
        };
        assert_eq!(self.batcher.limits(), limits);
        self.plain.keep_to(limits);
        self.check_books();
    }

    pub fn flush(&mut self) {
        self.note(|| "flush".into());
        self.plain.flushed = Some(self.now());
        self.batcher.flush();
        self.check_books();
    }

    pub fn close(&mut self, drain: bool) {
        self.note(|| format!("close, drain: {drain}"));
        self.batcher.close(drain);
        self.plain.phase = match (self.plain.phase, drain) {
            (Phase::Failing, _) | (_, false) => Phase::Failing,
            (_, true) => Phase::Draining,
        };
        self.check_books();
        if self.closer.is_none() {
            let (bell, waker) = super::world::bell();
            let ended = self.batcher.poll_ended(&waker);
            assert_eq!(ended, self.has_ended());
            self.closer = Some((bell, waker));
            if ended {
                self.closer = None;
            }
        }
    }

    fn has_ended(&self) -> bool {
        let open = |s| {
            matches!(
                s,
                State::Lobby | State::Pending | State::InFlight { .. } | State::Prepared { .. }
            )
        };
        self.plain.phase != Phase::Open && self.plain.count(open) == 0
    }

    fn check_closer(&self) {
        if let Some((bell, waker)) = &self.closer {
            assert_eq!(
                bell.rang(),
                self.has_ended(),
                "the closer is told of the end, then"
            );
            assert_eq!(self.batcher.poll_ended(waker), self.has_ended());
        }
    }

    pub fn run(&mut self) {
        for _ in 0..self.setting.steps {
            match self.dice.below(100) {
                0..30 => self.submit(),
                30..34 => (0..self.dice.below(9)).for_each(|_| self.submit()),
                34..44 => self.cancel(),
                44..56 => self.rest(),
                56..72 => self.progress(),
                72..86 => self.advance(),
                86..94 => self.move_a_seat(),
                94..96 if self.setting.restless => self.try_pull(),
                96 if self.setting.restless => self.expire_due(),
                97 => self.flush(),
                99 if self.setting.changes => self.configure(),
                98 if self.dice.one_in(4) => {
                    let drain = self.dice.one_in(2);
                    self.close(drain);
                }
                _ => {}
            }
            self.check_closer();
        }
        self.end();
    }

    /// Everything accepted is resolved, everybody is told, nothing is left behind.
    fn end(&mut self) {
        if self.plain.phase == Phase::Open {
            let drain = !self.dice.one_in(3);
            self.close(drain);
        }
        for _ in 0..10_000 {
            if self.has_ended() && self.running.is_empty() {
                break;
            }
            self.rest();
            self.progress();
            self.move_a_seat();
            if self.chairs.is_empty() && self.setting.restless {
                self.try_pull();
            }
            self.check_closer();
        }
        assert!(self.has_ended(), "it never ends");
        self.rest();
        for at in 0..self.chairs.len() {
            self.poll(at);
            assert_eq!(self.chairs[at].standing, Standing::Closed);
        }
        self.submit();
        self.check_closer();
        let shown = self.batcher.snapshot();
        assert_eq!((shown.pending, shown.in_flight), (0, 0));
        assert_eq!(shown.runs.count(), shown.batches);
        self.check_ends(&shown);
        if self.setting.is_plain() {
            assert_eq!(self.needless, 0, "a plain batcher wakes nobody needlessly");
        }
    }

    /// Whoever asked has heard of the end of each request, once.
    fn check_ends(&mut self, shown: &Snapshot) {
        let due = self.batcher.take_due().ended;
        self.hear(due);
        let of = |ends: &[End]| -> u64 { ends.iter().filter_map(|end| self.ends.get(end)).sum() };
        assert_eq!(of(&[End::Answered]), shown.answered);
        assert_eq!(of(&[End::Cancelled]), shown.cancelled);
        assert_eq!(of(&[End::Expired]), shown.expired);
        assert_eq!(of(&[End::Shed]), shown.shed);
        let without = of(&[
            End::Failed,
            End::Expired,
            End::Closed,
            End::Shed,
            End::Refused,
        ]);
        assert_eq!(without, shown.failed + shown.rejected);
    }

    /// Drops everything; how many values are left.
    pub fn leak(self) -> usize {
        let census = self.census.clone();
        drop(self);
        census.alive()
    }
}
