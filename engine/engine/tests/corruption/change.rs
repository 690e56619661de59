//! What can happen to the files of a store behind its back.

use crate::world::{Files, World};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tegula_format::RECORD_HEADER_BYTES;
use tegula_io::SeededRandom;

/// One mishap.
#[derive(Clone)]
pub(crate) enum Change {
    /// One bit is another.
    Flip { path: String, byte: usize, bit: u8 },
    /// The file ends early.
    Truncate { path: String, length: usize },
    /// The file goes on.
    Extend { path: String, bytes: usize },
    /// A page reads as zeros.
    ZeroPage { path: String, page: Range<usize> },
    /// Two ranges of the same length stand in each other's place.
    SwapRanges {
        a: (String, Range<usize>),
        b: (String, Range<usize>),
    },
    /// Two files have each other's name.
    SwapFiles { a: String, b: String },
    /// A file is again what it was before.
    Replay { path: String, bytes: Arc<Vec<u8>> },
    /// A file that was removed is there again.
    Return { path: String, bytes: Arc<Vec<u8>> },
    /// A file is gone.
    Delete { path: String },
    /// A file is there a second time.
    Duplicate { path: String, copy: String },
}

impl Change {
    /// Does it.
    pub(crate) fn apply(&self, files: &mut Files) {
        match self {
            Self::Flip { path, byte, bit } => edit(files, path, |bytes| bytes[*byte] ^= 1 << bit),
            Self::Truncate { path, length } => edit(files, path, |bytes| bytes.truncate(*length)),
            Self::Extend { path, bytes: more } => {
                edit(files, path, |bytes| bytes.resize(bytes.len() + more, 0));
            }
            Self::ZeroPage { path, page } => {
                edit(files, path, |bytes| bytes[page.clone()].fill(0));
            }
            Self::SwapRanges { a, b } => {
                let (left, right) = (
                    files[&a.0][a.1.clone()].to_vec(),
                    files[&b.0][b.1.clone()].to_vec(),
                );
                edit(files, &a.0, |bytes| {
                    bytes[a.1.clone()].copy_from_slice(&right)
                });
                edit(files, &b.0, |bytes| {
                    bytes[b.1.clone()].copy_from_slice(&left)
                });
            }
            Self::SwapFiles { a, b } => {
                let (left, right) = (Arc::clone(&files[a]), Arc::clone(&files[b]));
                files.insert(a.clone(), right);
                files.insert(b.clone(), left);
            }
            Self::Replay { path, bytes } | Self::Return { path, bytes } => {
                files.insert(path.clone(), Arc::clone(bytes));
            }
            Self::Delete { path } => drop(files.remove(path)),
            Self::Duplicate { path, copy } => {
                drop(files.insert(copy.clone(), Arc::clone(&files[path])));
            }
        }
    }

    /// Returns the files that are no longer what they should be.
    pub(crate) fn damaged(&self) -> Vec<&str> {
        match self {
            Self::Flip { path, .. }
            | Self::Truncate { path, .. }
            | Self::Extend { path, .. }
            | Self::ZeroPage { path, .. }
            | Self::Replay { path, .. }
            | Self::Return { path, .. }
            | Self::Delete { path } => vec![path],
            Self::Duplicate { copy, .. } => vec![copy],
            Self::SwapRanges { a, b } if a.0 == b.0 => vec![&a.0],
            Self::SwapRanges { a, b } => vec![&a.0, &b.0],
            Self::SwapFiles { a, b } => vec![a, b],
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { path, byte, bit } => {
                write!(f, "bit {bit} of byte {byte} of {path} flipped")
            }
            Self::Truncate { path, length } => write!(f, "{path} cut to {length} bytes"),
            Self::Extend { path, bytes } => write!(f, "{path} longer by {bytes} bytes"),
            Self::ZeroPage { path, page } => write!(f, "bytes {page:?} of {path} zeroed"),
            Self::SwapRanges { a, b } => {
                write!(f, "{} {:?} and {} {:?} swapped", a.0, a.1, b.0, b.1)
            }
            Self::SwapFiles { a, b } => write!(f, "{a} and {b} swapped"),
            Self::Replay { path, bytes } => {
                write!(f, "{path} as it was before ({} bytes)", bytes.len())
            }
            Self::Return { path, .. } => write!(f, "{path} there again"),
            Self::Delete { path } => write!(f, "{path} deleted"),
            Self::Duplicate { path, copy } => write!(f, "{path} copied to {copy}"),
        }
    }
}

fn edit(files: &mut Files, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let bytes = files
        .get_mut(path)
        .expect("only files there are are damaged");
    change(Arc::make_mut(bytes));
}

/// Every bit of a store's metadata.
pub(crate) fn metadata_bits(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, bytes) in &world.files {
        for byte in metadata_bytes(world, path, bytes.len()) {
            for bit in 0..8 {
                let path = path.clone();
                changes.push(Change::Flip { path, byte, bit });
            }
        }
    }
    changes
}

