//! Readers that give their streams up, told to those who run the handlers of streams: one that waits inside a step
//! need not wait on for nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

/// Whom a batcher tells: a callback for each stream that runs on an event loop, so there are few.
#[derive(Default)]
pub(crate) struct Leaving {
    callbacks: Mutex<Vec<Py<PyAny>>>,
    /// There are any; else nobody need attach or lock.
    any: AtomicBool,
}

impl Leaving {
    fn callbacks(&self) -> MutexGuard<'_, Vec<Py<PyAny>>> {
        self.callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `callback` whenever a reader has gone, from whichever thread that is in.
    pub(crate) fn watch(&self, callback: Py<PyAny>) {
        let mut callbacks = self.callbacks();
        callbacks.push(callback);
        // Pairs with the load in `tell`. A reader that goes at this very moment may miss it: whoever watches looks
        // once itself after this.
        self.any.store(true, Ordering::SeqCst);
    }

    /// Calls it no longer.
    pub(crate) fn unwatch(&self, callback: &Py<PyAny>) {
        let mut callbacks = self.callbacks();
        let place = callbacks.iter().position(|one| one.is(callback));
        let gone = place.map(|place| callbacks.swap_remove(place));
        self.any.store(!callbacks.is_empty(), Ordering::SeqCst);
        drop(callbacks);
        // What it keeps may be dropped with it, with nothing locked.
        drop(gone);
    }

    /// A reader has gone.
    pub(crate) fn tell(&self) {
        if !self.any.load(Ordering::SeqCst) {
            return;
        }
        Python::attach(|py| {
            let callbacks: Vec<_> = self
                .callbacks()
                .iter()
                .map(|one| one.clone_ref(py))
                .collect();
            for callback in callbacks {
                if let Err(error) = callback.call0(py) {
                    error.write_unraisable(py, None);
                }
            }
        });
    }
}
