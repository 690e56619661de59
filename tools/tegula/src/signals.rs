//! Ctrl-C: the first one asks, the second one ends.
//!
//! A command that has something to clean up says so and gets the flag that is set by the first SIGINT, SIGTERM or SIGHUP
//! (the terminal was closed). All others end at once, which is safe: the store is never in need of an orderly end. SIGHUP stays
//! ignored where it was, which is what `nohup` asks for. SIGINT does not: shells ignore it for everything that a script
//! begins in the background, and who sends it to such a process by name means it.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use std::fs;
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
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && ignores_hangups() {
                continue;
            }
            // In this order: what the first signal sets, only the second one sees.
            flag::register_conditional_shutdown(
                signal,
                EXIT_INTERRUPTED.into(),
                Arc::clone(&at_once),
            )?;
            flag::register(signal, Arc::clone(&at_once))?;
            flag::register(signal, Arc::clone(&requested))?;
        }
        // A file that may not get so long is then an error of the write, with what there is to clean up, and not the end.
        flag::register(SIGXFSZ, Arc::default())?;
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

/// Tells whether SIGHUP was ignored when the program began; no if the system does not tell.
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
