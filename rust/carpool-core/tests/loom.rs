//! Models of the shipped modules: loom runs each through every order of events (with at most two
//! preemptions) and every value that the C++ memory model lets a load return.
//!
//! Run by `make test`; how to run one alone, and which mutation of the source each model catches:
//! `docs/proof.md`. In a model time stands still and nothing times out, so a wake that is lost shows as
//! a deadlock.
#![cfg(loom)]

#[path = "loom/callers.rs"]
mod callers;
#[path = "loom/close.rs"]
mod close;
#[path = "loom/configure.rs"]
mod configure;
#[path = "loom/deadlines.rs"]
mod deadlines;
#[path = "loom/lobby.rs"]
mod lobby;
#[path = "loom/queue.rs"]
mod queue;
#[path = "loom/reply.rs"]
mod reply;
#[path = "loom/steps.rs"]
mod steps;
#[path = "loom/support.rs"]
mod support;
#[path = "loom/wake.rs"]
mod wake;
#[path = "loom/windows.rs"]
mod windows;
