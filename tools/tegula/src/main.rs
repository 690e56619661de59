//! The `tegula` command line: images in and out of a store, and what can be learned about them.
//!
//! `main` wires: arguments to a command, a command to what it needs, its outcome to an exit code. A command is a file in
//! [`commands`]; which code and which hint a failure gets is decided in [`failure`]; everything printed goes through
//! [`output`], which survives a reader that left.

mod cli;
mod commands;
mod context;
mod failure;
mod format;
mod input;
mod output;
mod priority;
mod progress;
mod record;
mod signals;
mod table;
mod units;
mod usage;

use crate::cli::Cli;
use crate::context::Context;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| usage::end(error));
    let context = match Context::new(cli.options) {
        Ok(context) => context,
        Err(failure) => return failure::report(&failure, None, false),
    };
    match cli.command.run(&context) {
        Ok(outcome) => outcome.into(),
        Err(failure) => failure::report(&failure, context.store_path(), context.interrupted()),
    }
}
