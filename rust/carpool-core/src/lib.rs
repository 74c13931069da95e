//! Dynamic batching without an interpreter.
//!
//! A request goes one way, and the modules are named after it, in this order:
//!
//! | step | module | what happens |
//! |---|---|---|
//! | submit | [`submit`] | the caller is admitted, or gets the value back |
//! | submit | [`many`] | many at once, for one waiter |
//! | request | [`request`] | payload, terms (arrival, cost, key, deadline) and reply in one cell |
//! | queue | [`queue`] | lock-free intake; the bound; who must be woken |
//! | scheduler | [`scheduler`] | pending requests and the pure decision when and what leaves |
//! | batch | [`batch`] | closed for ever once sealed; answered exactly once per request |
//! | slot | [`slot`] | room to run one batch, held by a lease: threads, loops and callers pull |
//! | | [`alone`] | the same for a caller that finds nobody: no request is needed |
//! | route | [`route`] | outcomes to replies, then wakes |
//! | reply | [`reply`], `steps` | the state machine the caller waits on; steps before the answer |
//!
//! [`batcher`] holds these together; [`timer`] is the thread that looks after deadlines, [`watch`] notes what
//! watchers want to know. Nothing here knows what a payload is, who waits for an answer
//! or what time it is: a [`Border`] names the payload, the answer, the waiter and the clock, so that
//! a language binding, a simulation with a virtual clock and the model checker run the same code.

pub mod alone;
pub mod batch;
pub mod batcher;
pub mod border;
pub mod clock;
pub mod count;
pub mod error;
#[cfg_attr(loom, path = "handle_in_models.rs")]
mod handle;
mod lease;
pub mod limits;
pub mod many;
#[cfg(loom)]
#[doc(hidden)]
pub mod model;
pub mod park;
mod place;
pub mod queue;
pub mod reply;
pub mod request;
pub mod route;
pub mod scheduler;
pub mod slot;
pub mod stats;
mod steps;
pub mod submit;
mod sync;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tick;
pub mod timer;
pub mod watch;

pub use alone::Alone;
pub use batch::{Batch, Outgoing, RequestId};
pub use batcher::Batcher;
pub use border::{Border, Failure};
pub use clock::{Clock, ManualClock, Nanos, SystemClock};
pub use error::{AnswerError, Refusal, Refused, SplitError};
pub use limits::{Limits, Overflow};
pub use many::{Item, Many, Told};
pub use reply::Next;
pub use request::{Request, Terms};
pub use scheduler::change::Fits;
pub use scheduler::learned::Learning;
pub use scheduler::policy::Reason;
pub use scheduler::sizes::Sizes;
pub use slot::{Kept, Pulled, Seat};
pub use stats::{Histogram, Snapshot};
pub use submit::Ticket;
pub use watch::{End, Ended, Followed, Moments};
