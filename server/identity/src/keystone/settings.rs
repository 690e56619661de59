//! Which Keystone, and who we are to it.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::tls::TrustAnchors;
use crate::secret::Secret;

/// How a Keystone is reached and asked.
#[derive(Debug, Clone)]
pub struct KeystoneSettings {
    /// Where it is: its root or its `/v3`, `http` or `https`.
    pub url: String,
    /// Where callers reach it, if that is elsewhere.
    pub public_url: Option<String>,
    /// Who we are to it.
    pub credentials: Credentials,
    /// Whose certificates are good, if it is reached by TLS.
    pub trust: TrustAnchors,
    /// How long it may take to find out about one token, all requests and retries together.
    pub timeout: Duration,
    /// How many questions it is asked at the same time.
    pub questions_max: usize,
    /// How long its answers are remembered.
    pub cache_lifetime: Duration,
    /// How many of its answers are remembered.
    pub cache_entries_max: usize,
    /// The roles, one of which a service needs to speak on behalf of others.
    pub service_roles: Vec<String>,
}

/// A user of Keystone that may validate tokens, and a project to be one in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The domain the user is of.
    pub user_domain: Domain,
    /// The user's password.
    pub password: Secret,
    /// The project's name.
    pub project: String,
    /// The domain the project is of.
    pub project_domain: Domain,
}

/// A domain, by one of two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// By its id.
    Id(String),
    /// By its name.
    Name(String),
}

/// Why the settings of a Keystone are not usable.
#[derive(Debug, thiserror::Error)]
pub enum KeystoneError {
    /// A URL is not one of Keystone's.
    #[error("`{url}` is not the URL of a Keystone: {expected}")]
    Url {
        /// The text.
        url: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A file of certificates cannot be read, or there is none in it.
    #[error("cannot take certificates of authorities from {place}: {cause}")]
    Certificates {
        /// The file, or the system.
        place: String,
        /// What went wrong.
        cause: String,
    },
    /// The library of TLS refuses to work.
    #[error("cannot prepare TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl KeystoneSettings {
    /// The URL that tokens are made and validated at.
    pub(crate) fn tokens_url(&self) -> Result<Uri, KeystoneError> {
        let refuse = |expected| KeystoneError::Url {
            url: self.url.clone(),
            expected,
        };
        let uri: Uri = self
            .url
            .parse()
            .map_err(|_| refuse("expected `http://HOST[:PORT][/PATH]` or `https://…`"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https"))
            || uri.host().is_none_or(str::is_empty)
        {
            return Err(refuse(
                "expected `http://HOST[:PORT][/PATH]` or `https://…`",
            ));
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(refuse("a user and password do not belong in it"));
        }
        if uri.query().is_some() {
            return Err(refuse("it must end without a query"));
        }
        let root = self.url.trim_end_matches('/');
        if root.ends_with("/v2.0") {
            return Err(refuse(
                "version 2.0 of its API is gone: expected its root or its `/v3`",
            ));
        }
        let version = if root.ends_with("/v3") { "" } else { "/v3" };
        format!("{root}{version}/auth/tokens")
            .parse()
            .map_err(|_| refuse("it is too long"))
    }

    /// What `WWW-Authenticate` is to say.
    pub(crate) fn challenge(&self) -> Result<HeaderValue, KeystoneError> {
        let url = self.public_url.as_ref().unwrap_or(&self.url);
        let plain = url
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
        HeaderValue::from_str(&format!("Keystone uri=\"{url}\""))
            .ok()
            .filter(|_| plain)
            .ok_or_else(|| KeystoneError::Url {
                url: url.clone(),
                expected: "it has characters that no URL has",
            })
    }
}

impl TrustAnchors {
    /// Those of a file, or the system's if none is named.
    pub fn of(file: Option<PathBuf>) -> Self {
        file.map_or(Self::System, Self::File)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> KeystoneSettings {
        let domain = Domain::Name("Default".to_owned());
        KeystoneSettings {
            url: url.to_owned(),
            public_url: None,
            credentials: Credentials {
                user: "glance".to_owned(),
                user_domain: domain.clone(),
                password: Secret::new("p"),
                project: "service".to_owned(),
                project_domain: domain,
            },
            trust: TrustAnchors::System,
            timeout: Duration::from_secs(1),
            questions_max: 1,
            cache_lifetime: Duration::from_secs(300),
            cache_entries_max: 1,
            service_roles: vec![],
        }
    }

    #[test]
    fn the_url_may_be_keystones_root_or_its_v3() {
        for (url, tokens) in [
            ("http://h:5000", "http://h:5000/v3/auth/tokens"),
            ("http://h:5000/", "http://h:5000/v3/auth/tokens"),
            ("http://h:5000/v3", "http://h:5000/v3/auth/tokens"),
            (
                "https://h/identity/v3/",
                "https://h/identity/v3/auth/tokens",
            ),
            (
                "https://[::1]:5000/identity",
                "https://[::1]:5000/identity/v3/auth/tokens",
            ),
        ] {
            assert_eq!(settings(url).tokens_url().unwrap().to_string(), tokens);
        }
        for bad in [
            "",
            "h",
            "h:5000",
            "/v3",
            "ftp://h",
            "http://",
            "http://u:p@h",
            "http://h/v2.0",
            "http://h/?x",
            "http://h h",
        ] {
            assert!(settings(bad).tokens_url().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_challenge_names_where_callers_reach_it() {
        let mut settings = settings("http://internal:5000");
        assert_eq!(
            settings.challenge().unwrap(),
            "Keystone uri=\"http://internal:5000\""
        );
        settings.public_url = Some("https://public/identity".to_owned());
        assert_eq!(
            settings.challenge().unwrap(),
            "Keystone uri=\"https://public/identity\""
        );
        settings.public_url = Some("https://public\", x=\"".to_owned());
        assert!(settings.challenge().is_err());
    }
}
