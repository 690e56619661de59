//! Sketch runs: sorted tables from features to the chunks that have them (SPEC 5.5).
//!
//! Derived, and no more than advice: a chunk found through one is looked up in the index and read before it is used, and
//! without any run chunks are only stored in more bytes.

use crate::envelope::{self, Kind};
use crate::{Corruption, Feature, IdPrefix, Structure};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const KIND: Kind = Kind {
    what: Structure::SketchRun,
    magic: *b"TGSKETCH",
};
const WHAT: Structure = Structure::SketchRun;

/// Bytes of a row.
pub const SKETCH_ROW_BYTES: usize = 12;

/// A chunk that has a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SketchRow {
    /// The feature.
    pub feature: Feature,
    /// The chunk.
    pub chunk: IdPrefix,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct RawRow {
    feature: U32,
    chunk: [u8; 8],
}

impl SketchRow {
    /// Returns the row's bytes.
    pub fn encode(&self) -> [u8; SKETCH_ROW_BYTES] {
        zerocopy::transmute!(RawRow {
            feature: U32::new(self.feature.get()),
            chunk: self.chunk.to_bytes(),
        })
    }

    fn from_raw(raw: &RawRow) -> Self {
        Self {
            feature: Feature::new(raw.feature.get()),
            chunk: IdPrefix::from_bytes(raw.chunk),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Body {
    rows: u64,
    rows_crc: u32,
}

/// The head of a sketch run: where its rows stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SketchRunHeader {
    body: Body,
    start: usize,
}

impl SketchRunHeader {
    /// Reads the head of a sketch run file of `file_bytes`.
    ///
    /// # Errors
    /// [`Corruption`]; in particular if the rows do not fill the file exactly.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, Corruption> {
        let (body, start): (Body, usize) = envelope::decode(KIND, bytes)?;
        let end = body
            .rows
            .checked_mul(SKETCH_ROW_BYTES as u64)
            .and_then(|rows| rows.checked_add(start as u64));
        match end {
            Some(end) if end == file_bytes => Ok(Self { body, start }),
            _ => Err(Corruption::Truncated {
                what: WHAT,
                need: end.unwrap_or(u64::MAX),
                have: file_bytes,
            }),
        }
    }
}

/// A sketch run over its file's bytes, usually a memory map.
#[derive(Debug, Clone, Copy)]
pub struct SketchRun<'a> {
    body: Body,
    rows: &'a [RawRow],
}

impl<'a> SketchRun<'a> {
    /// Finds the rows in the bytes of a whole file by its head. Checks no content.
    ///
    /// # Errors
    /// [`Corruption::Truncated`] if `bytes` are not the whole file the head was read from.
    pub fn new(header: &SketchRunHeader, bytes: &'a [u8]) -> Result<Self, Corruption> {
        let SketchRunHeader { body, start } = *header;
        let rows = bytes.get(start..).unwrap_or_default();
        match <[RawRow]>::ref_from_bytes(rows) {
            Ok(rows) if rows.len() as u64 == body.rows => Ok(Self { body, rows }),
            _ => Err(Corruption::Truncated {
                what: WHAT,
                need: start as u64 + body.rows.saturating_mul(SKETCH_ROW_BYTES as u64),
                have: bytes.len() as u64,
            }),
        }
    }

    /// Checks the rows: checksum and order.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub fn verify(&self) -> Result<(), Corruption> {
        let computed = crc32fast::hash(self.rows.as_bytes());
        if computed != self.body.rows_crc {
            return Err(Corruption::Checksum {
                what: WHAT,
                stored: self.body.rows_crc,
                computed,
            });
        }
        let mut before: Option<SketchRow> = None;
        for row in self.rows() {
            if before.is_some_and(|before| before >= row) {
                return Err(Corruption::Field {
                    what: WHAT,
                    field: "row",
                    found: u64::from(row.feature.get()),
                    expected: "rows in ascending order",
                });
            }
            before = Some(row);
        }
        Ok(())
    }

    /// Returns how many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tells whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns row `index`, or `None` past the end.
    pub fn row(&self, index: usize) -> Option<SketchRow> {
        self.rows.get(index).map(SketchRow::from_raw)
    }

    /// Returns all rows in order.
    pub fn rows(&self) -> impl Iterator<Item = SketchRow> + use<'a> {
        self.rows.iter().map(SketchRow::from_raw)
    }

    /// Returns the chunks that have a feature.
    pub fn find(&self, feature: Feature) -> impl Iterator<Item = IdPrefix> + use<'a> {
        let first = self
            .rows
            .partition_point(|row| row.feature.get() < feature.get());
        let rest = self.rows.get(first..).unwrap_or_default();
        rest.iter()
            .take_while(move |row| row.feature.get() == feature.get())
            .map(|row| SketchRow::from_raw(row).chunk)
    }
}

