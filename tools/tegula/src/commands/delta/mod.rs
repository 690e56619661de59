//! `tegula delta`: what turns one image into another, as a file.

mod apply;
mod create;
mod fields;
mod merge;
mod show;
mod size;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  tegula delta size debian-12 web-1
  tegula delta create debian-12 web-1 -o web-1.delta
  tegula delta show web-1.delta
  tegula --store /srv/there delta apply web-1.delta web-1
  tegula delta merge monday.delta tuesday.delta -o both.delta
  tegula delta create debian-12 web-1 -o - | ssh host tegula --store /srv/there delta apply - web-1

A delta names the image it starts from and the one it makes by their digests. It is applied only to
the first, and only if it makes the second.";

/// Hand over only what turns one image into another
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Delta {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Create),
    Size(size::Size),
    Show(show::Show),
    Apply(apply::Apply),
    Merge(merge::Merge),
}

impl Delta {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        match &self.command {
            Command::Create(command) => command.run(context),
            Command::Size(command) => command.run(context),
            Command::Show(command) => command.run(context),
            Command::Apply(command) => command.run(context),
            Command::Merge(command) => command.run(context),
        }
    }
}
