//! Hints of what was changed: whatever a file says, it is read in bounded memory, and means the same however it comes in.

use std::io::BufReader;
use tegula_engine::{ChangeHint, HintFormat};
use tegula_format::BlockSize;

/// The length of the disk the hints are for.
const DISK_BYTES: u64 = 1 << 20;

/// Tries a hint in every form.
pub fn hint(bytes: &[u8]) {
    for format in [
        HintFormat::Auto,
        HintFormat::Extents,
        HintFormat::QemuMap,
        HintFormat::ThinDelta,
        HintFormat::Rbd,
    ] {
        let read = |capacity| {
            let mut input = BufReader::with_capacity(capacity, bytes);
            ChangeHint::new(DISK_BYTES, BlockSize::MIN).read(format, &mut input)
        };
        match (read(1 << 16), read(3)) {
            (Ok(whole), Ok(in_pieces)) => {
                assert_eq!(whole, in_pieces);
                assert!(whole.changed_bytes() <= DISK_BYTES);
            }
            (Err(_), Err(_)) => {}
            (whole, in_pieces) => panic!("{format:?}: {whole:?}, in pieces {in_pieces:?}"),
        }
    }
}
