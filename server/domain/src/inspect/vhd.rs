//! VHD (Microsoft, Virtual Hard Disk Image Format Specification 1.0). Numbers are big-endian.
//!
//! The footer, 512 bytes, ends the file. Dynamic disks have a copy of it in front; a fixed one is a raw disk with a footer.

use super::bytes::{big, expect, part};
use super::{Flaw, Format, Found, Seen};

const COOKIE: &[u8] = b"conectix";
const DYNAMIC_COOKIE: &[u8] = b"cxsparse";
const FOOTER_BYTES: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 64..68;

/// The kind that is a raw disk with a footer, and has that disk's partition table.
pub(super) const KIND_FIXED: &str = "fixed";

const FIXED: u64 = 2;
const DYNAMIC: u64 = 3;
const DIFFERENCING: u64 = 4;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    if seen.head.starts_with(COOKIE) {
        return Some(Found::new(Format::Vhd, dynamic(seen)).of_kind("dynamic"));
    }
    let footer = footer(seen)?;
    // In front of it may be anything: only what is a footer beyond doubt makes a VHD of a raw disk.
    let kind = big(footer, 60, 4).ok()?;
    let disk = big(footer, 48, 8).ok()?;
    let is_fixed = kind == FIXED
        && check_sum(footer).is_ok()
        && disk.checked_add(FOOTER_BYTES as u64) == Some(seen.bytes);
    is_fixed.then(|| Found::new(Format::Vhd, Ok(disk)).of_kind(KIND_FIXED))
}

fn footer<'a>(seen: &Seen<'a>) -> Option<&'a [u8]> {
    let at = seen.tail.len().checked_sub(FOOTER_BYTES)?;
    let footer = seen.tail.get(at..)?;
    footer.starts_with(COOKIE).then_some(footer)
}

/// The checksum is the complement of the sum of all other bytes.
fn check_sum(footer: &[u8]) -> Result<(), Flaw> {
    let others = footer.iter().enumerate();
    let others = others.filter(|(at, _)| !CHECKSUM.contains(at));
    let sum: u32 = others.map(|(_, byte)| u32::from(*byte)).sum();
    let found = big(footer, CHECKSUM.start, 4)?;
    let expected = format!("{:#x}, by its bytes", !sum);
    expect(
        found == u64::from(!sum),
        "its checksum",
        format!("{found:#x}"),
        &expected,
    )
}

fn dynamic(seen: &Seen<'_>) -> Result<u64, Flaw> {
    let copy = part(seen.head, 0, FOOTER_BYTES)?;
    check_sum(copy)?;
    let kind = big(copy, 60, 4)?;
    if kind == DIFFERENCING {
        return Err(Flaw::new(
            "it holds what differs from another disk, which it names",
        ));
    }
    expect(kind == DYNAMIC, "its type", kind, "3, a dynamic disk")?;
    let footer = footer(seen)
        .filter(|_| seen.bytes >= 2 * FOOTER_BYTES as u64)
        .ok_or_else(|| Flaw::new("it does not end with its footer"))?;
    if footer != copy {
        return Err(Flaw::new(
            "its footer and the copy in front are not the same",
        ));
    }
    // The header of dynamic disks need not follow at once, but it always does.
    let offset = big(copy, 16, 8)?;
    expect(
        offset == 512,
        "the offset of its dynamic header",
        offset,
        "512",
    )?;
    let header = part(seen.head, FOOTER_BYTES, 1024)?;
    if !header.starts_with(DYNAMIC_COOKIE) {
        return Err(Flaw::new("its dynamic header does not begin with cxsparse"));
    }
    let block = big(header, 32, 4)?;
    let is_block = block.is_power_of_two() && (512..=1 << 28).contains(&block);
    expect(
        is_block,
        "its block size",
        block,
        "a power of two, from 512 bytes to 256 MiB",
    )?;
    let (blocks, disk) = (big(header, 28, 4)?, big(copy, 48, 8)?);
    expect(
        disk.div_ceil(block) <= blocks,
        "its size",
        disk,
        "what its blocks hold",
    )?;
    let parent = part(header, 40, 16)?.iter().any(|byte| *byte != 0);
    expect(!parent, "its parent's identity", "there", "to be absent")?;
    Ok(disk)
}
