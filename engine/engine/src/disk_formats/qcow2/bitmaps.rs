//! Persistent dirty bitmaps: which parts of the disk were written since somebody began to look.

use super::Qcow2Error;
use super::file::File;
use super::header::{BitmapDirectory, Header, Table, check_apart};
use super::numbers::{u16_at, u32_at, u64_at};
use crate::ChangedBlocks;
use std::ops::Range;

/// QEMU's limits too.
const BITMAPS_MAX: u32 = 65_535;
const NAME_BYTES_MAX: u16 = 1023;
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;

/// The longest directory that is read.
const DIRECTORY_BYTES_MAX: u64 = 16 << 20;
/// The longest bitmap that is read, of the 512 MiB that QEMU allows: with the usual granularity it is that of a disk of
/// 32 TiB.
const BITMAP_BYTES_MAX: u64 = 64 << 20;
const EXTRA_BYTES_MAX: u64 = 1 << 16;

/// Bytes of a directory entry before its extra data and its name.
const ENTRY_BYTES: u64 = 24;

const IN_USE: u32 = 1 << 0;
const AUTO: u32 = 1 << 1;
const EXTRA_DATA_COMPATIBLE: u32 = 1 << 2;

/// The only kind of bitmap there is.
const DIRTY_TRACKING: u8 = 1;

/// Entries of a bitmap table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const ALL_ONES: u64 = 1;

/// A bitmap as the directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name; what is not UTF-8 is replaced.
    pub name: String,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// Whether it takes note of every write.
    pub enabled: bool,
    /// Whether it was in use when the file was last written: then it is not what it should be.
    pub in_use: bool,
    /// Why it cannot be relied on, if it cannot.
    pub fault: Option<&'static str>,
    table: Table,
}

/// Reads the list of bitmaps.
pub(super) fn read(file: &File<'_>, header: &Header) -> Result<Vec<Bitmap>, Qcow2Error> {
    let Some(directory) = header.bitmaps else {
        return Ok(Vec::new());
    };
    check_directory(directory)?;
    let bytes = file.read(file.check(DIRECTORY, directory.offset, directory.bytes)?)?;
    let (mut rest, mut bitmaps) = (&*bytes, Vec::new());
    for _ in 0..directory.count {
        let (bitmap, after) = entry(file, header, rest)?;
        if bitmaps
            .iter()
            .any(|other: &Bitmap| other.name == bitmap.name)
        {
            return Err(field(
                "a bitmap's name",
                bitmaps.len() as u64,
                "one that no other has",
            ));
        }
        bitmaps.push(bitmap);
        rest = after;
    }
    match rest.len() {
        0 => Ok(bitmaps),
        rest => Err(field(
            "what follows the last bitmap in the directory",
            rest as u64,
            "0 bytes",
        )),
    }
}

const DIRECTORY: &str = "the bitmap directory";

fn field(what: &'static str, found: u64, expected: &'static str) -> Qcow2Error {
    Qcow2Error::Field {
        what,
        found,
        expected,
    }
}

fn check_directory(directory: BitmapDirectory) -> Result<(), Qcow2Error> {
    let (found, limit) = (directory.bytes, DIRECTORY_BYTES_MAX);
    if found > limit {
        return Err(Qcow2Error::TooLarge {
            what: DIRECTORY,
            found,
            limit,
        });
    }
    let count = directory.count;
    if count == 0 || count > BITMAPS_MAX {
        return Err(field("nb_bitmaps", u64::from(count), "1 to 65535"));
    }
    Ok(())
}

fn entry<'a>(
    file: &File<'_>,
    header: &Header,
    bytes: &'a [u8],
) -> Result<(Bitmap, &'a [u8]), Qcow2Error> {
    let cut = || {
        field(
            "an entry of the bitmap directory",
            bytes.len() as u64,
            "more bytes",
        )
    };
    if (bytes.len() as u64) < ENTRY_BYTES {
        return Err(cut());
    }
    let table = Table {
        offset: u64_at(bytes, 0),
        entries: u64::from(u32_at(bytes, 8)),
    };
    let flags = u32_at(bytes, 12);
    let (kind, granularity_bits) = (byte_at(bytes, 16), byte_at(bytes, 17));
    let (name_bytes, extra_bytes) = (u16_at(bytes, 18), u64::from(u32_at(bytes, 20)));
    if flags & !(IN_USE | AUTO | EXTRA_DATA_COMPATIBLE) != 0 {
        return Err(field(
            "a bitmap's flags",
            u64::from(flags),
            "no reserved ones",
        ));
    }
    if kind != DIRTY_TRACKING {
        return Err(field("a bitmap's type", u64::from(kind), "1"));
    }
    if !GRANULARITY_BITS.contains(&granularity_bits) {
        return Err(field(
            "a bitmap's granularity_bits",
            u64::from(granularity_bits),
            "9 to 31",
        ));
    }
    if name_bytes == 0 || name_bytes > NAME_BYTES_MAX {
        return Err(field(
            "a bitmap's name_size",
            u64::from(name_bytes),
            "1 to 1023",
        ));
    }
    if extra_bytes > EXTRA_BYTES_MAX {
        let (what, found, limit) = ("a bitmap's extra data", extra_bytes, EXTRA_BYTES_MAX);
        return Err(Qcow2Error::TooLarge { what, found, limit });
    }
    let name_at = ENTRY_BYTES + extra_bytes;
    let end = name_at + u64::from(name_bytes);
    let place = |at: u64| usize::try_from(at).expect("because it has a limit");
    let name = bytes.get(place(name_at)..place(end)).ok_or_else(cut)?;
    let after = bytes
        .get(place(end.next_multiple_of(8))..)
        .ok_or_else(cut)?;
    let mut bitmap = Bitmap {
        name: String::from_utf8_lossy(name).into_owned(),
        granularity: 1 << granularity_bits,
        enabled: flags & AUTO != 0,
        in_use: flags & IN_USE != 0,
        fault: None,
        table,
    };
    bitmap.fault = if bitmap.in_use {
        Some("it was in use when the file was last written")
    } else if extra_bytes > 0 && flags & EXTRA_DATA_COMPATIBLE == 0 {
        Some("it needs data that are not known to be understood")
    } else if !bitmap.enabled {
        Some("it is disabled, so later writes are not in it")
    } else {
        None
    };
    // What was not saved may have the size of another day.
    if !bitmap.in_use {
        check_table(file, header, &bitmap)?;
    }
    Ok((bitmap, after))
}

