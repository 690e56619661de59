//! The bytes of Ceph's differences between snapshots, as `rbd export-diff` writes them: versions 1 and 2.
//!
//! A banner, then records of a tag and what belongs to it: the snapshots' names, the size, ranges of bytes and of zeros in
//! ascending order, an end. Version 2 has a length behind each tag, so that unknown ones can be stepped over.
//!
//! Source: Ceph's developer documentation, "RBD Incremental Backup".

use super::super::DeltaError;
use super::super::stream::StreamBytes;
use std::io::{self, Read, Write};
use tegula_io::{Buffer, Scratch};
use tegula_store::Spool;

const BANNER_V1: &[u8] = b"rbd diff v1\n";
const BANNER_V2: &[u8] = b"rbd diff v2\n";

/// The longest name of a snapshot.
const NAME_BYTES_MAX: u32 = 4096;

/// The most bytes that unknown records of version 2 may have together.
const UNKNOWN_BYTES_MAX: u64 = 1 << 20;

/// The most ranges that are kept in mind: 128 MiB of them. What is written here has ranges of up to 4 MiB each.
const RANGES_MAX: usize = 1 << 22;

/// Bytes copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Which version of Ceph's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RbdVersion {
    /// `rbd diff v1`, what `rbd export-diff` and `rbd merge-diff` write.
    V1,
    /// `rbd diff v2`.
    V2,
}

impl RbdVersion {
    fn banner(self) -> &'static [u8] {
        match self {
            Self::V1 => BANNER_V1,
            Self::V2 => BANNER_V2,
        }
    }
}

/// Writes a difference.
pub(super) struct RbdWriter<'a> {
    pub(super) out: &'a mut (dyn Write + Send),
    pub(super) version: RbdVersion,
    pub(super) written: u64,
}

