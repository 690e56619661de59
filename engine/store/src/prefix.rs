//! Prefix frames: a chunk compressed with other chunks in sight (SPEC 4.2).
//!
//! The prefix is given to zstd as a dictionary of plain content, which is what it takes any bytes for that do not begin
//! with the magic of a formatted dictionary. These calls borrow nothing beyond their end, so that a thread can keep its
//! contexts.

use crate::ChunkDamage;
use crate::codec::{self, Encoded};
use std::cell::RefCell;
use tegula_format::{Bases, ChunkId, Codec, Corruption, DICTIONARY_MAGIC, Structure};
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

/// As long as block and bases have no more bytes than this, zstd chooses by itself, but for the levels below 1, a window
/// and tables that reach over all of them.
const REACH_BYTES: usize = 256 << 10;

/// The longest window, as a power of two, that a frame may have.
const WINDOW_LOG_MAX: u32 = 23;

thread_local! {
    static COMPRESSOR: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    /// Two bases, one behind the other.
    static PREFIX: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Compresses a block into a frame that has one or two other chunks, whole blocks as well, as its prefix. Returns it
/// only if its payload, the bases' ids included, is shorter than `below` bytes and worth more than the block as it is.
///
/// Also `None` if the bases cannot be that: none or too many of them, the chunk itself, the same twice, a first one that
/// zstd would take for a dictionary in its own format.
pub fn compress_with_bases(
    id: ChunkId,
    block: &[u8],
    bases: &[(ChunkId, &[u8])],
    level: i32,
    below: u32,
) -> Option<Encoded> {
    let ids: Vec<_> = bases.iter().map(|(id, _)| *id).collect();
    let bytes: Vec<_> = bases.iter().map(|(_, bytes)| *bytes).collect();
    let distinct = ids.first() != ids.get(1) && !ids.contains(&id);
    let whole = bytes.iter().all(|base| base.len() == block.len());
    if !distinct || !whole || looks_like_dictionary(&bytes) {
        return None;
    }
    let named = Bases::new(&ids).filter(|bases| !bases.is_empty())?;
    let below = usize::try_from(below).ok()?;
    let longest = below
        .saturating_sub(1)
        .min(codec::payload_bytes_max(block.len()))
        .checked_sub(size_of_val(ids.as_slice()))?;
    let raw_length = u32::try_from(block.len()).expect("because blocks have at most 4 MiB");
    FRAME.with_borrow_mut(|frame| {
        if frame.len() < longest {
            frame.resize(longest, 0);
        }
        // zstd gives up as soon as the frame would be longer.
        let room = frame.get_mut(..longest)?;
        let length = with_prefix(&bytes, |prefix| {
            if level < 0 || block.len() + prefix.len() > REACH_BYTES {
                return compress_far(room, block, prefix, level);
            }
            COMPRESSOR.with_borrow_mut(|slot| {
                let context = kept(slot, CCtx::try_create)?;
                context.compress_using_dict(room, block, prefix, level).ok()
            })
        })?;
        let frame = frame.get(..length)?;
        Some(codec::encoded(id, Codec::Zstd, named, frame, raw_length))
    })
}

/// Compresses with a window, and tables for what is to be found in it, that reach back over the bases, where zstd would
/// choose smaller ones.
fn compress_far(room: &mut [u8], block: &[u8], prefix: &[u8], level: i32) -> Option<usize> {
    let reach = (block.len() + prefix.len()).next_power_of_two();
    let window = reach.trailing_zeros().min(WINDOW_LOG_MAX);
    let mut context = CCtx::try_create()?;
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        // zstd looks at no more of a prefix than eight times the entries of its larger table.
        CParameter::HashLog(window - 3),
    ] {
        context.set_parameter(parameter).ok()?;
    }
    context.ref_prefix(prefix).ok()?;
    context.compress2(room, block).ok()
}

