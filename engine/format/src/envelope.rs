//! The head that every file of a store begins with: magic, version, feature masks, body, checksum (SPEC 2.3).
//!
//! The body is a small record in bincode 2 with one fixed configuration. bincode is a detail of this file: SPEC.md
//! gives the bytes, and golden vectors would catch any drift.

use crate::{Corruption, Structure};
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

/// The format version written here, and the newest that is read.
pub const VERSION: u16 = 1;

/// Bytes of the magic, after which the version stands.
const MAGIC_BYTES: usize = 8;

/// Bytes of an envelope before its body.
pub const ENVELOPE_BYTES: usize = 32;

/// The largest body. Bounds what a hostile length can make us allocate.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<BODY_BYTES_MAX>> =
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<BODY_BYTES_MAX>();

/// The feature masks of a structure that are looked at (SPEC 2.3). The mask to clear needs no look: no bit of it is
/// assigned in version 1, and nothing of ours is changed in place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Features {
    /// A reader that does not know one of these bits refuses the structure.
    pub(crate) refuse: u32,
    /// A reader need not know any of these bits.
    pub(crate) ignore: u32,
}

/// A magic and the structure it stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) what: Structure,
    pub(crate) magic: [u8; 8],
}

/// Returns the bytes of an envelope and its body.
///
/// # Panics
/// If the body is larger than a decoder takes. Lists that could be are limited by whoever fills them.
pub(crate) fn encode(kind: Kind, body: &impl bincode::Encode) -> Vec<u8> {
    encode_with_features(kind, Features::default(), body)
}

