//! Small qcow2 files, made field by field, to be bent.

#![expect(clippy::big_endian_bytes, reason = "qcow2 is big-endian")]

/// Incompatible features.
pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
pub(super) const EXTENDED_L2: u64 = 1 << 4;

/// Flags of an L2 entry.
pub(super) const COPIED: u64 = 1 << 63;
pub(super) const COMPRESSED: u64 = 1 << 62;
pub(super) const ZERO: u64 = 1;

/// Header extensions.
pub(super) const BACKING_FORMAT: u32 = 0xe279_2aca;
pub(super) const BITMAPS: u32 = 0x2385_2875;

/// A qcow2 file in memory, with the places of its parts.
///
/// Clusters: 0 the header, 1 the refcount table, 2 a refcount block, 3 the L1 table, 4 the L2 table, then what is added.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file.
    pub bytes: Vec<u8>,
    /// The cluster size's logarithm.
    pub cluster_bits: u32,
    extension_at: usize,
}

impl Image {
    /// Makes a version 3 file of a disk that one L2 table maps, all of it unallocated.
    pub fn new(cluster_bits: u32) -> Self {
        let mut image = Self {
            bytes: vec![0; 5 << cluster_bits],
            cluster_bits,
            extension_at: 104,
        };
        let cluster = image.cluster_bytes();
        image.bytes[..4].copy_from_slice(b"QFI\xfb");
        image.set_u32(4, 3);
        image.set_u32(20, cluster_bits);
        image.set_u64(24, cluster * (cluster / 8));
        image.set_u32(36, 1);
        image.set_u64(40, 3 * cluster);
        image.set_u64(48, cluster);
        image.set_u32(56, 1);
        image.set_u32(96, 4);
        image.set_u32(100, 104);
        image.set_u64(image.at(1), 2 * cluster);
        image.set_u64(image.at(3), COPIED | (4 * cluster));
        for cluster in 0..5 {
            image.count(cluster);
        }
        image
    }

    /// Returns the cluster size.
    pub fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Returns where a cluster begins.
    pub fn at(&self, cluster: usize) -> usize {
        cluster << self.cluster_bits
    }

    /// Writes two bytes.
    pub fn set_u16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Writes four bytes.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Writes eight bytes.
    pub fn set_u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }

    /// Sets an incompatible feature.
    pub fn need(&mut self, feature: u64) {
        let before = u64::from_be_bytes(*self.bytes[72..].first_chunk().unwrap());
        self.set_u64(72, before | feature);
    }

    /// Counts one use of a cluster.
    fn count(&mut self, cluster: usize) {
        let at = self.at(2) + cluster * 2;
        self.set_u16(at, 1);
    }

    /// Adds a cluster at the end of the file; returns where it begins.
    pub fn add(&mut self, content: &[u8]) -> u64 {
        let start = self.bytes.len().next_multiple_of(self.at(1));
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(content);
        let end = self.bytes.len().next_multiple_of(self.at(1));
        self.bytes.resize(end, 0);
        for cluster in start >> self.cluster_bits..end >> self.cluster_bits {
            self.count(cluster);
        }
        start as u64
    }

    /// Sets an entry of the L2 table.
    pub fn map(&mut self, index: usize, entry: u64) {
        self.set_u64(self.at(4) + index * 8, entry);
    }

    /// Sets an entry of an L2 table with subclusters.
    pub fn map_subclusters(&mut self, index: usize, entry: u64, subclusters: u64) {
        self.map(index * 2, entry);
        self.map(index * 2 + 1, subclusters);
    }

    /// Adds a cluster of data and maps it.
    pub fn add_data(&mut self, index: usize, byte: u8) {
        let content = vec![byte; self.at(1)];
        let host = self.add(&content);
        self.map(index, COPIED | host);
    }

    /// Adds a compressed cluster and maps it.
    pub fn add_compressed(&mut self, index: usize, compressed: &[u8]) {
        let host = self.add(compressed);
        let sectors = (compressed.len() as u64).div_ceil(512) - 1;
        self.map(index, self.compressed_entry(host, sectors));
    }

    /// Returns the entry of a compressed cluster.
    pub fn compressed_entry(&self, host: u64, more_sectors: u64) -> u64 {
        COMPRESSED | more_sectors << (62 - (self.cluster_bits - 8)) | host
    }

    /// Adds a header extension, and an end after it.
    pub fn extend(&mut self, kind: u32, content: &[u8]) {
        let at = self.extension_at;
        self.set_u32(at, kind);
        self.set_u32(at + 4, u32::try_from(content.len()).unwrap());
        self.bytes[at + 8..at + 8 + content.len()].copy_from_slice(content);
        self.extension_at = (at + 8 + content.len()).next_multiple_of(8);
    }

    /// Names a backing file.
    pub fn lie_over(&mut self, name: &str) {
        let at = self.extension_at + 8;
        self.bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        self.set_u64(8, at as u64);
        self.set_u32(16, u32::try_from(name.len()).unwrap());
    }

    /// Adds a snapshot table with one snapshot, which has an L1 table of its own but shares the L2 table.
    pub fn add_snapshot(&mut self, id: &str, name: &str) -> u64 {
        let l2 = COPIED | (4 * self.cluster_bytes());
        let l1 = self.add(&(l2 & !COPIED).to_be_bytes());
        let mut entry = Vec::new();
        entry.extend(l1.to_be_bytes());
        entry.extend(1_u32.to_be_bytes());
        entry.extend(u16::try_from(id.len()).unwrap().to_be_bytes());
        entry.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        entry.extend(1_700_000_000_u32.to_be_bytes());
        entry.extend([0; 16]);
        entry.extend(16_u32.to_be_bytes());
        entry.extend(0_u64.to_be_bytes());
        entry.extend_from_slice(&self.bytes[24..32]);
        entry.extend(id.bytes().chain(name.bytes()));
        entry.resize(entry.len().next_multiple_of(8), 0);
        let table = self.add(&entry);
        self.set_u32(60, 1);
        self.set_u64(64, table);
        table
    }

    /// Adds a bitmap directory with one bitmap that one cluster holds; returns where the directory stands.
    pub fn add_bitmap(&mut self, name: &str, flags: u32, bits: &[u8]) -> u64 {
        let data = self.add(bits);
        let table = self.add(&data.to_be_bytes());
        let mut entry = Vec::new();
        entry.extend(table.to_be_bytes());
        entry.extend(1_u32.to_be_bytes());
        entry.extend(flags.to_be_bytes());
        entry.extend([1, 9]);
        entry.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        entry.extend(0_u32.to_be_bytes());
        entry.extend(name.bytes());
        entry.resize(entry.len().next_multiple_of(8), 0);
        let directory = self.add(&entry);
        let mut extension = Vec::new();
        extension.extend(1_u32.to_be_bytes());
        extension.extend(0_u32.to_be_bytes());
        extension.extend((entry.len() as u64).to_be_bytes());
        extension.extend(directory.to_be_bytes());
        self.extend(BITMAPS, &extension);
        self.set_u64(88, 1);
        directory
    }

    /// Makes compressed clusters be zstd: one more field in the header. To be called before extensions are added.
    pub fn use_zstd(&mut self) {
        self.need(COMPRESSION_TYPE);
        self.set_u32(100, 112);
        self.bytes[104] = 1;
        self.extension_at = 112;
    }
}

