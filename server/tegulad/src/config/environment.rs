//! The environment over the file.

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, ConfigError};

/// What the names of our variables begin with.
const PREFIX: &str = "TEGULAD_";
const SEPARATOR: &str = "__";
/// What the command line takes from the environment.
const OF_COMMAND_LINE: &str = "TEGULAD_CONFIG";

/// What to tell the operator of variables that look like ours and can name no key, since all keys are in a section.
///
/// They are not refused: Kubernetes gives every container variables like `TEGULAD_PORT` if there is a service of that name.
pub(super) fn ignored<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<&str> = names
        .into_iter()
        .filter(|name| name.starts_with(PREFIX) && !name.contains(SEPARATOR))
        .filter(|name| *name != OF_COMMAND_LINE)
        .collect();
    names.sort_unstable();
    let warning = |name| {
        format!(
            "the environment's {name} names no key and is ignored: section and key have `{SEPARATOR}` between them, as in TEGULAD_LISTEN__ADDRESS"
        )
    };
    names.into_iter().map(warning).collect()
}

/// Lays the variables over a table that is a valid configuration. A variable's value is taken as text where a text may
/// stand, and else as TOML writes it: `true`, `30`, `["keystone", "tokens"]`.
///
/// # Errors
/// [`ConfigError::Variable`].
pub(super) fn overlay(
    mut table: Table,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut variables: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && name.contains(SEPARATOR))
        .collect();
    variables.sort();
    for (name, text) in variables {
        let path = name.trim_start_matches(PREFIX).to_ascii_lowercase();
        let path: Vec<&str> = path.split(SEPARATOR).collect();
        let refuse = |text: String| ConfigError::Variable {
            variable: name.clone(),
            text,
        };
        table = with(&table, &path, Value::String(text.clone()))
            .or_else(|as_text| match value(&text) {
                Some(value) => with(&table, &path, value),
                None => Err(as_text),
            })
            .map_err(refuse)?;
    }
    Config::deserialize(table).map_err(|error| ConfigError::Variable {
        variable: PREFIX.to_owned(),
        text: error.to_string(),
    })
}

/// The table with that key set, if it is a configuration then.
fn with(table: &Table, path: &[&str], value: Value) -> Result<Table, String> {
    let mut table = table.clone();
    set(&mut table, path, value)?;
    // Not the text of the error's source: it could repeat a password.
    Config::deserialize(table.clone()).map_err(|error| error.message().to_owned())?;
    Ok(table)
}

fn set(table: &mut Table, path: &[&str], value: Value) -> Result<(), String> {
    match path {
        [] => Ok(()),
        [key] => {
            table.insert((*key).to_owned(), value);
            Ok(())
        }
        [key, rest @ ..] => match table
            .entry((*key).to_owned())
            .or_insert_with(|| Value::Table(Table::new()))
        {
            Value::Table(inner) => set(inner, rest, value),
            _ => Err(format!("`{key}` has no keys of its own")),
        },
    }
}

/// A value as TOML writes it.
fn value(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    (table.len() == 1).then(|| table.remove("value")).flatten()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::sections::ProviderKind;
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(None, variables).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_sets_texts_numbers_flags_and_lists() {
        let config = load(&[
            ("TEGULAD_LISTEN__ADDRESS", "0.0.0.0:80"),
            ("TEGULAD_LISTEN__TRUST_FORWARDED", "true"),
            ("TEGULAD_LIMITS__PAGE_MAX", "10"),
            ("TEGULAD_IDENTITY__PROVIDERS", r#"["keystone", "tokens"]"#),
            ("TEGULAD_IDENTITY__KEYSTONE__PASSWORD", "123"),
            ("TEGULAD_IDENTITY__KEYSTONE__PASSWORD_FILE", "true"),
            (
                "TEGULAD_IDENTITY__TOKENS",
                r#"[{sha256 = "00", user = "u", project = "p", roles = []}]"#,
            ),
        ])
        .unwrap();
        assert_eq!(config.listen.address, "0.0.0.0:80".parse().unwrap());
        assert!(config.listen.trust_forwarded);
        assert_eq!(config.limits.page_max, 10);
        assert_eq!(
            config.identity.providers,
            [ProviderKind::Keystone, ProviderKind::Tokens]
        );
        assert_eq!(
            config.identity.keystone.password.as_ref().unwrap().reveal(),
            "123"
        );
        assert_eq!(
            config.identity.keystone.password_file.as_deref(),
            Some(Path::new("true"))
        );
        assert_eq!(config.identity.tokens.len(), 1);
    }

    #[test]
    fn variables_that_can_name_no_key_are_pointed_out() {
        let names = [
            "TEGULAD_PORT",
            "TEGULAD_CONFIG",
            "TEGULA_STORE",
            "TEGULAD_LISTEN",
            "TEGULAD_A__B",
        ];
        let warnings = ignored(names);
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].contains("TEGULAD_LISTEN names no key"),
            "{warnings:?}"
        );
    }

    #[test]
    fn other_variables_are_let_alone() {
        let others = [
            ("TEGULAD_CONFIG", "x"),
            ("TEGULA_STORE", "x"),
            ("PATH", "x"),
            ("X__TEGULAD_A__B", "x"),
        ];
        assert_eq!(load(&others), load(&[]));
    }

    #[test]
    fn variables_that_name_nothing_or_have_no_meaning_are_refused_by_name() {
        for (name, value) in [
            ("TEGULAD_LISTEN__ADRESS", "0.0.0.0:80"),
            ("TEGULAD_NOTHING__AT_ALL", "x"),
            ("TEGULAD_LISTEN__ADDRESS__PORT", "80"),
            ("TEGULAD_LISTEN__", "80"),
            ("TEGULAD___LISTEN", "80"),
            ("TEGULAD_LIMITS__PAGE_MAX", "many"),
            ("TEGULAD_LIMITS__PAGE_MAX", "1\npage_default = 2"),
            ("TEGULAD_LISTEN__TRUST_FORWARDED", "yes"),
        ] {
            let error =
                load(&[("TEGULAD_LISTEN__ADDRESS", "0.0.0.0:80"), (name, value)]).unwrap_err();
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
