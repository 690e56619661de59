//! Hints for disks in files.

use super::{ChangeHint, HintChecks, HintError, HintFormat};
use crate::disk_formats::qcow2::Qcow2;
use crate::{BlockSource, EngineError};
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
    /// Reads the hint for a disk.
    pub(crate) fn hint(
        &self,
        disk: &dyn BlockSource,
        qcow2: Option<&Qcow2<'_>>,
        block_size: BlockSize,
    ) -> Result<ChangeHint, EngineError> {
        let hint = match (self.from, qcow2) {
            (ChangedFrom::Bitmap(wanted), None) => {
                let (name, wanted) = (disk.name().to_owned(), wanted.to_owned());
                return Err(EngineError::NoBitmaps { name, wanted });
            }
            (ChangedFrom::Bitmap(wanted), Some(qcow2)) => {
                let changed = qcow2.changed_blocks(wanted);
                ChangeHint::of(changed.map_err(|source| EngineError::Qcow2 {
                    name: disk.name().to_owned(),
                    source,
                })?)
            }
            (ChangedFrom::File { path, format }, _) => {
                let failed = |source| EngineError::Hint {
                    name: path.display().to_string(),
                    source,
                };
                let file =
                    std::fs::File::open(path).map_err(|source| failed(HintError::Read(source)))?;
                let mut file = io::BufReader::with_capacity(1 << 16, file);
                let hint = ChangeHint::new(disk.bytes(), block_size);
                hint.read(format, &mut file).map_err(failed)?
            }
        };
        Ok(hint.against(self.base))
    }
}
