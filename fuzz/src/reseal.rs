//! Checksums and hashes made to fit bytes that were changed: what somebody who wants to be believed would do.
//!
//! The offsets are those of SPEC.md. They are written down a second time here on purpose, and the seeds hold them
//! against the encoders: a valid structure resealed must be the same bytes.

/// Bytes of an envelope (SPEC 2.3).
const ENVELOPE: usize = 32;

/// Returns an envelope whose length and checksum fit, taking all bytes behind its head for the body.
pub fn whole_envelope(bytes: &[u8]) -> Vec<u8> {
    envelope(bytes, bytes.len().saturating_sub(ENVELOPE))
}

/// Returns an envelope whose length and checksum fit a body of that many bytes; what follows stays.
pub fn envelope(bytes: &[u8], body_bytes: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(length) = u32::try_from(body_bytes).ok() else {
        return bytes;
    };
    put(&mut bytes, 24, &length.to_le_bytes());
    let body = bytes.get(ENVELOPE..ENVELOPE + body_bytes);
    if let (Some(head), Some(body)) = (bytes.get(..28), body) {
        let checksum = crc(&[head, body]);
        put(&mut bytes, 28, &checksum.to_le_bytes());
    }
    bytes
}

/// Returns a chunk record whose checksum fits (SPEC 4.2).
pub fn record(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let (Some(head), Some(payload)) = (bytes.get(..48), bytes.get(52..)) {
        let checksum = crc(&[head, payload]);
        put(&mut bytes, 48, &checksum.to_le_bytes());
    }
    bytes
}

/// Returns a segment whose head and trailer fit (SPEC 4.1, 4.4). Its records are left as they are.
pub fn segment(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = envelope(bytes, 41);
    let Some(trailer) = bytes.len().checked_sub(64) else {
        return bytes;
    };
    let toc_offset = number(&bytes, trailer + 8);
    if let Some(toc) = bytes.get(toc_offset..trailer) {
        let hash = *blake3::hash(toc).as_bytes();
        put(&mut bytes, trailer + 16, &hash);
    }
    let checksum = crc(&[bytes.get(trailer..trailer + 60).unwrap_or_default()]);
    put(&mut bytes, trailer + 60, &checksum.to_le_bytes());
    bytes
}

/// Returns an index run whose checksums fit the parts its head describes (SPEC 5.1).
pub fn run(bytes: &[u8]) -> Vec<u8> {
    const BODY: usize = 28;
    let mut bytes = bytes.to_vec();
    let start = ENVELOPE + BODY;
    let filter = start.saturating_add(number(&bytes, ENVELOPE + 8));
    let rows = filter.saturating_add(number(&bytes, ENVELOPE + 16).saturating_mul(32));
    for (part, at) in [
        (start..filter, 12),
        (filter..rows, 20),
        (rows..bytes.len(), 24),
    ] {
        if let Some(part) = bytes.get(part) {
            let checksum = crc(&[part]);
            put(&mut bytes, ENVELOPE + at, &checksum.to_le_bytes());
        }
    }
    envelope(&bytes, BODY)
}

/// Returns a sketch run whose checksums fit (SPEC 5.5).
pub fn sketch_run(bytes: &[u8]) -> Vec<u8> {
    const BODY: usize = 12;
    let mut bytes = bytes.to_vec();
    if let Some(rows) = bytes.get(ENVELOPE + BODY..) {
        let checksum = crc(&[rows]);
        put(&mut bytes, ENVELOPE + 8, &checksum.to_le_bytes());
    }
    envelope(&bytes, BODY)
}

/// Returns a layer whose hashes and checksums fit the parts its head describes (SPEC 6.1).
pub fn layer(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // Behind ingest, block size and virtual size stands whether there is a parent.
    let parent = ENVELOPE + 25;
    let has_parent = bytes.get(parent).is_some_and(|tag| *tag == 1);
    let depth = parent + if has_parent { 33 } else { 1 };
    let (data_blocks, data_length, zero_length) = (depth + 4, depth + 20, depth + 60);
    let (pages_hash, ids_hash) = (depth + 100, depth + 132);
    let start = depth + 164;
    let ids_bytes = number(&bytes, data_blocks).saturating_mul(32);
    let zero = start.saturating_add(number(&bytes, data_length));
    let pages = zero.saturating_add(number(&bytes, zero_length));
    let ids = pages.saturating_add(ids_bytes.div_ceil(1 << 16).saturating_mul(4));
    let sums: Vec<_> = bytes
        .get(ids..)
        .unwrap_or_default()
        .chunks(1 << 16)
        .map(|page| crc(&[page]).to_le_bytes())
        .collect();
    for (page, sum) in sums.iter().enumerate().take(ids.saturating_sub(pages) / 4) {
        put(&mut bytes, pages + page * 4, sum);
    }
    let parts = [
        (start..zero, data_length + 8),
        (zero..pages, zero_length + 8),
        (pages..ids, pages_hash),
        (ids..bytes.len(), ids_hash),
    ];
    for (part, at) in parts {
        if let Some(part) = bytes.get(part) {
            let hash = *blake3::hash(part).as_bytes();
            put(&mut bytes, at, &hash);
        }
    }
    envelope(&bytes, start - ENVELOPE)
}

