//! Long work seen from outside: how far it is, and a way to stop it.

use crate::EngineError;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a caller of long work brings along.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Is told, now and then, how many bytes are done and how many there are, if that is known.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
    /// Is looked at between batches: once set, the work ends with [`EngineError::Interrupted`] and leaves no trace.
    pub interrupted: &'a AtomicBool,
}

static NEVER: AtomicBool = AtomicBool::new(false);

impl Task<'_> {
    /// Returns a task that nobody watches or stops.
    pub fn unattended() -> Task<'static> {
        Task {
            progress: &|_, _| {},
            interrupted: &NEVER,
        }
    }

    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err(EngineError::Interrupted),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("interrupted", self.interrupted)
            .finish_non_exhaustive()
    }
}
