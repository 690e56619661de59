//! Collecting garbage in the background: the bytes of deleted images are given back without anyone asking.

use std::io;
use std::thread;
use std::time::Duration;

use tegula_engine::{CollectOptions, Engine};
use tracing::{error, info};

use crate::config::Config;

/// Begins to collect as often as the configuration says, if it says so.
///
/// Nobody waits for the thread: a collection may end anywhere, and the next goes on where it was.
pub(crate) fn start(config: &Config, engine: &Engine) -> io::Result<()> {
    let every = Duration::from_secs(config.store.collect_every_s.into());
    if every.is_zero() {
        return Ok(());
    }
    let engine = engine.clone();
    let collect = move || {
        loop {
            thread::sleep(every);
            collect(&engine);
        }
    };
    thread::Builder::new()
        .name("collection".to_owned())
        .spawn(collect)?;
    Ok(())
}

fn collect(engine: &Engine) {
    match engine.collect(&CollectOptions::default()) {
        Ok(freed) => info!(
            freed_bytes = freed.freed_bytes,
            segments_removed = freed.segments_removed,
            segments_rewritten = freed.segments_rewritten,
            pending_bytes = freed.pending_bytes,
            "garbage was collected"
        ),
        Err(error) => error!("garbage could not be collected: {}", crate::chain(&error)),
    }
}
