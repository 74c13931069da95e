//! The one door between the core and whoever uses it.

use crate::batcher::Batcher;
use crate::clock::{Clock, Nanos};
use crate::request::Handle;
#[cfg(doc)]
use crate::request::Request;
use crate::watch::Moments;

/// What the core fails a request with when there is no handler's outcome to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The batch was dropped, or its holder died, before this request was answered.
    Abandoned,
    /// The batcher was closed before the request left.
    Closed,
    /// The deadline passed before the request left.
    Expired,
    /// The queue was full, and it gave way to a request that is more urgent.
    Shed,
}

/// What a user of the core brings along: its payloads, its answers, its way of waiting, its clock.
///
/// The core never looks into any of them. It calls `wake`, `fire` and `expired` with no lock held and only
/// after every outcome of a batch has been stored, so both may run code that submits, closes or
/// drops.
pub trait Border: Sized + Send + Sync + 'static {
    /// The caller's value on its way to the handler.
    type Payload: Send;
    /// One request's outcome on its way back.
    type Answer: Send;
    /// Who waits for the reply; fixed when the request is made.
    type Waiter: Send + Sync;
    /// Wakes that one routing step has to make, grouped as the border likes (one per loop).
    type Wakes: Default;
    /// Where time comes from.
    type Clock: Clock;

    /// The answer for a request that no handler answered.
    fn failure(why: Failure) -> Self::Answer;

    /// True for an answer that counts as failed in the statistics.
    fn is_failure(answer: &Self::Answer) -> bool;

    /// Notes that `request` is over, answered or expired; called once per such request. Of one that is
    /// given steps also that there are some, until its reply says [`Nothing`](crate::Next::Nothing).
    fn wake(request: &Handle<Self>, wakes: &mut Self::Wakes);

    /// Carries out what `wake` noted; called once per routing step.
    fn fire(wakes: Self::Wakes);

    /// Tells the callers of one routing step. A border that can do better than request by request says
    /// how.
    fn tell(requests: Vec<Handle<Self>>) {
        let mut wakes = Self::Wakes::default();
        for request in &requests {
            Self::wake(request, &mut wakes);
        }
        Self::fire(wakes);
    }

    /// When the requests of one step went through the stations of their way: comes just before [`Border::tell`],
    /// and only for a batcher that [keeps times](Batcher::keep_times).
    fn note(_requests: &[Handle<Self>], _moments: &Moments) {}

    /// Tells the callers of requests that expired, and drops what [`Request::reclaim`] gives for each.
    ///
    /// Comes from whoever found them overdue: most often the timer thread (see [`timer`](crate::timer)),
    /// which belongs to nobody's runtime. A border whose drops or wakes need one has to hand on here what
    /// does.
    fn expired(requests: Vec<Handle<Self>>) {
        let payloads: Vec<_> = requests.iter().map(|request| request.reclaim()).collect();
        Self::tell(requests);
        drop(payloads);
    }

    /// Wakes who waits for [many](crate::many): its requests are not told one by one. From any thread, the
    /// timer's too.
    fn wake_window(waiter: &Self::Waiter);

    /// Has [`Batcher::expire_due`] called at `moment`: a deadline is earlier than all it was to be called
    /// for. With the system's clock that is [`timer::arm`](crate::timer::arm). May be called by the very
    /// call of `expire_due`; no lock is held.
    fn arm(batcher: &Batcher<Self>, moment: Nanos);

    /// The waker of a waiter that can run a batch itself, if it is of that kind.
    fn runner(_waiter: &Self::Waiter) -> Option<&std::task::Waker> {
        None
    }

    /// Whom to wake when a request that waited for room is let into the queue.
    fn let_in(waiter: &Self::Waiter) -> Option<&std::task::Waker> {
        Self::runner(waiter)
    }
}
