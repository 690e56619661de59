//! The digests of an image's bytes that the Images API shows: MD5 and one other.
//!
//! Neither protects anything here: the store's own hashes do. They are for clients that compare.

use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use std::fmt::Write;

/// A hash that images can have beside MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    #[default]
    Sha512,
}

impl HashAlgorithm {
    /// Its name, as Python's hashlib has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }
}

/// Hashes pieces one after the other; returns the digest in lower-case hexadecimal.
pub(crate) fn md5_of<T: AsRef<[u8]>>(pieces: impl Iterator<Item = T>) -> String {
    digest_of::<Md5, T>(pieces)
}

/// As [`md5_of`], with another algorithm.
pub(crate) fn hash_of<T: AsRef<[u8]>>(
    algorithm: HashAlgorithm,
    pieces: impl Iterator<Item = T>,
) -> String {
    match algorithm {
        HashAlgorithm::Sha256 => digest_of::<Sha256, T>(pieces),
        HashAlgorithm::Sha512 => digest_of::<Sha512, T>(pieces),
    }
}

fn digest_of<D: Digest, T: AsRef<[u8]>>(pieces: impl Iterator<Item = T>) -> String {
    let mut digest = D::new();
    pieces.for_each(|piece| digest.update(piece));
    let mut text = String::new();
    for byte in digest.finalize().as_slice() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        // RFC 1321 A.5; FIPS 180-4's examples for "abc".
        let pieces = || ["a", "", "bc"].into_iter();
        assert_eq!(md5_of(pieces()), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            hash_of(HashAlgorithm::Sha256, pieces()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let sha512 = hash_of(HashAlgorithm::Sha512, pieces());
        assert!(sha512.starts_with("ddaf35a193617abacc417349ae204131") && sha512.len() == 128);
        assert_eq!(
            md5_of(std::iter::empty::<&str>()),
            "d41d8cd98f00b204e9800998ecf8427e"
        );
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512] {
            assert_eq!(
                HashAlgorithm::from_name(algorithm.as_str()),
                Some(algorithm)
            );
        }
        assert_eq!(HashAlgorithm::from_name("SHA512"), None);
    }
}
