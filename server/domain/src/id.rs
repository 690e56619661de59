//! The id of an image: a UUID, kept as its maker wrote it.

use std::fmt;

/// The id of an image: 32 hexadecimal digits in five groups (RFC 9562 §4), in any case, which is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(String);

/// A text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a UUID: expected hexadecimal digits in groups of 8-4-4-4-12")]
pub struct NotAnImageId(pub String);

impl ImageId {
    /// Reads an id.
    ///
    /// # Errors
    /// [`NotAnImageId`] if the text is not a UUID in five groups.
    pub fn parse(text: &str) -> Result<Self, NotAnImageId> {
        let groups: Vec<&str> = text.split('-').collect();
        let well_formed = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
            && groups
                .iter()
                .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAnImageId(text.to_owned()))
        }
    }

    /// The id of 16 bytes (a random version 4 UUID if they are random: its six fixed bits are set here, RFC 9562 §5.4).
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    /// The id as its maker wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id in lower case: the name of the image's bytes in a store.
    pub fn lower_case(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_in_any_case() {
        for good in [
            "01234567-89ab-cdef-0123-456789abcdef",
            "01234567-89AB-cdef-0123-456789ABCDEF",
        ] {
            assert_eq!(ImageId::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "x",
            "0123456789abcdef0123456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdeg",
            "{01234567-89ab-cdef-0123-456789abcdef}",
            "01234567-89ab-cdef-0123-456789abcdef-",
        ] {
            assert_eq!(ImageId::parse(bad), Err(NotAnImageId(bad.to_owned())));
        }
    }

    #[test]
    fn random_bytes_make_a_version_4_uuid() {
        let id = ImageId::from_random([0xff; 16]);
        assert_eq!(id.as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(ImageId::parse(id.as_str()), Ok(id));
    }
}
