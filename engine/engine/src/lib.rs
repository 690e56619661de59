//! What a user of images does: put them in, get them out, compare them, see what they cost.
//!
//! [`Engine`] is the facade: plain, blocking calls on a store in a directory. Inside, a pipeline reads, hashes and
//! compresses (or reads, decompresses and verifies) on all cores with bounded memory, and one thread writes in order.
//! How chunks, layers and records are kept is [`tegula_store`]'s business; which bytes they are, [`tegula_format`]'s.

mod bases;
mod changed;
mod delta;
mod diff;
pub mod disk_formats;
mod engine;
mod error;
mod extents;
mod get;
mod get_qcow2;
mod hint;
mod image;
mod put;
mod runs;
mod source;
mod stream;
mod task;
mod thin;
mod usage;
mod walk;
mod workers;

pub use changed::ChangedBlocks;
pub use delta::{
    DeltaApplied, DeltaBase, DeltaDestination, DeltaError, DeltaReport, DeltaRequest, DeltaSource,
    DeltaStream, DeltaSummary, RawDeltaApplied, RawDeltaRequest, RbdNames, RbdRequest, RbdVersion,
    Recompress, StreamTag, apply_delta_to_disk, apply_rbd_to_disk, merge_deltas, show_delta,
};
pub use diff::{Diff, Extent, ExtentKind};
pub use engine::{Engine, PutFile, PutFileReport};
pub use error::EngineError;
pub use extents::{ExtentPage, ExtentWindow};
pub use get::{Destination, GetReport};
pub use hint::{
    ChangeHint, Changed, ChangedFrom, HINT_BYTES_MAX, HINT_ENTRIES_MAX, HintChecks, HintError,
    HintFormat, HintReport,
};
pub use image::OpenImage;
pub use put::{PutReport, PutRequest};
pub use runs::Runs;
pub use source::{BlockSource, Content, RawDisk, Source, SourceExtent};
pub use stream::{ImageReader, StreamPiece, StreamReport};
pub use task::Task;
pub use usage::{ImageInfo, ImageUsage, Statistics, Usage};
pub use workers::Workers;

pub use tegula_format::{
    BlockSize, DeltaEnd, ImageDigest, ImageName, ImageRecord, NameError, ZSTD_LEVEL_MAX,
    ZSTD_LEVEL_MIN,
};
pub use tegula_io::{
    Backend, BackendPreference, Buffer, Clock, FileKind, SourceError, SystemClock, TargetError,
};
pub use tegula_store::{
    CollectOptions, Collection, ConfigSource, Depth, Environment, Finding, Folded, InitOptions,
    Optimization, OptimizeOptions, RepairReport, STACK_DEPTH_MAX, Store, StoreError, Verification,
};
