//! Seeded mutations: what an ordinary test run tries instead of a fuzzer.

use tegula_io::SeededRandom;

/// The longest input a mutation makes.
const BYTES_MAX: usize = 64 << 10;

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Returns a changed copy of `bytes`; `other` lends it pieces.
pub fn mutated(bytes: &[u8], other: &[u8], random: &SeededRandom) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(random, 5) {
        mutate(&mut bytes, other, random);
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &SeededRandom) {
    let at = below(random, bytes.len() + 1);
    let rest = bytes.len() - at;
    match below(random, 9) {
        0 | 1 => change(bytes, at, |byte| byte ^ 1 << below(random, 8)),
        2 => change(bytes, at, |_| low_byte(random.next_u64())),
        3 => {
            let edge = EDGES.get(below(random, EDGES.len())).copied().unwrap_or(0);
            // A little more or less is where an edge is sharp.
            let number = edge.wrapping_add(random.next_u64() % 3).wrapping_sub(1);
            let width = 1 << below(random, 4);
            let mut field = number.to_le_bytes();
            let field = field.get_mut(..width).unwrap_or_default();
            // The formats of others are big-endian.
            if below(random, 2) == 0 {
                field.reverse();
            }
            overwrite(bytes, at, field);
        }
        4 => bytes.truncate(at),
        5 => {
            let piece = piece(other, random).to_vec();
            bytes.splice(at..at, piece);
        }
        6 => {
            let piece = piece(other, random).to_vec();
            overwrite(bytes, at, &piece);
        }
        7 => {
            let end = at + below(random, rest.min(64) + 1);
            bytes.drain(at..end);
        }
        _ => {
            let end = at + below(random, rest.min(64) + 1);
            let copy = bytes.get(at..end).unwrap_or_default().to_vec();
            let to = below(random, bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
    }
}

fn change(bytes: &mut [u8], at: usize, to: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to(*byte);
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    let place = bytes.get_mut(at..).unwrap_or_default();
    place
        .iter_mut()
        .zip(with)
        .for_each(|(to, from)| *to = *from);
}

/// Returns up to 64 bytes from somewhere.
fn piece<'a>(bytes: &'a [u8], random: &SeededRandom) -> &'a [u8] {
    let start = below(random, bytes.len() + 1);
    let end = start + below(random, (bytes.len() - start).min(64) + 1);
    bytes.get(start..end).unwrap_or_default()
}

fn below(random: &SeededRandom, limit: usize) -> usize {
    usize::try_from(random.next_u64() % limit.max(1) as u64).unwrap_or(0)
}

fn low_byte(number: u64) -> u8 {
    let [byte, ..] = number.to_le_bytes();
    byte
}
