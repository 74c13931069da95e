//! A border for tests: numbers go in, numbers come back, time stands still until it is told to move.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use carpool_core::border::{Border, Failure};
use carpool_core::request::Handle;
use carpool_core::{Batcher, Clock, Limits, ManualClock, Nanos};

#[derive(Debug)]
pub struct Plain;

/// Who waits: a number in a log that records the order of wakes.
#[derive(Clone, Default)]
pub struct Log(pub Arc<Mutex<Vec<u64>>>);

pub struct Waiter {
    pub id: u64,
    pub log: Log,
    pub runner: Option<Waker>,
}

impl Border for Plain {
    type Payload = u64;
    type Answer = Result<u64, Failure>;
    type Waiter = Waiter;
    type Wakes = Vec<(u64, Log)>;
    type Clock = Time;

    fn failure(why: Failure) -> Self::Answer {
        Err(why)
    }
    fn is_failure(answer: &Self::Answer) -> bool {
        answer.is_err()
    }
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes) {
        wakes.push((request.waiter().id, request.waiter().log.clone()));
    }
    fn fire(wakes: Self::Wakes) {
        for (id, log) in wakes {
            log.0.lock().unwrap().push(id);
        }
    }
    fn wake_window(waiter: &Self::Waiter) {
        waiter.log.0.lock().unwrap().push(waiter.id);
    }
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        batcher.clock().armed.lock().unwrap().push(moment);
    }
    fn runner(waiter: &Self::Waiter) -> Option<&Waker> {
        waiter.runner.as_ref()
    }
}

/// A clock that moves only when told to, and what the batcher asked to be woken for.
#[derive(Clone, Default)]
pub struct Time {
    clock: ManualClock,
    armed: Arc<Mutex<Vec<Nanos>>>,
}

impl Clock for Time {
    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

impl Time {
    pub fn set(&self, moment: Nanos) {
        self.clock.set(moment);
    }
    pub fn advance(&self, nanos: Nanos) {
        self.clock.advance(nanos);
    }
    /// What was asked for since the last look.
    pub fn armed(&self) -> Vec<Nanos> {
        std::mem::take(&mut self.armed.lock().unwrap())
    }
}

impl Log {
    pub fn waiter(&self, id: u64) -> Waiter {
        Waiter {
            id,
            log: self.clone(),
            runner: None,
        }
    }
    pub fn woken(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }
}

/// Counts how often it is woken.
#[derive(Default)]
pub struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    pub fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self::default());
        (bell.clone(), bell.into())
    }
    pub fn rings(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

pub fn batcher(limits: Limits) -> (Batcher<Plain>, Time) {
    let clock = Time::default();
    (Batcher::new(limits, clock.clone()).expect("limits"), clock)
}
