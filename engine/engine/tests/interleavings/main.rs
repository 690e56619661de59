//! The engine in the hands of a scheduler: readers, writers and collections on one store, interleaved at every storage call.
//!
//! The code that runs is the engine's own, from `Engine` to the simulated disk; only the locks between threads are
//! shuttle's (feature `shuttle`), so that its scheduler decides after each storage call who goes on. Each history is run
//! through many interleavings, some drawn step by step, some by priorities that change at few points (PCT), which reaches the
//! rare ones: where somebody stops in the middle and all others run to their end. Some histories say where their processes
//! meet, and leave only the rest to the schedule.
//!
//! After every interleaving: each image whose put was acknowledged reads back exactly, a full verification finds nothing,
//! and a collection leaves no chunk and no file that is not needed.
//!
//! A failure prints a schedule. `TEGULA_SHUTTLE_SCHEDULE=<schedule> cargo test -p tegula-engine --features shuttle --test
//! interleavings <test>` runs it again. `TEGULA_SEED` begins where another run began; `TEGULA_SWEEP=deep` draws forty
//! times as many.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod meeting;
mod mixed;
mod mortal;
mod races;
mod schedules;
mod world;
