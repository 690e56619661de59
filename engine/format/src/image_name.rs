//! The name of an image.

use std::fmt;

/// The longest name, in bytes of UTF-8. With its ending the name is a file name of the store.
pub const NAME_BYTES_MAX: usize = 200;

/// A valid image name (SPEC 7.1): 1 to 200 bytes of UTF-8 without `/` or control characters, not beginning with `.`
/// or `-`, not beginning or ending with white space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);

/// Why a text is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("an image name must not be empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("an image name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// A `/`, a control character or a character that changes the direction of text.
    #[error("an image name must not contain {0:?}")]
    Character(char),
    /// A `.`, `-` or white space at an end where it would mislead.
    #[error("an image name must not {0}")]
    Edge(&'static str),
}

impl ImageName {
    /// Checks a text.
    ///
    /// # Errors
    /// [`NameError`], naming the rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| is_forbidden(*c)) {
            return Err(NameError::Character(bad));
        }
        if text.starts_with(['.', '-']) {
            return Err(NameError::Edge("begin with `.` or `-`"));
        }
        if text.trim() != text {
            return Err(NameError::Edge("begin or end with white space"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters could break a terminal or a line of a log; the bidirectional marks could make one name look
/// like another.
fn is_forbidden(c: char) -> bool {
    c == '/'
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in [
            "debian-12",
            "Ubuntu 24.04 (cloud)",
            "é",
            "a:b@c",
            &"x".repeat(200),
        ] {
            assert_eq!(ImageName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_could_mislead_are_refused_by_rule() {
        assert_eq!(ImageName::parse(""), Err(NameError::Empty));
        assert_eq!(
            ImageName::parse(&"é".repeat(101)),
            Err(NameError::TooLong(202))
        );
        for (name, c) in [
            ("a/b", '/'),
            ("a\nb", '\n'),
            ("\u{1b}[2J", '\u{1b}'),
            ("a\u{202e}b", '\u{202e}'),
        ] {
            assert_eq!(ImageName::parse(name), Err(NameError::Character(c)));
        }
        for name in [".", "..", ".hidden", "-rf", " a", "a "] {
            assert!(
                matches!(ImageName::parse(name), Err(NameError::Edge(_))),
                "{name}"
            );
        }
    }
}
