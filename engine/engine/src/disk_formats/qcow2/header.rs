//! The header, with its extensions, and what is checked before anything it says is used.

use super::Qcow2Error;
use super::file::File;
use super::numbers::{u32_at, u64_at};
use std::ops::Range;

/// The first bytes of every qcow2 file.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bytes of a version 2 header, and the fewest of a version 3 header.
const V2_BYTES: usize = 72;
const V3_BYTES: usize = 104;

/// The cluster sizes QEMU reads: 512 bytes to 2 MiB.
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// With subclusters: 16 KiB, so that a subcluster has a sector.
const CLUSTER_BITS_EXTENDED_MIN: u32 = 14;

/// QEMU's limits too: beyond them it opens nothing either.
pub(super) const L1_BYTES_MAX: u64 = 32 << 20;
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
pub(super) const BACKING_NAME_BYTES_MAX: u64 = 1023;
const REFCOUNT_ORDER_MAX: u32 = 6;

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
pub(super) const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;

const LAZY_REFCOUNTS: u64 = 1 << 0;

const AUTOCLEAR_BITMAPS: u64 = 1 << 0;
const AUTOCLEAR_RAW_DATA_FILE: u64 = 1 << 1;

const EXTENSION_END: u32 = 0;
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Deflate without a header. QEMU calls it zlib.
    Deflate,
    /// Zstandard frames.
    Zstd,
}

/// The disk that an overlay lies over, as it is named in the file. Only ever reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// The name; what is not UTF-8 is replaced.
    pub name: String,
    /// The format, if it is told.
    pub format: Option<String>,
}

/// How the disk is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) extended_l2: bool,
    pub(super) compression: Compression,
}

impl Geometry {
    pub(super) const fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    pub(super) const fn l2_entries(&self) -> u64 {
        let entry_bits = if self.extended_l2 { 4 } else { 3 };
        1 << (self.cluster_bits - entry_bits)
    }

    /// Bytes of the disk that an L2 table maps.
    pub(super) const fn l2_reach(&self) -> u64 {
        self.l2_entries() << self.cluster_bits
    }

    pub(super) const fn is_aligned(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster_bytes())
    }
}

/// A table of eight-byte entries in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) offset: u64,
    pub(super) entries: u64,
}

impl Table {
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.entries * 8
    }
}

/// Where the bitmaps are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BitmapDirectory {
    pub(super) count: u32,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A header that was checked: its tables stand in the file, at clusters, apart from each other.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) geometry: Geometry,
    pub(super) virtual_size: u64,
    pub(super) l1: Table,
    pub(super) snapshot_count: u32,
    pub(super) snapshots_offset: u64,
    pub(super) backing: Option<Backing>,
    pub(super) refcount_bits: u32,
    pub(super) dirty: bool,
    pub(super) lazy_refcounts: bool,
    /// Only if it is marked as up to date.
    pub(super) bitmaps: Option<BitmapDirectory>,
    /// Where nothing of the disk can stand.
    pub(super) metadata: Vec<(Range<u64>, &'static str)>,
}

impl Header {
    pub(super) fn read(file: &File<'_>) -> Result<Self, Qcow2Error> {
        let fixed = file.read_up_to(0, V3_BYTES as u64 + 1)?;
        let fixed: &[u8] = &fixed;
        if fixed.get(..4) != Some(&MAGIC) {
            return Err(Qcow2Error::Magic);
        }
        let version = u32_at(fixed, 4);
        let header_bytes = match version {
            2 => V2_BYTES as u64,
            3 => {
                file.check("the header", 0, V3_BYTES as u64)?;
                u64::from(u32_at(fixed, 100))
            }
            found => return Err(Qcow2Error::Version { found }),
        };
        let cluster_bits = u32_at(fixed, 20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(field("cluster_bits", cluster_bits, "9 to 21"));
        }
        let cluster_bytes = 1 << cluster_bits;
        let length_max = if version == 2 {
            V2_BYTES as u64
        } else {
            cluster_bytes
        };
        if header_bytes < V2_BYTES as u64
            || header_bytes > length_max
            || header_bytes % 8 != 0
            || (version == 3 && header_bytes < V3_BYTES as u64)
        {
            let expected = "a multiple of 8 from 104 to the cluster size";
            return Err(field("header_length", header_bytes, expected));
        }
        file.check("the header", 0, header_bytes)?;
        let head = file.read_up_to(0, cluster_bytes)?;
        let head: &[u8] = &head;
        RawHeader {
            head,
            version,
            header_bytes,
            cluster_bits,
        }
        .check(file)
    }
}

fn field(what: &'static str, found: impl Into<u64>, expected: &'static str) -> Qcow2Error {
    let found = found.into();
    Qcow2Error::Field {
        what,
        found,
        expected,
    }
}

