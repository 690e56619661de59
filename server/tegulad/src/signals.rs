//! What the system tells the process: to end, or to read its files again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit status after a second signal to end, as shells have it: 128 and the number of SIGTERM.
const EXIT_AT_ONCE: i32 = 143;

/// The signals that are watched.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end, after what is under way.
    End,
    /// To read files again.
    Reload,
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

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Ends the process at once at the next signal to end. What was acknowledged is durable: nothing is lost by that.
    pub(crate) async fn end_at_once(mut self) {
        while self.next().await != Asked::End {}
        tracing::warn!("a second signal: ending at once");
        std::process::exit(EXIT_AT_ONCE);
    }
}