/// Returns a delta stream whose hashes and checksums fit the parts its head describes (SPEC 15).
pub fn delta(bytes: &[u8]) -> Vec<u8> {
    const TRAILER: usize = 60;
    let mut bytes = bytes.to_vec();
    let base = ENVELOPE + 1;
    let has_base = bytes.get(base).is_some_and(|tag| *tag == 1);
    let target = base + if has_base { 41 } else { 1 };
    let (data_blocks, data_length, zero_length) = (target + 40, target + 56, target + 96);
    let start = target + 168;
    let zero = start.saturating_add(number(&bytes, data_length));
    let ids = zero.saturating_add(number(&bytes, zero_length));
    let end = ids.saturating_add(number(&bytes, data_blocks).saturating_mul(32));
    for (part, at) in [
        (start..zero, data_length + 8),
        (zero..ids, zero_length + 8),
        (ids..end, target + 136),
    ] {
        if let Some(part) = bytes.get(part) {
            let hash = *blake3::hash(part).as_bytes();
            put(&mut bytes, at, &hash);
        }
    }
    let mut bytes = envelope(&bytes, start - ENVELOPE);
    if let Some(trailer) = bytes.len().checked_sub(TRAILER) {
        let hash = *blake3::hash(bytes.get(..trailer + 24).unwrap_or_default()).as_bytes();
        put(&mut bytes, trailer + 24, &hash);
        let checksum = crc(&[bytes.get(trailer..trailer + 56).unwrap_or_default()]);
        put(&mut bytes, trailer + 56, &checksum.to_le_bytes());
    }
    bytes
}

/// Returns the journal of an apply in place (SPEC 15.7) of this delta to this disk, whose checksums and hash fit.
pub fn journal(bytes: &[u8], delta: &[u8], disk: (u64, u64)) -> Vec<u8> {
    const BODY: usize = 65;
    const SEAL: usize = 44;
    let mut bytes = bytes.to_vec();
    // The hash in the delta's trailer stands before its checksum.
    if let Some(hash) = delta.len().checked_sub(36) {
        put(&mut bytes, ENVELOPE, &delta[hash..hash + 32]);
    }
    put(&mut bytes, ENVELOPE + 32, &disk.0.to_le_bytes());
    put(&mut bytes, ENVELOPE + 40, &disk.1.to_le_bytes());
    let log2 = bytes.get(ENVELOPE + 48).copied().unwrap_or_default();
    let rows = number(&bytes, ENVELOPE + 49).saturating_mul(40);
    let saved = number(&bytes, ENVELOPE + 57).saturating_mul(1 << (log2 % 32));
    let mut bytes = envelope(&bytes, BODY);
    let seal = (ENVELOPE + BODY).saturating_add(rows).saturating_add(saved);
    if let Some(before) = bytes.get(..seal) {
        let hash = *blake3::hash(before).as_bytes();
        put(&mut bytes, seal + 8, &hash);
    }
    let mut guarded = Vec::new();
    guarded.push(seal..seal.saturating_add(SEAL - 4));
    let marks = seal.saturating_add(SEAL);
    guarded.extend((marks..bytes.len()).step_by(16).map(|mark| mark..mark + 12));
    for range in guarded {
        if let Some(part) = bytes.get(range.clone()) {
            let checksum = crc(&[part]);
            put(&mut bytes, range.end, &checksum.to_le_bytes());
        }
    }
    bytes
}

/// Reads a little-endian number of 32 bits, the low ones of a longer one.
fn number(bytes: &[u8], at: usize) -> usize {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field) as usize)
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(field.len())) {
        place.copy_from_slice(field);
    }
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}
