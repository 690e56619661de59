//! What work that nobody waits for takes of a busy machine.

use crate::failure::Failure;
use clap::Args;

/// How much the rest of the machine goes before a command.
#[derive(Debug, Args)]
pub(crate) struct Priority {
    /// How much all others on the machine go before it, as with nice(1): from 0, not at all, to 19
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=19), allow_negative_numbers = true)]
    nice: u8,
}

impl Priority {
    /// Gives way from now on: to be called before there are other threads, which take it over.
    pub(crate) fn give_way(&self) -> Result<(), Failure> {
        rustix::process::nice(self.nice.into())
            .map(drop)
            .map_err(|source| Failure::Priority {
                source: source.into(),
            })
    }
}
