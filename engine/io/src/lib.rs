//! The storage seam: everything that is not pure comes through here.
//!
//! This crate has the only syscalls and the only `unsafe` of the engine. A [`Storage`] keeps the files of a store; there
//! are four: blocking files, io_uring, memory, and a simulated disk that loses what was not synced. One conformance
//! suite ([`conformance`]) holds for all of them. Time and randomness are values too: [`Clock`], [`Random`].
//!
//! What it does *not* know: chunks, images, formats. Bytes and names only.

mod buffer;
mod clock;
pub mod conformance;
mod directory;
mod disk_file;
mod files;
mod log_file;
mod medium;
mod memory;
mod open;
mod pending;
mod random;
mod scratch;
pub mod sim;
mod source;
mod storage;
pub mod sync;
mod target;
mod tree;
#[cfg(feature = "io-uring")]
pub mod uring;

pub use buffer::Buffer;
pub use clock::{Clock, SystemClock};
pub use disk_file::FileKind;
pub use files::FileStorage;
pub use log_file::LogFile;
pub use medium::is_bad_medium;
pub use memory::MemoryStorage;
pub use open::{BackendPreference, open_storage};
pub use pending::{Pending, Promise};
pub use random::{OsRandom, Random, SeededRandom};
pub use scratch::Scratch;
pub use sim::SimDisk;
pub use source::{RawSource, SourceError, Stamp};
pub use storage::{
    Backend, Entry, Existing, Lock, LockMode, Mapped, NewFile, Storage, StorePath, StoredFile,
};
pub use target::{TargetError, TargetFile};
#[cfg(feature = "io-uring")]
pub use uring::UringStorage;
