//! Tegula's structures as bytes: everything that stands on disk, and nothing else.
//!
//! Every decoder takes `&[u8]` and returns a typed value or a named [`Corruption`]; every encoder is its inverse. This
//! crate is pure: it knows no file, clock, randomness or runtime. What the bytes mean is written in
//! `format-spec/SPEC.md`; the section numbers in the docs below are that document's.

#![forbid(unsafe_code)]

mod bases;
mod block;
mod block_set;
mod chunk_id;
mod corruption;
mod delta;
mod envelope;
mod gc_state;
mod image_digest;
mod image_name;
mod image_record;
mod journal;
mod layer;
mod place;
mod quarantine;
mod record;
mod run;
mod segment;
mod sketch;
mod sketch_run;
mod store_config;

pub use bases::{BASE_DEPTH_MAX, BASES_MAX, Bases, ChunkRules, DICTIONARY_MAGIC};
pub use block::{BlockIndex, BlockSize, IMAGE_BYTES_MAX};
pub use block_set::{BlockSet, Blocks};
pub use chunk_id::{ChunkId, Hex};
pub use corruption::{Corruption, Structure};
pub use delta::{
    DELTA_TRAILER_BYTES, DELTA_TRAILER_HASHED_BYTES, DELTA_TRAILER_MAGIC, DeltaEnd, DeltaHeader,
    DeltaParts, DeltaTrailer, HashedRecords,
};
pub use envelope::{ENVELOPE_BYTES, VERSION, envelope_length};
pub use gc_state::{CONDEMNED_BYTES_MAX, GcState};
pub use image_digest::{
    DIGEST_GROUP_BLOCKS, DigestGroup, GroupDigester, ImageDigest, ImageDigester,
};
pub use image_name::{ImageName, NAME_BYTES_MAX, NameError};
pub use image_record::{ImageRecord, ParentReference, RecordId};
pub use journal::{
    JOURNAL_MARK_BYTES, JOURNAL_ROW_BYTES, JournalHead, JournalMark, JournalRow, JournalSeal,
};
pub use layer::{
    LAYER_DEPTH_MAX, LAYER_PAGE_BYTES, LayerHead, LayerHeader, LayerId, LayerIds, LayerParts,
    LayerSections, LayerSummary,
};
pub use place::{Place, SegmentNumber, Slot};
pub use quarantine::{QUARANTINE_PLACES_MAX, QuarantineList};
pub use record::{Codec, RECORD_HEADER_BYTES, RecordHeader, encode_record};
pub use run::{
    FILTER_BLOCK_BYTES, Filter, RUN_ROW_BYTES, RunBuilder, RunHeader, RunRow, RunSections,
    encode_run,
};
pub use segment::{
    BASE_ID_BYTES, IngestId, SEGMENT_DATA_START, SEGMENT_SLOTS_MAX, SEGMENT_TRAILER_BYTES,
    SegmentHeader, SegmentTrailer, TOC_ROW_BYTES, Toc, TocRow,
};
pub use sketch::{FEATURES_MAX, Feature, IdPrefix, Sketch};
pub use sketch_run::{
    SKETCH_ROW_BYTES, SketchRow, SketchRun, SketchRunBuilder, SketchRunHeader, encode_sketch_run,
};
pub use store_config::{StoreConfig, StoreId, ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN};
