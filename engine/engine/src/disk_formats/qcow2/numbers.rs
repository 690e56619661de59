//! Numbers as qcow2 has them: big-endian.

#![expect(clippy::big_endian_bytes, reason = "qcow2 is big-endian")]

/// Reads the two bytes at `at`; 0 where the bytes end before.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |number| u16::from_be_bytes(*number))
}

/// Reads the four bytes at `at`; 0 where the bytes end before.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |number| u32::from_be_bytes(*number))
}

/// Reads the eight bytes at `at`; 0 where the bytes end before.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk);
    number.map_or(0, |number| u64::from_be_bytes(*number))
}

/// Reads a table of eight-byte entries.
pub(super) fn u64s(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (entries, _) = bytes.as_chunks::<8>();
    entries.iter().map(|entry| u64::from_be_bytes(*entry))
}

/// Writes four bytes at `at`, which must be there.
pub(super) fn set_u32(bytes: &mut [u8], at: usize, value: u32) {
    let place = bytes.get_mut(at..at + 4);
    place
        .expect("because the place was made")
        .copy_from_slice(&value.to_be_bytes());
}

/// Writes eight bytes at `at`, which must be there.
pub(super) fn set_u64(bytes: &mut [u8], at: usize, value: u64) {
    let place = bytes.get_mut(at..at + 8);
    place
        .expect("because the place was made")
        .copy_from_slice(&value.to_be_bytes());
}

/// Appends a table of eight-byte entries.
pub(super) fn push_u64s(bytes: &mut Vec<u8>, entries: impl IntoIterator<Item = u64>) {
    for entry in entries {
        bytes.extend_from_slice(&entry.to_be_bytes());
    }
}

/// Appends a table of two-byte entries.
pub(super) fn push_u16s(bytes: &mut Vec<u8>, entries: impl IntoIterator<Item = u16>) {
    for entry in entries {
        bytes.extend_from_slice(&entry.to_be_bytes());
    }
}
