//! VMDK (VMware, Virtual Disk Format 5.0). Numbers are little-endian.
//!
//! Only files that hold a whole disk by themselves come in: a sparse header, a descriptor in the same file that says so, and
//! for streamed disks a footer that repeats the header.

use super::bytes::{expect, little, part, place};
use super::{Flaw, Format, Found, Seen};

const SPARSE: &[u8] = b"KDMV";
const ESX_SPARSE: &[u8] = b"COWD";
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";
const SECTOR: u64 = 512;
const GD_AT_END: u64 = u64::MAX;
/// The longest descriptor that is looked at.
const DESCRIPTOR_BYTES_MAX: u64 = 64 << 10;
const FOOTER_MARKER: u64 = 3;

/// Names in a descriptor that are no danger.
const KNOWN: [&str; 4] = ["version", "encoding", "cid", "isnativesnapshot"];

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let head = seen.head;
    if head.starts_with(ESX_SPARSE) {
        let flaw = Flaw::new("sparse files of ESX are not accepted");
        return Some(Found::new(Format::Vmdk, Err(flaw)));
    }
    if starts_like_a_descriptor(head) {
        let flaw = Flaw::new("it is a descriptor alone, which names the files that hold the disk");
        return Some(Found::new(Format::Vmdk, Err(flaw)));
    }
    if !head.starts_with(SPARSE) {
        return None;
    }
    Some(match sparse(seen) {
        Ok((bytes, kind)) => Found::new(Format::Vmdk, Ok(bytes)).of_kind(kind),
        Err(flaw) => Found::new(Format::Vmdk, Err(flaw)),
    })
}

/// QEMU takes a file for a descriptor by its first line that is no blank one and no other comment.
fn starts_like_a_descriptor(head: &[u8]) -> bool {
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace());
    let Some(text) = start.and_then(|start| head.get(start..)) else {
        return false;
    };
    let line = text.get(..DESCRIPTOR.len()).unwrap_or_default();
    line.eq_ignore_ascii_case(DESCRIPTOR)
}

/// Returns the disk's length and the kind of file.
fn sparse(seen: &Seen<'_>) -> Result<(u64, String), Flaw> {
    let header = part(seen.head, 0, 512)?;
    let version = little(header, 4, 4)?;
    expect((1..=3).contains(&version), "its version", version, "1 to 3")?;
    let (capacity, grain) = (little(header, 12, 8)?, little(header, 20, 8)?);
    expect(
        capacity <= 1 << 54,
        "its capacity",
        capacity,
        "at most 2^54 sectors",
    )?;
    let is_grain = grain.is_power_of_two() && (8..=1 << 17).contains(&grain);
    expect(
        is_grain,
        "its grain size",
        grain,
        "a power of two, from 8 to 131072 sectors",
    )?;
    let entries = little(header, 44, 4)?;
    expect(
        (1..=512).contains(&entries),
        "the entries of its grain tables",
        entries,
        "1 to 512",
    )?;
    let (at, bytes) = (little(header, 28, 8)?, little(header, 36, 8)?);
    let (at, bytes) = (at.saturating_mul(SECTOR), bytes.saturating_mul(SECTOR));
    expect(
        at > 0 && bytes > 0,
        "its descriptor",
        "absent",
        "in the file",
    )?;
    expect(
        bytes <= DESCRIPTOR_BYTES_MAX,
        "the length of its descriptor",
        bytes,
        "at most 64 KiB",
    )?;
    let descriptor = part(seen.head, place(at), place(bytes))?;
    let kind = check_descriptor(descriptor)?;
    if little(header, 56, 8)? == GD_AT_END {
        check_footer(seen, header)?;
    }
    Ok((capacity * SECTOR, kind))
}