/// All bytes of a file but the payload of chunks.
fn metadata_bytes(world: &World, path: &str, length: usize) -> impl Iterator<Item = usize> {
    let segment = world.segments.get(path);
    (0..length).filter(move |at| {
        let row = segment.and_then(|segment| segment.chunk_at(*at));
        row.is_none_or(|row| at - usize::try_from(row.offset).unwrap() < RECORD_HEADER_BYTES)
    })
}

/// A bit in every 512 bytes of payload, and as many anywhere in it.
pub(crate) fn payload_bits(world: &World, random: &SeededRandom) -> Vec<Change> {
    let mut changes = Vec::new();
    let below = |n: usize| usize::try_from(random.next_u64() % n as u64).unwrap();
    for (path, segment) in &world.segments {
        for row in &segment.rows {
            let start = usize::try_from(row.offset).unwrap() + RECORD_HEADER_BYTES;
            let length = usize::try_from(row.stored_length).unwrap();
            for sector in (0..length).step_by(512) {
                let here = sector + below(512.min(length - sector));
                for byte in [here, below(length)] {
                    changes.push(Change::Flip {
                        path: path.clone(),
                        byte: start + byte,
                        bit: u8::try_from(below(8)).unwrap(),
                    });
                }
            }
        }
    }
    changes
}

/// Every file cut short: at every byte if it is small, else at every 512, and around its ends.
pub(crate) fn truncations(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, bytes) in &world.files {
        let step = if bytes.len() <= 2048 { 1 } else { 512 };
        let ends = [1, 2, 63, 64, 65].map(|before| bytes.len().saturating_sub(before));
        let lengths = (0..bytes.len()).step_by(step).chain(ends);
        changes.extend(lengths.map(|length| Change::Truncate {
            path: path.clone(),
            length,
        }));
    }
    changes
}

/// Every file longer, and with a page of zeros.
pub(crate) fn extensions_and_zero_pages(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    for (path, bytes) in &world.files {
        for more in [1, 512, 4096] {
            let path = path.clone();
            changes.push(Change::Extend { path, bytes: more });
        }
        for start in (0..bytes.len()).step_by(512) {
            for length in [512, 4096] {
                let page = start..bytes.len().min(start + length);
                // Within a chunk of zeros or a reserved field nothing would change.
                if bytes[page.clone()].iter().any(|byte| *byte != 0) {
                    let path = path.clone();
                    changes.push(Change::ZeroPage { path, page });
                }
            }
        }
    }
    changes
}

/// Every two records of the same length, within a segment and between segments.
pub(crate) fn swapped_records(world: &World) -> Vec<Change> {
    let records: Vec<_> = world
        .segments
        .iter()
        .flat_map(|(path, segment)| segment.rows.iter().map(move |row| (path, row)))
        .collect();
    let range = |row: &tegula_format::TocRow| {
        let start = usize::try_from(row.offset).unwrap();
        start..start + row.record_bytes()
    };
    let mut changes = Vec::new();
    for (at, (path, row)) in records.iter().enumerate() {
        for (other_path, other) in &records[at + 1..] {
            // The same chunk may stand twice: swapping it with itself is no change.
            if row.stored_length == other.stored_length && row.id != other.id {
                let a = ((*path).clone(), range(row));
                let b = ((*other_path).clone(), range(other));
                changes.push(Change::SwapRanges { a, b });
            }
        }
    }
    changes
}

/// Files swapped, replayed, returned, deleted, duplicated.
pub(crate) fn misplaced_files(world: &World) -> Vec<Change> {
    let paths: Vec<_> = world.files.keys().collect();
    let mut changes = Vec::new();
    for (at, a) in paths.iter().enumerate() {
        for b in &paths[at + 1..] {
            // The configuration and its copy are the same: swapping them is no change.
            if world.files[*a] != world.files[*b] {
                let (a, b) = ((*a).clone(), (*b).clone());
                changes.push(Change::SwapFiles { a, b });
            }
        }
    }
    let older = world.older.iter().cloned();
    changes.extend(older.map(|(path, bytes)| Change::Replay { path, bytes }));
    let removed = world.removed.clone().into_iter();
    changes.extend(removed.map(|(path, bytes)| Change::Return { path, bytes }));
    for path in paths {
        let path = path.clone();
        changes.extend(other_names(&path).map(|copy| Change::Duplicate {
            path: path.clone(),
            copy,
        }));
        changes.push(Change::Delete { path });
    }
    changes
}

/// Names that a file of this kind could have.
fn other_names(path: &str) -> impl Iterator<Item = String> {
    let (first, last) = ("0".repeat(64), "f".repeat(64));
    let names = match path.split_once('/').map(|(directory, _)| directory) {
        Some("segments") => ["00000000", "00000040", "ffffffff"]
            .map(|number| format!("segments/{number}.seg"))
            .to_vec(),
        Some("index") => vec![format!("index/{}.run", &first[..32])],
        Some("layers") => vec![
            format!("layers/{first}.layer"),
            format!("layers/{last}.layer"),
        ],
        Some("images") => vec![
            "images/0.image".to_owned(),
            "images/zzz.image".to_owned(),
            "images/-.image".to_owned(),
        ],
        _ => Vec::new(),
    };
    names.into_iter()
}
