//! Hints for disks in files.

use super::{ChangeHint, HintChecks, HintError, HintFormat};
use crate::disk_formats::qcow2::{Qcow2, Qcow2Error};
use crate::{BlockSource, EngineError};
use std::error::Error;
use std::io;
use std::path::Path;
use tegula_format::{BlockSize, ImageDigest};

/// What somebody says was changed of a disk in a file.
#[derive(Debug, Clone, Copy)]
pub struct Changed<'a> {
    /// Who says it.
    pub from: ChangedFrom<'a>,
    /// The digest of the image that it was made against, if it does not say so itself.
    pub base: Option<ImageDigest>,
    /// How far it is to be checked.
    pub checks: HintChecks,
}

/// Who says what was changed.
#[derive(Debug, Clone, Copy)]
pub enum ChangedFrom<'a> {
    /// A file.
    File {
        /// The file.
        path: &'a Path,
        /// Its form.
        format: HintFormat,
    },
    /// A bitmap in the qcow2 file that holds the disk.
    Bitmap(&'a str),
}

impl Changed<'_> {
    /// Reads the hint for a disk. One that is broken is in doubt, so that everything is compared.
    pub(crate) fn hint(
        &self,
        disk: &dyn BlockSource,
        qcow2: Option<&Qcow2<'_>>,
        block_size: BlockSize,
    ) -> Result<ChangeHint, EngineError> {
        let doubtful = |reason| {
            let mut hint = ChangeHint::new(disk.bytes(), block_size);
            hint.doubt(reason);
            hint
        };
        let hint = match (self.from, qcow2) {
            (ChangedFrom::Bitmap(wanted), None) => {
                let (name, wanted) = (disk.name().to_owned(), wanted.to_owned());
                return Err(EngineError::NoBitmaps { name, wanted });
            }
            (ChangedFrom::Bitmap(wanted), Some(qcow2)) => match qcow2.changed_blocks(wanted) {
                Ok(changed) => ChangeHint::of(changed),
                Err(source @ (Qcow2Error::BitmapNotFound { .. } | Qcow2Error::Read { .. })) => {
                    let name = disk.name().to_owned();
                    return Err(EngineError::Qcow2 { name, source });
                }
                // A guest that crashes leaves its bitmaps like that.
                Err(fault) => doubtful(with_causes(&fault)),
            },
            (ChangedFrom::File { path, format }, _) => {
                let name = path.display().to_string();
                let file = match std::fs::File::open(path) {
                    Ok(file) => file,
                    Err(source) => return Err(EngineError::Hint { name, source }),
                };
                let mut file = io::BufReader::with_capacity(1 << 16, file);
                let hint = ChangeHint::new(disk.bytes(), block_size);
                match hint.read(format, &mut file) {
                    Ok(hint) => hint,
                    // What the system says of the file is for the operator; what is in it is only no hint.
                    Err(HintError::Read(source)) if source.raw_os_error().is_some() => {
                        return Err(EngineError::Hint { name, source });
                    }
                    Err(fault) => doubtful(format!("{name}: {}", with_causes(&fault))),
                }
            }
        };
        Ok(hint.against(self.base))
    }
}

/// Says an error with all that it comes from.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
