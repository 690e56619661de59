//! Clusters on their way into a compressed file.

use super::super::Compression;
use super::ClusterSize;
use flate2::{Compress, FlushCompress, Status};
use std::cell::RefCell;
use tegula_io::Buffer;

/// QEMU reads deflate with a window of 4 KiB and refuses what looks back further.
const DEFLATE_WINDOW_BITS: u8 = 12;
const DEFLATE_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

thread_local! {
    // Contexts are large and slow to make.
    static DEFLATE: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// A cluster as it is to be stored.
#[derive(Debug)]
pub(crate) enum Compressing {
    /// It reads as zeros.
    Zero,
    /// Fewer bytes than a cluster.
    Compressed(Buffer),
    /// As it is: it would not become smaller.
    Plain(Buffer),
}

impl Compressing {
    /// Compresses a cluster.
    pub(crate) fn of(how: Compression, cluster: Buffer, size: ClusterSize) -> Self {
        if cluster.iter().all(|byte| *byte == 0) {
            return Self::Zero;
        }
        // One byte less than a cluster is the most that is worth it.
        let mut compressed = Buffer::stale(size.as_usize() - 1);
        let length = match how {
            Compression::Deflate => deflate(&cluster, &mut compressed),
            Compression::Zstd => zstd(&cluster, &mut compressed),
        };
        match length {
            Some(length) => {
                compressed.as_vec_mut().truncate(length);
                Self::Compressed(compressed)
            }
            None => Self::Plain(cluster),
        }
    }
}

fn deflate(cluster: &[u8], compressed: &mut [u8]) -> Option<usize> {
    DEFLATE.with_borrow_mut(|slot| {
        let deflate = slot.get_or_insert_with(|| {
            let level = flate2::Compression::new(DEFLATE_LEVEL);
            Compress::new_with_window_bits(level, false, DEFLATE_WINDOW_BITS)
        });
        let status = deflate
            .compress(cluster, compressed, FlushCompress::Finish)
            .ok();
        let length = usize::try_from(deflate.total_out()).ok();
        if status == Some(Status::StreamEnd) {
            deflate.reset();
            return length;
        }
        // zlib-rs 0.6.8 keeps something of a stream that was not finished even when it is reset.
        *slot = None;
        None
    })
}

fn zstd(cluster: &[u8], compressed: &mut [u8]) -> Option<usize> {
    ZSTD.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
        }
        slot.as_mut()?.compress_to_buffer(cluster, compressed).ok()
    })
}