impl RbdWriter<'_> {
    pub(super) fn begin(
        &mut self,
        from: Option<&str>,
        to: Option<&str>,
        size: u64,
    ) -> io::Result<()> {
        self.put(self.version.banner())?;
        for (tag, name) in [(b'f', from), (b't', to)] {
            let Some(name) = name else { continue };
            let length = u32::try_from(name.len()).map_err(io::Error::other)?;
            self.tag(tag, 4 + u64::from(length))?;
            self.put(&length.to_le_bytes())?;
            self.put(name.as_bytes())?;
        }
        self.tag(b's', 8)?;
        self.put(&size.to_le_bytes())
    }

    /// Begins a range of bytes: as many are to follow, by [`Self::bytes`].
    pub(super) fn data(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.tag(b'w', 16 + length)?;
        self.put(&offset.to_le_bytes())?;
        self.put(&length.to_le_bytes())
    }

    /// Writes bytes of the range that was begun.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(bytes)
    }

    pub(super) fn zeros(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.tag(b'z', 16)?;
        self.put(&offset.to_le_bytes())?;
        self.put(&length.to_le_bytes())
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        self.put(b"e")?;
        self.out.flush()
    }

    fn tag(&mut self, tag: u8, length: u64) -> io::Result<()> {
        self.put(&[tag])?;
        match self.version {
            RbdVersion::V1 => Ok(()),
            RbdVersion::V2 => self.put(&length.to_le_bytes()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A range that a difference changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RbdExtent {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Where its bytes begin in the difference; zeros have none.
    pub(super) data: Option<u64>,
}

impl RbdExtent {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// A difference that was read to its end and found whole. Its ranges ascend, none overlaps another or goes past the size.
#[derive(Debug)]
pub(super) struct RbdFile<'a> {
    name: String,
    records: Records,
    bytes: Box<dyn StreamBytes + 'a>,
}

/// What the records of a difference say.
#[derive(Debug)]
struct Records {
    /// The snapshot that it starts from. Without one it starts from nothing, and says all of the image.
    from: Option<String>,
    size: u64,
    extents: Vec<RbdExtent>,
}

impl<'a> RbdFile<'a> {
    /// Reads a difference that can be read anywhere.
    pub(super) fn open(
        name: String,
        bytes: Box<dyn StreamBytes + 'a>,
        version: RbdVersion,
    ) -> Result<Self, DeltaError> {
        let mut cursor = Anywhere {
            bytes: &*bytes,
            at: 0,
        };
        let records = parse(&name, &mut cursor, version)?;
        Ok(Self {
            name,
            records,
            bytes,
        })
    }

    /// Reads a difference that comes in order; the bytes of its ranges are gathered.
    pub(super) fn gather(
        name: String,
        stream: &mut (dyn Read + Send),
        gather: Gather<'a>,
        version: RbdVersion,
    ) -> Result<Self, DeltaError> {
        let mut cursor = InOrder {
            stream,
            gather,
            at: 0,
            gathered: 0,
        };
        let records = parse(&name, &mut cursor, version)?;
        let (offset, read_name) = (cursor.at, name.clone());
        let read = |source| DeltaError::Read {
            name: read_name,
            offset,
            source,
        };
        let bytes = cursor.gather.finish().map_err(read)?;
        Ok(Self {
            name,
            records,
            bytes,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the snapshot that it starts from; `None` if it starts from nothing.
    pub(super) fn from(&self) -> Option<&str> {
        self.records.from.as_deref()
    }

    /// Returns the image's length.
    pub(super) fn size(&self) -> u64 {
        self.records.size
    }

    pub(super) fn extents(&self) -> &[RbdExtent] {
        &self.records.extents
    }

    /// Returns bytes of a range, from `skip` on; none for zeros.
    pub(super) fn read(
        &self,
        extent: &RbdExtent,
        skip: u64,
        into: &mut [u8],
    ) -> Result<(), DeltaError> {
        let Some(data) = extent.data else {
            into.fill(0);
            return Ok(());
        };
        let offset = data + skip;
        self.bytes
            .read_at(into, offset)
            .map_err(|source| DeltaError::Read {
                name: self.name.clone(),
                offset,
                source,
            })
    }
}

/// Where a difference is read from, from its beginning to its end.
trait Cursor {
    fn at(&self) -> u64;
    fn fill(&mut self, into: &mut [u8]) -> io::Result<()>;
    /// Passes over the bytes of a range; returns where they can be read later.
    fn pass(&mut self, length: u64) -> io::Result<u64>;
    /// Tells whether nothing is left.
    fn ended(&mut self) -> io::Result<bool>;
}

struct Anywhere<'a> {
    bytes: &'a (dyn StreamBytes + 'a),
    at: u64,
}

impl Cursor for Anywhere<'_> {
    fn at(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(into, self.at)?;
        self.at += into.len() as u64;
        Ok(())
    }

    fn pass(&mut self, length: u64) -> io::Result<u64> {
        let (at, end) = (self.at, self.at.checked_add(length));
        let end = end.filter(|end| *end <= self.bytes.bytes());
        self.at = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(at)
    }

    fn ended(&mut self) -> io::Result<bool> {
        Ok(self.at == self.bytes.bytes())
    }
}

/// Where the bytes of ranges are kept that come in order.
#[derive(Debug)]
pub(super) enum Gather<'a> {
    /// In a store.
    InStore(Spool<'a>),
    /// In a directory.
    InDirectory(Scratch),
}

impl<'a> Gather<'a> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::InStore(spool) => spool.append(bytes).map_err(io::Error::other),
            Self::InDirectory(scratch) => scratch.append(bytes),
        }
    }

    fn finish(self) -> io::Result<Box<dyn StreamBytes + 'a>> {
        Ok(match self {
            Self::InStore(spool) => Box::new(spool.finish().map_err(io::Error::other)?),
            Self::InDirectory(scratch) => Box::new(scratch.finish()?),
        })
    }
}

