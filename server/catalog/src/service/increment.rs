//! Takes in an image as what differs from its parent: a delta stream, or an overlay in qcow2.
//!
//! ```text
//!            parent, If-Parent-Match       bytes, outside of any transaction             save
//!  queued ──────────────────────► saving ── apply, confined to the parent; inspect ──► active, hashes to come
//! ```
//! What comes in says nothing that is believed: a delta must start from the parent by digest and bring what the parent does not
//! have, an overlay's name for the disk below it is not looked at. What is judged is the image that comes of it. Its digest
//! is known at once, its MD5 and other hash only when all of it was read: that is done later (`late_hashes`).

use super::ServiceError;
use super::ingest::{Expected, read_full};
use super::late_hashes::for_each_piece;
use super::transfer::{TransferError, Transfers};
use super::upload::Announced;
use crate::content::{Part, name_of};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tegula_domain::inspect::Inspector;
use tegula_domain::policy::Rule;
use tegula_domain::quota::Allowance;
use tegula_domain::{Caller, Image, ImageId, ImageStatus, Lineage, Location};
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::{
    DeltaBase, DeltaError, DeltaRequest, DeltaSource, EngineError, ImageRecord, PutFile, Task,
};

/// What is looked at of an image that was made: more than an inspector keeps.
const HEAD_BYTES: u64 = 1 << 20;

/// The same at its end.
const TAIL_BYTES: u64 = 64 << 10;

/// How what differs is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncrementForm {
    /// A delta stream (format-spec, section 15).
    Delta,
    /// A qcow2 file of which unallocated clusters are the parent's.
    Qcow2,
}

/// What a caller says of the increment it sends.
#[derive(Debug, Clone, Copy)]
pub struct Increment<'a> {
    /// Its form.
    pub form: IncrementForm,
    /// The `os_tree_hash` that the caller supposes the parent to have.
    pub parent_hash: Option<&'a str>,
}

impl Transfers {
    /// Takes in the bytes of a queued image that has a parent as what differs from that. Once this returns they are durable
    /// and the image is active.
    ///
    /// If `source` fails, or anything else does, nothing of them is kept and the image is queued as before.
    ///
    /// # Errors
    /// As for [`Self::upload`]; [`TransferError::OtherParent`] if the parent is not what the caller or the increment says,
    /// [`TransferError::Increment`] if the increment is no such thing or damaged.
    pub fn upload_increment(
        &self,
        caller: &Caller,
        id: &ImageId,
        increment: Increment<'_>,
        announced: Announced<'_>,
        source: &mut (dyn Read + Send),
    ) -> Result<Image, TransferError> {
        // What is sent is not the image: how long that may be is looked at when it is known.
        let unmeasured = Announced {
            bytes: None,
            ..announced
        };
        let allowance = self.admit(caller, id, (Rule::UploadImage, unmeasured))?;
        let parent = self.parent_of(caller, id, increment)?;
        let image = self.begin(caller, id, (Rule::UploadImage, ImageStatus::Saving))?;
        let mut counted = Counted {
            source,
            bytes: 0,
            announced: announced.bytes,
            allowance,
            failed: None,
        };
        let made = self.make(&image, &parent, increment.form, &mut counted);
        let made = made.and_then(|made| {
            let fits = self.allowance(&image, Some(made.virtual_size));
            match fits {
                Ok(_) => Ok(made),
                Err(error) => {
                    self.drop_made(&made)?;
                    Err(error)
                }
            }
        });
        match made {
            Ok(made) => self.publish_increment(caller, &image, (&parent, made)),
            Err(error) => self.take_back(&image, None, error),
        }
    }

    /// The parent of an image, if the caller may still have its bytes and it is what it supposes.
    fn parent_of(
        &self,
        caller: &Caller,
        id: &ImageId,
        increment: Increment<'_>,
    ) -> Result<Image, TransferError> {
        let image = self.service.see(caller, id)?.into_image();
        let invalid = |why: String| TransferError::from(ServiceError::Invalid(why));
        let Some(parent) = &image.lineage.parent else {
            let text = format!("image {id} needs an os_parent_id before an increment");
            return Err(invalid(text));
        };
        self.service.check_parent(caller, parent)?;
        let parent = self.service.see(caller, parent)?.into_image();
        let hash = parent.lineage.tree_hash.as_deref();
        if let Some(supposed) = increment
            .parent_hash
            .filter(|supposed| hash != Some(*supposed))
        {
            return Err(TransferError::OtherParent {
                parent: parent.id,
                expected: supposed.to_owned(),
                found: hash.map(str::to_owned),
            });
        }
        if increment.form == IncrementForm::Qcow2 {
            for image in [&image, &parent] {
                if image.disk_format.as_deref() != Some("raw") {
                    let text = format!(
                        "image {} is not raw: an overlay is one of a disk's blocks, not of a file's bytes",
                        image.id
                    );
                    return Err(invalid(text));
                }
            }
        }
        Ok(parent)
    }

