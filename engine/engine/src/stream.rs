//! Stretches of an image as a stream: for who reads an image bit by bit, at the speed of a network.
//!
//! The bytes come in order and verified. While some are handed over, the next are decoded on all cores and those after
//! them are read. The first window is short, so that the first bytes come soon and a short stretch costs little; each
//! one after it is twice as long, up to this stream's share of what all streams together may hold in memory. Whoever
//! takes the bytes may be slow: only the calling thread waits for it.

use crate::get::{GetReport, InOrder, in_order, output_error};
use crate::workers::Waits;
use crate::{EngineError, OpenImage, Task, Workers};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tegula_format::{BlockIndex, BlockSize, ImageRecord};
use tegula_io::Buffer;

/// Bytes of blocks that all streams of an engine hold together, as long as none of them has to make do with its least.
const STREAMS_BYTES: usize = 128 << 20;

/// The shortest window there is, however many streams there are.
const WINDOW_BYTES_MIN: usize = 128 << 10;

/// The longest one of a stream that is read.
const WINDOW_BYTES_MAX: usize = 8 << 20;

/// The first one.
const WINDOW_BYTES_FIRST: usize = 256 << 10;

/// Windows that a pipeline holds.
const WINDOWS: usize = 3;

/// The most zeros that are handed over at once: in between it is asked whether to go on.
const ZEROS_MAX: u64 = 16 << 20;

/// How many streams go in and out, and what each may hold in memory.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    active: AtomicUsize,
}

/// One of the streams, until it is dropped.
#[derive(Debug)]
pub(crate) struct Active<'a>(&'a Streams);

impl Streams {
    /// Counts one more.
    pub(crate) fn begin(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(self)
    }

    /// Returns how long each one's next window may be.
    pub(crate) fn share(&self) -> usize {
        let active = self.active.load(Ordering::Relaxed).max(1);
        (STREAMS_BYTES / WINDOWS / active).max(WINDOW_BYTES_MIN)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How much is read ahead from one window to the next.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    next: usize,
    /// Whom the memory is shared with; without, every window is as long as the first.
    streams: Option<&'a Streams>,
}

impl<'a> Pace<'a> {
    /// Windows of one length.
    pub(crate) fn steady(bytes: usize) -> Self {
        Self {
            next: bytes,
            streams: None,
        }
    }

    /// Windows that grow up to the stream's share.
    fn growing(streams: &'a Streams) -> Self {
        Self {
            next: WINDOW_BYTES_FIRST,
            streams: Some(streams),
        }
    }

    /// Returns how many bytes the next window has.
    pub(crate) fn next_window(&mut self) -> usize {
        let Some(streams) = self.streams else {
            return self.next;
        };
        let window = self.next.min(streams.share()).min(WINDOW_BYTES_MAX);
        self.next = window * 2;
        window
    }
}

/// A piece of a stream.
#[derive(Debug)]
pub enum StreamPiece {
    /// Bytes.
    Data(Buffer),
    /// So many zeros, where the image has no data.
    Zeros(u64),
}

impl StreamPiece {
    /// Returns how many bytes it stands for.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Zeros(bytes) => *bytes,
        }
    }
}

/// What a stream handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReport {
    /// Bytes that were read from the store, decoded and verified.
    pub data_bytes: u64,
    /// Zeros of blocks that hold no data.
    pub zero_bytes: u64,
}

/// An image that is open to be read. Made by [`Engine::open_image`](crate::Engine::open_image); threads may share it.
#[derive(Debug)]
pub struct ImageReader {
    image: OpenImage<'static>,
    workers: Workers,
    streams: Arc<Streams>,
}

impl ImageReader {
    pub(crate) fn new(image: OpenImage<'static>, workers: Workers, streams: Arc<Streams>) -> Self {
        Self {
            image,
            workers,
            streams,
        }
    }

    /// Returns the image's record.
    pub fn record(&self) -> &ImageRecord {
        self.image.record()
    }

