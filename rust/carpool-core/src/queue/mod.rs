//! The way in: bounded, lock-free, from any number of threads.
//!
//! [`intake`] holds requests between their submit and the next look of the scheduler, [`admission`]
//! counts what is pending (the bound is a counter, not a ring's capacity), [`need`] is what a waiting
//! slot says would make it leave. `README.md` beside this file tells the wake-up protocol in prose.

pub mod admission;
pub mod intake;
pub mod need;
