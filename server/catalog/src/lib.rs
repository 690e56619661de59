//! The image catalog: one file per use case, and the databases that keep what is known about images.
//!
//! A use case (`service`) loads what it is about, asks [`tegula_domain`] whether it may be, and saves it: it speaks to the
//! database ([`db::Catalog`]) and to the engine directly. All calls block: whoever serves many callers runs them on threads
//! made for it.

pub mod content;
pub mod db;
mod digests;
pub mod rules;
pub mod service;

pub use digests::HashAlgorithm;
