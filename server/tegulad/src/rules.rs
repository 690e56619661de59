//! The sections `policy` and `property_protection`: who may do what, from the operator's files.

use std::error::Error;

use tegula_catalog::rules::{ProtectionFormat, RuleFiles, RulesError};

use crate::config::{Config, ConfigError, PropertyFormat};

/// The files that the configuration names; without them, Glance's default rules hold and properties are free.
pub(crate) fn files(config: &Config) -> RuleFiles {
    let format = match config.property_protection.format {
        PropertyFormat::Roles => ProtectionFormat::Roles,
        PropertyFormat::Policies => ProtectionFormat::Policies,
    };
    let protection = config.property_protection.file.clone();
    RuleFiles {
        policy: config.policy.file.clone(),
        protection: protection.map(|path| (path, format)),
    }
}

/// What is wrong with a file, by the key that names it.
pub(crate) fn refused(config: &Config, error: &RulesError) -> ConfigError {
    let key = if config.policy.file.as_deref() == Some(error.path()) {
        "policy.file"
    } else {
        "property_protection.file"
    };
    let cause = error.source().map(|cause| format!(": {cause}"));
    ConfigError::value(key, format!("{error}{}", cause.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_of(policy: &str, protection: &str) -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("policy.yaml"), policy).unwrap();
        std::fs::write(path("protection.conf"), protection).unwrap();
        let mut config = Config::default();
        config.policy.file = Some(path("policy.yaml"));
        config.property_protection.file = Some(path("protection.conf"));
        (directory, config)
    }

    #[test]
    fn what_is_wrong_is_named_by_key_file_and_line() {
        let section = "[x]\ncreate = a\nread = a\nupdate = a\ndelete = a\n";
        let (roles, policies) = (PropertyFormat::Roles, PropertyFormat::Policies);
        for (policy, protection, format, expected) in [
            (
                "get_image: role:",
                section,
                roles,
                ("policy.file", "policy.yaml: line 1"),
            ),
            (
                "a: rule:nothing",
                section,
                roles,
                ("policy.file", "there is no rule nothing"),
            ),
            (
                "b: '@'",
                section,
                policies,
                (
                    "property_protection.file",
                    "line 2: the policy has no rule a",
                ),
            ),
            (
                "a: '@'",
                "[x]\n",
                policies,
                ("property_protection.file", "protection.conf: line 1"),
            ),
        ] {
            let (_directory, mut config) = config_of(policy, protection);
            config.property_protection.format = format;
            let error = files(&config).load().unwrap_err();
            let said = refused(&config, &error).to_string();
            assert!(
                said.contains(expected.0) && said.contains(expected.1),
                "{said}"
            );
        }
        let (_directory, mut config) = config_of("a: '@'", section);
        config.property_protection.format = policies;
        assert!(files(&config).load().is_ok());
        config.policy.file = Some("/nowhere".into());
        let error = files(&config).load().unwrap_err();
        let said = refused(&config, &error).to_string();
        assert!(
            said.contains("/nowhere: it cannot be read: No such file"),
            "{said}"
        );
    }

    #[test]
    fn without_files_nothing_is_read() {
        assert_eq!(files(&Config::default()), RuleFiles::default());
    }
}
