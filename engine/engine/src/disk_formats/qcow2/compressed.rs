//! Compressed clusters: taken apart into exactly a cluster, and never into more.

use super::header::Compression;
use flate2::{Decompress, FlushDecompress, Status};
use std::cell::RefCell;

/// Windows that QEMU's reader takes too. We need no memory for a window: this only keeps us from taking what is made
/// to break others.
const ZSTD_WINDOW_MAX: u64 = 128 << 20;

thread_local! {
    // Contexts are large and slow to make.
    static INFLATE: RefCell<Option<Decompress>> = const { RefCell::new(None) };
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Fills `cluster` from its compressed bytes, which may be followed by others up to the end of a sector.
///
/// # Errors
/// What is wrong with them, as a phrase about the cluster.
pub(super) fn decompress(
    how: Compression,
    bytes: &[u8],
    cluster: &mut [u8],
) -> Result<(), &'static str> {
    match how {
        Compression::Deflate => inflate(bytes, cluster),
        Compression::Zstd => unzstd(bytes, cluster),
    }
}

fn inflate(bytes: &[u8], cluster: &mut [u8]) -> Result<(), &'static str> {
    INFLATE.with_borrow_mut(|slot| {
        let inflate = slot.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        let damaged = |_| "does not decompress";
        let status = inflate
            .decompress(bytes, cluster, FlushDecompress::Finish)
            .map_err(damaged)?;
        if inflate.total_out() != cluster.len() as u64 {
            return Err("decompresses to less than a cluster");
        }
        if status == Status::StreamEnd {
            return Ok(());
        }
        // The end of the stream may still be to come, but no byte more.
        let rest = usize::try_from(inflate.total_in()).ok();
        let rest = rest.and_then(|read| bytes.get(read..)).unwrap_or_default();
        let mut more = [0];
        let _ = inflate
            .decompress(rest, &mut more, FlushDecompress::Finish)
            .map_err(damaged)?;
        match inflate.total_out() == cluster.len() as u64 {
            true => Ok(()),
            false => Err("decompresses to more than a cluster"),
        }
    })
}

fn unzstd(mut bytes: &[u8], cluster: &mut [u8]) -> Result<(), &'static str> {
    const DAMAGED: &str = "does not decompress";
    UNZSTD.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        let unzstd = slot.as_mut().ok_or(DAMAGED)?;
        let mut filled = 0;
        // There may be several frames. What comes after the cluster is full belongs to others.
        while let Some(rest) = cluster.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if window_bytes(bytes) > ZSTD_WINDOW_MAX {
                return Err("needs a window of more than 128 MiB to be decompressed");
            }
            let length = zstd::zstd_safe::find_frame_compressed_size(bytes).map_err(|_| DAMAGED)?;
            let (frame, after) = bytes.split_at_checked(length).ok_or(DAMAGED)?;
            if length == 0 {
                return Err(DAMAGED);
            }
            let capacity = rest.len();
            let written = unzstd.decompress_to_buffer(frame, rest);
            filled += match written {
                Ok(written) => written,
                Err(_) if claims_more(frame, capacity) => {
                    return Err("decompresses to more than a cluster");
                }
                Err(_) => return Err(DAMAGED),
            };
            bytes = after;
            if bytes.is_empty() && filled < cluster.len() {
                return Err("decompresses to less than a cluster");
            }
        }
        Ok(())
    })
}

fn claims_more(frame: &[u8], capacity: usize) -> bool {
    matches!(zstd::zstd_safe::get_frame_content_size(frame), Ok(Some(bytes)) if bytes > capacity as u64)
}

/// Returns the window that a frame's head asks for (RFC 8878, 3.1.1.1.2); 0 if it has no such head.
fn window_bytes(frame: &[u8]) -> u64 {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    match frame.strip_prefix(&MAGIC) {
        // A single segment has no window of its own.
        Some([descriptor, window, ..]) if descriptor & 0x20 == 0 => {
            let base = 1_u64 << (10 + (window >> 3));
            base + base / 8 * u64::from(window & 7)
        }
        _ => 0,
    }
}
