//! Limits of the static kind: how many properties, tags, members and locations an image may have, how large it may be, and how
//! much a project may store.
//!
//! A limit that was lowered below what is there takes nothing away: what does not grow is accepted.

/// How many or how much of something there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Properties of an image, those of the server's own and those that the caller must not know of not counted; none for any
    /// number.
    pub properties: Option<u64>,
    /// Tags of an image.
    pub tags: Option<u64>,
    /// Projects an image is shared with.
    pub members: Option<u64>,
    /// Locations of an image.
    pub locations: Option<u64>,
    /// Bytes of one image.
    pub image_bytes: u64,
    /// Bytes of all images of a project, each counted once for every place it is kept in; none for any number.
    pub project_bytes: Option<u64>,
}

impl Default for Limits {
    /// Glance's: 128 properties, tags and members, 10 locations, 1 TiB an image, and as much as wanted a project.
    fn default() -> Self {
        Self {
            properties: Some(128),
            tags: Some(128),
            members: Some(128),
            locations: Some(10),
            image_bytes: 1 << 40,
            project_bytes: None,
        }
    }
}

/// What there is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Properties of an image.
    Properties,
    /// Tags of an image.
    Tags,
    /// Members of an image.
    Members,
    /// Locations of an image.
    Locations,
    /// Bytes of an image.
    ImageBytes,
    /// Bytes of a project's images.
    ProjectBytes,
}

impl Limited {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Properties => "properties of an image",
            Self::Tags => "tags of an image",
            Self::Members => "members of an image",
            Self::Locations => "locations of an image",
            Self::ImageBytes => "bytes of an image",
            Self::ProjectBytes => "bytes of a project's images",
        }
    }
}

/// A limit would be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} {}: at most {limit} are allowed", of.as_str())]
pub struct OverLimit {
    /// Of what.
    pub of: Limited,
    /// How many there would be, or, where the end of an upload is not known, are at least.
    pub found: u64,
    /// How many there may be.
    pub limit: u64,
}

impl Limits {
    /// Checks that an image which has `before` may come to have `after`.
    ///
    /// # Errors
    /// [`OverLimit`] if it would have more than before and more than the limit.
    pub fn check(&self, of: Limited, before: u64, after: u64) -> Result<(), OverLimit> {
        match self.of(of) {
            Some(limit) if after > limit && after > before => Err(OverLimit {
                of,
                found: after,
                limit,
            }),
            _ => Ok(()),
        }
    }

    /// The limit; none for any number.
    pub const fn of(&self, of: Limited) -> Option<u64> {
        match of {
            Limited::Properties => self.properties,
            Limited::Tags => self.tags,
            Limited::Members => self.members,
            Limited::Locations => self.locations,
            Limited::ImageBytes => Some(self.image_bytes),
            Limited::ProjectBytes => self.project_bytes,
        }
    }

    /// Checks an upload before its first byte, and says how many bytes it may have. `used` are the bytes that the project's
    /// images take already: those of every upload that has not been given up included, and those of deleted images until
    /// they are freed. `size` is what the client says of it, if it does.
    ///
    /// # Errors
    /// [`OverLimit`] if it is too large, or if the size is not known and there is no room for a single byte.
    pub fn admit(&self, used: u64, size: Option<u64>) -> Result<Allowance, OverLimit> {
        let allowance = Allowance {
            limits: *self,
            used,
            taken: 0,
        };
        match size {
            Some(size) => allowance.fits(size)?,
            // Glance asks it of an upload of unknown length: one that could only be empty is not begun.
            None => allowance.fits(1)?,
        }
        Ok(allowance)
    }
}

/// How many bytes an upload may still have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    limits: Limits,
    used: u64,
    taken: u64,
}

impl Allowance {
    /// Takes bytes that arrived.
    ///
    /// # Errors
    /// [`OverLimit`] if they are more than the upload may have; then none are taken.
    pub fn take(&mut self, bytes: u64) -> Result<(), OverLimit> {
        let taken = self.taken.saturating_add(bytes);
        self.fits(taken)?;
        self.taken = taken;
        Ok(())
    }

