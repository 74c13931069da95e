#![cfg(loom)]
use carpool_core as _;