    /// Stores what the increment makes of the parent.
    fn make(
        &self,
        image: &Image,
        parent: &Image,
        form: IncrementForm,
        source: &mut Counted<'_>,
    ) -> Result<ImageRecord, TransferError> {
        let stop = AtomicBool::new(false);
        let task = Task {
            progress: &|_, _| {},
            interrupted: &stop,
        };
        let (name, base) = (
            name_of(&image.id, Part::Data),
            name_of(&parent.id, Part::Data),
        );
        let engine = self.content.engine();
        let made = match form {
            IncrementForm::Delta => {
                let request = DeltaRequest {
                    source: DeltaSource::Stream(source),
                    name,
                    replace: true,
                    base: DeltaBase::Only(Some(base)),
                };
                engine
                    .apply_delta(request, task)
                    .map(|applied| applied.record)
            }
            IncrementForm::Qcow2 => {
                let file = gather(source, &self.settings.gather_in)?;
                let request = PutFile {
                    name,
                    // Opened by what the process has open: it has no other name.
                    path: &PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
                    parent: Some(base),
                    replace: true,
                    format: Some(DiskFormat::Qcow2),
                    snapshot: None,
                };
                engine.put_file(request, task).map(|put| put.report.record)
            }
        };
        let made = match (source.failed.take(), made) {
            (Some(error), Err(_)) => return Err(error),
            (_, Err(error)) => return Err(self.refusal(error, parent)),
            (_, Ok(made)) => made,
        };
        self.content.forget(&made.name);
        match source.check_end().and_then(|()| self.judge(image)) {
            Ok(()) => Ok(made),
            Err(error) => {
                self.drop_made(&made)?;
                Err(error)
            }
        }
    }

    /// Turns what the engine says of an increment into what the caller is told.
    fn refusal(&self, error: EngineError, parent: &Image) -> TransferError {
        match error {
            EngineError::Delta(error) => match *error {
                DeltaError::OtherBase {
                    expected, found, ..
                } => TransferError::OtherParent {
                    parent: parent.id.clone(),
                    expected: found.map_or("nothing".to_owned(), |digest| digest.to_string()),
                    found: expected.map(|digest| digest.to_string()),
                },
                error => TransferError::Increment(EngineError::Delta(Box::new(error))),
            },
            error @ (EngineError::Qcow2 { .. }
            | EngineError::ReadSource { .. }
            | EngineError::TooLarge { .. }
            | EngineError::ParentNeeded { .. }) => TransferError::Increment(error),
            error => self.of_store_over(error, Some(&parent.id)),
        }
    }

    /// Looks at the image that came of it, as at any that comes in.
    fn judge(&self, image: &Image) -> Result<(), TransferError> {
        let Some((claimed, rules)) = Expected::of(image, &self.settings) else {
            return Ok(());
        };
        let reader = self.content.open(&image.id, Part::Data);
        let reader = reader.map_err(TransferError::of_store)?;
        let reader = reader.ok_or_else(|| TransferError::Missing(image.id.clone()))?;
        let bytes = reader.record().virtual_size;
        let mut inspector = Inspector::new();
        let never = AtomicBool::new(false);
        let look = |range: Range<u64>, inspector: &mut Inspector| {
            let looked = for_each_piece(&reader, range, &never, &mut |piece| inspector.push(piece));
            looked.map(drop).map_err(TransferError::of_store)
        };
        // What headers there are stand at the beginning and at the end; and in the middle only where the beginning says so.
        let head = bytes.min(HEAD_BYTES);
        look(0..head, &mut inspector)?;
        let tail = bytes.saturating_sub(TAIL_BYTES).max(head);
        match inspector.needs_all() {
            true => look(head..bytes, &mut inspector)?,
            false => {
                inspector.pass_over(tail - head);
                look(tail..bytes, &mut inspector)?;
            }
        }
        let judged = inspector.finish().judge(claimed, rules);
        judged.map(drop).map_err(TransferError::Refused)
    }