/// The first cluster, as far as the file has it, with the few fields that tell how to read the rest.
struct RawHeader<'a> {
    head: &'a [u8],
    version: u32,
    header_bytes: u64,
    cluster_bits: u32,
}

impl RawHeader<'_> {
    fn check(&self, file: &File<'_>) -> Result<Header, Qcow2Error> {
        let features = |at| {
            if self.version == 2 {
                0
            } else {
                u64_at(self.head, at)
            }
        };
        let (incompatible, compatible, autoclear) = (features(72), features(80), features(88));
        let extensions = self.extensions()?;
        self.refuse_what_is_elsewhere(incompatible, autoclear, &extensions)?;
        let geometry = self.geometry(incompatible)?;
        let refcount_order = if self.version == 2 {
            4
        } else {
            u32_at(self.head, 96)
        };
        if refcount_order > REFCOUNT_ORDER_MAX {
            return Err(field("refcount_order", refcount_order, "0 to 6"));
        }
        let mut places = Places::new(file, geometry);
        let virtual_size = u64_at(self.head, 24);
        let l1 = self.l1(&mut places, geometry, virtual_size)?;
        self.check_refcount_table(&mut places)?;
        let bitmaps = match &extensions.bitmaps {
            Some(directory) if autoclear & AUTOCLEAR_BITMAPS != 0 => {
                places.add("the bitmap directory", directory.offset, directory.bytes)?;
                Some(*directory)
            }
            None if autoclear & AUTOCLEAR_BITMAPS != 0 => {
                return Err(field(
                    "autoclear_features",
                    autoclear,
                    "no bitmaps without their extension",
                ));
            }
            _ => None,
        };
        Ok(Header {
            geometry,
            virtual_size,
            l1,
            snapshot_count: u32_at(self.head, 60),
            snapshots_offset: u64_at(self.head, 64),
            backing: self.backing(&extensions)?,
            refcount_bits: 1 << refcount_order,
            dirty: incompatible & DIRTY != 0,
            lazy_refcounts: compatible & LAZY_REFCOUNTS != 0,
            bitmaps,
            metadata: places.taken,
        })
    }

    /// Refuses what cannot be read from this file alone, or not at all.
    fn refuse_what_is_elsewhere(
        &self,
        incompatible: u64,
        autoclear: u64,
        extensions: &Extensions,
    ) -> Result<(), Qcow2Error> {
        let method = match u32_at(self.head, 32) {
            0 => None,
            1 => Some("AES".to_owned()),
            2 => Some("LUKS".to_owned()),
            other => Some(format!("method {other}")),
        };
        if let Some(method) = method {
            return Err(Qcow2Error::Encrypted { method });
        }
        if extensions.encryption {
            let method = "it has an encryption header".to_owned();
            return Err(Qcow2Error::Encrypted { method });
        }
        // Either alone is enough: a program that heeds the other one would read that file.
        if incompatible & DATA_FILE != 0 {
            let how = "incompatible feature bit 2";
            return Err(Qcow2Error::ExternalDataFile { how });
        }
        if extensions.data_file {
            let how = "its header names one";
            return Err(Qcow2Error::ExternalDataFile { how });
        }
        if autoclear & AUTOCLEAR_RAW_DATA_FILE != 0 {
            let how = "autoclear feature bit 1";
            return Err(Qcow2Error::ExternalDataFile { how });
        }
        if incompatible & !KNOWN != 0 {
            let features = extensions.names_of(incompatible & !KNOWN);
            return Err(Qcow2Error::UnknownFeatures { features });
        }
        if incompatible & CORRUPT != 0 {
            return Err(Qcow2Error::MarkedCorrupt);
        }
        Ok(())
    }

    fn geometry(&self, incompatible: u64) -> Result<Geometry, Qcow2Error> {
        let has_type = self.header_bytes > V3_BYTES as u64;
        let kind = match self.head.get(V3_BYTES) {
            Some(kind) if has_type => *kind,
            _ => 0,
        };
        let compression = match (incompatible & COMPRESSION != 0, kind) {
            (false, 0) => Compression::Deflate,
            (true, 1) => Compression::Zstd,
            (true, 0) => {
                return Err(field(
                    "compression_type",
                    0_u8,
                    "one that is not 0, by the feature bits",
                ));
            }
            (_, found) if found > 1 => return Err(Qcow2Error::UnknownCompression { found }),
            (_, found) => return Err(field("compression_type", found, "0, by the feature bits")),
        };
        let extended_l2 = incompatible & EXTENDED_L2 != 0;
        if extended_l2 && self.cluster_bits < CLUSTER_BITS_EXTENDED_MIN {
            return Err(field(
                "cluster_bits",
                self.cluster_bits,
                "14 to 21, as there are subclusters",
            ));
        }
        Ok(Geometry {
            version: self.version,
            cluster_bits: self.cluster_bits,
            extended_l2,
            compression,
        })
    }

    fn l1(
        &self,
        places: &mut Places<'_, '_>,
        geometry: Geometry,
        virtual_size: u64,
    ) -> Result<Table, Qcow2Error> {
        let limit = (L1_BYTES_MAX / 8).saturating_mul(geometry.l2_reach());
        if virtual_size > limit {
            let (what, found) = ("the disk", virtual_size);
            return Err(Qcow2Error::TooLarge { what, found, limit });
        }
        let table = Table {
            offset: u64_at(self.head, 40),
            entries: u64::from(u32_at(self.head, 36)),
        };
        check_l1_size("the L1 table", table, geometry, virtual_size)?;
        places.add("the L1 table", table.offset, table.entries * 8)?;
        Ok(table)
    }

    /// Only its place: which clusters are in use is told by the map, as far as reading is concerned.
    fn check_refcount_table(&self, places: &mut Places<'_, '_>) -> Result<(), Qcow2Error> {
        let clusters = u64::from(u32_at(self.head, 56));
        let bytes = clusters << self.cluster_bits;
        if clusters == 0 {
            return Err(field("refcount_table_clusters", clusters, "1 at least"));
        }
        if bytes > REFCOUNT_TABLE_BYTES_MAX {
            let (what, found, limit) = ("the refcount table", bytes, REFCOUNT_TABLE_BYTES_MAX);
            return Err(Qcow2Error::TooLarge { what, found, limit });
        }
        places.add("the refcount table", u64_at(self.head, 48), bytes)
    }

    /// Returns where the name of the backing file stands, within the first cluster and after the header.
    fn backing_name(&self) -> Result<Option<Range<u64>>, Qcow2Error> {
        let (offset, length) = (u64_at(self.head, 8), u64::from(u32_at(self.head, 16)));
        if offset == 0 {
            return Ok(None);
        }
        if length == 0 || length > BACKING_NAME_BYTES_MAX {
            return Err(field("backing_file_size", length, "1 to 1023"));
        }
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= 1 << self.cluster_bits);
        match end {
            Some(end) if offset >= self.header_bytes => Ok(Some(offset..end)),
            _ => Err(field(
                "backing_file_offset",
                offset,
                "a place after the header, in its cluster",
            )),
        }
    }

    fn backing(&self, extensions: &Extensions) -> Result<Option<Backing>, Qcow2Error> {
        let Some(place) = self.backing_name()? else {
            return match extensions.backing_format {
                None => Ok(None),
                Some(_) => Err(field(
                    "the backing format",
                    1_u8,
                    "none where there is no backing file",
                )),
            };
        };
        let name = slice(self.head, &place).ok_or(Qcow2Error::PastEnd {
            what: "the name of the backing file",
            offset: place.start,
            end: place.end,
            file_bytes: self.head.len() as u64,
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Some(Backing {
            name: text(name),
            format: extensions.backing_format.as_deref().map(text),
        }))
    }

    /// Walks the extensions: from the end of the header to the name of the backing file, or the end of the cluster.
    fn extensions(&self) -> Result<Extensions, Qcow2Error> {
        let backing = self.backing_name()?;
        let end = backing
            .as_ref()
            .map_or(1 << self.cluster_bits, |name| name.start);
        let mut found = Extensions::default();
        let mut at = self.header_bytes;
        while at + 8 <= end {
            let Some(head) = slice(self.head, &(at..at + 8)) else {
                return Err(self.extension_past_end(at, at + 8));
            };
            let (kind, length) = (u32_at(head, 0), u64::from(u32_at(head, 4)));
            if kind == EXTENSION_END {
                return Ok(found);
            }
            let data = at + 8..at + 8 + length;
            if data.end > end {
                return Err(self.extension_past_end(at, data.end));
            }
            let bytes =
                slice(self.head, &data).ok_or_else(|| self.extension_past_end(at, data.end))?;
            found.add(kind, bytes)?;
            at = data.end.next_multiple_of(8);
        }
        // Old programs put the name right behind the header, with no room for an end.
        match backing {
            Some(_) => Ok(found),
            None => Err(field(
                "the list of header extensions",
                at,
                "an end within the first cluster",
            )),
        }
    }

    fn extension_past_end(&self, offset: u64, end: u64) -> Qcow2Error {
        let what = "a header extension";
        let file_bytes = self.head.len() as u64;
        Qcow2Error::PastEnd {
            what,
            offset,
            end,
            file_bytes,
        }
    }
}

