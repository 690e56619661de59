//! `tegula diff`: tells what differs between two images.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::table::{Align, Table};
use crate::units;
use clap::Args;
use serde::Serialize;
use tegula_engine::{ExtentKind, ImageName};

const EXAMPLES: &str = "\
Examples:
  tegula diff debian-12 web-1
  tegula diff debian-12 web-1 --json | jq .changed_bytes
  tegula diff debian-12 web-1 --json > changed.json

The list that --json prints can be given to `tegula put --changed` in any store that has
BASE in blocks of the same size.

No data is read: the cost follows the change, not the size. Extents are whole blocks, cut at the end
of IMAGE. `zero` means that IMAGE has zeros where BASE has data. What IMAGE has past the end of BASE
and no extent names reads as zeros.";

/// Tell what differs between two images
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// The image to compare with
    #[arg(value_parser = ImageName::parse)]
    base: ImageName,

    /// The image whose content is listed
    #[arg(value_parser = ImageName::parse)]
    image: ImageName,
}

#[derive(Debug, Serialize)]
struct Changes {
    base: String,
    image: String,
    base_digest: String,
    digest: String,
    base_size: u64,
    size: u64,
    block_size: u32,
    changed_bytes: u64,
    extents: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    offset: u64,
    length: u64,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Report for Changes {
    fn text(&self, verbose: bool) -> String {
        let mut table = Table::with_head([
            ("OFFSET", Align::Right),
            ("LENGTH", Align::Right),
            ("TYPE", Align::Left),
        ]);
        for change in &self.extents {
            table.row([
                change.offset.to_string(),
                change.length.to_string(),
                change.kind.to_owned(),
            ]);
        }
        let extents = self.extents.len() as u64;
        let list = match extents {
            0 => String::new(),
            _ => table.to_string(),
        };
        let resized = match self.base_size == self.size {
            true => String::new(),
            false => format!("; length {} to {} bytes", self.base_size, self.size),
        };
        let changed = units::size_exact(self.changed_bytes, verbose);
        let extents = units::count(extents, "extent", "extents");
        format!("{list}{changed} in {extents}{resized}\n")
    }
}

impl Diff {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = context.open()?;
        let diff = engine.diff(&self.base, &self.image)?;
        let extents = diff.extents.iter().map(|extent| Change {
            offset: extent.offset,
            length: extent.length,
            kind: match extent.kind {
                ExtentKind::Data => "data",
                ExtentKind::Zero => "zero",
            },
        });
        context.output.print(&Changes {
            base: self.base.to_string(),
            image: self.image.to_string(),
            base_digest: diff.base_digest.to_string(),
            digest: diff.digest.to_string(),
            base_size: diff.base_size,
            size: diff.size,
            block_size: engine.store().config().block_size.bytes(),
            changed_bytes: diff.changed_bytes(),
            extents: extents.collect(),
        })?;
        Ok(Outcome::Done)
    }
}
