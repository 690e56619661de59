//! What is printed: one report to standard output, remarks to standard error. Never panics if nobody reads.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, Write};

/// The result of a command, as JSON (by its fields) and as text.
pub(crate) trait Report: Serialize {
    /// Returns the text, whole lines; `verbose` asks for exact byte counts and more detail.
    fn text(&self, verbose: bool) -> String;
}

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
}

impl Output {
    /// Prints what was asked for.
    pub(crate) fn print(self, report: &impl Report) -> Result<(), Failure> {
        match self.json {
            true => print_json(report),
            false => print_text(&report.text(self.verbose)),
        }
    }

    /// Prints what was done: nothing but JSON, if people want quiet.
    pub(crate) fn confirm(self, report: &impl Report) -> Result<(), Failure> {
        match self.quiet && !self.json {
            true => Ok(()),
            false => self.print(report),
        }
    }

    /// Tells people something that is neither a result nor an error.
    pub(crate) fn remark(self, text: &str) {
        if !self.quiet {
            complain(&format!("note: {text}\n"));
        }
    }
}

/// Prints text to standard output.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Failure::Print { source })
}

fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .expect("because reports are plain structs with text keys");
    print_text(&format!("{text}\n"))
}

/// Writes to standard error. If that fails, there is nobody left to tell.
pub(crate) fn complain(text: &str) {
    drop(io::stderr().lock().write_all(text.as_bytes()));
}
