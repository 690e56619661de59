//! The arguments: what stands before every command, and the list of commands.

use crate::commands;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use tegula_engine::BackendPreference;

const AFTER_HELP: &str = "\
Examples:
  tegula demo
  tegula --store /srv/images init
  export TEGULA_STORE=/srv/images
  tegula put debian-12 debian-12.raw
  tegula put web-1 web-1.raw --parent debian-12
  tegula get web-1 restored.raw

Exit codes:
  0    done
  1    failed; the error says why, and what to do next
  2    the arguments are wrong
  3    the store is damaged
  130  interrupted; nothing half done is left in the way
  141  whoever read the output stopped reading

The first Ctrl-C lets put and get clean up; a second one ends them at once.";

/// Keep disk images as blocks, each distinct block once.
#[derive(Debug, Parser)]
#[command(name = "tegula", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Options {
    /// The directory of the store
    #[arg(long, global = true, env = "TEGULA_STORE", value_name = "PATH")]
    pub(crate) store: Option<PathBuf>,

    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print no progress, no remarks and no confirmations
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Print exact byte counts and more detail
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    /// How to reach the store's files
    #[arg(
        long,
        global = true,
        env = "TEGULA_IO",
        value_name = "HOW",
        default_value = "auto"
    )]
    pub(crate) io: Io,
}

/// The ways to reach files.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Io {
    /// io_uring if it is to be had, else blocking calls
    Auto,
    /// Blocking calls
    Blocking,
    /// io_uring or nothing
    Uring,
}

impl From<Io> for BackendPreference {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Blocking => Self::Blocking,
            Io::Uring => Self::IoUring,
        }
    }
}

/// The commands, in the order a newcomer meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(commands::init::Init),
    Put(commands::put::Put),
    Get(commands::get::Get),
    Inspect(commands::inspect::Inspect),
    Ls(commands::ls::Ls),
    Show(commands::show::Show),
    Rename(commands::rename::Rename),
    Rm(commands::rm::Rm),
    Diff(commands::diff::Diff),
    Delta(commands::delta::Delta),
    Pull(commands::pull::Pull),
    Stats(commands::stats::Stats),
    Du(commands::du::Du),
    Verify(commands::verify::Verify),
    Gc(commands::gc::Gc),
    Optimize(commands::optimize::Optimize),
    Repair(commands::repair::Repair),
    Clone(commands::clone::Clone),
    Coalesce(commands::coalesce::Coalesce),
    Flatten(commands::flatten::Flatten),
    Demo(commands::demo::Demo),
    Completions(commands::completions::Completions),
}

impl Command {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        match self {
            Self::Init(command) => command.run(context),
            Self::Put(command) => command.run(context),
            Self::Get(command) => command.run(context),
            Self::Inspect(command) => command.run(context),
            Self::Ls(command) => command.run(context),
            Self::Show(command) => command.run(context),
            Self::Rename(command) => command.run(context),
            Self::Rm(command) => command.run(context),
            Self::Diff(command) => command.run(context),
            Self::Delta(command) => command.run(context),
            Self::Pull(command) => command.run(context),
            Self::Stats(command) => command.run(context),
            Self::Du(command) => command.run(context),
            Self::Verify(command) => command.run(context),
            Self::Gc(command) => command.run(context),
            Self::Optimize(command) => command.run(context),
            Self::Repair(command) => command.run(context),
            Self::Clone(command) => command.run(context),
            Self::Coalesce(command) => command.run(context),
            Self::Flatten(command) => command.run(context),
            Self::Demo(command) => command.run(context),
            Self::Completions(command) => command.run(context),
        }
    }
}
