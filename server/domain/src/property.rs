//! The names and values of an image's properties, tags and the like: what a text of a client's may be at all.
//!
//! Names are compared by their code points, everywhere: `X_key`, `x_key`, `x_key ` and a name that only looks the same are
//! names of different properties, each judged as it is written. Nothing is folded, trimmed or normalized here, and nothing
//! may be where names are kept or looked up: a rule judges one name, and another would be read or written.

/// Properties of the server's own begin with this; clients only read them.
pub const RESERVED_PREFIX: &str = "os_glance";

/// Properties of the server's own that no client reads.
const INTERNAL: [&str; 2] = ["os_glance_stage_host", "os_glance_hash_op_host"];

/// The longest name of an image, a property, a tag, a project, in characters (Images API).
pub const NAME_CHARACTERS_MAX: usize = 255;

/// The longest value of a property, in bytes (64 KiB less one, as in Glance's database).
pub const VALUE_BYTES_MAX: usize = 65_535;

/// A client's text cannot be a name or a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    /// A name is empty.
    #[error("the name of {what} is empty")]
    Empty {
        /// Of what.
        what: &'static str,
    },
    /// A name is too long.
    #[error("the name of {what} has {found} characters; at most {NAME_CHARACTERS_MAX} are allowed")]
    NameTooLong {
        /// Of what.
        what: &'static str,
        /// How many it has.
        found: usize,
    },
    /// A value is too long.
    #[error(
        "the value of property {name} has {found} bytes; at most {VALUE_BYTES_MAX} are allowed"
    )]
    ValueTooLong {
        /// The property's name.
        name: String,
        /// How many it has.
        found: usize,
    },
    /// A control character stands where none may.
    #[error("{what} contains the control character U+{code:04X}, at character {position}")]
    Control {
        /// What contains it.
        what: &'static str,
        /// Which one.
        code: u32,
        /// Where, in characters from 1.
        position: usize,
    },
}

/// Whether the property is the server's own, which clients may not create, change or remove.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// Whether the property is the server's own and not even shown.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Checks the name of a property, a tag, a member…: 1 to 255 characters, none of them a control character (Unicode category
/// Cc: line feeds and escapes end up in logs and terminals, NUL in no database).
///
/// # Errors
/// [`BadText`], in words of `what` the name is of.
pub fn check_name(what: &'static str, name: &str) -> Result<(), BadText> {
    if name.is_empty() {
        return Err(BadText::Empty { what });
    }
    let found = name.chars().count();
    if found > NAME_CHARACTERS_MAX {
        return Err(BadText::NameTooLong { what, found });
    }
    check_characters(what, name, char::is_control)
}

/// Checks the value of a property: at most 65,535 bytes without NUL.
///
/// # Errors
/// [`BadText`].
pub fn check_value(name: &str, value: &str) -> Result<(), BadText> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(BadText::ValueTooLong {
            name: name.to_owned(),
            found: value.len(),
        });
    }
    check_characters("the value of a property", value, |character| {
        character == '\0'
    })
}

fn check_characters(
    what: &'static str,
    text: &str,
    refused: impl Fn(char) -> bool,
) -> Result<(), BadText> {
    match text
        .chars()
        .enumerate()
        .find(|(_, character)| refused(*character))
    {
        None => Ok(()),
        Some((index, character)) => Err(BadText::Control {
            what,
            code: character.into(),
            position: index + 1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_to_255_characters_without_controls() {
        let accepted = [
            "a",
            "hw:disk.bus",
            "trait:X",
            "a b ",
            " ",
            "~/",
            "é",
            "e\u{301}",
            "ｏｓ_ｇｌａｎｃｅ",
            "İ",
            "a\u{200b}b",
            "\u{202e}",
            "💿",
            &"é".repeat(255),
        ];
        for name in accepted {
            assert_eq!(check_name("a property", name), Ok(()), "{name:?}");
        }
        assert!(matches!(
            check_name("a tag", ""),
            Err(BadText::Empty { .. })
        ));
        assert!(matches!(
            check_name("a tag", &"é".repeat(256)),
            Err(BadText::NameTooLong { found: 256, .. })
        ));
        for bad in ["a\0", "a\n", "a\r", "a\u{1b}", "a\u{7f}", "a\u{85}"] {
            assert!(
                matches!(
                    check_name("a tag", bad),
                    Err(BadText::Control { position: 2, .. })
                ),
                "{bad:?}"
            );
        }
        assert_eq!(
            check_name("a tag", "a\0").unwrap_err().to_string(),
            "a tag contains the control character U+0000, at character 2"
        );
    }

    #[test]
    fn values_are_any_text_that_databases_take() {
        assert_eq!(check_value("a", ""), Ok(()));
        assert_eq!(check_value("a", "line\nline\t💿"), Ok(()));
        assert_eq!(check_value("a", &"x".repeat(65_535)), Ok(()));
        assert!(matches!(
            check_value("a", &"x".repeat(65_536)),
            Err(BadText::ValueTooLong { found: 65_536, .. })
        ));
        assert!(matches!(
            check_value("a", "x\0"),
            Err(BadText::Control { .. })
        ));
    }

    #[test]
    fn only_the_exact_prefix_is_reserved() {
        for reserved in ["os_glance", "os_glance_x", "os_glancex", "os_glance.*"] {
            assert!(is_reserved(reserved), "{reserved}");
        }
        for other in [
            "OS_GLANCE_x",
            " os_glance",
            "x_os_glance",
            "os_glanc\u{435}", // a Cyrillic letter
            "os\u{200b}_glance",
            "ｏｓ_glance",
            "os_glanc",
        ] {
            assert!(!is_reserved(other), "{other}");
        }
        assert!(is_internal("os_glance_stage_host") && !is_internal("os_glance_failed_import"));
    }
}
