//! Index runs: sorted tables from chunk id to place, with a filter before them (SPEC 5).
//!
//! Runs are derived from the segments' tables of contents and can always be made again.

use crate::block_set::{decode_numbers, encode_numbers};
use crate::envelope::{self, Kind};
use crate::{
    BASES_MAX, ChunkId, Corruption, IdPrefix, Place, RECORD_HEADER_BYTES, SegmentNumber, Slot,
    Structure,
};
use roaring::RoaringBitmap;
use std::cmp::Ordering;
use std::ops::Range;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const KIND: Kind = Kind {
    what: Structure::Run,
    magic: *b"TGINDEX\n",
};
const WHAT: Structure = Structure::Run;

/// Bytes of a row.
pub const RUN_ROW_BYTES: usize = 48;

/// Bytes of a filter block: one cache line holds two.
pub const FILTER_BLOCK_BYTES: usize = 32;

/// Blocks of the filter that are fetched together.
const FILTER_LOOKS: usize = 32;

/// Up to so many rows to the next id of many are gone through one by one: memory brings them before they are asked for,
/// which it cannot for a jump.
const WALK_ROWS: usize = 32;

/// Up to this segment number, segments are looked up in a list of flags.
const DENSE_SEGMENTS_MAX: usize = 1 << 22;

/// Filter bits spent on a chunk. 12 give about 1 false answer in 200.
const FILTER_BITS_PER_ROW: u64 = 12;

/// A chunk's place and what is needed to read it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunRow {
    /// The chunk.
    pub id: ChunkId,
    /// Its place.
    pub place: Place,
    /// Where its record begins in the segment.
    pub offset: u32,
    /// Bytes of its payload.
    pub stored_length: u32,
    /// How many chunks its frame has as its prefix.
    pub bases: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawRow {
    id: [u8; 32],
    segment: U32,
    offset: U32,
    stored_length: U32,
    slot: U16,
    bases: u8,
    reserved: u8,
}

impl RawRow {
    fn prefix(&self) -> u64 {
        ChunkId::from_bytes(self.id).prefix()
    }

    /// Tells whether the row's id comes before another.
    #[inline]
    fn is_below(&self, id: &ChunkId) -> bool {
        ChunkId::from_bytes(self.id) < *id
    }
}

impl RunRow {
    /// Returns the row's bytes.
    pub fn encode(&self) -> [u8; RUN_ROW_BYTES] {
        zerocopy::transmute!(RawRow {
            id: *self.id.as_bytes(),
            segment: U32::new(self.place.segment.get()),
            offset: U32::new(self.offset),
            stored_length: U32::new(self.stored_length),
            slot: U16::new(self.place.slot.get()),
            bases: self.bases,
            reserved: 0,
        })
    }

    /// Returns the bytes of the chunk's whole record.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.stored_length as usize
    }

    fn from_raw(raw: &RawRow) -> Self {
        Self {
            id: ChunkId::from_bytes(raw.id),
            place: Place {
                segment: SegmentNumber::new(raw.segment.get()),
                slot: Slot::new(raw.slot.get()),
            },
            offset: raw.offset.get(),
            stored_length: raw.stored_length.get(),
            bases: raw.bases,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Body {
    rows: u64,
    segments_length: u32,
    segments_crc: u32,
    filter_blocks: u32,
    filter_crc: u32,
    rows_crc: u32,
}

/// The head of a run: where its parts stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunHeader {
    body: Body,
    start: usize,
}

impl RunHeader {
    /// Reads the head of a run file of `file_bytes`.
    ///
    /// # Errors
    /// [`Corruption`]; in particular if the parts do not fill the file exactly.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, Corruption> {
        let (body, start): (Body, usize) = envelope::decode(KIND, bytes)?;
        if body.filter_blocks == 0 {
            return Err(Corruption::Field {
                what: WHAT,
                field: "filter_blocks",
                found: 0,
                expected: "at least 1",
            });
        }
        let header = Self { body, start };
        let end = body
            .rows
            .checked_mul(RUN_ROW_BYTES as u64)
            .and_then(|rows| rows.checked_add(header.rows_start() as u64));
        match end {
            Some(end) if end == file_bytes => Ok(header),
            _ => Err(Corruption::Truncated {
                what: WHAT,
                need: end.unwrap_or(u64::MAX),
                have: file_bytes,
            }),
        }
    }

    fn filter_start(&self) -> usize {
        self.start + self.body.segments_length as usize
    }

    fn rows_start(&self) -> usize {
        self.filter_start() + self.body.filter_blocks as usize * FILTER_BLOCK_BYTES
    }
}