    /// Hands over the bytes of a range, in order, each verified. The cost is that of the blocks in the range; a range that
    /// is the whole image also has the image's digest checked at the end.
    ///
    /// # Errors
    /// [`EngineError::OutOfImage`] if the range is not all in the image; [`EngineError::WriteTarget`] with what `sink` says,
    /// which is not called again then; [`EngineError::Store`] if a chunk is damaged, and what was handed over until then is
    /// right; [`EngineError::Interrupted`].
    pub fn stream(
        &self,
        range: Range<u64>,
        sink: &mut (dyn FnMut(StreamPiece) -> io::Result<()> + Send),
        task: Task<'_>,
    ) -> Result<StreamReport, EngineError> {
        let _active = self.streams.begin();
        let (range_bytes, block_size) = (
            range.end.saturating_sub(range.start),
            self.record().block_size,
        );
        // Where there is nothing to do at the same time, handing it to others only costs.
        let workers = match range_bytes <= u64::from(block_size.bytes()) {
            true => Workers::Inline,
            false => self.workers,
        };
        let pace = Pace::growing(&self.streams);
        let report = stream(&self.image, workers, (range, pace), sink, task)?;
        Ok(StreamReport {
            data_bytes: report.written_bytes,
            zero_bytes: range_bytes - report.written_bytes,
        })
    }
}

/// Streams a range of an image. In the report, written are the bytes of data.
pub(crate) fn stream(
    image: &OpenImage<'_>,
    workers: Workers,
    (range, pace): (Range<u64>, Pace<'_>),
    sink: &mut (dyn FnMut(StreamPiece) -> io::Result<()> + Send),
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    let (block_size, size) = (image.record().block_size, image.record().virtual_size);
    if range.start > range.end || range.end > size {
        let (offset, end) = (range.start, range.end);
        return Err(EngineError::OutOfImage { offset, end, size });
    }
    let plan = InOrder {
        blocks: match range.is_empty() && size > 0 {
            true => 0..0,
            false => range.start >> block_size.log2()..block_size.blocks_in(range.end),
        },
        wanted: None,
        group: 1,
        pace,
        waits: Waits::Taking,
    };
    let mut out = Out {
        next: range.start,
        end: range.end,
        block_size,
        data_bytes: 0,
        sink,
        task,
    };
    let report = in_order(
        image,
        workers,
        plan,
        |_, decoded| decoded,
        |decoded| {
            decoded
                .into_iter()
                .try_for_each(|(block, bytes)| out.block(block, bytes))
        },
        task,
    )?;
    out.zeros_to(range.end)?;
    Ok(GetReport {
        written_bytes: out.data_bytes,
        ..report
    })
}

/// The far end of a stream, and how far it has come.
struct Out<'a> {
    next: u64,
    end: u64,
    block_size: BlockSize,
    data_bytes: u64,
    sink: &'a mut (dyn FnMut(StreamPiece) -> io::Result<()> + Send),
    task: Task<'a>,
}

impl Out<'_> {
    /// Hands over a block, as much of it as is in the range, and the zeros before it.
    fn block(&mut self, block: BlockIndex, mut bytes: Buffer) -> Result<(), EngineError> {
        let offset = block.byte_offset(self.block_size);
        self.zeros_to(offset)?;
        let narrow = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let skip = narrow(self.next - offset).min(bytes.len());
        let end = narrow(self.end - offset).min(bytes.len());
        if skip > 0 {
            bytes = Buffer::copied(bytes.get(skip..end).unwrap_or_default());
        } else {
            bytes.as_vec_mut().truncate(end);
        }
        self.next += bytes.len() as u64;
        self.data_bytes += bytes.len() as u64;
        self.hand_over(StreamPiece::Data(bytes))
    }

    fn zeros_to(&mut self, offset: u64) -> Result<(), EngineError> {
        while self.next < offset {
            let zeros = (offset - self.next).min(ZEROS_MAX);
            self.next += zeros;
            self.hand_over(StreamPiece::Zeros(zeros))?;
        }
        Ok(())
    }

    fn hand_over(&mut self, piece: StreamPiece) -> Result<(), EngineError> {
        self.task.check()?;
        (self.sink)(piece).map_err(output_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_up_to_the_share_of_a_stream_and_shrink_with_it() {
        let streams = Streams::default();
        let alone = streams.begin();
        let mut pace = Pace::growing(&streams);
        let windows: Vec<_> = (0..8).map(|_| pace.next_window() >> 10).collect();
        assert_eq!(windows, [256, 512, 1024, 2048, 4096, 8192, 8192, 8192]);
        let others: Vec<_> = (0..99).map(|_| streams.begin()).collect();
        assert_eq!(pace.next_window(), STREAMS_BYTES / WINDOWS / 100);
        let more: Vec<_> = (0..9900).map(|_| streams.begin()).collect();
        assert_eq!(pace.next_window(), WINDOW_BYTES_MIN);
        drop((others, more));
        assert_eq!(pace.next_window(), 2 * WINDOW_BYTES_MIN);
        drop(alone);
        assert_eq!(streams.active.load(Ordering::Relaxed), 0);
    }
}
