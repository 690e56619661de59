//! `tegula verify`: checks the store.

use crate::context::Context;
use crate::failure::{Failure, Outcome, chain};
use crate::output::Report;
use crate::progress::Progress;
use crate::units;
use clap::Args;
use serde::Serialize;
use std::sync::atomic::AtomicBool;
use tegula_engine::{Depth, EngineError, Finding, ImageName, StoreError, Task};

const EXAMPLES: &str = "\
Examples:
  tegula verify
  tegula verify --full
  tegula verify --full debian-12 --json | jq '.findings[].images'

Exits with 3 if damage is found. A deleted image file (images/NAME.image) is not: that is what `tegula rm` does; whoever must
know keeps the names and digests of `tegula ls --json`. Files that are not the store's are named and left alone. What is only derived (the index) is mended by `tegula repair` without
loss; for the rest, `tegula repair --from STORE` takes good copies from another store.";

/// Check the store, or what some images need
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Also decompress and hash every chunk
    #[arg(long)]
    full: bool,

    /// The images; the whole store if none is named
    #[arg(value_name = "IMAGE", value_parser = ImageName::parse)]
    images: Vec<ImageName>,
}

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
pub(crate) struct FindingFields {
    path: String,
    offset: Option<u64>,
    chunk: Option<String>,
    images: Vec<String>,
    message: String,
    derived: bool,
}

impl From<&Finding> for FindingFields {
    fn from(finding: &Finding) -> Self {
        let mut images = finding.images.clone();
        images.sort();
        Self {
            path: finding.path.clone(),
            offset: finding.offset,
            chunk: finding.chunk.map(|chunk| chunk.to_string()),
            images,
            message: finding.message.clone(),
            derived: finding.derived,
        }
    }
}

/// Writes findings for people, a paragraph each.
pub(crate) fn findings_text(findings: &[FindingFields]) -> String {
    let paragraph = |finding: &FindingFields| {
        let place = match finding.offset {
            Some(offset) => format!("{} at {offset:#x}", finding.path),
            None => finding.path.clone(),
        };
        let mut text = format!("{place}: {}\n", finding.message);
        if let Some(chunk) = &finding.chunk {
            text.push_str(&format!("  chunk   {chunk}\n"));
        }
        if !finding.images.is_empty() {
            text.push_str(&format!("  images  {}\n", finding.images.join(", ")));
        }
        if finding.derived {
            text.push_str("  derived: `tegula repair` makes it anew\n");
        }
        text
    };
    units::printable(&findings.iter().map(paragraph).collect::<String>())
}

#[derive(Debug, Serialize)]
struct Checked {
    full: bool,
    segments: u64,
    chunks: u64,
    bytes: u64,
    layers: u64,
    images: u64,
    findings: Vec<FindingFields>,
    foreign_files: Vec<String>,
}

impl Report for Checked {
    fn text(&self, verbose: bool) -> String {
        let findings = findings_text(&self.findings);
        let verdict = match self.findings.len() as u64 {
            0 => "no damage".to_owned(),
            found => units::count(found, "finding", "findings"),
        };
        let foreign: String = self
            .foreign_files
            .iter()
            .map(|path| {
                format!(
                    "{}: not a file of the store, left alone\n",
                    units::printable(path)
                )
            })
            .collect();
        format!(
            "{findings}{foreign}checked {}, {}, {}, {} ({}): {verdict}\n",
            units::count(self.images, "image", "images"),
            units::count(self.layers, "layer", "layers"),
            units::count(self.chunks, "chunk", "chunks"),
            units::count(self.segments, "segment", "segments"),
            units::size_exact(self.bytes, verbose),
        )
    }
}

impl Verify {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = match context.open() {
            Err(Failure::Engine(EngineError::Store(error))) if error.is_damage() => {
                context.output.print(&self.not_opened(&error))?;
                return Ok(Outcome::Damaged);
            }
            opened => opened?,
        };
        let progress = Progress::begin(context.output, "verify");
        // Nothing is written: a signal may end this at once.
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: &AtomicBool::new(false),
        };
        let depth = match self.full {
            true => Depth::Full,
            false => Depth::Fast,
        };
        let result = engine.verify(depth, &self.images, task)?;
        drop(progress);
        let findings: Vec<_> = result.findings.iter().map(FindingFields::from).collect();
        let outcome = match findings.is_empty() {
            true => Outcome::Done,
            false => Outcome::Damaged,
        };
        context.output.print(&Checked {
            full: self.full,
            segments: result.segments,
            chunks: result.chunks,
            bytes: result.bytes,
            layers: result.layers,
            images: result.images,
            findings,
            foreign_files: result.foreign_files,
        })?;
        Ok(outcome)
    }

    /// Tells of a store that does not open: nothing behind that was looked at.
    fn not_opened(&self, error: &StoreError) -> Checked {
        let path = match error {
            StoreError::Corrupt { path, .. } | StoreError::Io { path, .. } => path.to_string(),
            _ => String::new(),
        };
        let message = format!(
            "{}; nothing else was looked at: `tegula repair` makes it again if it can, then verify again",
            chain(error)
        );
        let finding = FindingFields {
            path,
            offset: None,
            chunk: None,
            images: Vec::new(),
            message,
            derived: false,
        };
        Checked {
            full: self.full,
            segments: 0,
            chunks: 0,
            bytes: 0,
            layers: 0,
            images: 0,
            findings: vec![finding],
            foreign_files: Vec::new(),
        }
    }
}