/// A run over its file's bytes, usually a memory map.
#[derive(Debug, Clone, Copy)]
pub struct RunSections<'a> {
    body: Body,
    segments: &'a [u8],
    filter: &'a [u8],
    rows: &'a [u8],
}

impl<'a> RunSections<'a> {
    /// Splits the bytes of a whole file by its head. Checks no content.
    ///
    /// # Errors
    /// [`Corruption::Truncated`] if `bytes` are not the whole file the head was read from.
    pub fn new(header: &RunHeader, bytes: &'a [u8]) -> Result<Self, Corruption> {
        let have = bytes.len() as u64;
        let parts = || {
            let segments = bytes.get(header.start..header.filter_start())?;
            let filter = bytes.get(header.filter_start()..header.rows_start())?;
            let rows = bytes.get(header.rows_start()..)?;
            (rows.len() as u64 == header.body.rows * RUN_ROW_BYTES as u64)
                .then_some((segments, filter, rows))
        };
        let need = header.rows_start() as u64;
        let (segments, filter, rows) = parts().ok_or(Corruption::Truncated {
            what: WHAT,
            need,
            have,
        })?;
        Ok(Self {
            body: header.body,
            segments,
            filter,
            rows,
        })
    }

    /// Returns the segments whose chunks this run lists, after checking the list's checksum.
    ///
    /// # Errors
    /// [`Corruption`] if checksum or list are wrong.
    pub fn segments(&self) -> Result<Vec<SegmentNumber>, Corruption> {
        check_crc(self.segments, self.body.segments_crc)?;
        let set = decode_numbers(self.segments, WHAT)?;
        Ok(set.iter().map(SegmentNumber::new).collect())
    }

