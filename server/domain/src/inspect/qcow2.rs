//! qcow2, and its dead relative qed (QEMU, docs/interop/qcow2.txt and qed_spec.txt). Numbers are big-endian.

use super::bytes::{big, expect, place};
use super::{Flaw, Format, Found, Seen};

const QCOW2: &[u8] = b"QFI\xfb";
const QED: &[u8] = b"QED\0";

/// The last known incompatible feature that can be met without danger is compression, bit 3.
const INCOMPATIBLE_KNOWN: u64 = 0xf;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;

/// Header extensions: the end of them, and the name of an external data file.
const EXTENSION_END: u64 = 0;
const EXTENSION_DATA_FILE: u64 = 0x4441_5441;

/// The most QEMU allows for a first-level table, in bytes.
const L1_BYTES_MAX: u64 = 32 << 20;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    if seen.head.starts_with(QED) {
        let flaw = Flaw::new("images in this format are not accepted");
        return Some(Found::new(Format::Qed, Err(flaw)));
    }
    seen.head
        .starts_with(QCOW2)
        .then(|| Found::new(Format::Qcow2, disk(seen)))
}

fn disk(seen: &Seen<'_>) -> Result<u64, Flaw> {
    let head = seen.head;
    let version = big(head, 4, 4)?;
    expect(matches!(version, 2 | 3), "its version", version, "2 or 3")?;
    let backing = big(head, 8, 8)?;
    expect(
        backing == 0,
        "the offset of its backing file's name",
        backing,
        "0: none",
    )?;
    let cluster_bits = big(head, 20, 4)?;
    expect(
        (9..=21).contains(&cluster_bits),
        "cluster_bits",
        cluster_bits,
        "9 to 21",
    )?;
    let cluster = 1 << cluster_bits;
    let size = big(head, 24, 8)?;
    expect(size < 1 << 63, "its size", size, "less than 2^63 bytes")?;
    let encryption = big(head, 32, 4)?;
    expect(
        encryption <= 2,
        "its encryption method",
        encryption,
        "0, 1 or 2",
    )?;
    let l1_bytes = big(head, 36, 4)? * 8;
    expect(
        l1_bytes <= L1_BYTES_MAX,
        "the length of its L1 table",
        l1_bytes,
        "at most 32 MiB",
    )?;
    let tables = [
        ("its L1 table", big(head, 40, 8)?, l1_bytes),
        (
            "its refcount table",
            big(head, 48, 8)?,
            big(head, 56, 4)? << cluster_bits,
        ),
        (
            "its snapshot table",
            big(head, 64, 8)?,
            big(head, 60, 4)? * 40,
        ),
    ];
    for (table, offset, bytes) in tables {
        if bytes > 0 {
            check_table(seen, cluster, table, (offset, bytes))?;
        }
    }
    let header = match version {
        2 => 72,
        _ => check_version_3(head, cluster)?,
    };
    check_extensions(head, header, cluster)?;
    Ok(size)
}

/// A table must lie in the file, behind the header's cluster, at the beginning of a cluster.
fn check_table(
    seen: &Seen<'_>,
    cluster: u64,
    table: &str,
    (offset, bytes): (u64, u64),
) -> Result<(), Flaw> {
    let is_in_file = offset >= cluster
        && offset.is_multiple_of(cluster)
        && offset
            .checked_add(bytes)
            .is_some_and(|end| end <= seen.bytes);
    let expected = format!(
        "a cluster after the first, and {bytes} bytes of the {}",
        seen.bytes
    );
    expect(
        is_in_file,
        &format!("the offset of {table}"),
        offset,
        &expected,
    )
}

/// Checks what version 3 added. Returns the header's length.
fn check_version_3(head: &[u8], cluster: u64) -> Result<u64, Flaw> {
    let incompatible = big(head, 72, 8)?;
    let names_data = incompatible & INCOMPATIBLE_DATA_FILE != 0;
    expect(
        !names_data,
        "its data",
        "in another file",
        "to be in itself",
    )?;
    let unknown = incompatible & !INCOMPATIBLE_KNOWN;
    expect(
        unknown == 0,
        "its incompatible features",
        format!("{incompatible:#x}"),
        "bits 0 to 3",
    )?;
    let refcount_order = big(head, 96, 4)?;
    expect(
        refcount_order <= 6,
        "refcount_order",
        refcount_order,
        "at most 6",
    )?;
    let length = big(head, 100, 4)?;
    let fits = length >= 104 && length.is_multiple_of(8) && length <= cluster;
    expect(
        fits,
        "the length of its header",
        length,
        "a multiple of 8, from 104 to a cluster",
    )?;
    Ok(length)
}

/// Walks the header extensions, which lie in the first cluster. There is none that is needed past what is kept here.
fn check_extensions(head: &[u8], header: u64, cluster: u64) -> Result<(), Flaw> {
    let mut at = header;
    loop {
        // Where the cluster is full there is no mark of an end.
        if at + 8 > cluster {
            return expect(
                at <= cluster,
                "the end of its header extensions",
                at,
                "in the first cluster",
            );
        }
        let kind = match big(head, place(at), 4) {
            // The shortest files end with their header.
            Err(_) if at == header => return Ok(()),
            kind => kind?,
        };
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_DATA_FILE => {
                return Err(Flaw::new("it names an external data file"));
            }
            _ => at += 8 + big(head, place(at + 4), 4)?.next_multiple_of(8),
        }
    }
}