/// Refuses an L1 table that is too large, or too small for its disk.
pub(super) fn check_l1_size(
    what: &'static str,
    table: Table,
    geometry: Geometry,
    virtual_size: u64,
) -> Result<(), Qcow2Error> {
    let (found, limit) = (table.entries * 8, L1_BYTES_MAX);
    if found > limit {
        return Err(Qcow2Error::TooLarge { what, found, limit });
    }
    match virtual_size.div_ceil(geometry.l2_reach()) {
        needed if needed > table.entries => Err(Qcow2Error::Field {
            what: "the length of an L1 table",
            found: table.entries,
            expected: "enough entries for the whole disk",
        }),
        _ => Ok(()),
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> Option<&'a [u8]> {
    let (start, end) = (
        usize::try_from(range.start).ok()?,
        usize::try_from(range.end).ok()?,
    );
    bytes.get(start..end)
}

#[derive(Debug, Default)]
struct Extensions {
    seen: Vec<u32>,
    backing_format: Option<Vec<u8>>,
    bitmaps: Option<BitmapDirectory>,
    encryption: bool,
    data_file: bool,
    feature_names: Vec<u8>,
}

impl Extensions {
    fn add(&mut self, kind: u32, bytes: &[u8]) -> Result<(), Qcow2Error> {
        match kind {
            EXTENSION_BACKING_FORMAT => self.backing_format = Some(bytes.to_owned()),
            EXTENSION_FEATURE_NAMES => self.feature_names = bytes.to_owned(),
            EXTENSION_BITMAPS => self.bitmaps = Some(bitmap_directory(bytes)?),
            EXTENSION_ENCRYPTION => self.encryption = true,
            EXTENSION_DATA_FILE => self.data_file = true,
            // The format says that others may be passed over.
            _ => return Ok(()),
        }
        if self.seen.contains(&kind) {
            return Err(field("a header extension", kind, "each kind only once"));
        }
        self.seen.push(kind);
        Ok(())
    }

    /// Names features as the file's own table does, if it has one.
    fn names_of(&self, bits: u64) -> String {
        let names = (0..64_u8).filter(|bit| bits & (1 << bit) != 0).map(|bit| {
            let entry = self
                .feature_names
                .chunks_exact(48)
                .find(|entry| entry.starts_with(&[0, bit]));
            let name = entry.and_then(|entry| entry.get(2..)).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            match String::from_utf8_lossy(name) {
                name if name.is_empty() => format!("incompatible feature bit {bit}"),
                name => format!("incompatible feature bit {bit} ({name:?})"),
            }
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

fn bitmap_directory(bytes: &[u8]) -> Result<BitmapDirectory, Qcow2Error> {
    if bytes.len() != 24 {
        return Err(field(
            "the bitmaps extension's length",
            bytes.len() as u64,
            "24",
        ));
    }
    if u32_at(bytes, 4) != 0 {
        return Err(field(
            "a reserved field of the bitmaps extension",
            u32_at(bytes, 4),
            "0",
        ));
    }
    Ok(BitmapDirectory {
        count: u32_at(bytes, 0),
        bytes: u64_at(bytes, 8),
        offset: u64_at(bytes, 16),
    })
}

/// What stands where in the file: nothing may stand over anything else.
struct Places<'a, 'f> {
    file: &'a File<'f>,
    geometry: Geometry,
    taken: Vec<(Range<u64>, &'static str)>,
}

impl<'a, 'f> Places<'a, 'f> {
    fn new(file: &'a File<'f>, geometry: Geometry) -> Self {
        let taken = vec![(0..geometry.cluster_bytes(), "the header")];
        Self {
            file,
            geometry,
            taken,
        }
    }

    /// Adds a table. One without bytes stands nowhere.
    fn add(&mut self, what: &'static str, offset: u64, bytes: u64) -> Result<(), Qcow2Error> {
        if bytes == 0 {
            return Ok(());
        }
        if !self.geometry.is_aligned(offset) {
            return Err(Qcow2Error::Unaligned { what, offset });
        }
        let range = self.file.check(what, offset, bytes)?;
        check_apart(&self.taken, what, &range)?;
        self.taken.push((range, what));
        Ok(())
    }
}

/// Refuses what lies over something else.
pub(super) fn check_apart(
    taken: &[(Range<u64>, &'static str)],
    what: &'static str,
    range: &Range<u64>,
) -> Result<(), Qcow2Error> {
    let other = taken
        .iter()
        .find(|(other, _)| other.start < range.end && range.start < other.end);
    match other {
        Some((_, other)) => Err(Qcow2Error::Overlap {
            what,
            offset: range.start,
            other,
        }),
        None => Ok(()),
    }
}