    fn drop_made(&self, made: &ImageRecord) -> Result<(), TransferError> {
        let removed = self.content.remove_exactly(made);
        removed.map_err(TransferError::of_store)
    }

    /// Makes the image active.
    fn publish_increment(
        &self,
        caller: &Caller,
        begun: &Image,
        (parent, made): (&Image, ImageRecord),
    ) -> Result<Image, TransferError> {
        let beside = self.depth_over(Some(&parent.id)).and_then(|depth| {
            let delta_bytes = self.bytes_over_parent(caller, &begun.id, Some(&parent.id))?;
            Ok((depth, delta_bytes))
        });
        let (depth, delta_bytes) = match beside {
            Ok(beside) => beside,
            Err(error) => return self.take_back(begun, Some(made), error),
        };
        let location = Location {
            url: format!("tegula://{}/{}", self.settings.store, begun.id.lower_case()),
            metadata: BTreeMap::from([("store".to_owned(), self.settings.store.clone())]),
        };
        let size = made.virtual_size;
        let saved = self.save_arrived(&begun.id, |image| {
            if image.status != begun.status {
                return Ok(false);
            }
            image
                .transition(ImageStatus::Active)
                .map_err(|refused| ServiceError::Conflict(refused.to_string()))?;
            image.size = Some(size);
            image.virtual_size = Some(size).filter(|_| image.disk_format.as_deref() == Some("raw"));
            image.checksum = None;
            image.hash = None;
            image.locations = vec![location.clone()];
            image.lineage = Lineage {
                parent: Some(parent.id.clone()),
                delta_bytes,
                chain_depth: depth,
                tree_hash: Some(super::upload::tree_hash(&made)),
            };
            Ok(true)
        });
        let image = match saved {
            Ok(Some(image)) => image,
            // Somebody deleted it: nobody will ask for its bytes again.
            Ok(None) => {
                let gone = TransferError::Gone(begun.id.clone());
                self.take_back(begun, Some(made), gone)?
            }
            Err(error) => self.take_back(begun, Some(made), error.into())?,
        };
        self.hash_later(&image.id);
        Ok(image)
    }
}

/// Gathers a file of which the reader has to find its own way.
fn gather(source: &mut Counted<'_>, directory: &Path) -> Result<File, TransferError> {
    let failed = |error| {
        TransferError::of_store(EngineError::WriteTarget {
            name: format!("a temporary file in {}", directory.display()),
            source: error,
        })
    };
    let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
    let mut piece = vec![0; GATHER_BYTES];
    loop {
        let length = read_full(source, &mut piece).map_err(|error| source.explain(error))?;
        file.write_all(piece.get(..length).unwrap_or_default())
            .map_err(failed)?;
        if length < GATHER_BYTES {
            return Ok(file);
        }
    }
}

/// How much of a file is gathered at a time.
const GATHER_BYTES: usize = 256 << 10;

/// Bytes that are counted as they come, and why there were no more.
struct Counted<'a> {
    source: &'a mut (dyn Read + Send),
    bytes: u64,
    announced: Option<u64>,
    /// No increment needs more bytes than an image may have.
    allowance: Allowance,
    failed: Option<TransferError>,
}

impl Counted<'_> {
    fn explain(&mut self, error: io::Error) -> TransferError {
        let received = self.bytes;
        let failed = self.failed.take();
        failed.unwrap_or(TransferError::Source {
            received,
            source: error,
        })
    }

    /// Refuses what ended before, or after, it was to end.
    fn check_end(&mut self) -> Result<(), TransferError> {
        let mut more = [0];
        let found = match self.read(&mut more) {
            Ok(_) => self.bytes,
            Err(error) => return Err(self.explain(error)),
        };
        match self.announced.filter(|announced| *announced != found) {
            Some(expected) => Err(TransferError::Size { expected, found }),
            None => Ok(()),
        }
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.read(buffer) {
            Ok(bytes) => {
                self.bytes += bytes as u64;
                if let Err(error) = self.allowance.take(bytes as u64) {
                    self.failed = Some(ServiceError::from(error).into());
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                if bytes == 0
                    && let Some(expected) =
                        self.announced.filter(|expected| *expected != self.bytes)
                {
                    let found = self.bytes;
                    self.failed = Some(TransferError::Size { expected, found });
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                let received = self.bytes;
                self.failed = Some(TransferError::Source {
                    received,
                    source: error,
                });
                Err(kind.into())
            }
        }
    }
}
