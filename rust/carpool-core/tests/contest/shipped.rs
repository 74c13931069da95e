//! The batcher itself: the shipped intake, scheduler, seats and batches, on a clock that is turned by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Wake, Waker};

use carpool_core::border::{Border, Failure};
use carpool_core::request::Handle;
use carpool_core::{Batch, Batcher, Learning, Limits, ManualClock, Nanos, Pulled};

use super::traces::Trace;
use super::{Book, Handler, Outcome};

/// Payloads are moments of arrival.
struct Sim;

impl Border for Sim {
    type Payload = u64;
    type Answer = ();
    type Waiter = ();
    type Wakes = ();
    type Clock = ManualClock;

    fn failure(why: Failure) {
        panic!("{why:?}: nobody is ever dropped");
    }
    fn is_failure((): &()) -> bool {
        false
    }
    fn wake(_: &Handle<Self>, (): &mut ()) {}
    fn fire((): ()) {}
    fn wake_window((): &()) {}
    fn arm(_: &Batcher<Self>, _: Nanos) {}
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// carpool with a latency target, and with nothing else but the size that all have.
pub fn with_target(trace: &Trace, seed: u64) -> Outcome {
    let limits = Limits {
        max_batch_size: trace.most,
        ..Limits::default()
    };
    let learning = Learning {
        target: Some(trace.target),
        ..Learning::default()
    };
    play(trace, seed, limits, learning)
}

/// As many callers as given, each of which calls again `pause` after it has its answer: answers per second, by the
/// clock on the wall. `target` 0 is none.
pub fn callers(callers: usize, pause: u64, target: u64, seed: u64) -> f64 {
    let trace = Trace {
        name: String::new(),
        arrivals: Vec::new(),
        target,
        most: 64,
        fixed: 2e6,
        each: 0.1e6,
        drift: super::traces::Drift::None,
    };
    let limits = Limits {
        max_batch_size: trace.most,
        slots: 1,
        ..Limits::default()
    };
    let learning = Learning {
        target: (target > 0).then_some(target),
        ..Learning::default()
    };
    let clock = ManualClock::default();
    let batcher: Batcher<Sim> = Batcher::learning(limits, learning, clock.clone()).unwrap();
    let mut seat = batcher.seat();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut handler = Handler::new(&trace, seed);
    let (mut now, mut timer, mut answered) = (1, None, 0);
    let mut calls: Vec<u64> = (0..callers as u64)
        .map(|caller| 1 + caller * 1000)
        .collect();
    let mut running: Option<(Batch<Sim>, u64)> = None;
    bell.0.store(true, SeqCst);
    while now < 5_000_000_000 {
        while running.is_none() && (bell.0.swap(false, SeqCst) || timer.is_some_and(|at| at <= now))
        {
            timer = None;
            match seat.poll(&waker, usize::MAX) {
                Pulled::Batch(batch) => {
                    let end = now + handler.run(&trace, batch.len(), now);
                    running = Some((batch, end));
                }
                Pulled::Wait(until) => timer = until,
                Pulled::Closed => unreachable!("nobody closes it"),
            }
        }
        calls.sort_unstable_by(|a, b| b.cmp(a));
        let end = running.as_ref().map(|&(_, end)| end);
        let alarm = timer.filter(|_| running.is_none());
        let call = calls.last().copied();
        now = [call, end, alarm]
            .into_iter()
            .flatten()
            .min()
            .expect("somebody goes on");
        clock.set(now);
        if end == Some(now) {
            let (mut batch, _) = running.take().expect("it runs");
            let n = batch.len();
            let answered_all = batch.answer_all(vec![(); n]);
            assert!(answered_all.is_ok_and(|outgoing| outgoing.send()));
            answered += n;
            calls.extend((0..n as u64).map(|at| now + pause + 1000 * at));
            bell.0.store(true, SeqCst);
        } else if call == Some(now) {
            calls.pop();
            assert!(batcher.submit(now, ()).is_ok());
        }
    }
    if let Some((mut batch, _)) = running {
        drop(batch.answer_rest(|_| ()));
    }
    batcher.close(true);
    while let Pulled::Batch(mut batch) = seat.poll(&waker, usize::MAX) {
        drop(batch.answer_rest(|_| ()));
    }
    answered as f64 / 5.0
}

/// carpool with fixed settings.
pub fn fixed(trace: &Trace, seed: u64, most: usize, wait: u64) -> Outcome {
    let limits = Limits {
        max_batch_size: most,
        wait,
        ..Limits::default()
    };
    play(trace, seed, limits, Learning::default())
}

fn play(trace: &Trace, seed: u64, limits: Limits, learning: Learning) -> Outcome {
    let clock = ManualClock::default();
    let limits = Limits {
        max_queue: usize::MAX >> 8,
        slots: 1,
        ..limits
    };
    let batcher: Batcher<Sim> = Batcher::learning(limits, learning, clock.clone()).unwrap();
    let mut seat = batcher.seat();
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut handler = Handler::new(trace, seed);
    let mut book = Book::default();
    let (mut next, mut now) = (0, 0);
    let mut timer = None;
    let mut running: Option<(Batch<Sim>, u64, u64)> = None;
    bell.0.store(true, SeqCst);
    loop {
        // Whoever was woken looks; a worker with a batch in hand does not.
        while running.is_none() && (bell.0.swap(false, SeqCst) || timer.is_some_and(|at| at <= now))
        {
            timer = None;
            match seat.poll(&waker, usize::MAX) {
                Pulled::Batch(batch) => {
                    let run = handler.run(trace, batch.len(), now);
                    running = Some((batch, run, now + run));
                }
                Pulled::Wait(until) => timer = until,
                Pulled::Closed => unreachable!("nobody closes it"),
            }
        }
        let arrival = trace.arrivals.get(next).copied();
        let end = running.as_ref().map(|&(_, _, end)| end);
        let alarm = timer.filter(|_| running.is_none());
        let Some(moment) = [arrival, end, alarm].into_iter().flatten().min() else {
            assert_eq!(batcher.pending(), 0, "somebody was forgotten");
            return book.outcome(trace);
        };
        now = moment;
        clock.set(now);
        if end == Some(now) {
            let (mut batch, run, end) = running.take().expect("it runs");
            let arrivals: Vec<_> = (0..batch.len())
                .filter_map(|at| batch.payload(at).copied())
                .collect();
            book.ran(arrivals.into_iter(), run, end);
            let answers = vec![(); batch.len()];
            assert!(
                batch
                    .answer_all(answers)
                    .is_ok_and(|outgoing| outgoing.send())
            );
            bell.0.store(true, SeqCst);
        } else if arrival == Some(now) {
            assert!(batcher.submit(now, ()).is_ok());
            next += 1;
        }
    }
}