/// Decompresses the one frame that is to be in `frame` into exactly `block`.
pub(crate) fn decompress(
    frame: &[u8],
    bases: &[&[u8]],
    block: &mut [u8],
) -> Result<(), ChunkDamage> {
    let failed = |reason: String| ChunkDamage::Decompress { reason };
    let zstd = |code| failed(zstd_safe::get_error_name(code).to_owned());
    if looks_like_dictionary(bases) {
        return Err(ChunkDamage::Record(Corruption::Field {
            what: Structure::Record,
            field: "base",
            found: 0,
            expected: "a chunk that does not begin as a zstd dictionary does",
        }));
    }
    // zstd by itself would go on with whatever frames follow.
    match zstd_safe::find_frame_compressed_size(frame).map_err(zstd)? {
        length if length == frame.len() => {}
        length => {
            let extra = frame.len().saturating_sub(length);
            return Err(failed(format!("{extra} bytes follow its frame")));
        }
    }
    let length = with_prefix(bases, |prefix| {
        DECOMPRESSOR.with_borrow_mut(|slot| {
            let context = kept(slot, DCtx::try_create)
                .ok_or_else(|| failed("there is no memory for it".to_owned()))?;
            context
                .decompress_using_dict(block, frame, prefix)
                .map_err(zstd)
        })
    })?;
    match length == block.len() {
        true => Ok(()),
        false => Err(failed(format!("{length} bytes instead of {}", block.len()))),
    }
}

/// Returns what a thread keeps, made at the first use.
fn kept<T>(slot: &mut Option<T>, make: impl FnOnce() -> Option<T>) -> Option<&mut T> {
    if slot.is_none() {
        *slot = make();
    }
    slot.as_mut()
}

/// Has the bases' bytes in one piece, one behind the other.
fn with_prefix<T>(bases: &[&[u8]], use_it: impl FnOnce(&[u8]) -> T) -> T {
    match bases {
        [] => use_it(&[]),
        [base] => use_it(base),
        _ => PREFIX.with_borrow_mut(|joined| {
            joined.clear();
            bases.iter().for_each(|base| joined.extend_from_slice(base));
            use_it(joined)
        }),
    }
}

