//! qcow2 files: a maker of small ones, the hostile ones, and the target that reads any bytes as one.

mod hostile;
mod image;
mod target;

pub use hostile::{Hostile, hostile};
pub use image::{Image, valid};
pub use target::{Bytes, Seen, qcow2, read_everything};
