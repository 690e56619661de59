//! Wrong arguments: said in clap's words, exit code 2.

use crate::cli::Cli;
use crate::units::printable;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Prints what clap has to say (the help text too is such an "error") and ends the process.
pub(crate) fn end(mut error: Error) -> ! {
    // A value is shown as it was given, and may hold what a terminal obeys.
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let shown = ContextValue::String(printable(value));
        error.insert(ContextKind::InvalidValue, shown);
    }
    error.exit()
}

/// Makes a usage error of a sentence.
pub(crate) fn error(kind: ErrorKind, message: &str) -> Error {
    Cli::command().error(kind, message)
}
