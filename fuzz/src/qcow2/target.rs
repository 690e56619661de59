//! Reads any bytes as a qcow2 file: everything that can be asked of it, with a limit on how much is read.

use std::io;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::disk_formats::qcow2::{Qcow2, Qcow2Disk, Qcow2Error};
use tegula_engine::{BlockSource, Content, EngineError, SourceExtent};

/// Bytes of one disk that are read at most: a file may map as much again and again.
const READ_BYTES_MAX: u64 = 16 << 20;

/// Extents of one disk that are asked for at most.
const EXTENTS_MAX: usize = 100_000;

/// A file in memory.
#[derive(Debug)]
pub struct Bytes(pub Vec<u8>);

impl BlockSource for Bytes {
    fn name(&self) -> &str {
        "the bytes"
    }

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let end = from.checked_add(buffer.len());
        let bytes = end.and_then(|end| self.0.get(from..end));
        // A reader that asks for what is not there has not checked the length.
        buffer.copy_from_slice(bytes.expect("nothing past the end is read"));
        Ok(())
    }

    fn next_extent(&self, from: u64) -> io::Result<Option<SourceExtent>> {
        let range = from..self.bytes();
        let content = Content::Data;
        Ok((!range.is_empty()).then_some(SourceExtent { range, content }))
    }

    fn check_unchanged(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// What was seen of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes read of all its disks together.
    pub read_bytes: u64,
    /// The bytes of the active disk, as far as they are data: where, and what.
    pub data: Vec<(u64, Vec<u8>)>,
    /// Ranges of the active disk that are the backing file's.
    pub inherited: Vec<std::ops::Range<u64>>,
}

/// Reads all that there is: the disk, every snapshot, every bitmap.
///
/// # Errors
/// Why the file cannot be read, or not on.
pub fn read_everything(file: &dyn BlockSource) -> Result<Seen, Qcow2Error> {
    let image = Qcow2::open(file)?;
    let mut seen = Seen::default();
    read_disk(&image.disk(), &mut seen, true)?;
    for snapshot in image.snapshots() {
        match image.snapshot_disk(&snapshot.id) {
            Ok(disk) => read_disk(&disk, &mut seen, false)?,
            Err(Qcow2Error::SnapshotAmbiguous { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for bitmap in image.bitmaps() {
        match image.changed_blocks(&bitmap.name) {
            Ok(changed) => {
                let ends = changed.extents().map(|extent| extent.end);
                assert!(ends.max().unwrap_or(0) <= image.virtual_size());
            }
            Err(Qcow2Error::BitmapUnusable { .. }) => assert!(bitmap.fault.is_some()),
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

fn of_qcow2(error: io::Error) -> Qcow2Error {
    error
        .downcast()
        .expect("what goes wrong is the file's fault")
}

fn read_disk(disk: &Qcow2Disk<'_>, seen: &mut Seen, active: bool) -> Result<(), Qcow2Error> {
    let (mut at, mut left) = (0, READ_BYTES_MAX);
    for _ in 0..EXTENTS_MAX {
        let Some(extent) = disk.next_extent(at).map_err(of_qcow2)? else {
            break;
        };
        let SourceExtent { range, content } = extent;
        assert!(range.start < range.end && range.end > at && range.end <= disk.bytes());
        assert!(content == Content::Data || disk.overlay_of().is_some());
        if content == Content::Data {
            let length = (range.end - range.start).min(left);
            let mut buffer = vec![0; usize::try_from(length).unwrap()];
            disk.read_at(&mut buffer, range.start).map_err(of_qcow2)?;
            left -= length;
            seen.read_bytes += length;
            if active {
                seen.data.push((range.start, buffer));
            }
        } else if active {
            seen.inherited.push(range.clone());
        }
        at = range.end;
    }
    // Anywhere, not only where there is data.
    for at in [0, disk.bytes() / 2, disk.bytes().saturating_sub(1000)] {
        let mut buffer =
            vec![1; usize::try_from(disk.bytes().saturating_sub(at).min(1000)).unwrap()];
        match disk.read_at(&mut buffer, at).map_err(of_qcow2) {
            Err(Qcow2Error::Inherited { .. }) => assert!(disk.overlay_of().is_some()),
            read => read?,
        }
    }
    Ok(())
}

/// Any bytes as a qcow2 file: read, or refused by name.
pub fn qcow2(data: &[u8]) {
    for at in [true, false] {
        let mut bytes = data.to_vec();
        if at && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(b"QFI\xfb");
        }
        let file = Bytes(bytes);
        let detected = DiskFormat::detect(&file).unwrap();
        match read_everything(&file) {
            Ok(seen) => {
                assert_eq!(detected, DiskFormat::Qcow2);
                assert!(seen.read_bytes <= 100 * READ_BYTES_MAX);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
