//! Whether a whole image's file is what its record says: by the hashes that Glance keeps.

use super::PullError;
use md5::Md5;
use sha2::digest::{Digest, DynDigest};
use sha2::{Sha224, Sha256, Sha384, Sha512};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a file's hash must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hash {
    /// By which algorithm.
    pub(super) algorithm: String,
    /// In hexadecimal form.
    pub(super) value: String,
}

impl Hash {
    fn hasher(&self) -> Option<Box<dyn DynDigest>> {
        Some(match &*self.algorithm {
            "sha512" => Box::new(Sha512::new()),
            "sha384" => Box::new(Sha384::new()),
            "sha256" => Box::new(Sha256::new()),
            "sha224" => Box::new(Sha224::new()),
            "md5" => Box::new(Md5::new()),
            _ => return None,
        })
    }

    /// Tells whether the algorithm is known here.
    pub(super) fn is_known(&self) -> bool {
        self.hasher().is_some()
    }

    /// Hashes a file; returns what it found if that is something else.
    ///
    /// # Errors
    /// [`PullError::File`].
    pub(super) fn differs(
        &self,
        file: &File,
        path: &Path,
        mut progress: impl FnMut(u64),
    ) -> Result<Option<String>, PullError> {
        let mut hasher = self
            .hasher()
            .expect("because only known hashes are looked for");
        let (mut piece, mut at) = (vec![0; 1 << 20], 0);
        loop {
            let read = file.read_at(&mut piece, at);
            let bytes = read.map_err(PullError::file("read", path))?;
            if bytes == 0 {
                break;
            }
            hasher.update(piece.get(..bytes).unwrap_or_default());
            at += bytes as u64;
            progress(at);
        }
        let digits = hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        Ok((digits != self.value.to_ascii_lowercase()).then_some(digits))
    }
}
