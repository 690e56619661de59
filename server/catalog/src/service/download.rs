//! Hands out an image's bytes.

use super::ServiceError;
use super::transfer::{TransferError, Transfers};
use crate::content::Part;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tegula_domain::policy::Rule;
use tegula_domain::{Caller, Image, ImageId, ImageStatus};
use tegula_engine::{EngineError, ImageReader, StreamPiece, Task};

/// An image whose bytes the caller may have.
#[derive(Debug)]
pub struct Download {
    image: Image,
    reader: Arc<ImageReader>,
}

impl Transfers {
    /// Opens the bytes of an image; none if it has none yet.
    ///
    /// # Errors
    /// Within [`TransferError::Service`]: [`ServiceError::NoImage`], [`ServiceError::Denied`], and
    /// [`ServiceError::Forbidden`] if it was withdrawn. [`TransferError::Missing`], [`TransferError::Store`].
    pub fn download(
        &self,
        caller: &Caller,
        id: &ImageId,
    ) -> Result<Option<Download>, TransferError> {
        let seen = self.service.see(caller, id)?;
        let authorized = self.service.authorize(caller, seen, Rule::DownloadImage)?;
        let image = authorized.image();
        match image.status {
            ImageStatus::Active => {}
            ImageStatus::Deactivated if self.service.is_admin(caller) => {}
            ImageStatus::Deactivated => {
                let text = format!("image {id} was withdrawn by an administrator");
                return Err(ServiceError::Forbidden(text).into());
            }
            ImageStatus::PendingDelete | ImageStatus::Deleted => {
                return Err(ServiceError::NoImage(id.clone()).into());
            }
            ImageStatus::Queued
            | ImageStatus::Saving
            | ImageStatus::Uploading
            | ImageStatus::Importing => return Ok(None),
        }
        let reader = self.content.open(id, Part::Data);
        let reader = reader.map_err(TransferError::of_store)?;
        let reader = reader.ok_or_else(|| self.gone_or_missing(id))?;
        Ok(Some(Download {
            image: image.clone(),
            reader,
        }))
    }
}

impl Download {
    /// The image.
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.reader.record().virtual_size
    }

    /// Hands over a range of the bytes, in order, each verified. `sink` may wait as long as it likes, which keeps nobody else
    /// waiting; `stop` ends the stream early.
    ///
    /// # Errors
    /// [`TransferError::Range`] before the first byte; [`TransferError::Sink`] with what `sink` says, which is not called
    /// again then; [`TransferError::Store`] if what the store holds is damaged: what was handed over until then is right.
    pub fn stream(
        &self,
        range: Range<u64>,
        sink: &mut (dyn FnMut(StreamPiece) -> io::Result<()> + Send),
        stop: &AtomicBool,
    ) -> Result<(), TransferError> {
        let task = Task {
            progress: &|_, _| {},
            interrupted: stop,
        };
        match self.reader.stream(range.clone(), sink, task) {
            Ok(_) => Ok(()),
            Err(EngineError::OutOfImage { size, .. }) => {
                let Range { start, end } = range;
                Err(TransferError::Range { start, end, size })
            }
            Err(EngineError::WriteTarget { source, .. }) => Err(TransferError::Sink(source)),
            Err(EngineError::Interrupted) => {
                Err(TransferError::Sink(io::ErrorKind::ConnectionAborted.into()))
            }
            Err(error) => Err(TransferError::of_store(error)),
        }
    }
}

/// Bytes that the store has, as a source of others.
#[derive(Debug)]
pub(super) struct StoredBytes {
    reader: Arc<ImageReader>,
    next: u64,
    piece: Vec<u8>,
    read: usize,
}

impl StoredBytes {
    /// Bytes that are fetched at once.
    const PIECE_BYTES: u64 = 4 << 20;

    pub(super) fn new(reader: Arc<ImageReader>) -> Self {
        Self {
            reader,
            next: 0,
            piece: Vec::new(),
            read: 0,
        }
    }

    fn fetch(&mut self) -> Result<(), EngineError> {
        let end = (self.next + Self::PIECE_BYTES).min(self.reader.record().virtual_size);
        self.piece.clear();
        self.read = 0;
        let piece = &mut self.piece;
        let mut sink = |part| {
            match part {
                StreamPiece::Data(bytes) => piece.extend_from_slice(&bytes),
                StreamPiece::Zeros(zeros) => {
                    // No more than a piece.
                    let zeros = usize::try_from(zeros).unwrap_or_default();
                    piece.resize(piece.len() + zeros, 0);
                }
            }
            Ok(())
        };
        self.reader
            .stream(self.next..end, &mut sink, Task::unattended())?;
        self.next = end;
        Ok(())
    }
}

impl Read for StoredBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() {
            self.fetch().map_err(io::Error::other)?;
        }
        let mut rest = self.piece.get(self.read..).unwrap_or_default();
        let bytes = rest.read(buffer)?;
        self.read += bytes;
        Ok(bytes)
    }
}
