//! The sections `policy` and `property_protection`: who may do what, from the operator's files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};
use tegula_catalog::service::Rules;
use tegula_domain::policy::Policy;
use tegula_domain::protection::{Format, Protection};

use crate::config::{Config, ConfigError, PropertyFormat};

/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the files that the configuration names; without them, Glance's default rules hold and properties are free.
///
/// # Errors
/// [`ConfigError::Value`] with file and place.
pub(crate) fn load(config: &Config) -> Result<Rules, ConfigError> {
    let policy = match &config.policy.file {
        None => Arc::new(Policy::defaults()),
        Some(path) => {
            let refuse = refusal("policy.file", path);
            let texts = read(path)
                .and_then(|text| texts_of_yaml(&text))
                .map_err(&refuse)?;
            Arc::new(Policy::new(&texts).map_err(|error| refuse(error.to_string()))?)
        }
    };
    let protection = match &config.property_protection.file {
        None => Protection::unrestricted(),
        Some(path) => {
            let format = match config.property_protection.format {
                PropertyFormat::Roles => Format::Roles,
                PropertyFormat::Policies => Format::Policies(Arc::clone(&policy)),
            };
            read(path)
                .and_then(|text| {
                    Protection::parse(&text, &format).map_err(|error| error.to_string())
                })
                .map_err(refusal("property_protection.file", path))?
        }
    };
    Ok(Rules { policy, protection })
}

/// What the operator should look at in them.
pub(crate) fn warnings(rules: &Rules) -> Vec<String> {
    let unused = rules.policy.unused().map(|name| {
        format!("policy.file: nothing asks for the rule {name}; perhaps its name is misspelt")
    });
    let protection = rules.protection.warnings().iter();
    unused
        .chain(protection.map(|warning| format!("property_protection.file: {warning}")))
        .collect()
}

fn refusal(key: &'static str, path: &Path) -> impl Fn(String) -> ConfigError {
    move |text| ConfigError::value(key, format!("{}: {text}", path.display()))
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if length > FILE_BYTES_MAX {
        return Err(format!(
            "it has {length} bytes, at most {FILE_BYTES_MAX} are read"
        ));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The rules of a file of YAML (or JSON, which is YAML): one mapping of names to texts, or nothing.
fn texts_of_yaml(yaml: &str) -> Result<BTreeMap<String, String>, String> {
    let mut texts = BTreeMap::new();
    let mut name: Option<String> = None;
    let mut depth = 0;
    for event in Parser::new_from_str(yaml) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let line = span.start.line();
        match event {
            Event::MappingStart(..) if depth == 0 => depth = 1,
            Event::MappingEnd => {}
            Event::Scalar(text, style, _, _) if depth == 1 => match name.take() {
                None => name = Some(text.into_owned()),
                Some(name) if is_null(&text, style) => {
                    return Err(format!(
                        "line {line}: the rule {name} has no text; one that lets everyone is \"\""
                    ));
                }
                Some(name) => {
                    if texts.insert(name.clone(), text.into_owned()).is_some() {
                        return Err(format!("line {line}: the rule {name} stands twice"));
                    }
                }
            },
            // A file of comments alone is a document of nothing.
            Event::Scalar(text, style, _, _) if is_null(&text, style) => {}
            Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..)
            | Event::Alias(..) => {
                return Err(format!(
                    "line {line}: expected `name: \"text\"` on each line, and nothing else"
                ));
            }
            Event::DocumentStart(..) if depth > 0 => {
                return Err(format!("line {line}: a second document begins"));
            }
            _ => {}
        }
    }
    Ok(texts)
}

fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null")
}

#[cfg(test)]
mod tests {
    use tegula_domain::Caller;
    use tegula_domain::policy::Rule;
    use tegula_domain::protection::PropertyOperation;

    use super::*;

    fn texts(yaml: &str) -> Result<Vec<(String, String)>, String> {
        texts_of_yaml(yaml).map(|texts| texts.into_iter().collect())
    }

