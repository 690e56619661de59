//! The command line as its users and their scripts see it: the real program, real files, real devices.
//!
//! Some tests mount small file systems and attach loop devices. They need root, e2fsprogs and util-linux; others need
//! qemu-utils and strace. They fail with a sentence that says so rather than be left out.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests make and change files of their own, and may fail where they stand"
)]

mod damage;
mod deltas;
mod deltas_in_place;
mod demo;
mod destinations;
mod documents;
mod formats;
mod hints;
mod images;
mod interruption;
mod killed;
mod machine;
mod places;
mod pull;
mod pull_abuse;
mod rbd;
mod refusals;
mod screen;
mod service;
mod sources;
mod strangers;
mod support;
