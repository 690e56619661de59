//! Hints of what was changed: an extent list, the difference of two thin volumes, a diff of an RBD image, a bitmap.
//!
//! With a hint a put reads what was changed and takes the rest from the parent: it costs what was changed, not what the
//! disk is. So a hint has to be believed, and is believed only if it fits: it names the parent, by digest, as what it was
//! made against, it is for a disk of this length, and nothing in it is strange. Any doubt makes it a put without a hint,
//! which compares everything, and the report says why. A hint that fits and lies is found with a probability that the
//! caller chooses: see [`HintChecks::sample`].

mod disk;
mod file;
mod json;
mod read;
mod thin_delta;

pub(crate) use disk::HintedDisk;
pub use file::{Changed, ChangedFrom};
pub use read::{HINT_BYTES_MAX, HINT_ENTRIES_MAX, HintError, HintFormat};

use crate::{BlockSource, ChangedBlocks, EngineError};
use std::ops::Range;
use tegula_format::{BlockSize, ChunkId, ImageDigest, ImageRecord};
use tegula_io::{Buffer, Random};
use tegula_store::{LayerStack, StoreError};

/// Ranges begin and end at multiples of this, the sector of every tool that tracks changes. Others are in other units.
const SECTOR_BYTES: u64 = 512;

/// What somebody says was changed of a disk since it was the base.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeHint {
    changed: ChangedBlocks,
    /// The digest of the image it was made against.
    base: Option<ImageDigest>,
    /// The lengths that it says base and disk have.
    base_bytes: Option<u64>,
    bytes: Option<u64>,
    /// The end of the last range it names.
    end: u64,
    /// Why it is not to be believed.
    doubt: Option<String>,
}

impl ChangeHint {
    /// Begins a hint for a disk of `bytes` that is put into blocks of a size: nothing was changed.
    pub fn new(bytes: u64, block_size: BlockSize) -> Self {
        Self::of(ChangedBlocks::new(bytes, u64::from(block_size.bytes())))
    }

    /// Makes a hint of what a bitmap says.
    pub fn of(changed: ChangedBlocks) -> Self {
        Self {
            changed,
            base: None,
            base_bytes: None,
            bytes: None,
            end: 0,
            doubt: None,
        }
    }

    /// Says what it was made against. It is in doubt if it says so itself, and otherwise.
    #[must_use]
    pub fn against(mut self, base: Option<ImageDigest>) -> Self {
        match (self.base, base) {
            (Some(own), Some(said)) if own != said => self.doubt(format!(
                "it says that it was made against {own}, not {said}"
            )),
            _ => self.base = base.or(self.base),
        }
        self
    }

    /// Adds a range of bytes that was changed.
    fn add(&mut self, range: Range<u64>) {
        self.end = self.end.max(range.end);
        self.changed.add(range);
    }

    /// Notes why it is not to be believed; the first reason counts.
    fn doubt(&mut self, reason: String) {
        self.doubt.get_or_insert(reason);
    }

    /// Returns how many bytes it says were changed.
    pub fn changed_bytes(&self) -> u64 {
        self.changed.changed_bytes()
    }

    /// Returns the ranges to be read when a disk is put over a parent, or why all of it has to be.
    pub(crate) fn for_disk(
        &self,
        disk: &dyn BlockSource,
        parent: &ImageRecord,
    ) -> Result<ChangedBlocks, String> {
        if let Some(doubt) = &self.doubt {
            return Err(doubt.clone());
        }
        if disk.overlay_of().is_some() {
            return Err("the source says itself what it has from the parent".to_owned());
        }
        match self.base {
            None => return Err("it does not say which image it was made against".to_owned()),
            Some(base) if base != parent.digest => {
                let name = parent.name.as_str();
                return Err(format!(
                    "it was made against {base}, but {name:?} is {}",
                    parent.digest
                ));
            }
            Some(_) => {}
        }
        let (bytes, before) = (disk.bytes(), parent.virtual_size);
        let said = self.bytes.unwrap_or(self.changed.bytes());
        if said != bytes {
            return Err(format!("it is for a disk of {said} bytes, not {bytes}"));
        }
        if let Some(said) = self.base_bytes.filter(|said| *said != before) {
            return Err(format!("it is for a base of {said} bytes, not {before}"));
        }
        // A tool may round the last range up to its sector, and after a shrink name what was cut off.
        let longest = bytes.max(before).next_multiple_of(SECTOR_BYTES);
        if self.end > longest {
            let end = self.end;
            return Err(format!("it names bytes up to {end}, past the end"));
        }
        let says_lengths = self.bytes.is_some() && self.base_bytes.is_some();
        if bytes > before && !says_lengths && !self.changed.covers(before..bytes) {
            return Err(format!(
                "the disk grew from {before} to {bytes} bytes, and it does not name all that is new"
            ));
        }
        let mut changed = self.changed.clone();
        // A block that holds the shorter one's end is another block of the longer one.
        if bytes != before {
            changed.add(bytes.min(before).saturating_sub(1)..bytes.min(before));
        }
        Ok(changed)
    }
}

