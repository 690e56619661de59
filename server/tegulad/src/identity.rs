//! The section `identity`: who is known as whom.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tegula_domain::{Timestamp, property};
use tegula_engine::Clock;
use tegula_identity::{
    Credentials, Domain, Identity, Keystone, KeystoneSettings, Network, OpenOnLoopback, Provider,
    Secret, StaticToken, StaticTokens, TokenHash, TrustAnchors, TrustedHeaders,
};

use crate::admin_token::{self, AdminToken};
use crate::config::{
    Config, ConfigError, IdentitySection, KeystoneSection, ProviderKind, TokenEntry,
};

/// The longest file of a password, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Who is known, and what to tell the operator about it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) identity: Identity,
    /// The administrator's token, if there is to be one.
    pub(crate) admin_token: Option<AdminToken>,
    /// Whether requests of the machine itself need no token.
    pub(crate) open: bool,
}

/// Prepares the providers of the configuration; makes the administrator's token if there is to be one and is none.
///
/// # Errors
/// [`ConfigError`] for what makes no sense or cannot be read.
pub(crate) fn known(config: &Config, clock: &Arc<dyn Clock>) -> Result<Known, ConfigError> {
    check(config, clock)?;
    let section = &config.identity;
    let (mut providers, mut admin_token, mut open) = (Vec::new(), None, false);
    for kind in &section.providers {
        providers.push(match kind {
            ProviderKind::AdminToken => {
                let token = admin_token::find_or_make(&section.admin_token.file)?;
                let of_admin = administrator(section, token.hash());
                admin_token = Some(token);
                Provider::StaticTokens(StaticTokens::new(vec![of_admin]))
            }
            ProviderKind::Open => {
                open = true;
                // Of this token only who has it counts: nobody is asked for it.
                let caller = administrator(section, TokenHash::of("")).caller().clone();
                Provider::OpenOnLoopback(OpenOnLoopback::new(caller))
            }
            ProviderKind::Tokens => Provider::StaticTokens(StaticTokens::new(tokens(section)?)),
            ProviderKind::Headers => {
                Provider::TrustedHeaders(TrustedHeaders::from_peers(peers(section)?))
            }
            ProviderKind::Keystone => {
                Provider::Keystone(Arc::new(keystone(&section.keystone, clock)?))
            }
        });
    }
    Ok(Known {
        identity: Identity::new(providers),
        admin_token,
        open,
    })
}

/// Looks at all of it and makes nothing.
///
/// # Errors
/// As [`known`].
pub(crate) fn check(config: &Config, clock: &Arc<dyn Clock>) -> Result<(), ConfigError> {
    let section = &config.identity;
    check_list(section)?;
    let listed = |kind| section.providers.contains(&kind);
    if listed(ProviderKind::Open) && !config.listen.address.ip().is_loopback() {
        let text = "`open` is for a server that only its own machine can reach, but `listen.address` is not of loopback";
        return Err(ConfigError::value("identity.providers", text));
    }
    tokens(section)?;
    peers(section)?;
    if listed(ProviderKind::Keystone) {
        keystone(&section.keystone, clock)?;
    }
    if listed(ProviderKind::AdminToken) {
        admin_token::find(&section.admin_token.file)?;
    }
    Ok(())
}