    /// Checks filter and rows: checksums, order, reserved fields, that the run lists only segments it names, and that
    /// the filter knows every row.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub fn verify(&self) -> Result<(), Corruption> {
        self.verify_sums()?;
        self.verify_rows(0..self.len())
    }

    /// Checks what has a checksum: the names of the segments, the filter, the rows.
    ///
    /// # Errors
    /// [`Corruption::Checksum`].
    pub fn verify_sums(&self) -> Result<(), Corruption> {
        self.segments()?;
        check_crc(self.filter, self.body.filter_crc)?;
        check_crc(self.rows, self.body.rows_crc)
    }

    /// Checks some of the rows, and their order from the row before them on: for who shares the work out.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub fn verify_rows(&self, range: Range<usize>) -> Result<(), Corruption> {
        let segments: RoaringBitmap = self.segments()?.iter().map(|s| s.get()).collect();
        // Rows of one segment do not stand together: asking for each is dearer than a look at a flag.
        let named_max = segments.max().map_or(0, |max| max as usize + 1);
        let dense = named_max <= DENSE_SEGMENTS_MAX;
        let flags: Vec<bool> = match dense {
            true => (0..named_max)
                .map(|number| u32::try_from(number).is_ok_and(|number| segments.contains(number)))
                .collect(),
            false => Vec::new(),
        };
        let is_named = |number: SegmentNumber| match dense {
            true => flags.get(number.get() as usize).copied().unwrap_or(false),
            false => segments.contains(number.get()),
        };
        let rows = self.raw_rows().get(range.clone()).unwrap_or_default();
        let before = range.start.checked_sub(1);
        let mut before = before.and_then(|index| self.raw_rows().get(index));
        for raw in rows {
            let descends = before.is_some_and(|before| match before.prefix().cmp(&raw.prefix()) {
                Ordering::Less => false,
                Ordering::Equal => RunRow::from_raw(before) >= RunRow::from_raw(raw),
                Ordering::Greater => true,
            });
            let field = |field, found, expected| {
                Err(Corruption::Field {
                    what: WHAT,
                    field,
                    found,
                    expected,
                })
            };
            if descends || !is_named(SegmentNumber::new(raw.segment.get())) {
                let expected = "a place in a named segment, in ascending order";
                return field("row", RunRow::from_raw(raw).place.ordinal(), expected);
            }
            if raw.reserved != 0 {
                return field("reserved", u64::from(raw.reserved), "0");
            }
            if usize::from(raw.bases) > BASES_MAX {
                return field("bases", u64::from(raw.bases), "at most 2");
            }
            before = Some(raw);
        }
        match rows
            .chunks(FILTER_LOOKS)
            .find_map(|rows| self.unknown_to_filter(rows))
        {
            None => Ok(()),
            Some(row) => Err(Corruption::Field {
                what: WHAT,
                field: "filter",
                found: row.place.ordinal(),
                expected: "the bits of every row's id",
            }),
        }
    }

    /// Returns the first of a few rows whose bits are not all in the filter. Their blocks are fetched before the first is
    /// looked at: they lie anywhere, and memory brings many at a time as fast as one.
    fn unknown_to_filter(&self, rows: &[RawRow]) -> Option<RunRow> {
        let mut blocks = [[0; FILTER_BLOCK_BYTES]; FILTER_LOOKS];
        for (raw, block) in rows.iter().zip(&mut blocks) {
            let found = self.filter_block(&ChunkId::from_bytes(raw.id));
            *block = found.copied().unwrap_or_default();
        }
        let mut rows = rows.iter().zip(&blocks);
        let unknown = rows.find(|(raw, block)| !Filter::has(block, &ChunkId::from_bytes(raw.id)));
        unknown.map(|(raw, _)| RunRow::from_raw(raw))
    }

    fn filter_block(&self, id: &ChunkId) -> Option<&'a [u8; FILTER_BLOCK_BYTES]> {
        let block = Filter::block_of(id, u64::from(self.body.filter_blocks))?;
        let start = block * FILTER_BLOCK_BYTES;
        self.filter.get(start..)?.first_chunk()
    }

    /// Returns how many rows there are.
    pub fn len(&self) -> usize {
        self.raw_rows().len()
    }

    /// Tells whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns row `index`, or `None` past the end.
    pub fn row(&self, index: usize) -> Option<RunRow> {
        self.raw_rows().get(index).map(RunRow::from_raw)
    }

    /// Returns all rows in order.
    pub fn rows(&self) -> impl Iterator<Item = RunRow> + use<'a> {
        self.raw_rows().iter().map(RunRow::from_raw)
    }

    /// Tells whether the run may hold `id`; a no is certain.
    pub fn may_contain(&self, id: &ChunkId) -> bool {
        self.filter_block(id)
            .is_some_and(|block| Filter::has(block, id))
    }

    /// Returns the rows that hold `id`: interpolation search, since ids are uniform; exact compare at the end.
    pub fn find(&self, id: &ChunkId) -> impl Iterator<Item = RunRow> + use<'a> {
        let rows = self.raw_rows();
        let first = self.lower_bound(id);
        let wanted = *id.as_bytes();
        rows.get(first..)
            .unwrap_or_default()
            .iter()
            .take_while(move |row| row.id == wanted)
            .map(RunRow::from_raw)
    }

    /// Finds many ids in one pass over the rows: `ids` ascend. `each` is told the position of the id and its row, once
    /// for each row that holds it, in order.
    ///
    /// The rows are walked from the first to the last as far as the ids reach, so that neighbouring rows come from
    /// memory together, and the next ones before they are asked for: for many ids that is several times faster than asking
    /// for each by itself.
    pub fn find_sorted(&self, ids: &[ChunkId], mut each: impl FnMut(usize, RunRow)) {
        let rows = self.raw_rows();
        let mut next = ids.first().map_or(0, |first| self.lower_bound(first));
        let mut before = ids.first().map_or(0, ChunkId::prefix);
        for (position, id) in ids.iter().enumerate() {
            let key = id.prefix();
            let guess = (u128::from(key.saturating_sub(before)) * rows.len() as u128) >> 64;
            let ahead = usize::try_from(guess).unwrap_or(usize::MAX);
            next = match ahead < WALK_ROWS {
                true => self.walk_to(next, id),
                false => self.lower_bound_from(next, ahead, id),
            };
            before = key;
            let same = rows.get(next..).unwrap_or_default().iter();
            same.take_while(|row| row.id == *id.as_bytes())
                .for_each(|row| each(position, RunRow::from_raw(row)));
        }
    }

    /// Returns the index of the first row at or after `from` whose id is not below `id`, which should be near: the rows are
    /// gone through one by one, and after some of them in ever longer steps.
    fn walk_to(&self, from: usize, id: &ChunkId) -> usize {
        let near = self.raw_rows().get(from..).unwrap_or_default().iter();
        match near.take(WALK_ROWS * 2).position(|row| !row.is_below(id)) {
            Some(steps) => from + steps,
            None => self.lower_bound_from(from, WALK_ROWS * 2, id),
        }
    }

    /// Returns the index of the first row at or after `from` whose id is not below `id`; it should be about `ahead` rows
    /// away. Looks at ever more distant rows until it has passed it, then halves.
    fn lower_bound_from(&self, from: usize, ahead: usize, id: &ChunkId) -> usize {
        let rows = self.raw_rows();
        let below = |index: usize| rows.get(index).is_some_and(|row| row.is_below(id));
        // All before `low` are below, `high` and all after it are not.
        let (mut low, mut high) = (from, rows.len());
        let mut guess = from.saturating_add(ahead);
        let mut step = 1;
        if guess < high && below(guess) {
            while guess < high && below(guess) {
                low = guess + 1;
                guess = guess.saturating_add(step);
                step = step.saturating_mul(2);
            }
            high = high.min(guess);
        } else {
            high = high.min(guess);
            while low < high {
                let look = high.saturating_sub(step).max(low);
                if below(look) {
                    low = look + 1;
                    break;
                }
                high = look;
                step = step.saturating_mul(2);
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if below(middle) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    /// Returns the rows whose id begins with `prefix`: nearly always those of one chunk. The filter, which knows whole
    /// ids, cannot be asked.
    pub fn find_prefix(&self, prefix: IdPrefix) -> impl Iterator<Item = RunRow> + use<'a> {
        let first = self.lower_bound(&prefix.lowest_id());
        let rest = self.raw_rows().get(first..).unwrap_or_default();
        rest.iter()
            .map(RunRow::from_raw)
            .take_while(move |row| prefix.is_of(&row.id))
    }

    /// Returns the index of the first row whose id is not below `id`.
    fn lower_bound(&self, id: &ChunkId) -> usize {
        let rows = self.raw_rows();
        let (mut low, mut high) = (0, rows.len());
        let (mut low_key, mut high_key) = (0u128, 1u128 << 64);
        let key = u128::from(id.prefix());
        let guess = |low: usize, high: usize, low_key: u128, high_key: u128| {
            let span = (high - low) as u128;
            let offset = (key.saturating_sub(low_key)) * span / (high_key - low_key);
            low + usize::try_from(offset).unwrap_or(0).min(high - low)
        };
        // Guess where the key should lie, look, and narrow. Of uniform ids as many lie between as the root of how many
        // there are, and the root of that after the next look.
        for _ in 0..2 {
            if high - low <= 8 || key < low_key || key >= high_key {
                break;
            }
            let looked_at = guess(low, high, low_key, high_key).min(high - 1);
            let found = rows.get(looked_at).map(|row| ChunkId::from_bytes(row.id));
            let found = found.expect("because it is below the end");
            match found < *id {
                true => (low, low_key) = (looked_at + 1, u128::from(found.prefix())),
                false => (high, high_key) = (looked_at, u128::from(found.prefix()) + 1),
            }
        }
        // The next guess is a few rows off: the rest is a walk, in steps that grow should somebody have ground ids.
        let ahead = guess(low, high, low_key, high_key) - low;
        self.lower_bound_from(low, ahead, id)
    }

    fn raw_rows(&self) -> &'a [RawRow] {
        <[RawRow]>::ref_from_bytes(self.rows).expect("because new() checked the length")
    }
}