/// How far a hint is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintChecks {
    /// Compares everything all the same, and tells how many blocks the hint missed.
    pub paranoid: bool,
    /// How many blocks that the hint has unchanged are compared with the parent's, chosen at random. If one differs,
    /// everything is compared. Where a share *p* of the unchanged blocks is wrong, *n* of them miss it with probability
    /// (1 − *p*)^*n*: 100 find one wrong block in a hundred in 63 of 100 cases, 1 in 1000 in 10.
    pub sample: u32,
}

/// What became of a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintReport {
    /// Whether only what it names was read.
    pub used: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Bytes that it says were changed.
    pub changed_bytes: u64,
    /// Blocks that were compared to check it.
    pub sampled_blocks: u64,
    /// Blocks that it has unchanged and that differ from the parent's: known only if everything was compared, and the
    /// hint fits.
    pub missed_blocks: Option<u64>,
}

/// Compares some unchanged blocks, chosen at random, with the parent's. Returns how many, and one that differs.
pub(crate) fn sample(
    disk: &dyn BlockSource,
    changed: &ChangedBlocks,
    base: &LayerStack,
    (random, wanted): (&dyn Random, u32),
) -> Result<(u64, Option<u64>), EngineError> {
    let block_size = base.block_size();
    let blocks = block_size.blocks_in(disk.bytes());
    let mut sampled = 0;
    if blocks == 0 {
        return Ok((0, None));
    }
    // Where nearly everything was changed it does not matter that few unchanged blocks are hit.
    for _ in 0..u64::from(wanted) * 16 {
        if sampled == u64::from(wanted) {
            break;
        }
        let block = below(random, blocks).map_err(|source| read_error(disk, 0, source))?;
        let start = block * u64::from(block_size.bytes());
        let end = (start + u64::from(block_size.bytes())).min(disk.bytes());
        if changed.touches(start..end) {
            continue;
        }
        sampled += 1;
        let length = usize::try_from(end - start).expect("because blocks are short");
        let mut bytes = Buffer::zeroed(block_size.as_usize());
        let (wanted, _) = bytes.split_at_mut(length);
        disk.read_at(wanted, start)
            .map_err(|source| read_error(disk, start, source))?;
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        let found = (!is_zero).then(|| ChunkId::of(&bytes));
        if found != chunk_at(base, block_size, start)? {
            return Ok((sampled, Some(start)));
        }
    }
    Ok((sampled, None))
}

/// Returns the chunk that a base has at an offset; nothing past its end.
fn chunk_at(
    base: &LayerStack,
    block_size: BlockSize,
    offset: u64,
) -> Result<Option<ChunkId>, StoreError> {
    match offset < base.virtual_size() {
        true => base.chunk(block_size.block_at(offset)),
        false => Ok(None),
    }
}

/// Draws a number below a limit.
fn below(random: &dyn Random, limit: u64) -> std::io::Result<u64> {
    let drawn = u128::from_le_bytes(random.id()?) % u128::from(limit);
    Ok(u64::try_from(drawn).expect("because it is below the limit"))
}

fn read_error(disk: &dyn BlockSource, offset: u64, source: std::io::Error) -> EngineError {
    EngineError::ReadSource {
        name: disk.name().to_owned(),
        offset,
        source,
    }
}
