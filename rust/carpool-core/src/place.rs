//! One place for a request's payload and, later, its answer: they never live at the same time.
//!
//! The payload leaves when the answer is delivered, so the cell needs room for the larger of the two only.
//! Which of them is there is not noted here: the state of the [reply](crate::reply) says it.

use std::mem::ManuallyDrop;

use crate::sync::UnsafeCell;

union Content<P, A> {
    payload: ManuallyDrop<P>,
    answer: ManuallyDrop<A>,
}

/// The place.
pub(crate) struct Place<P, A>(UnsafeCell<Content<P, A>>);

impl<P, A> Place<P, A> {
    /// With a payload.
    #[inline]
    pub(crate) fn new(payload: P) -> Self {
        let payload = ManuallyDrop::new(payload);
        Self(UnsafeCell::new(Content { payload }))
    }

    /// A look at the payload.
    ///
    /// # Safety
    ///
    /// It is there, and stays as long as the reference lives; nobody has it mutably.
    #[inline]
    pub(crate) unsafe fn payload(&self) -> &P {
        // SAFETY: as the caller promises.
        self.0.with(|place| unsafe { &*(*place).payload })
    }

    /// Takes the payload out.
    ///
    /// # Safety
    ///
    /// It is there, nobody else reaches the place meanwhile, and it is not taken again.
    #[inline]
    pub(crate) unsafe fn take_payload(&self) -> P {
        // SAFETY: as the caller promises.
        self.0
            .with_mut(|place| unsafe { ManuallyDrop::take(&mut (*place).payload) })
    }

    /// Puts the answer in, over nothing.
    ///
    /// # Safety
    ///
    /// The payload has been taken, and nobody else reaches the place meanwhile.
    #[inline]
    pub(crate) unsafe fn put_answer(&self, answer: A) {
        let answer = ManuallyDrop::new(answer);
        // SAFETY: as the caller promises; what was there needs no drop.
        self.0.with_mut(|place| unsafe { (*place).answer = answer });
    }

    /// Takes the answer out.
    ///
    /// # Safety
    ///
    /// It was put in, nobody else reaches the place meanwhile, and it is not taken again.
    #[inline]
    pub(crate) unsafe fn take_answer(&self) -> A {
        // SAFETY: as the caller promises.
        self.0
            .with_mut(|place| unsafe { ManuallyDrop::take(&mut (*place).answer) })
    }
}
