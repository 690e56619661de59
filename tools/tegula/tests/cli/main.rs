//! The command line as its users and their scripts see it: the real program, real files, real devices.
//!
//! Some tests mount file systems and attach loop devices; they need root, e2fsprogs and util-linux, and say so if
//! something is missing.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests make and change files of their own, and may fail where they stand"
)]

mod commands;
mod support;