struct InOrder<'s, 'a> {
    stream: &'s mut (dyn Read + Send),
    gather: Gather<'a>,
    at: u64,
    gathered: u64,
}

impl Cursor for InOrder<'_, '_> {
    fn at(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(into)?;
        self.at += into.len() as u64;
        Ok(())
    }

    fn pass(&mut self, length: u64) -> io::Result<u64> {
        let start = self.gathered;
        let mut left = length;
        while left > 0 {
            let step = usize::try_from(left.min(PIECE_BYTES)).expect("because a piece is short");
            let mut piece = Buffer::stale(step);
            self.fill(&mut piece)?;
            self.gather.append(&piece)?;
            left -= step as u64;
        }
        self.gathered += length;
        Ok(start)
    }

    fn ended(&mut self) -> io::Result<bool> {
        Ok(self.stream.read(&mut [0])? == 0)
    }
}

/// Reads all records. What is refused is named, with the byte at which its record begins.
fn parse(name: &str, cursor: &mut dyn Cursor, version: RbdVersion) -> Result<Records, DeltaError> {
    let refused = |offset: u64, reason: &str| DeltaError::Rbd {
        name: name.to_owned(),
        offset,
        reason: reason.to_owned(),
    };
    let failed = |offset: u64| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => refused(offset, "it is cut short"),
            _ => DeltaError::Read {
                name: name.to_owned(),
                offset,
                source,
            },
        }
    };
    let mut banner = [0; 12];
    cursor.fill(&mut banner).map_err(failed(0))?;
    if banner != version.banner() {
        return Err(refused(
            0,
            match &banner[..] {
                BANNER_V1 => "it is of version 1",
                BANNER_V2 => "it is of version 2",
                _ => "it is no rbd diff",
            },
        ));
    }
    let (mut from, mut size, mut extents) = (None, None, Vec::<RbdExtent>::new());
    let (mut seen, mut unknown) = ([false; 2], 0);
    loop {
        let at = cursor.at();
        let failed = failed(at);
        let refused = |reason| refused(at, reason);
        let mut tag = [0];
        cursor.fill(&mut tag).map_err(&failed)?;
        let [tag] = tag;
        if tag == b'e' {
            return match (size, cursor.ended().map_err(&failed)?) {
                (None, _) => Err(refused("no size was given")),
                (_, false) => Err(refused("bytes follow its end")),
                (Some(size), true) => Ok(Records {
                    from,
                    size,
                    extents,
                }),
            };
        }
        let stated = match version {
            RbdVersion::V1 => None,
            RbdVersion::V2 => Some(number(cursor).map_err(&failed)?),
        };
        let is = |length: u64| stated.is_none_or(|stated| stated == length);
        let data_came = !extents.is_empty();
        match tag {
            b'f' | b't' => {
                let [seen_from, seen_to] = &mut seen;
                let seen = if tag == b'f' { seen_from } else { seen_to };
                if data_came || std::mem::replace(seen, true) {
                    return Err(refused("a snapshot's name is out of place or given twice"));
                }
                let mut length = [0; 4];
                cursor.fill(&mut length).map_err(&failed)?;
                let length = u32::from_le_bytes(length);
                if length > NAME_BYTES_MAX || !is(4 + u64::from(length)) {
                    return Err(refused("the length of a snapshot's name cannot be"));
                }
                let mut text = vec![0; length as usize];
                cursor.fill(&mut text).map_err(&failed)?;
                if tag == b'f' {
                    from = Some(String::from_utf8_lossy(&text).into_owned());
                }
            }
            b's' => {
                if data_came || size.is_some() || !is(8) {
                    return Err(refused("the size is out of place or given twice"));
                }
                size = Some(number(cursor).map_err(&failed)?);
            }
            b'w' | b'z' => {
                let offset = number(cursor).map_err(&failed)?;
                let length = number(cursor).map_err(&failed)?;
                let size = size.ok_or_else(|| refused("a range comes before the size"))?;
                let end = offset.checked_add(length).filter(|end| *end <= size);
                let Some(_) = end else {
                    return Err(refused("a range goes past the size"));
                };
                if extents.last().is_some_and(|last| last.end() > offset) {
                    return Err(refused(
                        "a range begins before the end of the one before it",
                    ));
                }
                let bytes = if tag == b'w' { length } else { 0 };
                if length == 0 || !is(16 + bytes) {
                    return Err(refused("the length of a range cannot be"));
                }
                let data = match tag {
                    b'w' => Some(cursor.pass(length).map_err(&failed)?),
                    _ => None,
                };
                let count = extents.len();
                match extents.last_mut() {
                    Some(last) if last.data.or(data).is_none() && last.end() == offset => {
                        last.length += length;
                    }
                    _ if count == RANGES_MAX => {
                        return Err(refused(&format!("it has more than {RANGES_MAX} ranges")));
                    }
                    _ => extents.push(RbdExtent {
                        offset,
                        length,
                        data,
                    }),
                }
            }
            _ => {
                let length = stated.ok_or_else(|| refused("a record has an unknown tag"))?;
                unknown += length.saturating_add(9);
                if unknown > UNKNOWN_BYTES_MAX {
                    return Err(refused("unknown records have too many bytes"));
                }
                let length = usize::try_from(length).expect("because it was just limited");
                cursor.fill(&mut vec![0; length]).map_err(&failed)?;
            }
        }
    }
}