/// Tells whether zstd would take the prefix for a dictionary in its own format.
fn looks_like_dictionary(bases: &[&[u8]]) -> bool {
    bases
        .first()
        .is_some_and(|base| base.starts_with(&DICTIONARY_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CheckedRecord;
    use tegula_format::{BlockSize, ChunkRules};

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn named(bytes: &[u8]) -> (ChunkId, &[u8]) {
        (ChunkId::of(bytes), bytes)
    }

    fn decode(
        chunk: &Encoded,
        bases: &[&[u8]],
        block_bytes: usize,
    ) -> Result<Vec<u8>, ChunkDamage> {
        let rules = ChunkRules {
            block_size: BlockSize::from_bytes(block_bytes as u64).unwrap(),
            prefix_frames: true,
        };
        let mut block = vec![0; block_bytes];
        CheckedRecord::check(&chunk.record, &chunk.id, &rules)?.decode(bases, &mut block)?;
        Ok(block)
    }

    #[test]
    fn a_block_that_resembles_its_bases_shrinks_to_what_differs_whatever_the_sizes() {
        for (block_bytes, level) in [
            (4096, 1),
            (65_536, -7),
            (65_536, 1),
            (65_536, 3),
            (65_536, 19),
            (131_072, 1),
            (262_144, 1),
            (4 << 20, 1),
            (4 << 20, 3),
        ] {
            let (one, other) = (noise(1, block_bytes), noise(2, block_bytes));
            // The first half of the block is the end of one base, the second the beginning of the other: the whole
            // length of both is to be in reach.
            let half = block_bytes / 2;
            let mut block = [&one[..half], &other[half..]].concat();
            block[half..half + 8].fill(9);
            let id = ChunkId::of(&block);
            let bases = [named(&one), named(&other)];
            let most = u32::try_from(block_bytes).unwrap();
            let chunk = compress_with_bases(id, &block, &bases, level, most).unwrap();
            assert!(
                (chunk.stored_length as usize) < block_bytes / 8,
                "{block_bytes} at level {level}: {}",
                chunk.stored_length
            );
            assert_eq!(chunk.bases.ids(), [bases[0].0, bases[1].0]);
            assert!(decode(&chunk, &[&one, &other], block_bytes).unwrap() == block);
            let swapped = decode(&chunk, &[&other, &one], block_bytes);
            assert!(swapped.is_err(), "bases in the other order");
            assert!(
                decode(&chunk, &[&one], block_bytes).is_err(),
                "a base short"
            );
        }
    }

    #[test]
    fn a_frame_that_is_no_shorter_than_it_must_be_is_not_made() {
        let (base, mut block) = (noise(1, 65_536), noise(1, 65_536));
        block[100..1100].fill(3);
        let (id, bases) = (ChunkId::of(&block), [named(&base)]);
        let chunk = compress_with_bases(id, &block, &bases, 3, 65_536).unwrap();
        let length = chunk.stored_length;
        assert!(length < 1000, "{length}");
        for (below, made) in [
            (length + 64, true),
            (length, false),
            (32, false),
            (0, false),
        ] {
            let again = compress_with_bases(id, &block, &bases, 3, below);
            assert_eq!(again.is_some(), made, "below {below} of {length}");
            assert!(again.is_none_or(|chunk| chunk.stored_length < below));
        }
        let unlike = noise(2, 65_536);
        let nothing_gained = compress_with_bases(named(&unlike).0, &unlike, &bases, 3, 65_536);
        assert!(nothing_gained.is_none(), "noise does not pay");
    }

    #[test]
    fn chunks_that_cannot_be_bases_are_not_made_bases() {
        let (one, other) = (noise(1, 4096), noise(2, 4096));
        let mut dictionary = noise(3, 4096);
        dictionary[..4].copy_from_slice(&DICTIONARY_MAGIC);
        let block = [&one[..2048], &other[2048..]].concat();
        let id = ChunkId::of(&block);
        let compress =
            |bases: &[(ChunkId, &[u8])]| compress_with_bases(id, &block, bases, 3, 4096).is_some();
        assert!(compress(&[named(&one), named(&other)]));
        assert!(!compress(&[]));
        assert!(!compress(&[named(&one), named(&one)]));
        assert!(!compress(&[named(&block)]));
        assert!(!compress(&[named(&one), named(&block)]));
        assert!(!compress(&[named(&one), named(&other), named(&dictionary)]));
        assert!(!compress(&[named(&one[..4000])]));
        assert!(!compress(&[named(&dictionary), named(&one)]));
        assert!(
            compress(&[named(&one), named(&dictionary)]),
            "second it does no harm"
        );
    }

    #[test]
    fn a_first_base_that_begins_as_a_dictionary_is_refused_by_name() {
        let mut dictionary = noise(3, 4096);
        dictionary[..4].copy_from_slice(&DICTIONARY_MAGIC);
        let block = [&noise(1, 2048)[..], &dictionary[2048..]].concat();
        let bases = Bases::new(&[ChunkId::of(&dictionary)]).unwrap();
        // What a writer that knows no better would make.
        let mut context = CCtx::create();
        context.ref_prefix(&dictionary).unwrap();
        let mut frame = Vec::with_capacity(8192);
        context.compress2(&mut frame, &block).unwrap();
        let chunk = codec::encoded(ChunkId::of(&block), Codec::Zstd, bases, &frame, 4096);
        let error = decode(&chunk, &[&dictionary], 4096).unwrap_err();
        let named = matches!(
            error,
            ChunkDamage::Record(Corruption::Field { field: "base", .. })
        );
        assert!(named, "{error}");
    }

    #[test]
    fn a_second_frame_behind_the_first_is_refused() {
        let block = vec![5; 4096];
        let id = ChunkId::of(&block);
        let mut frame = Vec::with_capacity(4096);
        CCtx::create()
            .compress(&mut frame, &block[..2048], 1)
            .unwrap();
        let twice = [&frame[..], &frame[..]].concat();
        let chunk = codec::encoded(id, Codec::Zstd, Bases::NONE, &twice, 4096);
        let error = decode(&chunk, &[], 4096).unwrap_err();
        assert!(matches!(error, ChunkDamage::Decompress { .. }), "{error}");
    }
}
