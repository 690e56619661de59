//! The section `log`: events as lines, on standard error if this is the program itself.
//!
//! Lines are written by a thread of their own, so that a reader who is slow (a terminal, a full pipe) keeps no request
//! waiting. When too many wait to be written, new ones are dropped, and how many were is said as soon as there is room.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Level, LogFormat, LogSection};

/// How many lines wait to be written at most.
const LINES_MAX: usize = 8192;

/// The thread that writes. Ends when it is dropped, after the last line.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Option<Lines>,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    /// Begins to write, for the whole process. If something else is logged to already, that stays.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(crate) fn start(
        section: &LogSection,
        output: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let (log, lines) = Self::to(output)?;
        install(section, lines);
        Ok(log)
    }

    fn to(output: impl Write + Send + 'static) -> io::Result<(Self, Lines)> {
        let (sender, receiver) = crossbeam_channel::bounded(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let writer = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, &counted, output))?;
        let lines = Lines { sender, dropped };
        Ok((
            Self {
                lines: Some(lines.clone()),
                writer: Some(writer),
            },
            lines,
        ))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The writer of the process is never dropped, so the channel does not close: an empty line tells the end.
        if let Some(lines) = self.lines.take() {
            // If the thread is gone, there is nothing to tell it.
            let _ = lines.sender.send(Vec::new());
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn install(section: &LogSection, lines: Lines) {
    let level = match section.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(lines);
    // Fails only if there is one already, and then that one does.
    let _ = match section.format {
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
        }
    };
}

fn write_all(lines: &Receiver<Vec<u8>>, dropped: &AtomicU64, mut output: impl Write) {
    for line in lines {
        let missing = dropped.swap(0, Ordering::Relaxed);
        // Nobody could be told that standard error is gone.
        if missing > 0 {
            let _ = writeln!(output, "log: {missing} lines were dropped here");
        }
        if line.is_empty() {
            break;
        }
        let _ = output.write_all(&line);
    }
    let _ = output.flush();
}

/// Hands lines to the thread.
#[derive(Debug, Clone)]
struct Lines {
    sender: Sender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: self,
            bytes: Vec::new(),
        }
    }
}

/// One line; handed over when it is whole.
#[derive(Debug)]
struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if line.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.lines.sender.try_send(line) {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    /// Keeps what is written; the first write waits for a word.
    #[derive(Debug, Clone)]
    struct Slow {
        kept: Arc<Mutex<Vec<u8>>>,
        word: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the sender is gone, nothing waits any more.
            let _ = self.word.lock().unwrap().recv();
            self.kept.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_stuck_keeps_nobody_waiting_and_learns_what_it_missed() {
        let (go, word) = mpsc::channel();
        let slow = Slow {
            kept: Arc::default(),
            word: Arc::new(Mutex::new(word)),
        };
        let (log, lines) = Log::to(slow.clone()).unwrap();
        for number in 0..LINES_MAX + 100 {
            writeln!(lines.make_writer(), "line {number}").unwrap();
        }
        drop(go);
        drop(log);
        let text = String::from_utf8(slow.kept.lock().unwrap().clone()).unwrap();
        let written = text
            .lines()
            .filter(|line| line.starts_with("line "))
            .count();
        let told: usize = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("log: ")?
                    .split(' ')
                    .next()?
                    .parse::<usize>()
                    .ok()
            })
            .sum();
        assert!(told >= 99, "{told}");
        assert_eq!(written + told, LINES_MAX + 100);
    }
}
