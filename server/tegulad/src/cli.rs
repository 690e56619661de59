//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The catalog server of Tegula: the OpenStack Images API over a chunk store.
///
/// Without a configuration it serves on 127.0.0.1:9292, keeps everything in ./tegula-data, and makes a token at its first
/// start.
#[derive(Debug, Parser)]
#[command(name = "tegulad", version)]
pub(crate) struct Cli {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "TEGULAD_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Look at the configuration, say whether it is good, and end
    #[arg(long, conflicts_with = "print_default_config")]
    pub(crate) check_config: bool,

    /// Print the documented configuration with all defaults, and end
    #[arg(long)]
    pub(crate) print_default_config: bool,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token for the configuration, and print it and its entry
    Token {
        /// Who has it
        #[arg(long)]
        user: String,
        /// The project it is good in
        #[arg(long)]
        project: String,
        /// A role; may be given more than once. Roles imply others: admin, manager, member, reader
        #[arg(long = "role", value_name = "ROLE", default_value = "member")]
        roles: Vec<String>,
    },
    /// Look after the database of the configuration
    #[command(subcommand)]
    Db(DatabaseCommand),
}

/// What to do with the database.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Bring its schema up to this program's; a database that is not there is made
    Upgrade,
    /// Say which version its schema has
    Version,
    /// Look through all of it: its schema, its structure, every image
    Check,
    /// Forget which store the images are in, after they were moved to another: the next start takes the store it opens.
    /// No server may be running
    ForgetStore,
    /// Note that the images are in the store of the configuration, whatever it lacks, after the one they were in is lost.
    /// No server may be running
    TakeStore,
}
