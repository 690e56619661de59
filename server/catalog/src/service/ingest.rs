//! Bytes on their way into the store: hashed, looked at and stored at the same time.
//!
//! ```text
//!                              ┌─► MD5
//!  source ─► pump ─► pieces ───┼─► the other hash
//!          (inspects)          └─► the engine, which makes chunks of them on all cores
//! ```
//! Each has a thread and a short queue of pieces, which all of them share: so it is as fast as the slowest of them, and
//! holds a few pieces whatever the image's length. The engine learns that the bytes have ended only after the pump has found
//! that all of them came and that they may be kept: until then it can publish nothing.

use super::ServiceError;
use super::transfer::{TransferError, TransferSettings, Transfers};
use crate::content::Part;
use crate::digests::{hash_of, md5_of};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use tegula_domain::inspect::{InspectionRules, Inspector};
use tegula_domain::quota::Allowance;
use tegula_domain::{ContentHash, Image};
use tegula_engine::{Buffer, PutReport};

/// Bytes of a piece.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces that wait for each of those who take them.
const QUEUE_PIECES: usize = 4;

/// What came in.
#[derive(Debug)]
pub(super) struct Ingested {
    /// How many bytes.
    pub(super) bytes: u64,
    /// Their MD5.
    pub(super) checksum: String,
    /// Their other digest.
    pub(super) hash: ContentHash,
    /// The length of the disk in them, if it was asked for and can be told.
    pub(super) virtual_size: Option<u64>,
    /// What the store made of them.
    pub(super) put: PutReport,
}

/// What bytes must be to be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// How many were announced.
    pub(super) bytes: Option<u64>,
    /// How many there may be.
    pub(super) allowance: Allowance,
    /// The disk format that is claimed and the rules to judge it by, if they are to be judged.
    pub(super) format: Option<(&'a str, &'a InspectionRules)>,
}

impl<'a> Expected<'a> {
    /// What the bytes of an image must be. Those inside another container are not judged.
    pub(super) fn of(
        image: &'a Image,
        settings: &'a TransferSettings,
    ) -> Option<(&'a str, &'a InspectionRules)> {
        let is_bare = image.container_format.as_deref() == Some("bare");
        let format = image.disk_format.as_deref().filter(|_| is_bare);
        format.map(|format| (format, &settings.inspection))
    }
}

/// A piece, or the news that there are no more: without it they broke off.
#[derive(Debug, Clone)]
enum Message {
    Piece(Arc<Buffer>),
    End,
}

impl Transfers {
    /// Takes in bytes until they end, durably, or leaves nothing of them.
    pub(super) fn ingest(
        &self,
        (image, part): (&Image, Part),
        source: &mut dyn Read,
        expected: Expected<'_>,
    ) -> Result<Ingested, TransferError> {
        let stop = AtomicBool::new(false);
        let algorithm = self.settings.hash;
        thread::scope(|scope| {
            let (to_md5, md5_pieces) = sync_channel(QUEUE_PIECES);
            let (to_hash, hash_pieces) = sync_channel(QUEUE_PIECES);
            let (to_store, store_pieces) = sync_channel(QUEUE_PIECES);
            let md5 = scope.spawn(|| md5_of(pieces(md5_pieces)));
            let hash = scope.spawn(move || hash_of(algorithm, pieces(hash_pieces)));
            let put = scope.spawn(|| {
                let mut source = PieceReader::new(store_pieces);
                let parent = image.lineage.parent.as_ref();
                self.content
                    .put((&image.id, part), &mut source, parent, &stop)
            });
            let pumped = pump(source, &expected, &[to_md5, to_hash, to_store]);
            // The queues are gone: everybody comes to an end.
            let put = join(put);
            let (checksum, value) = (join(md5), join(hash));
            match (pumped, put) {
                (Ok((bytes, virtual_size)), Ok(put)) => Ok(Ingested {
                    bytes,
                    checksum,
                    hash: ContentHash {
                        algorithm: algorithm.as_str().to_owned(),
                        value,
                    },
                    virtual_size,
                    put,
                }),
                // Nobody took the pieces any more: the store says why.
                (Ok(_) | Err(Stopped::NobodyTakes), Err(error)) => {
                    // It may have failed to say that it stored them. Nobody else can be sending any now.
                    drop(self.content.remove(&image.id, part));
                    Err(self.of_store_over(error, image.lineage.parent.as_ref()))
                }
                (Err(Stopped::Because(error)), Err(_)) => Err(error),
                (Err(_), Ok(_)) => {
                    unreachable!("the engine is told of the end only when all is well")
                }
            }
        })
    }
}

