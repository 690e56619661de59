//! The catalog server: `tegulad`.
//!
//! [`main`] wires: the command line and the configuration to what they ask for. What a section of the configuration means is
//! decided in the file of its name. [`Server`] is the same server inside of another program.

mod access;
mod admin_token;
mod cli;
mod collecting;
mod config;
mod database;
mod directory;
mod embedded;
mod identity;
mod log;
mod notify;
mod rules;
mod serve;
mod settings;
mod signals;
mod store;
mod tls;
mod token;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use rustix::fs::Mode;
use tegula_engine::{Clock, SystemClock};

use cli::{Cli, Command};
use config::{Config, ConfigError};

pub use embedded::{Server, ServerError};

/// Does what the arguments of the process ask for. Errors go to standard error.
pub fn main() -> ExitCode {
    // What is made holds images that are not everybody's, and a directory that was there before may let everybody in.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tegulad: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    if cli.print_default_config {
        print!("{}", config::DEFAULT_TEXT);
        return Ok(());
    }
    if let Some(Command::Token {
        user,
        project,
        roles,
    }) = &cli.command
    {
        let warnings = token::make(user, project, roles)?;
        warn(&warnings);
        return Ok(());
    }
    let environment = environment()?;
    let ignored = config::ignored(&environment);
    let config = Config::load(cli.config.as_deref(), environment)?;
    if cli.check_config {
        let warnings = check(&config)?;
        ignored
            .iter()
            .chain(&warnings)
            .for_each(|warning| println!("warning: {warning}"));
        println!("the configuration is good");
        return Ok(());
    }
    warn(&ignored);
    match &cli.command {
        Some(Command::Db(command)) => Ok(database::run(command, &config)?),
        Some(Command::Token { .. }) | None => {
            // Before anything is made.
            check(&config)?;
            serve::run(&config)
        }
    }
}

/// Tells the operator what to look at.
fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("tegulad: warning: {warning}");
    }
}

/// The variables whose names and values are texts; one of ours that is not is refused.
fn environment() -> Result<Vec<(String, String)>, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("TEGULAD_"))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(format!("the environment's {name}: it is not UTF-8")),
        })
        .collect()
}

/// Looks at what the configuration means, and at the files it names; makes nothing and connects to nothing. Returns what
/// the operator should look at.
fn check(config: &Config) -> Result<Vec<String>, ConfigError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    settings::settings(config)?;
    database::check(config)?;
    store::check(config)?;
    identity::check(config, &clock)?;
    tls::Tls::load(config)?;
    let loaded = rules::files(config)
        .load()
        .map_err(|error| rules::refused(config, &error))?;
    Ok(loaded.warnings)
}

/// An error with its causes, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
