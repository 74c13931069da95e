//! The world around one batcher: callers, seats, handlers and a clock that one die moves. A seat looks
//! only when it was woken or its own timer is over, as a thread or a loop would.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use carpool_core::batch::Outgoing;
use carpool_core::reply::Cancelled;
use carpool_core::request::Terms;
use carpool_core::submit::Announce;
use carpool_core::watch::rate_of;
use carpool_core::{Batch, Batcher, End, Followed, Pulled, Refusal, Seat};

use super::border::{Bell, Census, Diary, Dice, Sim, Time, Waiter, ids};
use super::plain::{Entry, Phase, Plain, State};
use super::setting::Setting;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not in line: it has not asked yet, or runs a batch.
    Away,
    Waiting(Option<u64>),
    Closed,
}

pub struct Chair {
    pub seat: Seat<Sim>,
    pub bell: Arc<Bell>,
    pub waker: Waker,
    pub standing: Standing,
}

/// A caller that runs its own batches.
pub struct Caller {
    pub id: usize,
    pub bell: Arc<Bell>,
    pub timer: Option<u64>,
}

/// A batch, or a part of one, with its handler.
pub struct Running {
    pub batch: Option<Batch<Sim>>,
    pub ids: Vec<usize>,
    pub unsent: Vec<(Outgoing<Sim>, Vec<usize>)>,
    /// How many parts hold the slot.
    pub parts: Rc<Cell<usize>>,
}

pub struct World {
    pub dice: Dice,
    pub setting: Setting,
    pub plain: Plain,
    pub batcher: Batcher<Sim>,
    pub time: Time,
    pub census: Census,
    pub diary: Diary,
    pub chairs: Vec<Chair>,
    pub callers: Vec<Caller>,
    pub running: Vec<Running>,
    pub closer: Option<(Arc<Bell>, Waker)>,
    pub needless: usize,
    /// How many have ended how, as those were told who asked.
    pub ends: HashMap<End, u64>,
    pub trace: bool,
}

pub fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell::default());
    (bell.clone(), bell.into())
}

