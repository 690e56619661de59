//! `tegula ls`: lists the images.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::record::RecordFields;
use crate::table::{Align, Table};
use crate::units;
use clap::Args;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  tegula ls
  tegula ls --json | jq -r '.images[].name'";

/// List the images
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ls {}

#[derive(Debug, Serialize)]
struct List {
    images: Vec<RecordFields>,
}

impl Report for List {
    fn text(&self, verbose: bool) -> String {
        let mut table = Table::with_head([
            ("IMAGE", Align::Left),
            ("LENGTH", Align::Right),
            ("DATA", Align::Right),
            ("PARENT", Align::Left),
            ("CREATED", Align::Left),
        ]);
        for image in &self.images {
            let data = image.data_blocks * u64::from(image.block_size);
            table.row([
                image.name.clone(),
                units::size_exact(image.virtual_size, verbose),
                units::size_exact(data.min(image.virtual_size), verbose),
                image.parent.clone().unwrap_or_else(|| "-".to_owned()),
                image.created_at.clone(),
            ]);
        }
        table.to_string()
    }
}

impl Ls {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let mut records = context.open()?.list()?;
        records.sort_by(|a, b| a.name.cmp(&b.name));
        let images = records.iter().map(RecordFields::from).collect();
        context.output.print(&List { images })?;
        Ok(Outcome::Done)
    }
}
