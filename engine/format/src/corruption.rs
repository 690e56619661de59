//! What can be wrong with bytes that claim to be ours.

use std::fmt;

/// The kind of structure a decoder was reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// Store configuration (SPEC 3).
    StoreConfig,
    /// Segment header (SPEC 4.1).
    SegmentHeader,
    /// Chunk record (SPEC 4.2).
    Record,
    /// A segment's table of contents (SPEC 4.3).
    Toc,
    /// Segment trailer (SPEC 4.4).
    SegmentTrailer,
    /// Index run (SPEC 5).
    Run,
    /// Sketch run (SPEC 5.5).
    SketchRun,
    /// Layer (SPEC 6).
    Layer,
    /// Image record (SPEC 7).
    ImageRecord,
    /// Garbage-collection state (SPEC 9).
    GcState,
    /// List of quarantined places (SPEC 10).
    Quarantine,
    /// Delta stream (SPEC 15).
    Delta,
    /// The trailer of a delta stream (SPEC 15.5).
    DeltaTrailer,
    /// Journal of a delta that is applied in place (SPEC 15.7).
    Journal,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoreConfig => "store configuration",
            Self::SegmentHeader => "segment header",
            Self::Record => "chunk record",
            Self::Toc => "segment table of contents",
            Self::SegmentTrailer => "segment trailer",
            Self::Run => "index run",
            Self::SketchRun => "sketch run",
            Self::Layer => "layer",
            Self::ImageRecord => "image record",
            Self::GcState => "collection state",
            Self::Quarantine => "quarantine list",
            Self::Delta => "delta stream",
            Self::DeltaTrailer => "delta stream's trailer",
            Self::Journal => "journal",
        })
    }
}

/// Bytes that are not what they claim to be: which structure, what was found, what was expected.
///
/// Whoever read the bytes adds the place (file, offset); this type knows only what the bytes say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// Fewer bytes than the structure needs, or a file that is longer than its head says.
    #[error("{what} is {have} bytes long, not {need}")]
    Truncated {
        /// The structure.
        what: Structure,
        /// Bytes it needs, or says it has.
        need: u64,
        /// Bytes there are.
        have: u64,
    },
    /// The first bytes are another file's, or nobody's.
    #[error("not a {what}: begins with {found:02x?}")]
    BadMagic {
        /// The structure.
        what: Structure,
        /// The bytes found where its magic should stand.
        found: [u8; 8],
    },
    /// Written by a newer tegula. Nothing is damaged: use that version to read it.
    #[error("{what} has format version {found}, this program reads up to {newest}")]
    UnsupportedVersion {
        /// The structure.
        what: Structure,
        /// Its version.
        found: u16,
        /// The newest version known here.
        newest: u16,
    },
    /// Uses features this program must not ignore. Nothing is damaged.
    #[error("{what} uses unknown features {bits:#010x}")]
    UnsupportedFeatures {
        /// The structure.
        what: Structure,
        /// The unknown bits of its refuse mask.
        bits: u32,
    },
    /// The checksum does not fit the bytes.
    #[error("{what} checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// The structure.
        what: Structure,
        /// The checksum that stands in it.
        stored: u32,
        /// The checksum of its bytes.
        computed: u32,
    },
    /// A BLAKE3 hash does not fit the bytes of the part it guards.
    #[error("{what}: {part} does not have the hash its header states")]
    Hash {
        /// The structure.
        what: Structure,
        /// The part that was hashed.
        part: &'static str,
    },
    /// A field has a value that cannot be.
    #[error("{what}: {field} is {found}, expected {expected}")]
    Field {
        /// The structure.
        what: Structure,
        /// The field's name in SPEC.md.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The body does not parse.
    #[error("{what}: body does not parse: {reason}")]
    Body {
        /// The structure.
        what: Structure,
        /// What the parser says.
        reason: String,
    },
}

impl Corruption {
    /// Tells whether the bytes may be whole but need a newer program.
    pub fn needs_newer_program(&self) -> bool {
        matches!(
            self,
            Self::UnsupportedVersion { .. } | Self::UnsupportedFeatures { .. }
        )
    }
}
