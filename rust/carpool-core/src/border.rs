//! The one door between the core and whoever uses it.

use crate::clock::Clock;
use crate::request::Handle;

/// What the core fails a request with when there is no handler's outcome to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The batch was dropped, or its holder died, before this request was answered.
    Abandoned,
    /// The batcher was closed before the request left.
    Closed,
    /// The deadline passed before the request left.
    Expired,
}

/// What a user of the core brings along: its payloads, its answers, its way of waiting, its clock.
///
/// The core never looks into any of them. It calls `wake` and `fire` with no lock held and only
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

    /// Notes that `request` is over, answered or expired; called once per such request.
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

    /// The waker of a waiter that can run a batch itself, if it is of that kind.
    fn runner(_waiter: &Self::Waiter) -> Option<&std::task::Waker> {
        None
    }

    /// Whom to wake when a request that waited for room is let into the queue.
    fn let_in(waiter: &Self::Waiter) -> Option<&std::task::Waker> {
        Self::runner(waiter)
    }
}
