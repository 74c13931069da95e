//! The border of the simulation: tagged values that are counted, wakes that are written down.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use carpool_core::border::{Border, Failure};
use carpool_core::request::Handle;
use carpool_core::{Batch, Batcher, Clock, ManualClock, Nanos};

/// How many values exist: back to zero at the end, or something leaks.
#[derive(Clone, Default)]
pub struct Census(Arc<AtomicUsize>);

impl Census {
    pub fn alive(&self) -> usize {
        self.0.load(SeqCst)
    }
    pub fn value(&self, id: usize) -> Value {
        self.0.fetch_add(1, SeqCst);
        Value {
            id,
            census: self.clone(),
        }
    }
}

/// A payload, or an answer to one.
pub struct Value {
    pub id: usize,
    census: Census,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.census.0.fetch_sub(1, SeqCst);
    }
}

/// What a request gets.
pub enum Answer {
    Result(Value),
    /// The handler's own error.
    Error(Value),
    Failure(Failure),
}

/// Who was woken, one entry per routing step.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<Vec<Vec<usize>>>>);

impl Diary {
    /// How many steps woke somebody since the last look.
    pub fn rounds(&self) -> usize {
        self.0.lock().unwrap().len()
    }
    /// What happened since the last look.
    pub fn read(&self) -> Vec<Vec<usize>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub struct Waiter {
    pub id: usize,
    pub diary: Diary,
    pub runner: Option<Waker>,
    /// Counted like the values.
    pub value: Value,
}

pub struct Sim;

impl Border for Sim {
    type Payload = Value;
    type Answer = Answer;
    type Waiter = Waiter;
    type Wakes = Vec<(usize, Diary)>;
    type Clock = Time;

    fn failure(why: Failure) -> Answer {
        Answer::Failure(why)
    }
    fn is_failure(answer: &Answer) -> bool {
        !matches!(answer, Answer::Result(_))
    }
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes) {
        let Waiter { id, diary, .. } = request.waiter();
        wakes.push((*id, diary.clone()));
    }
    fn fire(wakes: Self::Wakes) {
        let Some((_, diary)) = wakes.first().cloned() else {
            return;
        };
        let ids = wakes.into_iter().map(|(id, _)| id).collect();
        diary.0.lock().unwrap().push(ids);
    }
    fn wake_window(_: &Self::Waiter) {
        unreachable!("here nobody waits for many");
    }
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        let mut armed = batcher.clock().armed.lock().unwrap();
        *armed = Some(armed.map_or(moment, |before| before.min(moment)));
    }
    fn runner(waiter: &Waiter) -> Option<&Waker> {
        waiter.runner.as_ref()
    }
}

/// A clock that moves when told to, and the moment for which the timer thread was asked.
#[derive(Clone, Default)]
pub struct Time {
    pub clock: ManualClock,
    armed: Arc<Mutex<Option<Nanos>>>,
}

impl Clock for Time {
    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

impl Time {
    pub fn armed(&self) -> Option<Nanos> {
        *self.armed.lock().unwrap()
    }
    pub fn disarm(&self) {
        *self.armed.lock().unwrap() = None;
    }
}

/// Rings until somebody looks.
#[derive(Default)]
pub struct Bell {
    rings: AtomicUsize,
    heard: AtomicUsize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rings.fetch_add(1, SeqCst);
    }
}

impl Bell {
    pub fn rang(&self) -> bool {
        self.rings.load(SeqCst) != self.heard.load(SeqCst)
    }
    /// Silences it; whether it rang.
    pub fn hear(&self) -> bool {
        let rings = self.rings.load(SeqCst);
        self.heard.swap(rings, SeqCst) != rings
    }
}

/// The requests of a batch, by their numbers.
pub fn ids(batch: &Batch<Sim>) -> Vec<usize> {
    batch
        .requests()
        .map(|request| request.waiter().id)
        .collect()
}

/// SplitMix64: small, and the same everywhere. (Steele, Lea, Flood, OOPSLA 2014.)
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
