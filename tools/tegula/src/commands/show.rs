//! `tegula show`: shows an image and what it costs.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::record::RecordFields;
use crate::table::Table;
use crate::units;
use clap::Args;
use serde::Serialize;
use tegula_engine::{ImageInfo, ImageName};

const EXAMPLES: &str = "\
Examples:
  tegula show debian-12
  tegula show debian-12 --json | jq -r .digest";

/// Show an image and what it costs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// The image
    #[arg(value_parser = ImageName::parse)]
    image: ImageName,
}

/// What an image costs, seen among all.
#[derive(Debug, Serialize)]
pub(super) struct Costs {
    layers: usize,
    logical_bytes: u64,
    stored_bytes: u64,
    exclusive_bytes: u64,
    mean_run_bytes: u64,
}

impl From<&ImageInfo> for Costs {
    fn from(info: &ImageInfo) -> Self {
        Self {
            layers: info.layers,
            logical_bytes: info.usage.logical_bytes,
            stored_bytes: info.usage.stored_bytes,
            exclusive_bytes: info.usage.exclusive_bytes,
            mean_run_bytes: info.runs.mean_bytes(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    image: RecordFields,
    #[serde(flatten)]
    costs: Costs,
}

impl Report for Shown {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let image = &self.image;
        let mut table = Table::of_pairs();
        table.pair("name", &image.name);
        table.pair("length", size(image.virtual_size));
        table.pair("digest", &image.digest);
        table.pair("parent", image.parent.as_deref().unwrap_or("-"));
        if let Some(digest) = image.parent_digest.as_ref().filter(|_| verbose) {
            table.pair("parent digest", digest);
        }
        table.pair("created", &image.created_at);
        table.pair(
            "blocks",
            format!(
                "{} with data, {} zero, of {}",
                image.data_blocks,
                image.zero_blocks,
                units::size(image.block_size.into())
            ),
        );
        table.pair("layers", self.costs.layers);
        table.pair("data", size(self.costs.logical_bytes));
        table.pair("stored", size(self.costs.stored_bytes));
        table.pair("exclusive", size(self.costs.exclusive_bytes));
        table.pair("mean run", size(self.costs.mean_run_bytes));
        table.to_string()
    }
}

impl Show {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let info = context.open()?.show(&self.image)?;
        context.output.print(&Shown {
            image: RecordFields::from(&info.record),
            costs: Costs::from(&info),
        })?;
        Ok(Outcome::Done)
    }
}