fn number(cursor: &mut dyn Cursor) -> io::Result<u64> {
    let mut bytes = [0; 8];
    cursor.fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tegula_io::Mapped;

    fn written(version: RbdVersion) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = RbdWriter {
            out: &mut bytes,
            version,
            written: 0,
        };
        writer.begin(Some("one"), Some("two"), 10_000).unwrap();
        writer.data(4096, 10).unwrap();
        writer.bytes(b"some ").unwrap();
        writer.bytes(b"bytes").unwrap();
        writer.zeros(5000, 1000).unwrap();
        writer.zeros(6000, 2000).unwrap();
        writer.data(9999, 1).unwrap();
        writer.bytes(b"!").unwrap();
        writer.end().unwrap();
        bytes
    }

    fn read(bytes: &[u8], version: RbdVersion) -> Result<RbdFile<'static>, DeltaError> {
        let whole = Mapped::new(bytes.to_vec());
        let anywhere = RbdFile::open("it".to_owned(), Box::new(whole), version);
        let gather = Gather::InDirectory(Scratch::new(std::path::Path::new(".")));
        let mut stream = bytes;
        let in_order = RbdFile::gather("it".to_owned(), &mut stream, gather, version);
        match (anywhere, in_order) {
            (Ok(anywhere), Ok(in_order)) => {
                let ranges = |file: &RbdFile<'_>| -> Vec<_> {
                    let ranges = file.extents().iter();
                    ranges
                        .map(|extent| (extent.offset, extent.length))
                        .collect()
                };
                assert_eq!(ranges(&anywhere), ranges(&in_order));
                Ok(anywhere)
            }
            (Err(anywhere), Err(in_order)) => {
                assert_eq!(anywhere.to_string(), in_order.to_string());
                Err(anywhere)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_difference_reads_back_in_both_versions() {
        for (version, other) in [
            (RbdVersion::V1, RbdVersion::V2),
            (RbdVersion::V2, RbdVersion::V1),
        ] {
            let bytes = written(version);
            let file = read(&bytes, version).unwrap();
            assert_eq!((file.size(), file.extents().len()), (10_000, 3));
            assert_eq!(file.from(), Some("one"));
            let mut found = [0; 5];
            file.read(&file.extents()[0], 5, &mut found).unwrap();
            assert_eq!(&found, b"bytes");
            file.read(&file.extents()[1], 100, &mut found).unwrap();
            assert_eq!(found, [0; 5]);
            let error = read(&bytes, other).unwrap_err();
            assert!(error.to_string().contains("of version"), "{error}");
        }
    }

    #[test]
    fn a_difference_that_is_cut_or_goes_on_is_refused() {
        for version in [RbdVersion::V1, RbdVersion::V2] {
            let bytes = written(version);
            for length in 0..bytes.len() {
                assert!(read(&bytes[..length], version).is_err(), "cut at {length}");
            }
            assert!(read(&[&bytes[..], &[0]].concat(), version).is_err());
        }
    }

    #[test]
    fn ranges_that_cannot_be_are_refused_by_name() {
        let size = [&b"s"[..], &1000_u64.to_le_bytes()].concat();
        let range = |tag: &[u8], offset: u64, length: u64| {
            [tag, &offset.to_le_bytes(), &length.to_le_bytes()].concat()
        };
        let name = |length: u32| [&b"f"[..], &length.to_le_bytes()].concat();
        for (records, reason) in [
            (vec![], "cut short"),
            (vec![b"e".to_vec()], "no size"),
            (vec![range(b"z", 0, 1)], "before the size"),
            (vec![size.clone(), size.clone()], "given twice"),
            (vec![size.clone(), range(b"z", 999, 2)], "past the size"),
            (
                vec![size.clone(), range(b"w", u64::MAX, 2)],
                "past the size",
            ),
            (
                vec![size.clone(), range(b"w", 0, u64::MAX)],
                "past the size",
            ),
            (vec![size.clone(), range(b"z", 5, 0)], "length of a range"),
            (
                vec![size.clone(), range(b"z", 5, 5), range(b"z", 9, 1)],
                "begins before",
            ),
            (
                vec![size.clone(), range(b"z", 5, 5), range(b"z", 0, 1)],
                "begins before",
            ),
            (
                vec![size.clone(), range(b"z", 5, 5), size.clone()],
                "out of place",
            ),
            (vec![name(u32::MAX)], "name cannot be"),
            (vec![size.clone(), b"q".to_vec()], "unknown tag"),
        ] {
            let bytes = [BANNER_V1, &records.concat()].concat();
            let error = read(&bytes, RbdVersion::V1).unwrap_err().to_string();
            assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        }
        // Unknown records of version 2 are stepped over, but not for ever.
        let unknown = |length: u64| [&b"q"[..], &length.to_le_bytes()].concat();
        let good = written(RbdVersion::V2);
        let with = |record: &[u8]| [&good[..12], record, &good[12..]].concat();
        let skipped = with(&[unknown(3), vec![1, 2, 3]].concat());
        assert!(read(&skipped, RbdVersion::V2).is_ok());
        let error = read(&with(&unknown(1 << 40)), RbdVersion::V2).unwrap_err();
        assert!(error.to_string().contains("unknown"), "{error}");
    }

    /// A difference without end, of ranges of one byte each with one between them.
    struct Endless {
        head: Vec<u8>,
        next: u64,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.head.is_empty() {
                let range = [&b"z"[..], &self.next.to_le_bytes(), &1_u64.to_le_bytes()];
                self.head = range.concat();
                self.next += 2;
            }
            let length = buffer.len().min(self.head.len());
            for (into, byte) in buffer.iter_mut().zip(self.head.drain(..length)) {
                *into = byte;
            }
            Ok(length)
        }
    }

    #[test]
    fn more_ranges_than_memory_is_to_hold_are_refused() {
        let head = [BANNER_V1, b"s", &u64::MAX.to_le_bytes()].concat();
        let mut stream = Endless { head, next: 0 };
        let gather = Gather::InDirectory(Scratch::new(std::path::Path::new(".")));
        let read = RbdFile::gather("it".to_owned(), &mut stream, gather, RbdVersion::V1);
        let error = read.unwrap_err().to_string();
        assert!(error.contains("ranges"), "{error}");
    }
}
