//! A door for the models of `tests/loom.rs` to what is no public surface: the bare intake.

use crate::border::Border;
use crate::request::{Handle, Request, Terms, Who};

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
        let request = || Request::new(payload, Who::One(waiter), Terms::at(0), false);
        self.0.push(Handle::new(request));
    }

    /// Takes everything, oldest push first.
    pub fn drain(&self, each: impl FnMut(Handle<B>)) {
        self.0.drain(each);
    }
}
