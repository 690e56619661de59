//! A file that holds a disk: a regular file or a block device, opened and known to be one of the two.

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// None of these.
    Other,
}

impl FileKind {
    /// Tells the kind from a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        if kind.is_file() {
            Self::Regular
        } else if kind.is_block_device() {
            Self::BlockDevice
        } else if kind.is_dir() {
            Self::Directory
        } else if kind.is_fifo() {
            Self::Fifo
        } else if kind.is_socket() {
            Self::Socket
        } else if kind.is_char_device() {
            Self::CharacterDevice
        } else {
            Self::Other
        }
    }

    /// Tells whether bytes can be read at any offset again and again, as of a disk.
    pub const fn can_be_a_disk(self) -> bool {
        matches!(self, Self::Regular | Self::BlockDevice)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "a regular file",
            Self::BlockDevice => "a block device",
            Self::Directory => "a directory",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::CharacterDevice => "a character device",
            Self::Other => "neither a regular file nor a block device",
        })
    }
}

/// Zeros to write where the file system cannot make a hole.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// An open disk. All positions are given: threads may share it.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    kind: FileKind,
}

impl DiskFile {
    /// Takes an open file; gives back the kind if it cannot be a disk.
    pub(crate) fn new(file: File) -> io::Result<Result<Self, FileKind>> {
        let kind = FileKind::of(&file.metadata()?);
        Ok(match kind.can_be_a_disk() {
            true => Ok(Self { file, kind }),
            false => Err(kind),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn is_block_device(&self) -> bool {
        self.kind == FileKind::BlockDevice
    }

    /// Returns its length in bytes, as of now. A device's is where its end is: its metadata say 0.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        match self.kind {
            FileKind::BlockDevice => Ok(rustix::fs::seek(&self.file, SeekFrom::End(0))?),
            _ => Ok(self.file.metadata()?.len()),
        }
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Returns the next range at or after `from` that may hold something else than zeros, within `bytes`.
    ///
    /// Where holes are not known (devices, some file systems) everything is data. A range that was just data may be a
    /// hole a moment later and the other way round; whoever reads a file that others write gets what they deserve.
    pub(crate) fn next_data(&self, from: u64, bytes: u64) -> io::Result<Option<Range<u64>>> {
        if from >= bytes {
            return Ok(None);
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(from..bytes)),
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(bytes),
            // Cut between the two calls.
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok((start < end).then_some(start..end))
    }

    /// Makes a range read as zeros without changing the length, giving back its space where that is possible.
    pub(crate) fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let how = match self.kind {
            // On a device the kernel zeroes it the fastest way the hardware has, or writes zeros itself.
            FileKind::BlockDevice => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
            _ => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        };
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, how, offset, length)) {
            // Not every file system can; a device refuses ranges that are not aligned to its sectors.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                self.write_zeros(offset, length)
            }
            zeroed => Ok(zeroed?),
        }
    }

    fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let zeros = ZEROS.get(..wanted).unwrap_or(&ZEROS);
            self.write_at(zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    /// Makes all bytes and the length durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(bytes: &[u8]) -> DiskFile {
        let disk = DiskFile::new(tempfile::tempfile().unwrap())
            .unwrap()
            .unwrap();
        disk.write_at(bytes, 0).unwrap();
        disk
    }

    #[test]
    fn a_zeroed_range_reads_as_zeros_and_its_neighbours_stay() {
        for zero in [DiskFile::zero_range, DiskFile::write_zeros] {
            let disk = disk(&vec![7; 700_000]);
            zero(&disk, 3, 600_000).unwrap();
            let mut found = vec![1; 700_000];
            disk.read_at(&mut found, 0).unwrap();
            let mut expected = vec![7; 700_000];
            expected[3..600_003].fill(0);
            assert!(found == expected);
            assert_eq!(disk.bytes().unwrap(), 700_000);
        }
    }

    #[test]
    fn data_is_found_between_holes() {
        let disk = disk(&[]);
        disk.file().set_len(10 << 20).unwrap();
        disk.write_at(&[1; 4096], 4 << 20).unwrap();
        let data = disk.next_data(0, 10 << 20).unwrap();
        match data {
            // A file system without holes may say that everything is data.
            Some(all) if all == (0..10 << 20) => {}
            data => {
                assert_eq!(data, Some(4 << 20..(4 << 20) + 4096));
                assert_eq!(disk.next_data((4 << 20) + 4096, 10 << 20).unwrap(), None);
            }
        }
        assert_eq!(disk.next_data(10 << 20, 10 << 20).unwrap(), None);
    }
}
