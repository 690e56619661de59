//! What can go wrong in a demonstration.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the demonstration itself; what the engine says stays the engine's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// Programs are not installed.
    #[error("the demo makes its disks with programs of e2fsprogs that are not here: {}", names.join(", "))]
    ToolsMissing {
        /// Their names.
        names: Vec<&'static str>,
    },
    /// A program did not do what it was asked.
    #[error("{name} failed ({status}): {said}")]
    Tool {
        /// The program.
        name: &'static str,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
    /// A file of the demonstration cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The machine has no files to make a disk of.
    #[error("found no files to fill a disk with below /usr")]
    NoFiles,
    /// A restored disk is not the original: this must never be.
    #[error("{} differs from {} at byte {offset}", restored.display(), original.display())]
    Differs {
        /// The restored disk.
        restored: PathBuf,
        /// What it should be.
        original: PathBuf,
        /// The first difference, or where the shorter one ends.
        offset: u64,
    },
    /// The store of the demonstration is damaged: this must never be.
    #[error("verification found {findings} things wrong")]
    Damaged {
        /// How many.
        findings: usize,
    },
    /// The catalog server of the demonstration cannot be had.
    #[error(transparent)]
    Server(#[from] tegulad::ServerError),
    /// The server cannot be asked, or does not answer.
    #[error("{what}")]
    Request {
        /// What it was asked.
        what: &'static str,
        /// Why it was in vain.
        source: Box<ureq::Error>,
    },
    /// The server answered something else than it should.
    #[error("{what}: the server answered: {found}")]
    Answer {
        /// What it was asked.
        what: &'static str,
        /// What it answered.
        found: String,
    },
    /// An image has another digest on its way through the server: this must never be.
    #[error("{what}: expected {expected}, found {found}")]
    OtherDigest {
        /// Where.
        what: &'static str,
        /// What the engine computed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A signal came between two steps.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