    /// How many bytes were taken.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    fn fits(&self, size: u64) -> Result<(), OverLimit> {
        if size > 0
            && let Some(limit) = self.limits.project_bytes
            && size > limit.saturating_sub(self.used)
        {
            return Err(OverLimit {
                of: Limited::ProjectBytes,
                found: self.used.saturating_add(size),
                limit,
            });
        }
        self.limits.check(Limited::ImageBytes, 0, size)
    }
}

/// A text is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no number of bytes: expected a whole number below 2^64 bytes, with B, KB, MB, GB or TB behind it if wanted"
)]
pub struct NotBytes(pub String);

/// Reads a number of bytes as Glance's `user_storage_quota` has it: `0`, `1073741824`, `10GB`. The units are powers of 1,024.
///
/// # Errors
/// [`NotBytes`].
pub fn parse_bytes(text: &str) -> Result<u64, NotBytes> {
    let wrong = || NotBytes(text.to_owned());
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_may_have_as_many_as_the_limit_says() {
        let limits = Limits::default();
        for (of, limit) in [
            (Limited::Properties, 128),
            (Limited::Tags, 128),
            (Limited::Members, 128),
            (Limited::Locations, 10),
        ] {
            assert_eq!(limits.check(of, 0, limit), Ok(()));
            let over = OverLimit {
                of,
                found: limit + 1,
                limit,
            };
            assert_eq!(limits.check(of, limit, limit + 1), Err(over));
        }
        let error = limits.check(Limited::Tags, 0, 129).unwrap_err();
        assert_eq!(
            error.to_string(),
            "129 tags of an image: at most 128 are allowed"
        );
    }

    #[test]
    fn what_does_not_grow_is_accepted_above_a_lowered_limit() {
        let limits = Limits {
            tags: Some(2),
            ..Limits::default()
        };
        assert_eq!(limits.check(Limited::Tags, 5, 5), Ok(()));
        assert_eq!(limits.check(Limited::Tags, 5, 4), Ok(()));
        assert!(limits.check(Limited::Tags, 5, 6).is_err());
    }

    #[test]
    fn no_limit_is_any_number() {
        let limits = Limits {
            properties: None,
            ..Limits::default()
        };
        assert_eq!(limits.check(Limited::Properties, 0, u64::MAX), Ok(()));
    }

    #[test]
    fn an_upload_of_known_size_is_refused_before_its_first_byte() {
        let limits = Limits {
            image_bytes: 100,
            project_bytes: Some(150),
            ..Limits::default()
        };
        assert!(limits.admit(0, Some(100)).is_ok());
        assert!(limits.admit(50, Some(100)).is_ok());
        assert!(limits.admit(150, Some(0)).is_ok());
        for (used, size, of, found, limit) in [
            (0, 101, Limited::ImageBytes, 101, 100),
            (51, 100, Limited::ProjectBytes, 151, 150),
            (u64::MAX, 1, Limited::ProjectBytes, u64::MAX, 150),
        ] {
            let refused = limits.admit(used, Some(size));
            assert_eq!(refused, Err(OverLimit { of, found, limit }));
        }
    }

    #[test]
    fn an_upload_of_unknown_size_is_cut_off_at_the_limit() {
        let limits = Limits {
            image_bytes: 100,
            project_bytes: Some(150),
            ..Limits::default()
        };
        assert!(limits.admit(150, None).is_err());
        let mut allowance = limits.admit(149, None).unwrap();
        assert_eq!(allowance.take(0), Ok(()));
        assert_eq!(allowance.take(1), Ok(()));
        assert!(matches!(
            allowance.take(1),
            Err(OverLimit {
                of: Limited::ProjectBytes,
                ..
            })
        ));
        let mut allowance = limits.admit(0, None).unwrap();
        assert_eq!(allowance.take(60), Ok(()));
        assert!(allowance.take(41).is_err());
        assert_eq!(allowance.take(40), Ok(()));
        assert!(allowance.take(u64::MAX).is_err());
        assert_eq!(allowance.taken(), 100);
    }

    #[test]
    fn bytes_are_read_as_glance_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("1KB", 1024),
            ("10GB", 10 << 30),
            ("1TB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "GB",
            "-1",
            "1.5GB",
            "10 GB",
            "10gb",
            "10GiB",
            "10G",
            " 1",
            "18446744073709551616",
            "16777216TB",
            "١",
        ] {
            assert_eq!(parse_bytes(bad), Err(NotBytes(bad.to_owned())), "{bad}");
        }
    }
}
