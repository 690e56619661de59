//! `tegula du`: tells what images cost.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::table::{Align, Table};
use crate::units;
use clap::Args;
use serde::Serialize;
use tegula_engine::{ImageName, ImageUsage};

const EXAMPLES: &str = "\
Examples:
  tegula du
  tegula du web-1 web-2

STORED is what an image needs on disk: chunks, layers, its record. EXCLUSIVE is what no other image needs:
removing it, and nothing else, lets `tegula gc --min-live 1 --recompress 0` free that much, to the byte; where
a whole segment file goes, the 137 bytes of its head and trailer go with it. Without --recompress 0 what gc moves
on the way is compressed better, and it frees more. The last line is about all images
named, removed together; --json has it as freed_if_deleted_bytes.";

/// Tell what images cost on disk
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Du {
    /// The images; all if none is named
    #[arg(value_name = "IMAGE", value_parser = ImageName::parse)]
    images: Vec<ImageName>,
}

#[derive(Debug, Serialize)]
struct Costs {
    images: Vec<Cost>,
    stored_bytes: u64,
    together_bytes: u64,
    freed_if_deleted_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Cost {
    name: String,
    virtual_size: u64,
    logical_bytes: u64,
    stored_bytes: u64,
    exclusive_bytes: u64,
    shared_bytes: u64,
    freed_if_deleted_bytes: u64,
}

impl From<&ImageUsage> for Cost {
    fn from(usage: &ImageUsage) -> Self {
        Self {
            name: usage.name.to_string(),
            virtual_size: usage.virtual_size,
            logical_bytes: usage.logical_bytes,
            stored_bytes: usage.stored_bytes,
            exclusive_bytes: usage.exclusive_bytes,
            shared_bytes: usage.shared_bytes(),
            freed_if_deleted_bytes: usage.exclusive_bytes,
        }
    }
}

impl Report for Costs {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let mut table = Table::with_head([
            ("IMAGE", Align::Left),
            ("LENGTH", Align::Right),
            ("DATA", Align::Right),
            ("STORED", Align::Right),
            ("SHARED", Align::Right),
            ("EXCLUSIVE", Align::Right),
        ]);
        for image in &self.images {
            table.row([
                image.name.clone(),
                size(image.virtual_size),
                size(image.logical_bytes),
                size(image.stored_bytes),
                size(image.shared_bytes),
                size(image.exclusive_bytes),
            ]);
        }
        let blank = String::new;
        let shared = self.stored_bytes - self.together_bytes;
        table.row([
            "(together)".to_owned(),
            blank(),
            blank(),
            size(self.stored_bytes),
            size(shared),
            size(self.together_bytes),
        ]);
        let freed = size(self.together_bytes);
        let sentence = match &self.images[..] {
            [] => String::new(),
            [image] => format!("removing {} would free {freed}\n", image.name),
            images => format!(
                "removing these {} would free {freed}, one alone its EXCLUSIVE\n",
                units::count(images.len() as u64, "image", "images")
            ),
        };
        format!("{table}{sentence}")
    }
}

impl Du {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let usage = context.open()?.usage(&self.images)?;
        context.output.print(&Costs {
            images: usage.images.iter().map(Cost::from).collect(),
            stored_bytes: usage.stored_bytes,
            together_bytes: usage.together_bytes,
            freed_if_deleted_bytes: usage.together_bytes,
        })?;
        Ok(Outcome::Done)
    }
}
