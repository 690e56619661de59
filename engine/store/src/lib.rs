//! The chunk store: chunks in segments, the index that finds them, layers, image records, and their collection.
//!
//! Everything here goes through [`tegula_io::Storage`]; nothing knows a disk format or a user's command. The order in
//! which things become durable is written in `format-spec/SPEC.md` §12, who may do what at the same time in §13.
//!
//! A [`Store`] is opened once. Work happens in a [`Session`], which keeps garbage collection from removing what the
//! session can see; writing new chunks happens in an [`Ingest`] within a session.

mod base_cache;
mod codec;
mod collect;
mod config;
mod difference;
mod environment;
mod error;
mod files;
mod fold;
mod images;
mod index;
mod ingest;
mod layer;
mod mark;
mod open_records;
mod parallel;
mod paths;
mod prefix;
mod recover;
mod repair;
mod resolve;
mod segment;
mod session;
mod similar;
mod sketches;
mod spool;
mod stack;
mod standing;
mod store;
mod verify;

pub use base_cache::BASE_CACHE_BYTES;
pub use codec::{CheckedRecord, ChunkDamage, Encoded, compress, decode_record};
pub use collect::{CollectOptions, Collection, Going, Optimization, OptimizeOptions};
pub use difference::Difference;
pub use environment::Environment;
pub use error::StoreError;
pub use fold::{Folded, STACK_DEPTH_MAX};
pub use index::{Index, RUNS_MAX};
pub use ingest::{Ingest, IngestTotals, NewImage};
pub use layer::{IdTable, Ids, Layer};
pub use mark::{LiveSet, SegmentTables};
pub use prefix::compress_with_bases;
pub use repair::{ConfigSource, RepairReport, Repairs};
pub use segment::{SEGMENT_TARGET_BYTES, SegmentTable};
pub use session::{FileBytes, Session};
pub use similar::{FramePlan, NewChunk};
pub use spool::{Spool, Spooled};
pub use stack::{LayerStack, StackParts};
pub use store::{InitOptions, Store};
pub use verify::{Depth, Finding, Verification};
