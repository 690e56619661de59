//! Disks with a partition table: an MBR, which a GPT has in front of it too (UEFI Specification, 5.2). Numbers are
//! little-endian.

use super::bytes::{expect, little, part};
use super::{Flaw, Format, Found, Seen};

const SECTOR: usize = 512;
const ENTRIES: [usize; 4] = [446, 462, 478, 494];
/// The type of an entry that keeps others off a disk with a GPT.
const PROTECTIVE: u8 = 0xee;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let sector = part(seen.head, 0, SECTOR).ok()?;
    let is_signed = sector.ends_with(&[0x55, 0xaa]);
    (is_signed && !is_file_system(sector)).then(|| {
        let disk = check(sector).map(|()| seen.bytes);
        Found::new(Format::Gpt, disk)
    })
}

/// A FAT's boot sector has the same signature: it is told by its jump and its parameters (Microsoft, FAT specification 1.03).
fn is_file_system(sector: &[u8]) -> bool {
    let byte = |at: usize| sector.get(at).copied().unwrap_or_default();
    let jumps = byte(0) == 0xe9 || (byte(0) == 0xeb && byte(2) == 0x90);
    let sector_bytes = little(sector, 11, 2).unwrap_or_default();
    let cluster = byte(13);
    jumps
        && matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && matches!(byte(16), 1 | 2)
        && matches!(byte(21), 0xf0 | 0xf8..=0xff)
}

fn check(sector: &[u8]) -> Result<(), Flaw> {
    let (mut used, mut protective) = (0, 0);
    for (number, at) in (1..).zip(ENTRIES) {
        let entry = part(sector, at, 16)?;
        let (flag, kind) = (little(entry, 0, 1)?, little(entry, 4, 1)?);
        let field = |field| format!("the {field} of partition {number}");
        expect(
            matches!(flag, 0 | 0x80),
            &field("boot flag"),
            format!("{flag:#x}"),
            "0 or 0x80",
        )?;
        if kind == 0 {
            continue;
        }
        used += 1;
        if kind == u64::from(PROTECTIVE) {
            protective += 1;
            let (chs, first) = (part(entry, 1, 3)?, little(entry, 8, 4)?);
            expect(
                chs == [0, 2, 0],
                &field("first CHS address"),
                format!("{chs:?}"),
                "[0, 2, 0]",
            )?;
            expect(first == 1, &field("first sector"), first, "1")?;
        }
    }
    expect(used > 0, "the number of its partitions", used, "at least 1")?;
    let is_sole = protective == 0 || used == 1;
    expect(
        is_sole,
        "the number of its partitions",
        used,
        "1, as it protects a GPT",
    )
}