impl World {
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let setting = Setting::roll(&mut dice);
        if trace {
            eprintln!("{setting:#?}");
        }
        let time = Time::default();
        time.clock.set(1000);
        let learning = setting.learning.clone();
        let batcher = Batcher::learning(setting.limits, learning, time.clone()).unwrap();
        let mut world = Self {
            dice,
            plain: Plain::new(batcher.limits(), setting.learning.clone()),
            batcher,
            time,
            census: Census::default(),
            diary: Diary::default(),
            chairs: Vec::new(),
            callers: Vec::new(),
            running: Vec::new(),
            closer: None,
            needless: 0,
            ends: HashMap::new(),
            trace,
            setting,
        };
        world.batcher.sample(rate_of(1.0));
        for _ in 0..world.setting.seats {
            world.take_a_seat();
        }
        world
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:6} {}", self.now(), what());
        }
    }

    pub fn now(&self) -> u64 {
        self.batcher.now()
    }

    /// Counts the ends that were told.
    pub fn hear(&mut self, followed: impl IntoIterator<Item = Followed>) {
        for one in followed.into_iter().flat_map(|followed| followed.requests) {
            *self.ends.entry(one.end).or_default() += 1;
        }
    }

    fn take_a_seat(&mut self) {
        let (bell, waker) = bell();
        let (seat, standing) = (self.batcher.seat(), Standing::Away);
        self.chairs.push(Chair {
            seat,
            bell,
            waker,
            standing,
        });
    }

    // ------------------------------------------------------------------------------- callers

    pub fn submit(&mut self) {
        let (now, id) = (self.now(), self.plain.all.len());
        let level = self.dice.below(self.setting.levels as usize) as i64
            - i64::from(self.setting.levels > 1);
        let terms = Terms {
            arrival: now,
            urgency: Terms::urgency(now, level * 30),
            cost: self.dice.below(9) as u64,
            key: self.dice.below(self.setting.keys as usize) as u64,
            deadline: match self.setting.deadlines && self.dice.one_in(3) {
                true => now + self.dice.below(40) as u64,
                false => u64::MAX,
            },
            length: self.dice.below(30) as u64,
        };
        let (bell, waker) = bell();
        let waiter = Waiter {
            id,
            diary: self.diary.clone(),
            runner: self.setting.callers.then_some(waker),
            value: self.census.value(id),
        };
        let announce = if self.setting.callers {
            Announce::No
        } else {
            Announce::Yes
        };
        let (expected, gives_way) = self.plain.admits(&terms, now);
        self.note(|| format!("submit {id} {terms:?}: {expected:?}, {gives_way:?} gives way"));
        let payload = self.census.value(id);
        match self.batcher.submit_with(payload, waiter, terms, announce) {
            Ok(ticket) => {
                let state = expected.expect("it should be refused");
                self.plain.all.push(Entry {
                    terms,
                    state,
                    ticket,
                });
                if let Some(victim) = gives_way {
                    self.plain.all[victim].state = State::Shed;
                }
                let mut told = self.note_endings();
                told.extend(gives_way);
                told.sort_unstable();
                self.check_told(told);
                if self.setting.callers {
                    self.callers.push(Caller {
                        id,
                        bell,
                        timer: None,
                    });
                    self.call(self.callers.len() - 1);
                }
            }
            Err(refused) => {
                assert_eq!(Err(refused.why), expected);
                assert_eq!((refused.payload.id, refused.waiter.value.id), (id, id));
                self.plain.rejected += 1;
                self.plain.gave_way += u64::from(refused.why == Refusal::Shed);
                self.check_books();
            }
        }
    }

    /// What a caller does that has just submitted, was woken, or whose time is over.
    pub fn call(&mut self, which: usize) {
        let Caller { id, ref bell, .. } = self.callers[which];
        bell.hear();
        let pulled = self.batcher.pull_own(&self.plain.all[id].ticket);
        self.note(|| format!("caller {id} looks"));
        match pulled {
            Pulled::Batch(batch) => {
                assert!(ids(&batch).contains(&id), "{id} got another's batch");
                self.callers[which].timer = None;
                self.start(batch, usize::MAX);
            }
            Pulled::Wait(timer) => {
                self.callers[which].timer = timer;
                self.check_books();
            }
            Pulled::Closed => panic!("only seats are told of the end"),
        }
    }

    pub fn cancel(&mut self) {
        let total = self.plain.all.len();
        if total == 0 || !self.setting.cancels {
            return;
        }
        // Mostly one that still hangs on.
        let open: Vec<_> = self
            .plain
            .with(|state| matches!(state, State::Lobby | State::Pending))
            .collect();
        let any = open.is_empty() || self.dice.one_in(3);
        let id = if any {
            self.dice.below(total)
        } else {
            self.dice.pick(&open)
        };
        self.note(|| format!("cancel {id}, {:?}", self.plain.all[id].state));
        let forsakes = !self.dice.one_in(3);
        let entry = &mut self.plain.all[id];
        let (expected, after) = match entry.state {
            State::Lobby => (Cancelled::InLobby, State::Cancelled),
            State::Pending => (Cancelled::Pending, State::Cancelled),
            State::InFlight { gone: false } if forsakes => {
                (Cancelled::InFlight, State::InFlight { gone: true })
            }
            other => (Cancelled::TooLate, other),
        };
        let (met, payload) = match forsakes {
            true => entry.ticket.cancel(),
            false => entry.ticket.withdraw(),
        };
        assert_eq!(met, expected);
        let comes_back = matches!(met, Cancelled::InLobby | Cancelled::Pending);
        assert_eq!(payload.map(|value| value.id), comes_back.then_some(id));
        entry.state = after;
        self.check_books();
    }

    // --------------------------------------------------------------------------------- slots

    pub fn start(&mut self, batch: Batch<Sim>, size: usize) {
        let (ids, now) = (ids(&batch), self.now());
        self.note(|| format!("batch {ids:?}, {:?}", batch.reason()));
        for (at, &id) in ids.iter().enumerate() {
            assert_eq!(batch.payload(at).map(|value| value.id), Some(id));
        }
        let oldest = ids
            .iter()
            .map(|&id| self.plain.all[id].terms.arrival)
            .min()
            .unwrap();
        assert_eq!(batch.waited(), now - oldest);
        assert_eq!(batch.padded_len(), self.plain.padded(ids.len()));
        let expired = self.note_endings();
        self.plain.seal(&ids, size, batch.reason(), now);
        self.plain.let_in();
        self.running.push(Running {
            batch: Some(batch),
            ids,
            unsent: Vec::new(),
            parts: Rc::new(Cell::new(1)),
        });
        self.check_told(expired);
    }

    pub fn poll(&mut self, which: usize) {
        let size = self.setting.size;
        let chair = &mut self.chairs[which];
        let woken = chair.bell.hear();
        let before = chair.standing;
        let pulled = chair.seat.poll(&chair.waker, size);
        self.note(|| format!("seat {which} looks, woken: {woken}"));
        match pulled {
            Pulled::Batch(batch) => {
                self.chairs[which].standing = Standing::Away;
                self.start(batch, size);
            }
            Pulled::Wait(timer) => {
                let after = Standing::Waiting(timer);
                self.needless += usize::from(before != Standing::Away && after == before);
                self.chairs[which].standing = after;
                self.check_books();
            }
            Pulled::Closed => {
                self.chairs[which].standing = Standing::Closed;
                self.check_books();
                assert!(
                    self.plain.phase != Phase::Open && !self.anything_left(),
                    "closed too early"
                );
            }
        }
    }

    /// A look by somebody without a seat.
    pub fn try_pull(&mut self) {
        let size = self.setting.size;
        match self.batcher.try_pull(size) {
            Pulled::Batch(batch) => self.start(batch, size),
            Pulled::Wait(_) => {
                self.check_books();
                let due = self.plain.anything_due(size, self.now());
                assert!(!self.plain.has_slot() || due.is_none(), "{due:?} is due");
            }
            Pulled::Closed => assert!(!self.anything_left(), "closed too early"),
        }
    }

    /// Seats that are away ask, seats that wait look without a reason, or leave, woken or not.
    pub fn move_a_seat(&mut self) {
        if self.chairs.is_empty() {
            return;
        }
        let which = self.dice.below(self.chairs.len());
        match self.chairs[which].standing {
            Standing::Away => self.poll(which),
            Standing::Waiting(_) if !self.setting.restless => {}
            Standing::Waiting(_) if self.dice.one_in(2) => self.poll(which),
            Standing::Waiting(_) if self.dice.one_in(2) => {
                self.note(|| format!("seat {which} leaves the line"));
                self.chairs[which].seat.leave();
                self.chairs[which].standing = Standing::Away;
                self.check_books();
            }
            Standing::Waiting(_) | Standing::Closed => {
                self.note(|| format!("seat {which} goes"));
                drop(self.chairs.swap_remove(which));
                self.take_a_seat();
                self.check_books();
            }
        }
    }
}
