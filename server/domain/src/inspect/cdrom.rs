//! File systems of optical discs: ISO 9660 (ECMA-119, 8.4) and UDF (ECMA-167, part 2). Both begin at byte 32,768 with volume
//! descriptors of 2048 bytes.

use super::bytes::{expect, little, part};
use super::{Flaw, Format, Found, Seen};

const FIRST: usize = 16;
/// Descriptors that are looked through: all that are kept.
const LAST: usize = 47;
const SECTOR: usize = 2048;

/// What stands in front of the file system for booting from a disk is the isolinux's or GRUB's business.
pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let descriptor = |sector: usize| part(seen.head, sector * SECTOR, 7).ok();
    let identifiers = (FIRST..=LAST).map_while(|sector| {
        let identifier = descriptor(sector)?.get(1..6)?;
        let is_one = [b"CD001", b"BEA01", b"NSR02", b"NSR03", b"BOOT2", b"TEA01"]
            .iter()
            .any(|known| known.as_slice() == identifier);
        is_one.then_some((sector, identifier))
    });
    let found: Vec<_> = identifiers.collect();
    let has = |wanted: &[&[u8]]| {
        found
            .iter()
            .any(|(_, identifier)| wanted.contains(identifier))
    };
    if has(&[b"CD001"]) {
        let primary = found.iter().find(|(sector, identifier)| {
            *identifier == b"CD001"
                && descriptor(*sector).is_some_and(|bytes| bytes.starts_with(&[1]))
        });
        let disk = match primary {
            Some((sector, _)) => volume_bytes(seen, *sector),
            None => Err(Flaw::new("it has no primary volume descriptor")),
        };
        return Some(Found::new(Format::Iso, disk));
    }
    // UDF keeps its length farther behind: it is as long as it is.
    has(&[b"NSR02", b"NSR03"]).then(|| Found::new(Format::Iso, Ok(seen.bytes)))
}

fn volume_bytes(seen: &Seen<'_>, sector: usize) -> Result<u64, Flaw> {
    let descriptor = part(seen.head, sector * SECTOR, SECTOR)?;
    // Both stand there twice, little-endian first.
    let (blocks, block) = (little(descriptor, 80, 4)?, little(descriptor, 128, 2)?);
    let is_block = matches!(block, 512 | 1024 | 2048 | 4096);
    expect(
        is_block,
        "its logical block size",
        block,
        "512, 1024, 2048 or 4096",
    )?;
    Ok(blocks * block)
}