/// Why the pump stopped before the end.
enum Stopped {
    /// One of those who take the pieces is gone.
    NobodyTakes,
    /// The bytes are not to be kept.
    Because(TransferError),
}

impl From<TransferError> for Stopped {
    fn from(error: TransferError) -> Self {
        Self::Because(error)
    }
}

/// Hands all pieces to everybody, then says that they ended, if they are what was expected. Returns how many bytes there
/// were and the length of the disk in them.
fn pump(
    source: &mut dyn Read,
    expected: &Expected<'_>,
    takers: &[SyncSender<Message>],
) -> Result<(u64, Option<u64>), Stopped> {
    let mut inspector = Inspector::new();
    let mut allowance = expected.allowance;
    let mut bytes = 0;
    loop {
        let mut piece = Buffer::stale(PIECE_BYTES);
        let length = read_full(source, &mut piece).map_err(|source| TransferError::Source {
            received: bytes,
            source,
        })?;
        bytes += length as u64;
        if let Some(expected) = expected.bytes.filter(|expected| bytes > *expected) {
            let found = bytes;
            return Err(TransferError::Size { expected, found }.into());
        }
        let taken = allowance.take(length as u64);
        taken.map_err(|over| TransferError::from(ServiceError::from(over)))?;
        piece.as_vec_mut().truncate(length);
        if let Some(claim) = expected.format {
            inspector.push(&piece);
            if let Some(refusal) = inspector.refusal_so_far(claim, expected.bytes) {
                return Err(TransferError::Refused(refusal).into());
            }
        }
        if length > 0 {
            hand_over(takers, &Message::Piece(Arc::new(piece)))?;
        }
        if length < PIECE_BYTES {
            break;
        }
    }
    if let Some(expected) = expected.bytes.filter(|expected| *expected != bytes) {
        let found = bytes;
        return Err(TransferError::Size { expected, found }.into());
    }
    let virtual_size = match expected.format {
        Some((claimed, rules)) => {
            let judged = inspector.finish().judge(claimed, rules);
            judged.map_err(TransferError::Refused)?.virtual_size
        }
        None => None,
    };
    hand_over(takers, &Message::End)?;
    Ok((bytes, virtual_size))
}

fn hand_over(takers: &[SyncSender<Message>], message: &Message) -> Result<(), Stopped> {
    takers.iter().try_for_each(|taker| {
        taker
            .send(message.clone())
            .map_err(|_| Stopped::NobodyTakes)
    })
}

/// Fills a buffer as far as the source goes.
pub(super) fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The pieces up to the end, or to where they break off.
fn pieces(messages: Receiver<Message>) -> impl Iterator<Item = PieceBytes> {
    messages.into_iter().map_while(|message| match message {
        Message::Piece(piece) => Some(PieceBytes(piece)),
        Message::End => None,
    })
}

struct PieceBytes(Arc<Buffer>);

impl AsRef<[u8]> for PieceBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The pieces as the engine reads them: an error, not an end, where they break off.
struct PieceReader {
    messages: Receiver<Message>,
    piece: Arc<Buffer>,
    read: usize,
    ended: bool,
}

impl PieceReader {
    fn new(messages: Receiver<Message>) -> Self {
        Self {
            messages,
            piece: Arc::default(),
            read: 0,
            ended: false,
        }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() && !self.ended {
            match self.messages.recv() {
                Ok(Message::Piece(piece)) => (self.piece, self.read) = (piece, 0),
                Ok(Message::End) => self.ended = true,
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let mut rest = self.piece.get(self.read..).unwrap_or_default();
        let bytes = rest.read(buffer)?;
        self.read += bytes;
        Ok(bytes)
    }
}

/// Waits for a thread; if it panicked, so does this one.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
