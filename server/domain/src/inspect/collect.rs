//! Keeping what is to be looked at, of bytes that come once.

use super::{Inspection, InspectionRules, Refusal, Seen, judge, vhdx};

/// What is kept of the beginning: room for volume descriptors, which begin at byte 32,768, and for any header.
const HEAD_BYTES: usize = 96 << 10;

/// What is kept of the end: a VMDK's last marker, its footer and the marker before that.
const TAIL_BYTES: usize = 1536;

/// Looks at an image's bytes as they go by. See the [module](super).
#[derive(Debug, Default)]
pub struct Inspector {
    head: Vec<u8>,
    /// The last bytes; up to twice as many as are needed, so that they are not moved for every small piece.
    tail: Vec<u8>,
    bytes: u64,
    metadata: Metadata,
}

/// What is kept of a VHDX file's metadata, which stands where the file's head says.
#[derive(Debug, Default)]
pub(super) enum Metadata {
    /// The head was not complete yet, or it is no such file.
    #[default]
    Unknown,
    /// The head does not tell where it is.
    Nowhere,
    /// It begins at this byte; so much was kept.
    At(u64, Vec<u8>),
}

impl Inspector {
    /// Begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, any number of them.
    pub fn push(&mut self, piece: &[u8]) {
        self.keep_head(piece);
        if matches!(self.metadata, Metadata::Unknown) && self.head.len() == vhdx::HEAD_BYTES {
            self.metadata = match vhdx::metadata_place(&self.head) {
                Some(offset) => Metadata::At(offset, Vec::new()),
                None => Metadata::Nowhere,
            };
        }
        self.keep_metadata(piece);
        self.keep_tail(piece);
        self.bytes += piece.len() as u64;
    }

    /// Whether something stands in the middle that is to be looked at: then [`Self::pass_over`] must not be used. Known once
    /// the first MiB has come.
    pub fn needs_all(&self) -> bool {
        matches!(self.metadata, Metadata::At(..))
    }

    /// Counts bytes that are not looked at, behind the first MiB and before the last few KiB.
    pub fn pass_over(&mut self, bytes: u64) {
        if bytes > 0 {
            self.tail.clear();
            self.bytes += bytes;
        }
    }

    /// Returns how many bytes have come.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Why the image will not be kept whatever else comes, as far as its beginning tells that: so that nobody has to send the
    /// rest. It is the one of [`Inspection::judge`], or one of several.
    ///
    /// `bytes` is how many there will be, if that was announced.
    pub fn refusal_so_far(
        &self,
        (claimed, rules): (&str, &InspectionRules),
        bytes: Option<u64>,
    ) -> Option<Refusal> {
        if self.head.len() < HEAD_BYTES {
            return None;
        }
        judge::refusal_by_head(
            (claimed, rules),
            &Seen {
                head: &self.head,
                tail: &[],
                bytes: bytes.unwrap_or(u64::MAX),
                metadata: &Metadata::Unknown,
            },
        )
    }

    /// Ends: these were all.
    pub fn finish(self) -> Inspection {
        let tail = self.tail.len().saturating_sub(TAIL_BYTES);
        Inspection::of(&Seen {
            head: &self.head,
            tail: self.tail.get(tail..).unwrap_or_default(),
            bytes: self.bytes,
            metadata: &self.metadata,
        })
    }

    fn keep_head(&mut self, piece: &[u8]) {
        let mut rest = piece;
        // Which head it is is known after the first bytes, and depends on nothing else.
        for limit in [vhdx::SIGNATURE.len(), HEAD_BYTES, vhdx::HEAD_BYTES] {
            if limit == vhdx::HEAD_BYTES && !self.head.starts_with(vhdx::SIGNATURE) {
                break;
            }
            let room = limit.saturating_sub(self.head.len());
            let (kept, after) = rest.split_at(room.min(rest.len()));
            // Once bytes were passed over none are kept: the head has no gaps.
            self.head.extend_from_slice(kept);
            rest = after;
        }
    }

    fn keep_metadata(&mut self, piece: &[u8]) {
        let Metadata::At(offset, kept) = &mut self.metadata else {
            return;
        };
        // The next byte that is wanted, seen from the piece's first.
        let next = *offset + kept.len() as u64;
        if let Some(skip) = next.checked_sub(self.bytes)
            && let Some(from) = usize::try_from(skip)
                .ok()
                .and_then(|skip| piece.get(skip..))
        {
            let room = vhdx::METADATA_BYTES - kept.len();
            kept.extend_from_slice(from.get(..room.min(from.len())).unwrap_or_default());
        }
    }

    fn keep_tail(&mut self, piece: &[u8]) {
        let new = piece.len().saturating_sub(TAIL_BYTES);
        let new = piece.get(new..).unwrap_or_default();
        if self.tail.len() + new.len() > 2 * TAIL_BYTES {
            let keep = TAIL_BYTES.min(self.tail.len());
            self.tail.drain(..self.tail.len() - keep);
        }
        self.tail.extend_from_slice(new);
    }
}
