//! The MD5 and the other hash of images that came as increments: computed when nobody waits for them.
//!
//! An increment is whole as soon as it is applied, and known by its digest; the hashes that the Images API shows take a look at
//! every byte. Until they are known they are null. Which images lack them is in the catalog, so a crash costs nothing: the
//! next start finds them again.

use super::transfer::{TransferError, Transfers};
use crate::content::Part;
use crate::digests::{hash_of, md5_of};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tegula_domain::{ContentHash, Image, ImageId, ImageStatus};
use tegula_engine::{EngineError, ImageReader, StreamPiece, Task};

/// Pieces that wait for a hash.
const QUEUE_PIECES: usize = 4;

/// Zeros that are handed over at once.
const ZEROS_BYTES: usize = 256 << 10;

/// How long to sleep before looking whether to stop.
const NAP: Duration = Duration::from_millis(200);

/// Images that wait for their hashes.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    images: Mutex<VecDeque<ImageId>>,
    changed: Condvar,
}

impl Transfers {
    /// Has an image's hashes computed when there is time.
    pub(super) fn hash_later(&self, id: &ImageId) {
        let mut waiting = self
            .waiting
            .images
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(id.clone());
        self.waiting.changed.notify_one();
    }

    /// Computes hashes that images lack, those that a former run left first, until `stop` is set: for a thread of its own.
    /// `failed` is told of what could not be done; it is tried again at the next start.
    pub fn hash_in_background(
        &self,
        stop: &AtomicBool,
        failed: &dyn Fn(Option<&ImageId>, &TransferError),
    ) {
        match self.service.catalog.without_hash() {
            Ok(ids) => {
                for id in ids {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    self.hash_if_lacking(&id, stop, failed);
                }
            }
            Err(error) => failed(None, &error.into()),
        }
        while !stop.load(Ordering::Relaxed) {
            if let Some(id) = self.next_waiting() {
                self.hash_if_lacking(&id, stop, failed);
            }
        }
    }

    fn next_waiting(&self) -> Option<ImageId> {
        let waiting = self
            .waiting
            .images
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let woken = self
            .waiting
            .changed
            .wait_timeout_while(waiting, NAP, |waiting| waiting.is_empty());
        let (mut waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }

    fn hash_if_lacking(
        &self,
        id: &ImageId,
        stop: &AtomicBool,
        failed: &dyn Fn(Option<&ImageId>, &TransferError),
    ) {
        let done = self.service.catalog.image(id).map_err(TransferError::from);
        let done = done.and_then(|image| match image.filter(lacks_hashes) {
            Some(image) => self.hash(&image, stop),
            None => Ok(()),
        });
        if let Err(error) = done {
            failed(Some(id), &error);
        }
    }

    /// Reads all of an image and notes its hashes, if it is still the image that was read.
    fn hash(&self, image: &Image, stop: &AtomicBool) -> Result<(), TransferError> {
        let reader = self.content.open(&image.id, Part::Data);
        let reader = reader.map_err(TransferError::of_store)?;
        let reader = reader.ok_or_else(|| TransferError::Missing(image.id.clone()))?;
        let algorithm = self.settings.hash;
        let (to_md5, md5_pieces) = sync_channel::<Arc<Vec<u8>>>(QUEUE_PIECES);
        let (to_hash, hash_pieces) = sync_channel::<Arc<Vec<u8>>>(QUEUE_PIECES);
        let (read, checksum, value) = std::thread::scope(|scope| {
            let md5 = scope.spawn(|| md5_of(md5_pieces.into_iter().map(Shared)));
            let hash = scope.spawn(move || hash_of(algorithm, hash_pieces.into_iter().map(Shared)));
            let read = for_each_piece(
                &reader,
                0..reader.record().virtual_size,
                stop,
                &mut |piece| {
                    let piece = Arc::new(piece.to_vec());
                    // Both end only when this does.
                    drop(to_md5.send(Arc::clone(&piece)));
                    drop(to_hash.send(piece));
                },
            );
            drop((to_md5, to_hash));
            let join = |thread: std::thread::ScopedJoinHandle<'_, String>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            (read, join(md5), join(hash))
        });
        match read {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(TransferError::of_store(error)),
        }
        let tree = image.lineage.tree_hash.clone();
        self.save_own(&image.id, |found| {
            if !lacks_hashes(found) || found.lineage.tree_hash != tree {
                return Ok(false);
            }
            found.checksum = Some(checksum.clone());
            found.hash = Some(ContentHash {
                algorithm: algorithm.as_str().to_owned(),
                value: value.clone(),
            });
            Ok(true)
        })?;
        Ok(())
    }
}

/// Hands over a range of an image's bytes in pieces, verified; `false` if it was stopped before the end.
pub(super) fn for_each_piece(
    reader: &ImageReader,
    range: Range<u64>,
    stop: &AtomicBool,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<bool, EngineError> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut sink = |piece| {
        match piece {
            StreamPiece::Data(bytes) => each(&bytes),
            StreamPiece::Zeros(mut left) => {
                while left > 0 {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS_BYTES);
                    each(zeros.get(..length).unwrap_or_default());
                    left -= length as u64;
                }
            }
        }
        Ok(())
    };
    let task = Task {
        progress: &|_, _| {},
        interrupted: stop,
    };
    match reader.stream(range, &mut sink, task) {
        Ok(_) => Ok(true),
        Err(EngineError::Interrupted) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an image has its bytes, and not its hashes.
fn lacks_hashes(image: &Image) -> bool {
    matches!(image.status, ImageStatus::Active | ImageStatus::Deactivated)
        && image.hash.is_none()
        && image.lineage.tree_hash.is_some()
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
