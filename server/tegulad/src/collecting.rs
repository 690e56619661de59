//! Collecting garbage in the background: the bytes of deleted images are given back without anyone asking, and what clients
//! ask for goes before it.

use std::io;
use std::thread;
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use tegula_engine::{CollectOptions, Engine};
use tracing::{error, info, warn};

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

/// How much everything else on the machine goes before a collection, as with nice(1).
const NICE: i32 = 10;

/// The threads of one collection. Linux knows the priority of each thread by itself, and new ones take over that of who
/// makes them.
fn threads_that_give_way() -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new()
        .thread_name(|number| format!("collection-{number}"))
        .start_handler(|_| {
            if let Err(error) = rustix::process::nice(NICE) {
                warn!("collections do not give way to requests: {error}");
            }
        })
        .build()
}

fn collect(engine: &Engine) {
    let threads = match threads_that_give_way() {
        Ok(threads) => threads,
        Err(error) => {
            error!("garbage could not be collected: {}", crate::chain(&error));
            return;
        }
    };
    match threads.install(|| engine.collect(&CollectOptions::default())) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[test]
    fn the_threads_of_a_collection_give_way_and_no_other_does() {
        let before = getpriority_process(None).unwrap();
        let threads = threads_that_give_way().unwrap();
        let within = threads.broadcast(|_| getpriority_process(None).unwrap());
        assert_eq!(within, vec![(before + NICE).min(19); within.len()]);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
