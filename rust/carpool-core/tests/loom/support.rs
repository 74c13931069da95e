//! The border of the models: small numbers, and a caller who parks.

use loom::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use carpool_core::border::{Border, Failure};
use carpool_core::park::Parker;
use carpool_core::request::{Handle, Terms};
use carpool_core::submit::Announce;
use carpool_core::timer::Alarms;
use carpool_core::{
    Batch, Batcher, Clock, Limits, ManualClock, Nanos, Overflow, Pulled, Seat, Ticket,
};

/// Runs `f` through the orders of events that `LOOM_MAX_PREEMPTIONS` allows, and says how many.
pub(crate) fn model(f: impl Fn() + Send + Sync + 'static) {
    check(loom::model::Builder::new(), f);
}

/// Runs `f`, which must be small, through every order of events there is.
pub(crate) fn whole_model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    check(builder, f);
}

fn check(builder: loom::model::Builder, f: impl Fn() + Send + Sync + 'static) {
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = runs.clone();
    builder.check(move || {
        seen.fetch_add(1, Relaxed);
        f();
    });
    println!("{} executions", runs.load(Relaxed));
}

/// The border.
pub(crate) struct Model;

/// A value that loom watches: whoever reads it must have been told of the write.
pub(crate) struct Note(UnsafeCell<u8>);

// SAFETY: never written after `new`.
unsafe impl Sync for Note {}

impl Note {
    pub(crate) fn new(value: u8) -> Self {
        Self(UnsafeCell::new(value))
    }
    pub(crate) fn read(&self) -> u8 {
        // SAFETY: never written after `new`.
        self.0.with(|note| unsafe { *note })
    }
}

impl Default for Note {
    fn default() -> Self {
        Self::new(0)
    }
}

/// Who waits: woken with the answer, and as one that runs batches itself.
#[derive(Default)]
pub(crate) struct Waiter {
    pub(crate) note: Note,
    pub(crate) caller: Option<Waker>,
    pub(crate) runner: Option<Waker>,
}

impl Border for Model {
    type Payload = u8;
    type Answer = Result<u8, Failure>;
    type Waiter = Waiter;
    type Wakes = Vec<Waker>;
    type Clock = Time;

    fn failure(why: Failure) -> Self::Answer {
        Err(why)
    }
    fn is_failure(answer: &Self::Answer) -> bool {
        answer.is_err()
    }
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes) {
        wakes.extend(request.waiter().caller.clone());
    }
    fn fire(wakes: Self::Wakes) {
        wakes.into_iter().for_each(Waker::wake);
    }
    /// What they leave behind is theirs to take.
    fn expired(requests: Vec<Handle<Self>>) {
        Self::tell(requests);
    }
    fn wake_window(waiter: &Self::Waiter) {
        waiter.caller.iter().for_each(Waker::wake_by_ref);
    }
    fn arm(batcher: &Batcher<Self>, moment: Nanos) {
        batcher.clock().alarms.set(moment, ());
    }
    fn runner(waiter: &Self::Waiter) -> Option<&Waker> {
        waiter.runner.as_ref()
    }
}

/// A clock that stands still, and the alarms of one batcher.
#[derive(Default)]
pub(crate) struct Time {
    pub(crate) clock: ManualClock,
    pub(crate) alarms: Alarms<()>,
}

impl Clock for Time {
    fn now(&self) -> Nanos {
        self.clock.now()
    }
}

/// One slot, room for plenty.
pub(crate) fn limits(max_batch_size: usize, wait: u64) -> Limits {
    Limits {
        max_batch_size,
        wait,
        max_queue: 8,
        overflow: Overflow::Raise,
        slots: 1,
        ..Limits::default()
    }
}

pub(crate) fn batcher(limits: Limits) -> Batcher<Model> {
    Batcher::new(limits, Time::default()).unwrap()
}

/// Submits for nobody in particular.
pub(crate) fn submit(batcher: &Batcher<Model>, payload: u8) -> Option<Ticket<Model>> {
    batcher.submit(payload, Waiter::default()).ok()
}

/// Submits for a caller that runs its own batches, parked at `parker`.
pub(crate) fn submit_own(batcher: &Batcher<Model>, payload: u8, parker: &Parker) -> Ticket<Model> {
    let waiter = Waiter {
        note: Note::default(),
        caller: Some(parker.waker().clone()),
        runner: Some(parker.waker().clone()),
    };
    let terms = Terms::at(batcher.now());
    let ticket = batcher.submit_with(payload, waiter, terms, Announce::No);
    ticket.unwrap_or_else(|refused| panic!("{refused:?}"))
}

/// Waits for a batch; `None` once closed and drained.
pub(crate) fn pull(seat: &mut Seat<Model>, parker: &Parker, size: usize) -> Option<Batch<Model>> {
    match seat.pull(parker, size, None, || false) {
        Pulled::Batch(batch) => Some(batch),
        Pulled::Closed => None,
        Pulled::Wait(_) => panic!("nobody told it to stop"),
    }
}

/// Answers every request with ten times its payload; the payloads.
pub(crate) fn serve(mut batch: Batch<Model>) -> Vec<u8> {
    let payloads: Vec<u8> = (0..batch.len())
        .map(|i| *batch.payload(i).unwrap())
        .collect();
    let answers = payloads.iter().map(|payload| Ok(payload * 10)).collect();
    batch.answer_all(answers).unwrap().send();
    payloads
}