/// Bytes as a deflate stream that does not compress them.
pub(super) fn stored(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let mut stream = vec![1];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend_from_slice(content);
    stream
}

/// A zstd frame of one byte again and again; `window` is the byte that asks for a window, if any.
pub(super) fn repeated(byte: u8, count: u32, window: Option<u8>) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd];
    match window {
        Some(window) => frame.extend([0, window]),
        None => {
            frame.push(0xa0);
            frame.extend(count.to_le_bytes());
        }
    }
    let block = 1 | 1 << 1 | count << 3;
    frame.extend(&block.to_le_bytes()[..3]);
    frame.push(byte);
    frame
}

/// One file of every kind that can be read.
pub fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let mut plain = Image::new(9);
    // The order in the file is another.
    plain.add_data(1, 2);
    plain.add_data(0, 1);
    plain.map(2, ZERO);
    let preallocated = plain.add(&[9; 512]);
    plain.map(3, ZERO | COPIED | preallocated);
    plain.add_data(63, 3);

    let mut version_2 = plain.clone();
    version_2.set_u32(4, 2);
    version_2.map(2, 0);
    version_2.map(3, 0);
    version_2.bytes[72..104].fill(0);

    let mut compressed = Image::new(9);
    compressed.add_compressed(0, &stored(&[7; 512]));
    compressed.add_data(1, 2);

    let mut zstd = Image::new(9);
    zstd.use_zstd();
    zstd.add_compressed(5, &repeated(7, 512, None));
    zstd.add_compressed(6, &repeated(8, 512, Some(0)));

    let mut overlay = Image::new(9);
    overlay.extend(BACKING_FORMAT, b"raw");
    overlay.lie_over("/etc/passwd");
    overlay.add_data(4, 5);
    overlay.map(5, ZERO);

    let mut snapshot = plain.clone();
    snapshot.add_snapshot("1", "monday");

    let mut bitmap = plain.clone();
    bitmap.add_bitmap("since", 2, &[0x0f, 0xff, 0, 1]);

    let mut subclusters = Image::new(14);
    subclusters.need(EXTENDED_L2);
    subclusters.set_u64(24, 16_384 * 1024);
    let host = subclusters.add(&[6; 512]);
    subclusters.map_subclusters(0, COPIED | host, 1 | 6 << 32);
    subclusters.map_subclusters(1, 0, 0xff << 32);
    vec![
        ("plain", plain.bytes),
        ("version 2", version_2.bytes),
        ("compressed", compressed.bytes),
        ("zstd", zstd.bytes),
        ("overlay", overlay.bytes),
        ("snapshot", snapshot.bytes),
        ("bitmap", bitmap.bytes),
        ("subclusters", subclusters.bytes),
    ]
}
