//! Locks between threads: the system's, or, with the feature `shuttle`, those of shuttle's scheduler.
//!
//! With the feature, every operation of the in-memory storage and of the simulated disk is a point where the scheduler may
//! let another thread run, and so is every lock in the crates above that guards something across such an operation. The
//! whole engine is then run through interleavings that are chosen, counted and replayed; it works only inside a shuttle
//! execution, and only on the threads of one.
//!
//! Not here: what guards nothing across a storage call and decides nothing (the buffer pool, flags that a page was
//! checked). Another order of those is no other history.

#[cfg(feature = "shuttle")]
pub use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
#[cfg(not(feature = "shuttle"))]
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

/// Lets others run first: to be called by whoever is about to look again for what only others can change.
pub fn yield_now() {
    #[cfg(feature = "shuttle")]
    shuttle::thread::yield_now();
    #[cfg(not(feature = "shuttle"))]
    std::thread::yield_now();
}
