//! Ctrl-C: the first one asks, the second one ends.
//!
//! A command that has something to clean up says so and gets the flag that is set by the first SIGINT or SIGTERM. All
//! others end at once, which is safe: the store is never in need of an orderly end.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of an interrupted command: 128 and the number of SIGINT, as shells have it.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// What the handlers set and look at.
#[derive(Debug)]
pub(crate) struct Signals {
    requested: Arc<AtomicBool>,
    /// Whether the next signal ends the process.
    at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to watch.
    pub(crate) fn watch() -> io::Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let at_once = Arc::new(AtomicBool::new(true));
        for signal in [SIGINT, SIGTERM] {
            // In this order: what the first signal sets, only the second one sees.
            flag::register_conditional_shutdown(
                signal,
                EXIT_INTERRUPTED.into(),
                Arc::clone(&at_once),
            )?;
            flag::register(signal, Arc::clone(&at_once))?;
            flag::register(signal, Arc::clone(&requested))?;
        }
        Ok(Self { requested, at_once })
    }

    /// Returns the flag that the next signal sets instead of ending the process.
    pub(crate) fn first_asks(&self) -> &AtomicBool {
        self.at_once.store(false, Ordering::SeqCst);
        &self.requested
    }

    /// Tells whether a signal came.
    pub(crate) fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}
