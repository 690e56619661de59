//! What the server is told: one file, and the environment over it.
//!
//! Here it is read, and every key has its type. Whether the values make sense together is found out by those who use them,
//! each for its section; nothing is asked of another machine for that.

mod environment;
mod sections;

pub(crate) use sections::{
    AccessTo, Backend, Config, IdentitySection, KeystoneSection, Level, LogFormat, LogSection,
    PropertyFormat, ProviderKind, TokenEntry,
};

use std::path::{Path, PathBuf};

/// The documented configuration, with all defaults.
pub(crate) const DEFAULT_TEXT: &str = include_str!("default.toml");

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is too long to be one.
    #[error("the configuration {} has {found} bytes, at most {FILE_BYTES_MAX} are read", .path.display())]
    TooLong { path: PathBuf, found: u64 },
    /// The file is not TOML, has a key that does not exist, or a value of the wrong type. The text says where.
    #[error("the configuration {}: {text}", .path.display())]
    Text { path: PathBuf, text: String },
    /// A variable of the environment names no key, or has a value of the wrong type.
    #[error("the environment's {variable}: {text}")]
    Variable { variable: String, text: String },
    /// A value makes no sense.
    #[error("{key}: {text}")]
    Value { key: &'static str, text: String },
}

impl ConfigError {
    /// A value that makes no sense.
    pub(crate) fn value(key: &'static str, text: impl Into<String>) -> Self {
        Self::Value {
            key,
            text: text.into(),
        }
    }
}

impl Config {
    /// Reads the file, if there is one, and lays the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`], by key and place.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let table = match file {
            None => toml::Table::new(),
            Some(path) => read(path)?,
        };
        environment::overlay(table, environment)
    }
}

/// What to tell the operator of variables of the environment that look like keys and are none.
pub(crate) fn ignored(environment: &[(String, String)]) -> Vec<String> {
    environment::ignored(environment.iter().map(|(name, _)| name.as_str()))
}

fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let failed = |source| ConfigError::File {
        path: path.to_owned(),
        source,
    };
    let found = std::fs::metadata(path).map_err(failed)?.len();
    if found > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
            found,
        });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let wrong = |error: toml::de::Error| ConfigError::Text {
        path: path.to_owned(),
        text: placed(&text, &error),
    };
    // Once as what it is to be, for errors that say where; once as a table, to lay the environment over.
    toml::from_str::<Config>(&text).map_err(wrong)?;
    toml::from_str(&text).map_err(wrong)
}

/// What is wrong, and where; without the line itself, which may hold a password.
fn placed(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let before = error.span().and_then(|span| text.get(..span.start));
    before.map_or_else(
        || message.to_owned(),
        |before| {
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            let column = before
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                + 1;
            format!("line {line}, column {column}: {message}")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tegulad.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), []).map_err(|error| error.to_string())
    }

    /// The documented text with the optional keys in.
    fn whole_text() -> String {
        let lines = DEFAULT_TEXT
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key)
                    if key
                        .starts_with(|first: char| first == '[' || first.is_ascii_lowercase()) =>
                {
                    key
                }
                _ => line,
            });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_documented_text_is_the_default() {
        assert_eq!(load(DEFAULT_TEXT), load(""));
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_exists() {
        let whole: toml::Table = toml::from_str(&whole_text()).unwrap();
        load(&whole_text()).unwrap();
        fn compare(path: &[String], table: &toml::Table) {
            for (key, value) in table {
                let path = [path, std::slice::from_ref(key)].concat();
                match value {
                    toml::Value::Table(table) => compare(&path, table),
                    toml::Value::Array(list) => {
                        if let Some(toml::Value::Table(table)) = list.first() {
                            compare(&path, table);
                        }
                    }
                    _ => {}
                }
            }
            // What else could have stood here is named by the error about something that cannot.
            let header = match path.join(".").as_str() {
                "" => String::new(),
                "identity.tokens" => "[[identity.tokens]]\n".to_owned(),
                path => format!("[{path}]\n"),
            };
            let error = load(&format!("{header}no_such_key = 1\n")).unwrap_err();
            let (_, expected) = error.split_once("expected").unwrap();
            let mut names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            let mut documented: Vec<&str> = table.keys().map(String::as_str).collect();
            names.sort_unstable();
            documented.sort_unstable();
            assert_eq!(documented, names, "in [{}]", path.join("."));
        }
        compare(&[], &whole);
    }

    #[test]
    fn keys_that_do_not_exist_are_refused_by_name_and_place() {
        for (text, name) in [
            ("[listen]\nadress = \"0.0.0.0:1\"", "adress"),
            ("[listne]\n", "listne"),
            ("\n\n[identity.keystone]\npasword = \"canary\"", "pasword"),
            ("[[identity.tokens]]\nsha1 = \"\"", "sha1"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(name) && error.contains("line"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn values_of_the_wrong_type_are_refused() {
        for text in [
            "[listen]\naddress = 9292",
            "[listen]\naddress = \"localhost\"",
            "[quotas]\nimage_bytes_max = -1",
            "[limits]\npage_max = 1.5",
            "[log]\nformat = \"xml\"",
            "[identity]\nproviders = [\"anyone\"]",
            "[listen\n",
        ] {
            assert!(load(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_told_what_one_is() {
        for text in ["localhost:9292", "9292", "::1:x"] {
            let error = load(&format!("[listen]\naddress = \"{text}\"")).unwrap_err();
            let found = format!("such as 0.0.0.0:9292 or [::1]:9292, found `{text}`");
            assert!(
                error.contains(&found) && error.contains("line 2"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let config = load("[identity.keystone]\npassword = \"canary\"").unwrap();
        assert!(!format!("{config:?}").contains("canary"));
    }
}