/// Makes a sketch run in two passes over its rows, so that it never stands in memory: first every row is pushed, then
/// [`Self::head`] and the rows' own bytes, in the same order, make the file.
#[derive(Debug, Default)]
pub struct SketchRunBuilder {
    rows: u64,
    crc: crc32fast::Hasher,
    last: Option<SketchRow>,
}

impl SketchRunBuilder {
    /// Begins without a row.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the next row.
    ///
    /// # Panics
    /// If it does not come after the one before.
    pub fn push(&mut self, row: &SketchRow) {
        assert!(
            self.last.is_none_or(|last| last < *row),
            "rows are sorted and distinct"
        );
        self.last = Some(*row);
        self.crc.update(&row.encode());
        self.rows += 1;
    }

    /// Returns what stands in the file before the rows.
    pub fn head(self) -> Vec<u8> {
        let body = Body {
            rows: self.rows,
            rows_crc: self.crc.finalize(),
        };
        envelope::encode(KIND, &body)
    }
}

/// Returns the bytes of a sketch run over `rows`.
///
/// # Panics
/// If the rows are not in strictly ascending order.
pub fn encode_sketch_run(rows: &[SketchRow]) -> Vec<u8> {
    let mut builder = SketchRunBuilder::new();
    rows.iter().for_each(|row| builder.push(row));
    let mut bytes = builder.head();
    rows.iter()
        .for_each(|row| bytes.extend_from_slice(&row.encode()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(feature: u32, chunk: u8) -> SketchRow {
        SketchRow {
            feature: Feature::new(feature),
            chunk: IdPrefix::from_bytes([chunk; 8]),
        }
    }

    fn open(bytes: &[u8]) -> Result<SketchRun<'_>, Corruption> {
        let header = SketchRunHeader::decode(bytes, bytes.len() as u64)?;
        SketchRun::new(&header, bytes)
    }

    #[test]
    fn the_chunks_of_a_feature_are_found() {
        let rows = [row(1, 4), row(7, 2), row(7, 9), row(u32::MAX, 1)];
        let bytes = encode_sketch_run(&rows);
        let run = open(&bytes).unwrap();
        run.verify().unwrap();
        assert_eq!(run.rows().collect::<Vec<_>>(), rows);
        let found = |feature| run.find(Feature::new(feature)).collect::<Vec<_>>();
        assert_eq!(found(7), [rows[1].chunk, rows[2].chunk]);
        assert_eq!(found(u32::MAX), [rows[3].chunk]);
        assert!(found(0).is_empty() && found(6).is_empty() && found(8).is_empty());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let good = encode_sketch_run(&[row(1, 4), row(7, 2)]);
        let read = |bytes: &[u8]| open(bytes).and_then(|run| run.verify());
        read(&good).unwrap();
        // The masks of features to ignore and to clear are not this reader's business: bytes 16 to 23.
        for bit in (0..good.len() * 8).filter(|bit| !(16..24).contains(&(bit / 8))) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn rows_out_of_order_are_refused_by_name() {
        let (a, b) = (row(1, 4), row(7, 2));
        let swapped = [b.encode(), a.encode()].concat();
        let body = Body {
            rows: 2,
            rows_crc: crc32fast::hash(&swapped),
        };
        let bytes = [envelope::encode(KIND, &body), swapped].concat();
        let error = open(&bytes).unwrap().verify().unwrap_err();
        assert!(
            matches!(error, Corruption::Field { field: "row", .. }),
            "{error}"
        );
    }
}
