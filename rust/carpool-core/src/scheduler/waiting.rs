//! The line of slots that wait for a batch. The one at the front leads: its need is stated, its timer
//! runs. The others sleep until they come to the front.

use std::collections::VecDeque;
use std::task::Waker;

use crate::clock::Nanos;

struct Slot {
    seat: u64,
    waker: Waker,
    size: usize,
    /// When it wakes by itself.
    timer: Option<Nanos>,
}

/// The line.
#[derive(Default)]
pub(crate) struct Waiting {
    line: VecDeque<Slot>,
    /// A seat that was woken and has not looked since: it will settle what follows.
    owed: Option<u64>,
    seats: u64,
}

impl Waiting {
    /// A number for a new seat.
    pub(crate) fn new_seat(&mut self) -> u64 {
        self.seats += 1;
        self.seats
    }

    /// Takes a seat out of the line; true when it led. Its waker is the caller's to drop: that may run
    /// the border's code.
    pub(crate) fn leave(&mut self, seat: u64, spent: &mut Option<Waker>) -> bool {
        if self.owed == Some(seat) {
            self.owed = None;
        }
        match self.line.iter().position(|slot| slot.seat == seat) {
            Some(at) => {
                *spent = self.line.remove(at).map(|slot| slot.waker);
                at == 0
            }
            None => false,
        }
    }

    /// Puts a seat in line: at the front with a timer if it led or nobody waits, else at the back
    /// without one. Returns its timer.
    pub(crate) fn join(
        &mut self,
        seat: u64,
        waker: Waker,
        size: usize,
        until: Option<Nanos>,
        led: bool,
    ) -> Option<Nanos> {
        if led || self.line.is_empty() {
            self.line.push_front(Slot {
                seat,
                waker,
                size,
                timer: until,
            });
            until
        } else {
            self.line.push_back(Slot {
                seat,
                waker,
                size,
                timer: None,
            });
            None
        }
    }

    pub(crate) fn wake_is_owed(&self) -> bool {
        self.owed.is_some()
    }

    pub(crate) fn front_size(&self) -> Option<usize> {
        self.line.front().map(|slot| slot.size)
    }

    /// Whether the lead would miss `until`.
    pub(crate) fn front_sleeps_beyond(&self, until: Option<Nanos>) -> bool {
        let timer = self.line.front().and_then(|slot| slot.timer);
        until.is_some_and(|until| timer.is_none_or(|timer| timer > until))
    }

    pub(crate) fn wake_front(&mut self, wakes: &mut Vec<Waker>) {
        if let Some(slot) = self.line.front() {
            self.owed = Some(slot.seat);
            wakes.push(slot.waker.clone());
        }
    }

    /// Wakes everybody: there will be no more batches.
    pub(crate) fn wake_all(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.line.drain(..).map(|slot| slot.waker));
        self.owed = None;
    }
}
