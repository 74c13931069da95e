//! The thread that looks after deadlines: one per process, for all batchers.
//!
//! It sleeps until the earliest moment that somebody has asked for, without a limit while there is none,
//! and then calls [`Batcher::expire_due`]. Batchers are held weakly. The thread is plain: it never
//! belongs to a runtime of the border's, so what it finds is told by [`Border::expired`], and wakers
//! that need a runtime can ask [`is_here`].
//!
//! *Handshake.* [`Alarms`] is one lock around a heap and around when the sleeper wakes by itself. Whoever adds an
//! earlier moment wakes it, nobody else does. The sleeper announces its moment under the same lock and parks
//! after releasing it; the wake's token is kept by the parking place, so none is lost in between. While
//! it is awake it needs no wake: it looks again before it sleeps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;

#[cfg(doc)]
use crate::batcher::Batcher;
#[cfg(doc)]
use crate::border::Border;
use crate::clock::Nanos;
use crate::park::Parker;
use crate::sync::{Mutex, lock};

/// Moments, whom they concern, and one thread that sleeps between them.
pub struct Alarms<E>(Mutex<Inner<E>>);

struct Inner<E> {
    heap: BinaryHeap<Reverse<Alarm<E>>>,
    added: u64,
    /// How to wake the sleeper, and when it wakes by itself; `None` while it is awake.
    sleeper: Option<(Waker, Option<Nanos>)>,
}

struct Alarm<E> {
    at: Nanos,
    number: u64,
    whom: E,
}

impl<E> PartialEq for Alarm<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Alarm<E> {}

impl<E> PartialOrd for Alarm<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Alarm<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Default for Alarms<E> {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            heap: BinaryHeap::new(),
            added: 0,
            sleeper: None,
        }))
    }
}

impl<E> Alarms<E> {
    /// Has the sleeper call `whom` at `at`.
    pub fn set(&self, at: Nanos, whom: E) {
        let mut inner = lock(&self.0);
        inner.added += 1;
        let number = inner.added;
        inner.heap.push(Reverse(Alarm { at, number, whom }));
        let too_late = match &inner.sleeper {
            Some((_, until)) => until.is_none_or(|until| at < until),
            None => false,
        };
        let woken = if too_late { inner.sleeper.take() } else { None };
        drop(inner);
        if let Some((waker, _)) = woken {
            waker.wake();
        }
    }

    /// One of those whose moment has come; else goes to sleep, with `waker`: until when.
    pub fn next(&self, now: Nanos, waker: &Waker) -> Result<E, Option<Nanos>> {
        let mut inner = lock(&self.0);
        inner.sleeper = None;
        let first = inner.heap.peek().map(|Reverse(alarm)| alarm.at);
        if first.is_some_and(|at| at <= now) {
            if let Some(Reverse(alarm)) = inner.heap.pop() {
                return Ok(alarm.whom);
            }
        }
        inner.sleeper = Some((waker.clone(), first));
        Err(first)
    }

    /// Calls those whose moment has come, sleeps in between, until `stop`.
    pub fn serve(
        &self,
        parker: &Parker,
        now: impl Fn() -> Nanos,
        mut call: impl FnMut(E),
        mut stop: impl FnMut() -> bool,
    ) {
        while !stop() {
            let moment = now();
            match self.next(moment, parker.waker()) {
                Ok(whom) => call(whom),
                Err(until) => parker.park(until.map(|until| until.saturating_sub(moment))),
            }
        }
    }
}

#[cfg(not(loom))]
pub use process::{arm, forked, is_here, start};

#[cfg(not(loom))]
mod process {
    use std::cell::Cell;
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::ptr::null_mut;
    use std::sync::atomic::{
        AtomicBool, AtomicPtr,
        Ordering::{AcqRel, Acquire, Relaxed},
    };
    use std::sync::{Arc, Mutex, PoisonError, Weak};
    use std::thread;

    use super::Alarms;
    use crate::batcher::Batcher;
    use crate::border::Border;
    use crate::clock::{Clock, Nanos, SystemClock};
    use crate::park::Parker;
    use crate::scheduler::Shared;

    /// A batcher of any border.
    trait Timed: Send + Sync {
        fn expire_due(self: Arc<Self>);
    }

    impl<B: Border> Timed for Shared<B> {
        fn expire_due(self: Arc<Self>) {
            Shared::expire_due(&self);
        }
    }

    #[derive(Default)]
    struct Timer {
        alarms: Alarms<Weak<dyn Timed>>,
        runs: AtomicBool,
        starting: Mutex<()>,
    }

    /// The timer of this process; null before first use. Never freed: its thread uses it for ever.
    static TIMER: AtomicPtr<Timer> = AtomicPtr::new(null_mut());

    thread_local! {
        static HERE: Cell<bool> = const { Cell::new(false) };
    }

    fn timer() -> &'static Timer {
        let mut known = TIMER.load(Acquire);
        if known.is_null() {
            let made = Box::into_raw(Box::<Timer>::default());
            known = match TIMER.compare_exchange(null_mut(), made, AcqRel, Acquire) {
                Ok(_) => made,
                Err(other) => {
                    // SAFETY: it came from `into_raw` just above and was never shared.
                    drop(unsafe { Box::from_raw(made) });
                    other
                }
            };
        }
        // SAFETY: what stands in `TIMER` came from `Box::into_raw` and is never freed.
        unsafe { &*known }
    }

    /// Starts the thread, if it does not run yet. Whoever submits requests with deadlines calls this
    /// before; without the thread a deadline is noticed only when somebody looks at the batcher.
    pub fn start() -> io::Result<()> {
        let timer = timer();
        if timer.runs.load(Acquire) {
            return Ok(());
        }
        let _one = timer
            .starting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !timer.runs.load(Acquire) {
            let name = "carpool timer".into();
            thread::Builder::new().name(name).spawn(|| run(timer))?;
            timer.runs.store(true, std::sync::atomic::Ordering::Release);
        }
        Ok(())
    }

    fn run(timer: &Timer) {
        HERE.set(true);
        be_quiet_and_exact();
        let call = |batcher: Weak<dyn Timed>| {
            if let Some(batcher) = batcher.upgrade() {
                // A border that panics when it is told must not end the deadlines of all others.
                drop(catch_unwind(AssertUnwindSafe(|| batcher.expire_due())));
            }
        };
        timer
            .alarms
            .serve(&Parker::here(), || SystemClock.now(), call, || false);
    }

    /// Signals are for the threads of the border. And Linux may delay a thread's timers by 50 µs.
    fn be_quiet_and_exact() {
        #[cfg(target_os = "linux")]
        // SAFETY: these touch nothing but the mask and the timer slack of the calling thread; the set
        // is filled before it is read.
        unsafe {
            let mut all = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, null_mut());
            libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong);
        }
    }

    /// Has the thread call [`Batcher::expire_due`] at `moment` of the system's clock, if the batcher still exists
    /// then.
    pub fn arm<B: Border>(batcher: &Batcher<B>, moment: Nanos) {
        let shared: Weak<Shared<B>> = Arc::downgrade(batcher.shared());
        timer().alarms.set(moment, shared);
    }

    /// Whether this is the timer thread.
    #[inline]
    pub fn is_here() -> bool {
        HERE.get()
    }

    /// For a forked child, which has no such thread, and may have inherited a lock that is held for ever:
    /// the next use makes a new timer.
    pub fn forked() {
        TIMER.store(null_mut(), Relaxed);
    }
}
