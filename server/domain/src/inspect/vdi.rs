//! VDI (VirtualBox; the layout is also in QEMU's block/vdi.c). Numbers are little-endian.

use super::bytes::{expect, little, part};
use super::{Flaw, Format, Found, Seen};

const SIGNATURE: [u8; 4] = [0x7f, 0x10, 0xda, 0xbe];
const SIGNATURE_AT: usize = 64;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let signature = part(seen.head, SIGNATURE_AT, 4).ok()?;
    (signature == SIGNATURE).then(|| Found::new(Format::Vdi, disk(seen)))
}

fn disk(seen: &Seen<'_>) -> Result<u64, Flaw> {
    let head = part(seen.head, 0, 512)?;
    let version = little(head, 68, 4)?;
    expect(
        version == 0x1_0001,
        "its version",
        format!("{version:#x}"),
        "0x10001: 1.1",
    )?;
    let kind = little(head, 76, 4)?;
    // 3 and 4 are what is undone and what differs from another disk.
    expect(
        matches!(kind, 1 | 2),
        "its type",
        kind,
        "1 or 2: a disk that stands by itself",
    )?;
    for (at, what) in [
        (424, "the identity of the disk it is linked to"),
        (440, "its parent's identity"),
    ] {
        let is_there = part(head, at, 16)?.iter().any(|byte| *byte != 0);
        expect(!is_there, what, "there", "to be absent")?;
    }
    let (size, block, blocks) = (
        little(head, 368, 8)?,
        little(head, 376, 4)?,
        little(head, 384, 4)?,
    );
    let is_block = block.is_power_of_two() && (512..=1 << 28).contains(&block);
    expect(
        is_block,
        "its block size",
        block,
        "a power of two, from 512 bytes to 256 MiB",
    )?;
    expect(
        size.div_ceil(block) <= blocks,
        "its size",
        size,
        "what its blocks hold",
    )?;
    Ok(size)
}