/// The list of providers, and that what it counts on is set, and nothing else.
fn check_list(section: &IdentitySection) -> Result<(), ConfigError> {
    let count = |kind| {
        section
            .providers
            .iter()
            .filter(|listed| **listed == kind)
            .count()
    };
    if section.providers.is_empty() {
        return Err(ConfigError::value(
            "identity.providers",
            "there is none, so nobody could call the server",
        ));
    }
    if section.providers.iter().any(|kind| count(*kind) > 1) {
        return Err(ConfigError::value(
            "identity.providers",
            "one of them stands twice",
        ));
    }
    for (kind, key, set) in [
        (
            ProviderKind::Tokens,
            "identity.tokens",
            !section.tokens.is_empty(),
        ),
        (
            ProviderKind::Keystone,
            "identity.keystone.url",
            section.keystone.url.is_some(),
        ),
        (
            ProviderKind::Headers,
            "identity.headers.peers",
            !section.headers.peers.is_empty(),
        ),
    ] {
        match (count(kind) > 0, set) {
            (true, false) => {
                return Err(ConfigError::value(
                    key,
                    "not set, though `identity.providers` counts on it",
                ));
            }
            (false, true) => {
                return Err(ConfigError::value(
                    key,
                    "set, but `identity.providers` does not list it",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn administrator(section: &IdentitySection, hash: TokenHash) -> StaticToken {
    StaticToken::new(
        hash,
        &section.admin_token.user,
        &section.admin_token.project,
        ["admin"],
    )
}

fn tokens(section: &IdentitySection) -> Result<Vec<StaticToken>, ConfigError> {
    let mut hashes = Vec::new();
    let mut tokens = Vec::new();
    for (number, entry) in (1..).zip(&section.tokens) {
        let refuse = |text: String| {
            ConfigError::value(
                "identity.tokens",
                format!("entry {number}, `sha256`: {text}"),
            )
        };
        let hash: TokenHash = entry
            .sha256
            .parse()
            .map_err(|error| refuse(format!("{error}")))?;
        if hashes.contains(&hash) {
            return Err(refuse("an entry before has the same".to_owned()));
        }
        hashes.push(hash);
        check_entry(entry).map_err(|text| {
            ConfigError::value("identity.tokens", format!("entry {number}, {text}"))
        })?;
        tokens.push(StaticToken::new(
            hash,
            &entry.user,
            &entry.project,
            &entry.roles,
        ));
    }
    Ok(tokens)
}

/// Whether whoever has the token can be somebody: a project that is empty would own images, and a role with a comma is two.
pub(crate) fn check_entry(entry: &TokenEntry) -> Result<(), String> {
    for (key, text) in [("user", &entry.user), ("project", &entry.project)] {
        property::check_name("it", text).map_err(|error| format!("`{key}`: {error}"))?;
    }
    for role in &entry.roles {
        if role.trim().is_empty() {
            return Err("`roles`: one of them is empty".to_owned());
        }
        if role.contains(',') {
            return Err(format!(
                "`roles`: `{role}` has a comma: each role is a text of its own"
            ));
        }
    }
    Ok(())
}

fn peers(section: &IdentitySection) -> Result<Vec<Network>, ConfigError> {
    let refuse = |error| ConfigError::value("identity.headers.peers", format!("{error}"));
    section
        .headers
        .peers
        .iter()
        .map(|text| text.parse().map_err(refuse))
        .collect()
}

fn keystone(section: &KeystoneSection, clock: &Arc<dyn Clock>) -> Result<Keystone, ConfigError> {
    let clock = Arc::clone(clock);
    let wall_clock = Arc::new(move || Timestamp::from_micros(clock.now_us()));
    Keystone::new(keystone_settings(section)?, wall_clock)
        .map_err(|error| ConfigError::value("identity.keystone", error.to_string()))
}

fn keystone_settings(section: &KeystoneSection) -> Result<KeystoneSettings, ConfigError> {
    for (key, zero) in [
        ("identity.keystone.timeout_s", section.timeout_s == 0),
        (
            "identity.keystone.questions_max",
            section.questions_max == 0,
        ),
    ] {
        if zero {
            return Err(ConfigError::value(key, "expected at least 1"));
        }
    }
    Ok(KeystoneSettings {
        url: section.url.clone().unwrap_or_default(),
        public_url: section.public_url.clone(),
        credentials: Credentials {
            user: section.user.clone(),
            user_domain: domain(section.user_domain_id.as_ref(), &section.user_domain_name),
            password: password(section)?,
            project: section.project.clone(),
            project_domain: domain(
                section.project_domain_id.as_ref(),
                &section.project_domain_name,
            ),
        },
        trust: TrustAnchors::of(section.ca_file.clone()),
        timeout: Duration::from_secs(section.timeout_s.into()),
        questions_max: section.questions_max.into(),
        cache_lifetime: Duration::from_secs(section.cache_s.into()),
        cache_entries_max: usize::try_from(section.cache_entries_max).unwrap_or(usize::MAX),
        service_roles: section.service_roles.clone(),
    })
}

fn domain(id: Option<&String>, name: &str) -> Domain {
    id.map_or_else(
        || Domain::Name(name.to_owned()),
        |id| Domain::Id(id.clone()),
    )
}

fn password(section: &KeystoneSection) -> Result<Secret, ConfigError> {
    match (&section.password, &section.password_file) {
        (Some(password), None) => Ok(password.clone()),
        (None, Some(path)) => read_password(path),
        (None, None) => Err(ConfigError::value(
            "identity.keystone.password",
            "neither it nor `password_file` is set",
        )),
        (Some(_), Some(_)) => Err(ConfigError::value(
            "identity.keystone.password",
            "`password_file` is set as well",
        )),
    }
}

fn read_password(path: &Path) -> Result<Secret, ConfigError> {
    let refuse = |text: String| {
        ConfigError::value(
            "identity.keystone.password_file",
            format!("{}: {text}", path.display()),
        )
    };
    let length = std::fs::metadata(path)
        .map_err(|error| refuse(error.to_string()))?
        .len();
    if length > PASSWORD_BYTES_MAX {
        return Err(refuse(format!(
            "it has {length} bytes, expected a password of at most {PASSWORD_BYTES_MAX}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(refuse("there is no password in it".to_owned())),
        password => Ok(Secret::new(password)),
    }
}

#[cfg(test)]
mod tests {
    use tegula_engine::SystemClock;

    use super::*;

    fn known_of(text: &str) -> Result<Known, String> {
        let config: Config = toml::from_str(text).unwrap();
        known(&config, &(Arc::new(SystemClock) as Arc<dyn Clock>))
            .map_err(|error| error.to_string())
    }

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_is_set_and_what_is_listed_must_agree() {
        let token = format!(
            "[[identity.tokens]]\nsha256 = \"{HASH}\"\nuser = \"u\"\nproject = \"p\"\nroles = []\n"
        );
        for (text, key) in [
            ("[identity]\nproviders = []", "identity.providers"),
            ("[identity]\nproviders = [\"open\", \"open\"]", "twice"),
            (
                "[identity]\nproviders = [\"open\"]\n[listen]\naddress = \"0.0.0.0:9292\"",
                "listen.address",
            ),
            (
                "[identity]\nproviders = [\"open\"]\n[listen]\naddress = \"[::]:9292\"",
                "listen.address",
            ),
            ("[identity]\nproviders = [\"tokens\"]", "identity.tokens"),
            (
                "[identity]\nproviders = [\"keystone\"]",
                "identity.keystone.url",
            ),
            (
                "[identity]\nproviders = [\"headers\"]",
                "identity.headers.peers",
            ),
            (
                &format!("[identity]\nproviders = [\"open\"]\n{token}"),
                "identity.tokens",
            ),
            (
                &format!("[identity]\nproviders = [\"tokens\"]\n{token}{token}"),
                "entry 2",
            ),
            (
                &format!(
                    "[identity]\nproviders = [\"tokens\"]\n{}",
                    token.replace(HASH, "abc")
                ),
                "64 hexadecimal digits",
            ),
            (
                &format!(
                    "[identity]\nproviders = [\"tokens\"]\n{}",
                    token.replace("\"p\"", "\"\"")
                ),
                "entry 1, `project`",
            ),
            (
                &format!(
                    "[identity]\nproviders = [\"tokens\"]\n{}",
                    token.replace("[]", "[\"member,reader\"]")
                ),
                "has a comma",
            ),
            (
                "[identity]\nproviders = [\"headers\"]\nheaders.peers = [\"10.0.0.1/8\"]",
                "identity.headers.peers",
            ),
            (
                "[identity]\nproviders = [\"keystone\"]\nkeystone.url = \"http://h\"",
                "identity.keystone.password",
            ),
            (
                "[identity]\nproviders = [\"keystone\"]\nkeystone = {url = \"h\", password = \"canary\"}",
                "identity.keystone",
            ),
            (
                "[identity]\nproviders = [\"keystone\"]\nkeystone = {url = \"http://h\", password = \"p\", timeout_s = 0}",
                "timeout_s",
            ),
            (
                "[identity]\nproviders = [\"keystone\"]\nkeystone = {url = \"http://h\", password_file = \"/nonexistent\"}",
                "/nonexistent",
            ),
            (
                "[identity]\nproviders = [\"keystone\"]\nkeystone = {url = \"https://h\", password = \"p\", ca_file = \"/nonexistent\"}",
                "/nonexistent",
            ),
        ] {
            let error = known_of(text).unwrap_err();
            assert!(
                error.contains(key) && !error.contains("canary"),
                "`{key}` in `{error}`"
            );
        }
    }

    #[test]
    fn a_password_in_a_file_ends_before_its_line_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        for (content, expected) in [
            ("p w\n", Some("p w")),
            ("pw\r\n", Some("pw")),
            ("pw", Some("pw")),
            ("\n", None),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(
                read_password(&path).ok().as_ref().map(Secret::reveal),
                expected,
                "{content:?}"
            );
        }
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(read_password(&path).is_err());
    }

    #[test]
    fn the_administrators_token_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/admin-token");
        let text = format!("[identity.admin_token]\nfile = \"{}\"", path.display());
        let config: Config = toml::from_str(&text).unwrap();
        check(&config, &(Arc::new(SystemClock) as Arc<dyn Clock>)).unwrap();
        assert!(!path.exists(), "a check makes nothing");
        let made = known_of(&text).unwrap().admin_token.unwrap();
        let found = known_of(&text).unwrap().admin_token.unwrap();
        assert!(made.was_made() && !found.was_made());
        assert_eq!(made.reveal(), found.reveal());
        assert!(!known_of(&text).unwrap().open);
    }
}
