//! Doors for the models of `tests/loom.rs` into what is no public surface: the bare intake.

use crate::border::Border;
use crate::request::{Claimed, Handle, Request, Terms};
use crate::sync::Arc;

/// The intake by itself.
pub struct Intake<B: Border>(crate::queue::intake::Intake<B>);

impl<B: Border> Default for Intake<B> {
    fn default() -> Self {
        Self(crate::queue::intake::Intake::new())
    }
}

impl<B: Border> Intake<B> {
    /// Pushes a plain request.
    pub fn push(&self, payload: B::Payload, waiter: B::Waiter) {
        let request = Request::new(payload, waiter, Terms::at(0), false);
        self.0.push(Arc::new(request));
    }

    /// Takes everything, and claims it, as sealing would.
    pub fn drain(&self) -> Vec<B::Payload> {
        let mut all = Vec::new();
        self.0.drain(|request: Handle<B>| {
            if let Ok(mut claimed) = Claimed::claim(request) {
                all.extend(claimed.release());
            }
        });
        all
    }
}
