//! Delta streams: what turns one image into another, as one file (SPEC 15).
//!
//! A stream holds which blocks differ, which are zeroed, the chunk of each that differs, and the records of those chunks
//! that the base image does not have. [`create`] makes one of two images of a store, [`apply`] makes an image of it in
//! a store that has the base.
//!
//! What holds everywhere: a stream names its base and its target by digest; nothing is written before the base is known
//! to be the right one, and nothing counts before the target is.

pub(crate) mod apply;
mod carried;
mod confined;
pub(crate) mod create;
mod error;
mod merge;
mod plan;
mod raw;
pub(crate) mod rbd;
mod serve;
mod show;
mod sink;
mod sorted;
mod stream;
mod walk;

pub use apply::{DeltaApplied, DeltaBase, DeltaRequest, DeltaSource};
pub use create::{DeltaDestination, DeltaReport};
pub use error::DeltaError;
pub use merge::merge_deltas;
pub use plan::Recompress;
pub(crate) use plan::count_beside;
pub use raw::{RawDeltaApplied, RawDeltaRequest, apply_delta_to_disk};
pub use rbd::{RbdNames, RbdRequest, RbdVersion, apply_rbd_to_disk};
pub use serve::{DeltaStream, StreamTag};
pub use show::{DeltaSummary, show_delta};
