//! Why a file cannot be read as qcow2, by name.

use std::io;

/// What stands between us and the disk in a qcow2 file. Nothing is guessed: what is not certain is refused.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The file itself could not be read.
    #[error("it cannot be read at {offset:#x}")]
    Read {
        /// Where in the file.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// It does not begin as qcow2 does.
    #[error("it does not begin with QFI\\xfb")]
    Magic,
    /// A version that we do not know.
    #[error("it is qcow2 version {found}, only 2 and 3 are known")]
    Version {
        /// The version found.
        found: u32,
    },
    /// Its disk is encrypted.
    #[error("its disk is encrypted ({method})")]
    Encrypted {
        /// How.
        method: String,
    },
    /// It keeps its data in a second file, which is never opened.
    #[error("it keeps its data in another file ({how})")]
    ExternalDataFile {
        /// What says so.
        how: &'static str,
    },
    /// It needs to be understood in a way that we do not know.
    #[error("it uses features that are not known: {features}")]
    UnknownFeatures {
        /// Their names, or numbers of their bits.
        features: String,
    },
    /// Its clusters are compressed in a way that we do not know.
    #[error("its clusters are compressed in a way that is not known (type {found})")]
    UnknownCompression {
        /// The type found.
        found: u8,
    },
    /// QEMU found it damaged and marked it so.
    #[error("it is marked as corrupt")]
    MarkedCorrupt,
    /// A number is not what it can be.
    #[error("{what} is {found}, expected {expected}")]
    Field {
        /// Which number.
        what: &'static str,
        /// What it is.
        found: u64,
        /// What it should be.
        expected: &'static str,
    },
    /// Something is larger than we read.
    #[error("{what} has {found} bytes, more than the {limit} that are read")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit, which is ours.
        limit: u64,
    },
    /// Something does not stand at the beginning of a cluster.
    #[error("{what} stands at {offset:#x}, not at the beginning of a cluster")]
    Unaligned {
        /// What.
        what: &'static str,
        /// Where it stands in the file.
        offset: u64,
    },
    /// Something ends past the file's end: the file was cut short, or never was whole.
    #[error("{what} at {offset:#x} ends at {end:#x}, the file at {file_bytes:#x}")]
    PastEnd {
        /// What.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// The file's length.
        file_bytes: u64,
    },
    /// Two things stand at the same place.
    #[error("{what} at {offset:#x} lies over {other}")]
    Overlap {
        /// What.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// What stands there.
        other: &'static str,
    },
    /// Two parts of the disk, or of its map, stand in the same cluster.
    #[error("cluster {offset:#x} is used twice, the second time for byte {guest} of the disk")]
    UsedTwice {
        /// Where the cluster stands.
        offset: u64,
        /// The disk's offset whose entry names it again.
        guest: u64,
    },
    /// More is mapped to compressed clusters than the file can hold.
    #[error(
        "its compressed clusters would need more bytes than the file has, up to byte {guest} of the disk"
    )]
    OverlappingCompressed {
        /// How far the disk was walked.
        guest: u64,
    },
    /// An entry of a table has bits that mean nothing we know, or that contradict each other.
    #[error("{what} for byte {guest} of the disk is {entry:#018x}: {fault}")]
    Entry {
        /// Which table's.
        what: &'static str,
        /// The disk's offset it is for.
        guest: u64,
        /// The entry.
        entry: u64,
        /// What is wrong.
        fault: &'static str,
    },
    /// A compressed cluster does not decompress to a cluster.
    #[error("the compressed cluster at {offset:#x} for byte {guest} of the disk {fault}")]
    Compressed {
        /// The disk's offset it is for.
        guest: u64,
        /// Where it stands.
        offset: u64,
        /// What is wrong.
        fault: &'static str,
    },
    /// The disk's bytes there are those of the disk below, which is another file.
    #[error("byte {guest} of the disk is that of the backing file, which is never opened")]
    Inherited {
        /// The disk's offset.
        guest: u64,
    },
    /// There is no such snapshot.
    #[error("it has no snapshot {wanted:?}")]
    SnapshotNotFound {
        /// The name or id asked for.
        wanted: String,
    },
    /// More than one snapshot has that name.
    #[error("{count} snapshots are called {wanted:?}")]
    SnapshotAmbiguous {
        /// The name asked for.
        wanted: String,
        /// How many have it.
        count: usize,
    },
    /// There is no such bitmap.
    #[error("it has no bitmap {wanted:?}")]
    BitmapNotFound {
        /// The name asked for.
        wanted: String,
    },
    /// A bitmap says nothing that can be relied on.
    #[error("bitmap {name:?} cannot be relied on: {fault}")]
    BitmapUnusable {
        /// Its name.
        name: String,
        /// Why.
        fault: &'static str,
    },
}

impl From<Qcow2Error> for io::Error {
    fn from(error: Qcow2Error) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
