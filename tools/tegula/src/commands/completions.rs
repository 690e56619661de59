//! `tegula completions`: prints a shell's completion script.

use crate::cli::Cli;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  tegula completions bash > /etc/bash_completion.d/tegula
  tegula completions zsh > ~/.zfunc/_tegula
  tegula completions fish > ~/.config/fish/completions/tegula.fish";

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Serialize)]
struct Script {
    shell: String,
    script: String,
}

impl Report for Script {
    fn text(&self, _verbose: bool) -> String {
        self.script.clone()
    }
}

impl Completions {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tegula", &mut script);
        context.output.print(&Script {
            shell: self.shell.to_string(),
            script: String::from_utf8_lossy(&script).into_owned(),
        })?;
        Ok(Outcome::Done)
    }
}
