//! VHDX (Microsoft, [MS-VHDX]). Numbers are little-endian.
//!
//! ```text
//!  0        64 KiB   128 KiB  192 KiB        256 KiB              ≥ 1 MiB
//!  vhdxfile head     head     region table   the same once more   … metadata: 64 KiB of table, then the items
//! ```

use super::bytes::{expect, little, part, place};
use super::collect::Metadata;
use super::{Flaw, Format, Found, Seen};

pub(super) const SIGNATURE: &[u8] = b"vhdxfile";

/// The head ends with the second region table.
pub(super) const HEAD_BYTES: usize = 320 << 10;

/// What is kept of the metadata: its table, and as much of the items, of which there are some dozens of bytes.
pub(super) const METADATA_BYTES: usize = 128 << 10;

const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [usize; 2] = [192 << 10, 256 << 10];
const REGION_TABLE_BYTES: usize = 64 << 10;
const METADATA_TABLE_BYTES: u64 = 64 << 10;
const ENTRIES_MAX: u64 = 2047;

/// Unique ids, as they stand in a file.
const REGION_BAT: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08);
const REGION_METADATA: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
const ITEM_FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
const ITEM_DISK_SIZE: [u8; 16] = guid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8);
const ITEM_PARENT_LOCATOR: [u8; 16] = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    // The first three parts are numbers, the last is bytes.
    let parts =
        (a as u128) | (b as u128) << 32 | (c as u128) << 48 | (d.swap_bytes() as u128) << 64;
    parts.to_le_bytes()
}

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    seen.head
        .starts_with(SIGNATURE)
        .then(|| Found::new(Format::Vhdx, disk(seen)))
}

/// Returns where the metadata begin, if a file's head is complete and tells it.
pub(super) fn metadata_place(head: &[u8]) -> Option<u64> {
    metadata_region(head).ok().map(|region| region.0)
}

/// Returns the offset and length of the metadata.
fn metadata_region(head: &[u8]) -> Result<(u64, u64), Flaw> {
    let [first, second] = REGION_TABLES;
    let table = part(head, first, REGION_TABLE_BYTES)?;
    // Which of the two counts is decided by checksums: where they are the same it does not matter.
    if table != part(head, second, REGION_TABLE_BYTES)? {
        return Err(Flaw::new("its two region tables are not the same"));
    }
    if !table.starts_with(b"regi") {
        return Err(Flaw::new("its region table does not begin with regi"));
    }
    let entries = little(table, 8, 4)?;
    expect(
        entries <= ENTRIES_MAX,
        "the number of its regions",
        entries,
        "at most 2047",
    )?;
    let mut found = None;
    for entry in 0..place(entries) {
        let at = 16 + entry * 32;
        let (id, offset, length) = (
            part(table, at, 16)?,
            little(table, at + 16, 8)?,
            little(table, at + 24, 4)?,
        );
        if id == REGION_METADATA {
            let is_first = found.replace((offset, length)).is_none();
            expect(is_first, "the number of its metadata regions", "2", "1")?;
        } else if id != REGION_BAT && little(table, at + 28, 4)? & 1 != 0 {
            return Err(Flaw::new("it needs a region that nobody knows"));
        }
    }
    let (offset, length) = found.ok_or_else(|| Flaw::new("it has no metadata region"))?;
    let is_place = offset >= 1 << 20 && offset.is_multiple_of(1 << 20) && offset < 1 << 62;
    expect(
        is_place,
        "the offset of its metadata",
        offset,
        "a multiple of 1 MiB after the first",
    )?;
    expect(
        length > METADATA_TABLE_BYTES,
        "the length of its metadata",
        length,
        "more than 64 KiB",
    )?;
    Ok((offset, length))
}

fn disk(seen: &Seen<'_>) -> Result<u64, Flaw> {
    check_log(seen.head)?;
    let (_, region_bytes) = metadata_region(seen.head)?;
    let Metadata::At(_, metadata) = seen.metadata else {
        return Err(Flaw::new("it ends before its metadata"));
    };
    if !part(metadata, 0, 8)?.starts_with(b"metadata") {
        return Err(Flaw::new("its metadata do not begin with metadata"));
    }
    let entries = little(metadata, 10, 2)?;
    expect(
        entries <= ENTRIES_MAX,
        "the number of its metadata items",
        entries,
        "at most 2047",
    )?;
    let (mut parameters, mut size) = (None, None);
    for entry in 0..place(entries) {
        let at = 32 + entry * 32;
        let id = part(metadata, at, 16)?;
        let slot = match id {
            _ if id == ITEM_PARENT_LOCATOR => {
                return Err(Flaw::new("it names another disk as its parent"));
            }
            _ if id == ITEM_FILE_PARAMETERS => &mut parameters,
            _ if id == ITEM_DISK_SIZE => &mut size,
            _ => continue,
        };
        let (offset, length) = (little(metadata, at + 16, 4)?, little(metadata, at + 20, 4)?);
        expect(length == 8, "the length of a metadata item", length, "8")?;
        let is_place = (METADATA_TABLE_BYTES..METADATA_BYTES as u64 - 7).contains(&offset)
            && offset + length <= region_bytes;
        expect(
            is_place,
            "the offset of a metadata item",
            offset,
            "from 65,536, and less than 131,065",
        )?;
        let value = little(metadata, place(offset), 8)?;
        expect(
            slot.replace(value).is_none(),
            "a metadata item",
            "there twice",
            "once",
        )?;
    }
    let parameters = parameters.ok_or_else(|| Flaw::new("it does not tell its parameters"))?;
    expect(
        parameters >> 32 & 2 == 0,
        "its parent",
        "said to be there",
        "to be absent",
    )?;
    let block = parameters & 0xffff_ffff;
    let is_block = block.is_power_of_two() && (1 << 20..=1 << 28).contains(&block);
    expect(
        is_block,
        "its block size",
        block,
        "a power of two, from 1 MiB to 256 MiB",
    )?;
    let size = size.ok_or_else(|| Flaw::new("it does not tell its size"))?;
    expect(
        size > 0 && size <= 64 << 40,
        "its size",
        size,
        "1 byte to 64 TiB",
    )?;
    Ok(size)
}

/// A log that is to be replayed would write over the metadata, which then say something else than they do here.
fn check_log(head: &[u8]) -> Result<(), Flaw> {
    let mut headers = Vec::new();
    for at in HEADERS {
        let header = part(head, at, 4096)?;
        if header.starts_with(b"head") {
            headers.push((little(header, 8, 8)?, part(header, 48, 16)?));
        }
    }
    let newest = headers.iter().map(|(sequence, _)| *sequence).max();
    let newest = newest.ok_or_else(|| Flaw::new("it has no header that begins with head"))?;
    let mut logs = headers.iter().filter(|(sequence, _)| *sequence == newest);
    let is_clean = logs.all(|(_, log)| log.iter().all(|byte| *byte == 0));
    expect(
        is_clean,
        "its log",
        "not empty",
        "to be empty: close the disk cleanly",
    )
}
