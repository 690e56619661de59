//! qcow2 files, compared with what qemu-img (Debian's qemu-utils) makes and reads.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test makes files of its own and ends at the first surprise"
)]

mod bitmaps;
mod overlays;
mod reading;
mod snapshots;
mod support;
mod writing;
