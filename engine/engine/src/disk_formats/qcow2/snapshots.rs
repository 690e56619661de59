//! Internal snapshots: earlier states of the disk in the same file.

use super::Qcow2Error;
use super::file::File;
use super::header::{Header, Table, check_apart, check_l1_size};
use super::numbers::{u16_at, u32_at, u64_at};
use std::time::Duration;

/// QEMU's limits too.
const SNAPSHOTS_MAX: u32 = 65_536;
const EXTRA_BYTES_MAX: u64 = 1024;

/// The longest table that is read. The list is held in memory while a file is open.
const TABLE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of an entry before its extra data, its id and its name.
const ENTRY_BYTES: u64 = 40;

/// A state of the disk that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, usually a small number; what is not UTF-8 is replaced.
    pub id: String,
    /// Its name, which another one may have too.
    pub name: String,
    /// The disk's length in bytes at that time.
    pub virtual_size: u64,
    /// When it was taken, since 1970.
    pub taken: Duration,
    /// Bytes of the state of a running machine that are kept with it. They are not part of the disk.
    pub vm_state_bytes: u64,
    pub(super) l1: Table,
}

/// Reads the list of snapshots, and makes sure that each one's map stands in the file.
pub(super) fn read(file: &File<'_>, header: &mut Header) -> Result<Vec<Snapshot>, Qcow2Error> {
    let (count, start) = (header.snapshot_count, header.snapshots_offset);
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > SNAPSHOTS_MAX {
        return Err(Qcow2Error::Field {
            what: "nb_snapshots",
            found: u64::from(count),
            expected: "65536 at most",
        });
    }
    let what = TABLE;
    if !header.geometry.is_aligned(start) {
        return Err(Qcow2Error::Unaligned {
            what,
            offset: start,
        });
    }
    // Each has 40 bytes at least: a count that cannot be is told before anything is read.
    let least = file.check(what, start, u64::from(count) * ENTRY_BYTES)?;
    check_apart(&header.metadata, what, &least)?;
    let mut snapshots = Vec::new();
    let mut at = start;
    for _ in 0..count {
        let (snapshot, end) = entry(file, header, at)?;
        snapshots.push(snapshot);
        at = end;
        if at - start > TABLE_BYTES_MAX {
            let (found, limit) = (at - start, TABLE_BYTES_MAX);
            return Err(Qcow2Error::TooLarge { what, found, limit });
        }
    }
    let range = start..at.min(file.bytes());
    check_apart(&header.metadata, what, &range)?;
    header.metadata.push((range, what));
    Ok(snapshots)
}

const TABLE: &str = "the snapshot table";

/// Reads the entry at `at`; also returns where the next one begins.
fn entry(file: &File<'_>, header: &Header, at: u64) -> Result<(Snapshot, u64), Qcow2Error> {
    let head = file.read(file.check(TABLE, at, ENTRY_BYTES)?)?;
    let l1 = Table {
        offset: u64_at(&head, 0),
        entries: u64::from(u32_at(&head, 8)),
    };
    let (id_bytes, name_bytes) = (u16_at(&head, 12), u16_at(&head, 14));
    let extra_bytes = u64::from(u32_at(&head, 36));
    if extra_bytes > EXTRA_BYTES_MAX {
        let (what, found, limit) = ("a snapshot's extra data", extra_bytes, EXTRA_BYTES_MAX);
        return Err(Qcow2Error::TooLarge { what, found, limit });
    }
    let bytes = extra_bytes + u64::from(id_bytes) + u64::from(name_bytes);
    let variable = file.read(file.check(TABLE, at + ENTRY_BYTES, bytes)?)?;
    let (extra, names) =
        variable.split_at(usize::try_from(extra_bytes).expect("because it has a limit"));
    let (id, name) = names.split_at(usize::from(id_bytes));
    if header.geometry.version >= 3 && extra.len() < 16 {
        return Err(Qcow2Error::Field {
            what: "a snapshot's extra_data_size",
            found: extra_bytes,
            expected: "16 at least in version 3",
        });
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let snapshot = Snapshot {
        id: text(id),
        name: text(name),
        virtual_size: if extra.len() >= 16 {
            u64_at(extra, 8)
        } else {
            header.virtual_size
        },
        taken: Duration::new(
            u64::from(u32_at(&head, 16)),
            u32_at(&head, 20).min(999_999_999),
        ),
        vm_state_bytes: if extra.len() >= 8 {
            u64_at(extra, 0)
        } else {
            u64::from(u32_at(&head, 32))
        },
        l1,
    };
    check_map(file, header, &snapshot)?;
    let end = at + ENTRY_BYTES + bytes;
    Ok((snapshot, end.next_multiple_of(8)))
}

fn check_map(file: &File<'_>, header: &Header, snapshot: &Snapshot) -> Result<(), Qcow2Error> {
    let (what, l1) = ("a snapshot's L1 table", snapshot.l1);
    if !header.geometry.is_aligned(l1.offset) {
        return Err(Qcow2Error::Unaligned {
            what,
            offset: l1.offset,
        });
    }
    check_l1_size(what, l1, header.geometry, snapshot.virtual_size)?;
    let range = file.check(what, l1.offset, l1.entries * 8)?;
    check_apart(&header.metadata, what, &range)
}

/// Finds a snapshot by its id, or else by its name.
pub(super) fn find<'a>(
    snapshots: &'a [Snapshot],
    wanted: &str,
) -> Result<&'a Snapshot, Qcow2Error> {
    if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.id == wanted) {
        return Ok(snapshot);
    }
    let named: Vec<_> = snapshots
        .iter()
        .filter(|snapshot| snapshot.name == wanted)
        .collect();
    let wanted = wanted.to_owned();
    match *named {
        [snapshot] => Ok(snapshot),
        [] => Err(Qcow2Error::SnapshotNotFound { wanted }),
        _ => Err(Qcow2Error::SnapshotAmbiguous {
            wanted,
            count: named.len(),
        }),
    }
}
