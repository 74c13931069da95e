//! The handle of the models: loom's own `Arc`, which notices what is never dropped and hides fewer orders
//! of events behind its count. The shipped count has a model of its own.

use std::ops::Deref;

use crate::border::Border;
use crate::request::Request;
use crate::sync::Arc;

/// A counted reference to a request.
pub struct Handle<B: Border>(Arc<Request<B>>);

impl<B: Border> Handle<B> {
    pub(crate) fn new(make: impl FnOnce() -> Request<B>) -> Self {
        Self(Arc::new(make()))
    }

    pub(crate) fn pair(make: impl FnOnce() -> Request<B>) -> (Self, Self) {
        let one = Self::new(make);
        (one.clone(), one)
    }

    pub(crate) fn into_raw(self) -> *mut Request<B> {
        Arc::into_raw(self.0).cast_mut()
    }

    /// # Safety
    ///
    /// `request` came out of `into_raw`, and does so once.
    pub(crate) unsafe fn from_raw(request: *mut Request<B>) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { Arc::from_raw(request.cast_const()) })
    }

    /// Whether both are of the same request.
    pub fn ptr_eq(one: &Self, other: &Self) -> bool {
        Arc::ptr_eq(&one.0, &other.0)
    }

    /// How many handles of its request there are at the moment.
    pub fn count(handle: &Self) -> usize {
        Arc::strong_count(&handle.0)
    }

    pub(crate) fn into_inner(self) -> Option<Request<B>> {
        Arc::try_unwrap(self.0).ok()
    }
}

impl<B: Border> Deref for Handle<B> {
    type Target = Request<B>;

    fn deref(&self) -> &Request<B> {
        &self.0
    }
}

impl<B: Border> Clone for Handle<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
