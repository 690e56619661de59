//! LUKS (LUKS1 On-Disk Format Specification 1.2.3). Numbers are big-endian. The key slots are nobody's business here.

use super::bytes::{big, expect};
use super::{Flaw, Format, Found, Seen};

const MAGIC: &[u8] = b"LUKS\xba\xbe";

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    seen.head
        .starts_with(MAGIC)
        .then(|| Found::new(Format::Luks, disk(seen)))
}

fn disk(seen: &Seen<'_>) -> Result<u64, Flaw> {
    let version = big(seen.head, 6, 2)?;
    expect(version == 1, "its version", version, "1")?;
    let payload = big(seen.head, 104, 4)? * 512;
    let expected = format!("at most {}, where it ends", seen.bytes);
    expect(
        payload <= seen.bytes,
        "the offset of its payload",
        payload,
        &expected,
    )?;
    Ok(seen.bytes - payload)
}