fn check_crc(bytes: &[u8], stored: u32) -> Result<(), Corruption> {
    match crc32fast::hash(bytes) {
        computed if computed == stored => Ok(()),
        computed => Err(Corruption::Checksum {
            what: WHAT,
            stored,
            computed,
        }),
    }
}

/// Makes a run in two passes over its rows, so that it never stands in memory: first every row is pushed, then
/// [`Self::head`] and the rows' own bytes, in the same order, make the file.
#[derive(Debug)]
pub struct RunBuilder {
    segments: RoaringBitmap,
    filter: Filter,
    rows: u64,
    rows_crc: crc32fast::Hasher,
    last: Option<RunRow>,
}

impl RunBuilder {
    /// Begins a run that lists the chunks of exactly `segments`, at most `rows_max` of them.
    pub fn new(rows_max: u64, segments: impl IntoIterator<Item = SegmentNumber>) -> Self {
        Self {
            segments: segments.into_iter().map(SegmentNumber::get).collect(),
            filter: Filter::for_rows(rows_max),
            rows: 0,
            rows_crc: crc32fast::Hasher::new(),
            last: None,
        }
    }

    /// Counts the next row.
    ///
    /// # Panics
    /// If it does not come after the one before.
    pub fn push(&mut self, row: &RunRow) {
        assert!(
            self.last.is_none_or(|last| last < *row),
            "rows are sorted and distinct"
        );
        self.last = Some(*row);
        self.filter.insert(&row.id);
        self.rows_crc.update(&row.encode());
        self.rows += 1;
    }