/// As [`encode`], with the bits of features that the structure has.
///
/// # Panics
/// As for [`encode`].
pub(crate) fn encode_with_features(
    kind: Kind,
    features: Features,
    body: &impl bincode::Encode,
) -> Vec<u8> {
    let body =
        bincode::encode_to_vec(body, CONFIG).expect("because every type of a body can be encoded");
    // The limit of the configuration binds the decoder alone.
    assert!(
        body.len() <= BODY_BYTES_MAX,
        "a {} of {} bytes could not be read again",
        kind.what,
        body.len()
    );
    let length = u32::try_from(body.len()).expect("because the limit is below 4 GiB");
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES + body.len());
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&features.refuse.to_le_bytes());
    bytes.extend_from_slice(&features.ignore.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, &body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads an envelope at the start of `bytes`; returns its body and how many bytes both took.
///
/// # Errors
/// In this order: truncation, magic, version, checksum, features, then whatever the body parser finds.
pub(crate) fn decode<T: bincode::Decode<()>>(
    kind: Kind,
    bytes: &[u8],
) -> Result<(T, usize), Corruption> {
    decode_with_features(kind, 0, bytes).map(|(value, used, _)| (value, used))
}

/// As [`decode`], where the bits in `known` of the refuse mask have a meaning; returns the masks as well.
pub(crate) fn decode_with_features<T: bincode::Decode<()>>(
    kind: Kind,
    known: u32,
    bytes: &[u8],
) -> Result<(T, usize, Features), Corruption> {
    let what = kind.what;
    let length = envelope_length(bytes).map_err(|have| truncated(what, ENVELOPE_BYTES, have))?;
    let fields = Fields::read(bytes).ok_or(truncated(what, ENVELOPE_BYTES, bytes.len()))?;
    if fields.magic != kind.magic {
        return Err(Corruption::BadMagic {
            what,
            found: fields.magic,
        });
    }
    if fields.version != VERSION {
        return Err(other_version(
            what,
            &fields,
            bytes.get(ENVELOPE_BYTES..length),
        ));
    }
    if fields.body_length > BODY_BYTES_MAX {
        let found = fields.body_length as u64;
        return Err(Corruption::Field {
            what,
            field: "body_length",
            found,
            expected: "at most 16 MiB",
        });
    }
    let body = bytes
        .get(ENVELOPE_BYTES..length)
        .ok_or(truncated(what, length, bytes.len()))?;
    let computed = checksum(fields.guarded, body);
    if computed != fields.checksum {
        return Err(Corruption::Checksum {
            what,
            stored: fields.checksum,
            computed,
        });
    }
    if fields.reserved != 0 {
        let found = u64::from(fields.reserved);
        return Err(Corruption::Field {
            what,
            field: "reserved",
            found,
            expected: "0",
        });
    }
    let unknown = fields.features.refuse & !known;
    if unknown != 0 {
        return Err(Corruption::UnsupportedFeatures {
            what,
            bits: unknown,
        });
    }
    let (value, used) =
        bincode::decode_from_slice(body, CONFIG).map_err(|error| Corruption::Body {
            what,
            reason: error.to_string(),
        })?;
    if used != body.len() {
        let reason = format!("{} bytes follow the last field", body.len() - used);
        return Err(Corruption::Body { what, reason });
    }
    Ok((value, length, fields.features))
}

/// Judges an envelope that does not say the version known here. Only a newer one may be what it says, and not if its checksum
/// shows that it was one of this version before a bit of its version was changed.
fn other_version(what: Structure, fields: &Fields<'_>, body: Option<&[u8]>) -> Corruption {
    let found = fields.version;
    if found == 0 {
        return Corruption::Field {
            what,
            field: "version",
            found: 0,
            expected: "1 or more",
        };
    }
    let mut meant = fields.guarded.to_vec();
    if let Some(version) = meant.get_mut(MAGIC_BYTES..MAGIC_BYTES + 2) {
        version.copy_from_slice(&VERSION.to_le_bytes());
    }
    match body {
        Some(body) if checksum(&meant, body) == fields.checksum => Corruption::Checksum {
            what,
            stored: fields.checksum,
            computed: checksum(fields.guarded, body),
        },
        _ => Corruption::UnsupportedVersion {
            what,
            found,
            newest: VERSION,
        },
    }
}

/// Reads an envelope that fills `bytes` exactly.
pub(crate) fn decode_whole<T: bincode::Decode<()>>(
    kind: Kind,
    bytes: &[u8],
) -> Result<T, Corruption> {
    decode_whole_with_features(kind, 0, bytes).map(|(value, _)| value)
}

/// As [`decode_whole`], where the bits in `known` of the refuse mask have a meaning; returns the masks as well.
pub(crate) fn decode_whole_with_features<T: bincode::Decode<()>>(
    kind: Kind,
    known: u32,
    bytes: &[u8],
) -> Result<(T, Features), Corruption> {
    let (value, used, features) = decode_with_features(kind, known, bytes)?;
    match bytes.len() - used {
        0 => Ok((value, features)),
        extra => Err(Corruption::Body {
            what: kind.what,
            reason: format!("{extra} bytes follow the structure"),
        }),
    }
}

/// Returns how many bytes the envelope at the start of `bytes` and its body claim, unchecked, so that a reader knows
/// how much to read. Fails with the number of bytes there are if they are too few to tell.
///
/// # Errors
/// The number of bytes there are, if fewer than [`ENVELOPE_BYTES`].
pub fn envelope_length(bytes: &[u8]) -> Result<usize, usize> {
    let fields = Fields::read(bytes).ok_or(bytes.len())?;
    Ok(ENVELOPE_BYTES + fields.body_length)
}

struct Fields<'a> {
    magic: [u8; 8],
    version: u16,
    reserved: u16,
    features: Features,
    body_length: usize,
    checksum: u32,
    guarded: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (guarded, after) = bytes.split_at_checked(ENVELOPE_BYTES - 4)?;
        let (magic, rest) = guarded.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (reserved, rest) = rest.split_first_chunk()?;
        let (refuse, rest) = rest.split_first_chunk()?;
        let (ignore, rest) = rest.split_first_chunk()?;
        let (_clear, rest) = rest.split_first_chunk::<4>()?;
        let features = Features {
            refuse: u32::from_le_bytes(*refuse),
            ignore: u32::from_le_bytes(*ignore),
        };
        Some(Self {
            magic: *magic,
            version: u16::from_le_bytes(*version),
            reserved: u16::from_le_bytes(*reserved),
            features,
            body_length: usize::try_from(u32::from_le_bytes(*rest.first_chunk()?)).ok()?,
            checksum: u32::from_le_bytes(*after.first_chunk()?),
            guarded,
        })
    }
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn truncated(what: Structure, need: usize, have: usize) -> Corruption {
    Corruption::Truncated {
        what,
        need: need as u64,
        have: have as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        what: Structure::StoreConfig,
        magic: *b"TESTTEST",
    };

    #[test]
    fn every_flipped_bit_is_an_error() {
        let good = encode(KIND, &(7u32, 9u64));
        assert_eq!(decode_whole::<(u32, u64)>(KIND, &good), Ok((7, 9)));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_whole::<(u32, u64)>(KIND, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_and_extension_is_an_error() {
        let good = encode(KIND, &(7u32, 9u64));
        for length in 0..good.len() {
            let error = decode_whole::<(u32, u64)>(KIND, &good[..length]).unwrap_err();
            assert!(
                matches!(error, Corruption::Truncated { .. }),
                "{length}: {error}"
            );
        }
        let error = decode_whole::<(u32, u64)>(KIND, &[good, vec![0]].concat()).unwrap_err();
        assert!(matches!(error, Corruption::Body { .. }), "{error}");
    }

    #[test]
    fn a_newer_version_is_refused_by_name_before_anything_else_is_believed() {
        let mut newer = encode(KIND, &7u32);
        newer[8] = 2;
        let crc = checksum(&newer[..28], &newer[32..]).to_le_bytes();
        newer[28..32].copy_from_slice(&crc);
        // It may choose another checksum, and what it has where the length of a body stands may be anything.
        let mut otherwise_checked = newer.clone();
        otherwise_checked[28] ^= 1;
        let mut otherwise_laid_out = newer.clone();
        otherwise_laid_out[24..28].fill(0xff);
        for newer in [newer, otherwise_checked, otherwise_laid_out] {
            let error = decode_whole::<u32>(KIND, &newer).unwrap_err();
            assert_eq!(
                error,
                Corruption::UnsupportedVersion {
                    what: KIND.what,
                    found: 2,
                    newest: 1
                }
            );
            assert!(error.needs_newer_program());
        }
    }

    #[test]
    fn a_damaged_version_is_not_taken_for_a_newer_one() {
        let good = encode(KIND, &7u32);
        for bit in 0..16 {
            let mut bad = good.clone();
            bad[8 + bit / 8] ^= 1 << (bit % 8);
            let error = decode_whole::<u32>(KIND, &bad).unwrap_err();
            assert!(!error.needs_newer_program(), "bit {bit}: {error}");
        }
        let mut zeroed = good.clone();
        zeroed[8..].fill(0);
        let error = decode_whole::<u32>(KIND, &zeroed).unwrap_err();
        assert!(
            matches!(
                error,
                Corruption::Field {
                    field: "version",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_refuse_bit_is_refused_and_an_ignore_bit_is_not() {
        let resealed = |offset: usize| {
            let mut bytes = encode(KIND, &7u32);
            bytes[offset] |= 4;
            let crc = checksum(&bytes[..28], &bytes[32..]).to_le_bytes();
            bytes[28..32].copy_from_slice(&crc);
            decode_whole::<u32>(KIND, &bytes)
        };
        assert_eq!(
            resealed(12),
            Err(Corruption::UnsupportedFeatures {
                what: KIND.what,
                bits: 4
            })
        );
        assert_eq!(resealed(16), Ok(7));
        assert_eq!(resealed(20), Ok(7));
    }
}
