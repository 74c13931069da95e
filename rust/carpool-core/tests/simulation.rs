//! A seeded simulation: random lives of a batcher, one thread, a clock that only moves when told to,
//! the shipped intake, scheduler, seats, batches and replies. After every step all that can be seen is
//! compared with a plain list.
//!
//! A run that fails prints its seed; `CARPOOL_SEED=<seed> cargo test -p carpool-core --test simulation
//! -- --nocapture` plays it again and tells what happens. `CARPOOL_SEEDS=<how many>` plays more.
#![allow(missing_docs, unreachable_pub)]

#[path = "simulation/border.rs"]
mod border;
#[path = "simulation/course.rs"]
mod course;
#[path = "simulation/handler.rs"]
mod handler;
#[path = "simulation/plain.rs"]
mod plain;
#[path = "plainly/taking.rs"]
mod plainly;
#[path = "simulation/setting.rs"]
mod setting;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

fn play(seed: u64, trace: bool) {
    let run = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(seed, trace);
        world.run();
        assert_eq!(world.leak(), 0, "values are left behind");
    }));
    if let Err(panic) = run {
        eprintln!(
            "again: CARPOOL_SEED={seed} cargo test -p carpool-core --test simulation -- --nocapture"
        );
        resume_unwind(panic);
    }
}

#[test]
fn every_life_goes_by_the_rules() {
    match number("CARPOOL_SEED") {
        Some(seed) => play(seed, true),
        None => (0..number("CARPOOL_SEEDS").unwrap_or(1500)).for_each(|seed| play(seed, false)),
    }
}