    /// Returns what stands in the file before the rows.
    pub fn head(self) -> Vec<u8> {
        let segment_bytes = encode_numbers(self.segments);
        let body = Body {
            rows: self.rows,
            segments_length: u32::try_from(segment_bytes.len())
                .expect("because segments are far fewer"),
            segments_crc: crc32fast::hash(&segment_bytes),
            filter_blocks: self.filter.blocks(),
            filter_crc: crc32fast::hash(&self.filter.bytes),
            rows_crc: self.rows_crc.finalize(),
        };
        [
            envelope::encode(KIND, &body),
            segment_bytes,
            self.filter.bytes,
        ]
        .concat()
    }
}

/// Returns the bytes of a run over `rows`, which must be sorted, listing the chunks of exactly `segments`.
///
/// # Panics
/// If the rows are not in strictly ascending order.
pub fn encode_run(rows: &[RunRow], segments: impl IntoIterator<Item = SegmentNumber>) -> Vec<u8> {
    let mut builder = RunBuilder::new(rows.len() as u64, segments);
    rows.iter().for_each(|row| builder.push(row));
    let mut bytes = builder.head();
    rows.iter()
        .for_each(|row| bytes.extend_from_slice(&row.encode()));
    bytes
}

/// A split-block Bloom filter: one block of 32 bytes an id, one bit in each of eight 32-bit words of it (SPEC 5.2).
#[derive(Debug, Clone)]
pub struct Filter {
    bytes: Vec<u8>,
}

impl Filter {
    /// Returns an empty filter sized for `rows` ids.
    pub fn for_rows(rows: u64) -> Self {
        let bits = FILTER_BLOCK_BYTES as u64 * 8;
        let blocks = (rows * FILTER_BITS_PER_ROW)
            .div_ceil(bits)
            .clamp(1, u64::from(u32::MAX));
        let bytes = usize::try_from(blocks).expect("because it was clamped to 32 bits")
            * FILTER_BLOCK_BYTES;
        Self {
            bytes: vec![0; bytes],
        }
    }

    fn blocks(&self) -> u32 {
        u32::try_from(self.bytes.len() / FILTER_BLOCK_BYTES)
            .expect("because for_rows clamps to 32 bits")
    }

    /// Adds an id.
    pub fn insert(&mut self, id: &ChunkId) {
        let block = Self::block_of(id, u64::from(self.blocks()))
            .expect("because there is at least one block");
        let bytes = self
            .bytes
            .chunks_exact_mut(FILTER_BLOCK_BYTES)
            .nth(block)
            .expect("because block_of is in range");
        bytes
            .iter_mut()
            .zip(Self::mask_of(id))
            .for_each(|(byte, mask)| *byte |= mask);
    }

    /// The block an id belongs to: bytes 8 to 15 of the id, as a fraction of the number of blocks.
    fn block_of(id: &ChunkId, blocks: u64) -> Option<usize> {
        let (_, tail) = id.as_bytes().split_first_chunk::<8>()?;
        let fraction = u64::from_le_bytes(*tail.first_chunk()?);
        usize::try_from((u128::from(fraction) * u128::from(blocks)) >> 64)
            .ok()
            .filter(|_| blocks > 0)
    }

    /// Tells whether a block has all bits of an id.
    fn has(block: &[u8; FILTER_BLOCK_BYTES], id: &ChunkId) -> bool {
        let (words, _) = block.as_chunks::<4>();
        let choices = id.as_bytes().iter().skip(16);
        words.iter().zip(choices).fold(true, |all, (word, choice)| {
            all & (u32::from_le_bytes(*word) >> (choice & 31) & 1 == 1)
        })
    }