/// Checks the text that says what the disk is made of. Returns its kind.
fn check_descriptor(descriptor: &[u8]) -> Result<String, Flaw> {
    let end = descriptor.iter().position(|byte| *byte == 0);
    let (text, padding) = descriptor.split_at(end.unwrap_or(descriptor.len()));
    let is_padding = padding.iter().all(|byte| *byte == 0);
    expect(
        is_padding,
        "what follows its descriptor's text",
        "not zeros",
        "zeros",
    )?;
    let text =
        std::str::from_utf8(text).map_err(|_| Flaw::new("its descriptor is no text in UTF-8"))?;
    let (mut kind, mut extents) = (None, 0);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let access = line.split_whitespace().next().unwrap_or_default();
        if ["RW", "RDONLY", "NOACCESS"]
            .iter()
            .any(|known| access.eq_ignore_ascii_case(known))
        {
            check_extent(line)?;
            extents += 1;
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| {
            Flaw::new(format!(
                "its descriptor has a line of no known kind: {line:?}"
            ))
        })?;
        let (name, value) = (
            name.trim().to_ascii_lowercase(),
            value.trim().trim_matches('"'),
        );
        match name.as_str() {
            "createtype" => {
                let is_first = kind.replace(value.to_owned()).is_none();
                expect(is_first, "the number of its createTypes", 2, "1")?;
            }
            "parentcid" => {
                let is_none = value.eq_ignore_ascii_case("ffffffff");
                expect(is_none, "its parentCID", value, "ffffffff: no parent")?;
            }
            // A path, which is there only when changes are tracked.
            "changetrackpath" => return Err(Flaw::new("its descriptor names a file of changes")),
            _ if name.starts_with("ddb.") || KNOWN.contains(&name.as_str()) => {}
            _ => {
                return Err(Flaw::new(format!(
                    "its descriptor has a line of no known kind: {line:?}"
                )));
            }
        }
    }
    expect(
        extents > 0,
        "the number of its extents",
        extents,
        "at least 1",
    )?;
    kind.ok_or_else(|| Flaw::new("its descriptor has no createType"))
}

/// Checks a line such as `RW 204800 SPARSE "disk.vmdk"`. The name is this file's, whatever it was called; it must not be a
/// path.
fn check_extent(line: &str) -> Result<(), Flaw> {
    let mut words = line.splitn(4, char::is_whitespace).skip(1);
    let (_, kind, name) = (
        words.next(),
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    expect(
        kind.eq_ignore_ascii_case("SPARSE"),
        "the kind of an extent",
        kind,
        "SPARSE",
    )?;
    let name = name.trim();
    let inner = name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
        .unwrap_or_default();
    let is_name = !inner.is_empty() && !inner.contains(['/', '\\', '"', ':']) && inner != "..";
    expect(
        is_name,
        "the file of an extent",
        format!("{name:?}"),
        "a name in quotes that is no path",
    )
}

/// A streamed disk ends with a marker, the footer, and the mark of the end. The footer is what readers believe.
fn check_footer(seen: &Seen<'_>, header: &[u8]) -> Result<(), Flaw> {
    let missing = |_| Flaw::new("it has no footer, where its header says that the directory is");
    let tail = seen.tail;
    let start = tail.len().saturating_sub(3 * 512);
    let (marker, footer, end) = (
        part(tail, start, 512).map_err(missing)?,
        part(tail, start + 512, 512).map_err(missing)?,
        part(tail, start + 1024, 512).map_err(missing)?,
    );
    let kind = little(marker, 12, 4)?;
    expect(
        kind == FOOTER_MARKER,
        "the marker before its footer",
        kind,
        "3",
    )?;
    let is_end = end.iter().all(|byte| *byte == 0);
    expect(
        is_end,
        "what follows its footer",
        "something",
        "the mark of the end",
    )?;
    // The two directories' places are what a footer is for.
    let directories = 48..64;
    let mut both = header.iter().zip(footer).enumerate();
    let differs = both.find(|(at, (header, footer))| !directories.contains(at) && header != footer);
    if let Some((at, _)) = differs {
        return Err(Flaw::new(format!(
            "its footer differs from its header at byte {at}"
        )));
    }
    let directory = little(footer, 56, 8)?;
    let is_place = directory
        .checked_mul(SECTOR)
        .is_some_and(|at| at < seen.bytes);
    expect(
        directory > 0 && is_place,
        "the place of its directory",
        directory,
        "a sector of the file",
    )
}
