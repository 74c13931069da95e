//! How queues, batches and callers hold a request: a counted reference.
//!
//! What `Arc` is, without weak references. So the cell is a word smaller, its count lies beside the
//! reply's state, and the two handles that a submit needs (the queue's and the caller's) are there from
//! the start, without an atomic addition.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use crate::border::Border;
use crate::request::Request;

/// A counted reference to a request.
pub struct Handle<B: Border> {
    request: NonNull<Request<B>>,
    /// The last handle drops the request.
    owns: PhantomData<Request<B>>,
}

// SAFETY: a handle gives shared access from any thread, and its drop may move the request to the
// dropping one: `Request` is both `Send` and `Sync` (by `Border`'s bounds), as asserted below.
unsafe impl<B: Border> Send for Handle<B> {}
// SAFETY: as above.
unsafe impl<B: Border> Sync for Handle<B> {}

const fn is_send_and_sync<T: Send + Sync>() {}

impl<B: Border> Handle<B> {
    /// The only handle of what `make` makes, in the place where it stays.
    #[inline]
    pub(crate) fn new(make: impl FnOnce() -> Request<B>) -> Self {
        const { is_send_and_sync::<Request<B>>() };
        // Room first: a cell made before would have to be moved there.
        let mut room = Box::<Request<B>>::new_uninit();
        // SAFETY: the room is large enough and aligned; what was there needs no drop.
        unsafe { room.as_mut_ptr().write(make()) };
        // SAFETY: it came out of a box, was filled, and is counted once from the start.
        unsafe { Self::from_raw(Box::into_raw(room).cast()) }
    }

    /// Two handles, without counting one by one.
    #[inline]
    pub(crate) fn pair(make: impl FnOnce() -> Request<B>) -> (Self, Self) {
        let one = Self::new(make);
        one.handles().set(2);
        // SAFETY: both were counted just now; nobody else has seen the request.
        let other = unsafe { Self::from_raw(one.request.as_ptr()) };
        (one, other)
    }

    /// Gives the count up; the way back is `from_raw`.
    #[inline]
    pub(crate) fn into_raw(self) -> *mut Request<B> {
        let request = self.request.as_ptr();
        std::mem::forget(self);
        request
    }

    /// Takes over a count.
    ///
    /// # Safety
    ///
    /// `request` came out of a `Box` and has a count that nobody else will give back.
    #[inline]
    pub(crate) unsafe fn from_raw(request: *mut Request<B>) -> Self {
        Self {
            // SAFETY: a `Box` is never null.
            request: unsafe { NonNull::new_unchecked(request) },
            owns: PhantomData,
        }
    }

    /// Whether both are of the same request.
    #[inline]
    pub fn ptr_eq(one: &Self, other: &Self) -> bool {
        one.request == other.request
    }

    /// How many handles of its request there are at the moment.
    pub fn count(handle: &Self) -> usize {
        handle.handles().get()
    }

    /// The request itself, if this is the only handle.
    pub(crate) fn into_inner(self) -> Option<Request<B>> {
        let only = self.handles().is_one();
        // SAFETY: the only count is this one's, and it is forgotten: nobody can reach the box any more.
        only.then(|| unsafe { *Box::from_raw(self.into_raw()) })
    }
}

impl<B: Border> Deref for Handle<B> {
    type Target = Request<B>;

    #[inline]
    fn deref(&self) -> &Request<B> {
        // SAFETY: this handle is counted, so the request is alive; nobody has it mutably.
        unsafe { self.request.as_ref() }
    }
}

impl<B: Border> Clone for Handle<B> {
    #[inline]
    fn clone(&self) -> Self {
        self.handles().add();
        Self {
            request: self.request,
            owns: PhantomData,
        }
    }
}

impl<B: Border> Drop for Handle<B> {
    #[inline]
    fn drop(&mut self) {
        if self.handles().let_go() {
            // SAFETY: this handle brought the count to zero: no other is left, and what they did with the
            // request has been acquired. It came out of a box (`new`).
            drop(unsafe { Box::from_raw(self.request.as_ptr()) });
        }
    }
}