fn byte_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn bitmap_bytes(header: &Header, bitmap: &Bitmap) -> u64 {
    header.virtual_size.div_ceil(bitmap.granularity).div_ceil(8)
}

fn check_table(file: &File<'_>, header: &Header, bitmap: &Bitmap) -> Result<(), Qcow2Error> {
    let (what, table) = ("a bitmap table", bitmap.table);
    let (found, limit) = (bitmap_bytes(header, bitmap), BITMAP_BYTES_MAX);
    if found > limit {
        return Err(Qcow2Error::TooLarge {
            what: "a bitmap",
            found,
            limit,
        });
    }
    if table.entries != found.div_ceil(header.geometry.cluster_bytes()) {
        return Err(field(
            "a bitmap_table_size",
            table.entries,
            "as many clusters as the bitmap of the disk needs",
        ));
    }
    if table.entries == 0 {
        return Ok(());
    }
    if !header.geometry.is_aligned(table.offset) {
        return Err(Qcow2Error::Unaligned {
            what,
            offset: table.offset,
        });
    }
    let range = file.check(what, table.offset, table.range().end - table.offset)?;
    check_apart(&header.metadata, what, &range)
}

/// Reads a bitmap: what was written since it was made or cleared.
pub(super) fn changed(
    file: &File<'_>,
    header: &Header,
    bitmap: &Bitmap,
) -> Result<ChangedBlocks, Qcow2Error> {
    if let Some(fault) = bitmap.fault {
        return Err(Qcow2Error::BitmapUnusable {
            name: bitmap.name.clone(),
            fault,
        });
    }
    let mut changed = ChangedBlocks::new(header.virtual_size, bitmap.granularity);
    let cluster_bytes = header.geometry.cluster_bytes();
    let bits = bitmap_bytes(header, bitmap) * 8;
    for index in 0..bitmap.table.entries {
        let entries = file.entries("a bitmap table", bitmap.table, index)?;
        let entry = entries
            .get(index)
            .expect("because the index is below the number of entries");
        let first = index * cluster_bytes * 8;
        let here = first..(first + cluster_bytes * 8).min(bits);
        match (entry & OFFSET, entry & !OFFSET) {
            (0, 0) => {}
            (0, ALL_ONES) => add_bits(&mut changed, bitmap, &here),
            (offset, 0) => add_cluster((file, header, bitmap), offset, here, &mut changed)?,
            _ => {
                let (what, guest) = (
                    "the bitmap table's entry",
                    first.saturating_mul(bitmap.granularity),
                );
                let fault = "reserved bits are set";
                return Err(Qcow2Error::Entry {
                    what,
                    guest,
                    entry,
                    fault,
                });
            }
        }
    }
    Ok(changed)
}

/// Adds what bits that are set stand for.
fn add_bits(changed: &mut ChangedBlocks, bitmap: &Bitmap, bits: &Range<u64>) {
    let byte = |bit: u64| bit.saturating_mul(bitmap.granularity);
    changed.add(byte(bits.start)..byte(bits.end));
}

fn add_cluster(
    (file, header, bitmap): (&File<'_>, &Header, &Bitmap),
    offset: u64,
    bits: Range<u64>,
    changed: &mut ChangedBlocks,
) -> Result<(), Qcow2Error> {
    let what = "a cluster of a bitmap";
    if !header.geometry.is_aligned(offset) {
        return Err(Qcow2Error::Unaligned { what, offset });
    }
    let range = file.check(what, offset, (bits.end - bits.start).div_ceil(8))?;
    check_apart(&header.metadata, what, &range)?;
    let bytes = file.read(range)?;
    let mut run: Option<Range<u64>> = None;
    for (byte, first) in bytes.iter().zip((bits.start..).step_by(8)) {
        // Most bytes are all of one kind.
        match (byte, &mut run) {
            (0xff, Some(run)) => run.end = first + 8,
            (0xff, None) => run = Some(first..first + 8),
            (byte, _) => {
                for bit in 0..8 {
                    match (byte >> bit & 1, &mut run) {
                        (1, Some(run)) => run.end = first + bit + 1,
                        (1, None) => run = Some(first + bit..first + bit + 1),
                        _ => run
                            .take()
                            .into_iter()
                            .for_each(|run| add_bits(changed, bitmap, &run)),
                    }
                }
            }
        }
    }
    run.into_iter()
        .for_each(|run| add_bits(changed, bitmap, &run));
    Ok(())
}