    /// The bits of an id in its block: in word `i`, the bit that the low five bits of byte `16 + i` name.
    fn mask_of(id: &ChunkId) -> [u8; FILTER_BLOCK_BYTES] {
        let mut mask = [0; FILTER_BLOCK_BYTES];
        let choices = id.as_bytes().iter().skip(16);
        for (word, choice) in mask.chunks_exact_mut(4).zip(choices) {
            word.copy_from_slice(&(1u32 << (choice & 31)).to_le_bytes());
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64) -> RunRow {
        let place = Place {
            segment: SegmentNumber::new(1 + (n % 3) as u32),
            slot: Slot::new(u16::try_from(n).unwrap()),
        };
        RunRow {
            id: ChunkId::of(&n.to_le_bytes()),
            place,
            offset: 73,
            stored_length: 11,
            bases: (n % 3) as u8,
        }
    }

    fn run(count: u64) -> (Vec<u8>, Vec<RunRow>) {
        let mut rows: Vec<_> = (0..count).map(row).collect();
        rows.sort();
        (encode_run(&rows, (1..=3).map(SegmentNumber::new)), rows)
    }

    fn open(bytes: &[u8]) -> Result<RunSections<'_>, Corruption> {
        RunSections::new(&RunHeader::decode(bytes, bytes.len() as u64)?, bytes)
    }

    #[test]
    fn every_id_is_found_and_no_other() {
        for count in [0, 1, 2, 9, 1000, 5000] {
            let (bytes, rows) = run(count);
            let run = open(&bytes).unwrap();
            run.verify().unwrap();
            for row in &rows {
                assert!(run.may_contain(&row.id));
                assert_eq!(run.find(&row.id).collect::<Vec<_>>(), [*row]);
            }
            let absent: Vec<_> = (count..count + 1000)
                .map(|n| ChunkId::of(&n.to_le_bytes()))
                .collect();
            assert!(absent.iter().all(|id| run.find(id).next().is_none()));
            let false_answers = absent.iter().filter(|id| run.may_contain(id)).count();
            assert!(
                false_answers < 40,
                "{false_answers} of 1000 false answers at {count} rows"
            );
        }
    }

    #[test]
    fn many_ids_in_one_pass_give_what_each_by_itself_gives() {
        for count in [0, 1, 2, 3, 100, 5000] {
            let (bytes, rows) = run(count);
            let run = open(&bytes).unwrap();
            let present = rows.iter().map(|row| row.id);
            let absent = (0..200u64).map(|n| ChunkId::of(&(n + (1 << 40)).to_le_bytes()));
            let extremes = [ChunkId::from_bytes([0; 32]), ChunkId::from_bytes([255; 32])];
            for step in [1, 3, 97] {
                let mut ids: Vec<_> = present.clone().step_by(step).collect();
                ids.extend(absent.clone().chain(extremes));
                ids.sort_unstable();
                let mut found = Vec::new();
                run.find_sorted(&ids, |position, row| found.push((position, row)));
                let each = ids.iter().enumerate();
                let expected: Vec<_> = each
                    .flat_map(|(position, id)| run.find(id).map(move |row| (position, row)))
                    .collect();
                assert_eq!(found, expected, "{count} rows, every {step}");
            }
        }
    }

    #[test]
    fn ids_ground_to_defeat_the_guess_are_still_found() {
        let mut rows: Vec<_> = (0..300u16)
            .map(|n| {
                let mut bytes = [0; 32];
                bytes[30..].copy_from_slice(&n.swap_bytes().to_le_bytes());
                RunRow {
                    id: ChunkId::from_bytes(bytes),
                    ..row(0)
                }
            })
            .collect();
        rows.push(RunRow {
            id: ChunkId::from_bytes([255; 32]),
            ..row(0)
        });
        let bytes = encode_run(&rows, [SegmentNumber::new(1)]);
        let run = open(&bytes).unwrap();
        assert!(rows.iter().all(|row| run.find(&row.id).eq([*row])));
        for step in [1, 150, 299] {
            let some: Vec<_> = rows.iter().copied().step_by(step).collect();
            let ids: Vec<_> = some.iter().map(|row| row.id).collect();
            let mut found = Vec::new();
            run.find_sorted(&ids, |_, row| found.push(row));
            assert_eq!(found, some);
        }
    }

    #[test]
    fn a_chunk_in_two_places_gives_both_lowest_first() {
        let low = row(0);
        let high = RunRow {
            place: Place {
                segment: SegmentNumber::new(3),
                slot: Slot::new(0),
            },
            ..low
        };
        let bytes = encode_run(&[low, high], (1..=3).map(SegmentNumber::new));
        assert_eq!(
            open(&bytes).unwrap().find(&low.id).collect::<Vec<_>>(),
            [low, high]
        );
    }

    #[test]
    fn every_flipped_bit_is_found_by_verify() {
        let (good, _) = run(5);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                open(&bad).and_then(|run| run.verify()).is_err(),
                "bit {bit}"
            );
        }
        for length in 0..good.len() {
            assert!(open(&good[..length]).is_err(), "cut at {length}");
        }
    }
}