    #[test]
    fn a_policy_file_is_a_mapping_of_names_to_texts() {
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        for (yaml, expected) in [
            ("", vec![]),
            ("# only\n# comments\n", vec![]),
            ("---\n", vec![]),
            ("{}", vec![]),
            (
                "# of Glance\n\"get_image\": \"role:reader\"\n",
                vec![pair("get_image", "role:reader")],
            ),
            (
                "a: 'x' # why\nb: \"\"\nc: \"@\"\n",
                vec![pair("a", "x"), pair("b", ""), pair("c", "@")],
            ),
            (
                "a: role:admin or\n   role:member\n",
                vec![pair("a", "role:admin or role:member")],
            ),
            (
                "a: >-\n  role:admin or\n  role:member\n",
                vec![pair("a", "role:admin or role:member")],
            ),
            (
                "{\"a\": \"x\", \"b\": \"y\"}",
                vec![pair("a", "x"), pair("b", "y")],
            ),
        ] {
            assert_eq!(texts(yaml), Ok(expected), "{yaml:?}");
        }
    }

    #[test]
    fn what_is_no_policy_file_is_refused_with_its_line() {
        for (yaml, line) in [
            ("a: x\na: y", "line 2"),
            ("a: x\nb:\n", "line"),
            ("a: x\nb: [role:admin]", "line 2"),
            ("a: {b: c}", "line 1"),
            ("- a\n- b", "line 1"),
            ("text", "line 1"),
            ("a: &x y\nb: *x", "line 2"),
            ("a: x\n---\nb: y", "line"),
            ("a: @", "line 1"),
            ("a: \"x", "line"),
            ("a: x\n  b: y\n c: z", "line"),
        ] {
            let error = texts(yaml).expect_err(yaml);
            assert!(error.contains(line), "{yaml:?}: {error}");
        }
        assert!(texts(&"[".repeat(100_000)).is_err());
        assert!(texts(&"{a: ".repeat(100_000)).is_err());
    }

    fn load_of(
        policy: Option<&str>,
        protection: Option<&str>,
        format: PropertyFormat,
    ) -> Result<Rules, String> {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: Option<&str>| {
            text.map(|text| {
                let path = directory.path().join(name);
                std::fs::write(&path, text).unwrap();
                path
            })
        };
        let mut config = Config::default();
        config.policy.file = write("policy.yaml", policy);
        config.property_protection.file = write("protection.conf", protection);
        config.property_protection.format = format;
        load(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_files_say_who_may_do_what() {
        let (reader, admin) = (
            Caller::new("u", "p", ["reader"]),
            Caller::new("a", "p", ["admin"]),
        );
        let may = |rules: &Rules, caller| {
            let may_list = rules.policy.allows(Rule::GetImages, caller, &());
            (
                may_list,
                rules
                    .protection
                    .may(caller, PropertyOperation::Update, "secret"),
            )
        };
        let defaults = load_of(None, None, PropertyFormat::Roles).unwrap();
        assert_eq!(
            (may(&defaults, &reader), may(&defaults, &admin)),
            ((true, true), (true, true))
        );
        let protection = "[secret]\ncreate = admin\nread = admin\nupdate = admin\ndelete = admin\n";
        let policy = "get_images: rule:context_is_admin";
        let rules = load_of(Some(policy), Some(protection), PropertyFormat::Roles).unwrap();
        assert_eq!(
            (may(&rules, &reader), may(&rules, &admin)),
            ((false, false), (true, true))
        );
        let protection = protection.replace("= admin", "= get_images");
        let rules = load_of(Some(policy), Some(&protection), PropertyFormat::Policies).unwrap();
        assert_eq!(
            (may(&rules, &reader), may(&rules, &admin)),
            ((false, false), (true, true))
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_key_and_file() {
        let roles = PropertyFormat::Roles;
        for (result, expected) in [
            (
                load_of(Some("get_image: role:"), None, roles),
                "policy.yaml",
            ),
            (
                load_of(Some("get_image: rule:nothing"), None, roles),
                "policy.file",
            ),
            (
                load_of(None, Some("[x]\ncreate = admin\n"), roles),
                "property_protection.file",
            ),
            (
                load_of(
                    None,
                    Some("[x]\ncreate = none\nread = none\nupdate = none\ndelete = none\n"),
                    PropertyFormat::Policies,
                ),
                "protection.conf",
            ),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let rules = load_of(Some("get_imagse: role:admin"), None, roles).unwrap();
        assert!(
            warnings(&rules)
                .iter()
                .any(|warning| warning.contains("get_imagse"))
        );
    }
}
