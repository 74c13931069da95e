//! Waking blocked threads without the interpreter.
//!
//! A thread that is woken goes for the interpreter at once. As long as the waker holds that, it only wakes
//! up to sleep again, and a batch of them all at once. So whoever routes a batch holds the wakes of its
//! blocked callers back, and makes them once it has let go of the interpreter.

use std::cell::{Cell, RefCell};
use std::task::Waker;

thread_local! {
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    static HELD: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// Runs `route`, which tells the callers of one step; the wakes of those who are blocked are the caller's
/// to make.
#[must_use = "the callers sleep until they are woken"]
pub(crate) fn hold(route: impl FnOnce()) -> Vec<Waker> {
    let outer = HELD.take();
    HOLDS.set(true);
    route();
    HOLDS.set(false);
    HELD.replace(outer)
}

/// Tells the blocked callers of one step, after the others: `others` runs Python code, whose wakes are its
/// own business.
pub(crate) fn after<'a>(others: impl FnOnce(), blocked: impl Iterator<Item = &'a Waker>) {
    let holds = HOLDS.replace(false);
    others();
    if holds {
        HELD.with_borrow_mut(|held| held.extend(blocked.cloned()));
    } else {
        blocked.for_each(Waker::wake_by_ref);
    }
}

/// Tells one that waits for many.
pub(crate) fn one(waker: &Waker) {
    if HOLDS.get() {
        HELD.with_borrow_mut(|held| held.push(waker.clone()));
    } else {
        waker.wake_by_ref();
    }
}
