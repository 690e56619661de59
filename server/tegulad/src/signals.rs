//! What the system tells the process: to end, or to read its files again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::notify;
use crate::serve::{Asked, Asking};

/// The exit status after a second signal to end, as shells have it: 128 and the number of SIGTERM.
const EXIT_AT_ONCE: i32 = 143;

/// The signals that are watched.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Begins to watch. From now on none of them ends the process by itself.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

impl Asking for Signals {
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Ends the process at once at the next signal to end. What was acknowledged is durable: nothing is lost by that.
    async fn while_ending(mut self) {
        // The manager waits for the end anyway.
        let _ = notify::tell("STOPPING=1");
        while self.next().await != Asked::End {}
        tracing::warn!("a second signal: ending at once");
        std::process::exit(EXIT_AT_ONCE);
    }
}
