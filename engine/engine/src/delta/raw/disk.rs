//! The disk: hashed as a whole, read and written by blocks.

use super::Work;
use crate::EngineError;
use std::io;
use std::path::{Path, PathBuf};
use tegula_format::{BlockIndex, BlockSize, ChunkId, ImageDigest, ImageDigester};
use tegula_io::{Buffer, TargetFile};

/// Bytes read in one step.
const BATCH_BYTES: u64 = 512 << 10;

/// Steps in a window of the pipeline.
const WINDOW_BATCHES: usize = 32;

/// Where a chunk of the base stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Where {
    pub(super) block: BlockIndex,
    /// Whether the block is left as it is.
    pub(super) stays: bool,
}

/// A disk that is changed where it is.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    name: String,
    target: TargetFile,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        Ok(Self {
            path: path.to_owned(),
            name: path.display().to_string(),
            target: TargetFile::open_in_place(path)?,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_block_device(&self) -> bool {
        self.target.is_block_device()
    }

    pub(super) fn identity(&self) -> Result<(u64, u64), EngineError> {
        self.target.identity().map_err(self.read_error(0))
    }

    pub(super) fn bytes(&self) -> Result<u64, EngineError> {
        self.target.bytes().map_err(self.read_error(0))
    }

    /// Refuses a device that is too small.
    pub(super) fn check_room(&self, needed: u64) -> Result<(), EngineError> {
        match self.bytes()? {
            found if found >= needed => Ok(()),
            found => Err(EngineError::DestinationTooSmall {
                path: self.path.clone(),
                found,
                needed,
            }),
        }
    }

    fn read_error(&self, offset: u64) -> impl FnOnce(io::Error) -> EngineError + use<> {
        let name = self.name.clone();
        move |source| EngineError::ReadSource {
            name,
            offset,
            source,
        }
    }

    fn write_error(&self) -> impl FnOnce(io::Error) -> EngineError + use<> {
        let name = self.name.clone();
        move |source| EngineError::WriteTarget { name, source }
    }

    /// Reads a block of an image of `size` bytes; past that it is zeros.
    pub(super) fn read_block(
        &self,
        block: BlockIndex,
        block_size: BlockSize,
        size: u64,
    ) -> Result<Buffer, EngineError> {
        let offset = block.byte_offset(block_size);
        let mut buffer = Buffer::zeroed(block_size.as_usize());
        let length = size.saturating_sub(offset);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let length = length.min(buffer.len());
        let wanted = buffer
            .get_mut(..length)
            .expect("because it was cut to the buffer");
        self.target
            .read_at(wanted, offset)
            .map_err(self.read_error(offset))?;
        Ok(buffer)
    }

    /// Writes a chunk into a block, as much of it as an image of `size` bytes has. Returns how much that is.
    pub(super) fn write_block(
        &self,
        block: BlockIndex,
        block_size: BlockSize,
        size: u64,
        chunk: &[u8],
    ) -> Result<u64, EngineError> {
        let offset = block.byte_offset(block_size);
        let length = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = chunk.get(..length).unwrap_or(chunk);
        self.target
            .write_at(bytes, offset)
            .map_err(self.write_error())?;
        Ok(bytes.len() as u64)
    }

    /// Makes a range read as zeros.
    pub(super) fn zero(&self, start: u64, end: u64) -> Result<(), EngineError> {
        match end.checked_sub(start) {
            None | Some(0) => Ok(()),
            Some(length) => self
                .target
                .zero_range(start, length)
                .map_err(self.write_error()),
        }
    }

    /// Makes a file this long; a device stays as it is.
    pub(super) fn set_bytes(&self, bytes: u64) -> Result<(), EngineError> {
        match self.is_block_device() {
            true => Ok(()),
            false => self.target.set_len(bytes).map_err(self.write_error()),
        }
    }

    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.target.sync().map_err(self.write_error())
    }

    /// Hashes an image of `size` bytes that the disk begins with, and names every block of it that is not zeros.
    pub(super) fn digest(
        &self,
        work: &Work<'_>,
        size: u64,
        mut each: impl FnMut(BlockIndex, ChunkId) + Send,
    ) -> Result<ImageDigest, EngineError> {
        let block_size = work.file.header().block_size;
        let block_bytes = u64::from(block_size.bytes());
        let mut digester = ImageDigester::new(size, block_size);
        let (mut hashed, mut next, mut data_end) = (0, 0, 0);
        work.workers.pipeline(
            || {
                work.task.check()?;
                let mut window = Vec::with_capacity(WINDOW_BATCHES);
                while window.len() < WINDOW_BATCHES && next < size {
                    if next >= data_end {
                        let data = self.target.next_data(next).map_err(self.read_error(next))?;
                        let Some(data) = data.filter(|data| data.start < size) else {
                            next = size;
                            break;
                        };
                        next = next.max(data.start / block_bytes * block_bytes);
                        data_end = data.end.min(size);
                    }
                    let end = data_end.min(next + BATCH_BYTES.max(block_bytes));
                    let end = end.next_multiple_of(block_bytes);
                    window.push(block_size.block_at(next)..block_size.block_at(end - 1));
                    next = end;
                }
                (work.task.progress)(next.min(size), Some(size));
                Ok((!window.is_empty()).then_some(window))
            },
            |blocks| {
                let mut chunks = Vec::new();
                for block in (blocks.start.get()..=blocks.end.get()).map(BlockIndex::new) {
                    let bytes = self.read_block(block, block_size, size)?;
                    if !crate::put::is_zero(&bytes) {
                        chunks.push((block, ChunkId::of(&bytes)));
                    }
                }
                Ok::<_, EngineError>(chunks)
            },
            |results| {
                for chunks in results {
                    for (block, id) in chunks? {
                        digester.push_zeros(u64::from(block.get()) - hashed);
                        digester.push_data(&id);
                        hashed = u64::from(block.get()) + 1;
                        each(block, id);
                    }
                }
                Ok::<_, EngineError>(())
            },
        )?;
        digester.push_zeros(block_size.blocks_in(size) - hashed);
        Ok(digester.finish())
    }
}
