//! What Keystone says of a token.

use http::Method;
use serde::Deserialize;
use tegula_domain::{Scope, Timestamp};

use super::access_rules::AccessRule;
use crate::presented::Presented;

/// The service type of this server in catalogs and access rules.
const SERVICE_TYPE: &str = "image";

/// A token that Keystone knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) user: String,
    pub(crate) scope: Scope,
    /// The project that the token is for, if its scope is one.
    pub(crate) project: Option<String>,
    pub(crate) roles: Vec<String>,
    expires: Timestamp,
    /// What it is restricted to, if it was made of a restricted application credential.
    access_rules: Option<Vec<AccessRule>>,
}

impl Token {
    /// Reads the body of an answer to `GET` or `POST /v3/auth/tokens`.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, String> {
        // The position, not the message: that may quote the body.
        let Body { token } = serde_json::from_slice(body).map_err(|error| {
            format!(
                "not the JSON of a token (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        token.try_into()
    }

    pub(crate) fn expires(&self) -> Timestamp {
        self.expires
    }

    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires <= now
    }

    /// Whether the token is good for this request, as far as access rules are concerned.
    pub(crate) fn allows(&self, presented: &Presented<'_>) -> bool {
        let (method, path): (&Method, &str) = (presented.method, presented.path);
        self.access_rules.as_ref().is_none_or(|rules| {
            rules
                .iter()
                .any(|rule| rule.allows(SERVICE_TYPE, method, path))
        })
    }
}

impl TryFrom<WireToken> for Token {
    type Error = String;

    fn try_from(wire: WireToken) -> Result<Self, String> {
        let expires: jiff::Timestamp = wire
            .expires_at
            .parse()
            .map_err(|_| "`expires_at` is not a time of RFC 3339".to_owned())?;
        let scope = match (&wire.project, &wire.domain, &wire.system) {
            (Some(_), None, None) => Scope::Project,
            (None, Some(_), None) => Scope::Domain,
            (None, None, Some(WireSystem { all: true })) => Scope::System,
            (None, None, None) => Scope::Unscoped,
            _ => return Err("it has more than one scope, or one that is not known".to_owned()),
        };
        let ids = [
            Some(&wire.user),
            wire.project.as_ref(),
            wire.domain.as_ref(),
        ];
        if ids
            .into_iter()
            .flatten()
            .any(|with_id| with_id.id.is_empty())
        {
            return Err("an id is empty".to_owned());
        }
        let access_rules = wire
            .application_credential
            .and_then(|credential| credential.access_rules)
            .map(|rules| {
                rules
                    .iter()
                    .map(|rule| AccessRule::new(&rule.service, &rule.method, &rule.path))
                    .collect()
            });
        Ok(Self {
            user: wire.user.id,
            scope,
            project: wire.project.map(|project| project.id),
            roles: wire
                .roles
                .unwrap_or_default()
                .into_iter()
                .map(|role| role.name)
                .collect(),
            expires: Timestamp::from_micros(expires.as_microsecond()),
            access_rules,
        })
    }
}

#[derive(Deserialize)]
struct Body {
    token: WireToken,
}

/// The parts that are used of a token's JSON (Identity API v3, "Validate and show information for token").
#[derive(Deserialize)]
struct WireToken {
    expires_at: String,
    user: WithId,
    project: Option<WithId>,
    domain: Option<WithId>,
    system: Option<WireSystem>,
    roles: Option<Vec<WireRole>>,
    application_credential: Option<WireApplicationCredential>,
}

#[derive(Deserialize)]
struct WithId {
    id: String,
}

/// `{"all": true}` is the only system there is.
#[derive(Deserialize)]
struct WireSystem {
    all: bool,
}

#[derive(Deserialize)]
struct WireRole {
    name: String,
}

#[derive(Deserialize)]
struct WireApplicationCredential {
    access_rules: Option<Vec<WireAccessRule>>,
}

#[derive(Deserialize)]
struct WireAccessRule {
    service: String,
    method: String,
    path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Token, String> {
        Token::decode(json.as_bytes())
    }

    #[test]
    fn a_project_token_names_user_project_and_roles() {
        let token = decode(
            r#"{"token": {"expires_at": "2026-11-25T00:00:01.500000Z", "methods": ["password"],
                "user": {"id": "u1", "name": "alice", "domain": {"id": "default", "name": "Default"}},
                "project": {"id": "p1", "name": "demo", "domain": {"id": "default"}}, "is_domain": false,
                "roles": [{"id": "1", "name": "Member"}, {"id": "2", "name": "reader"}], "catalog": []}}"#,
        )
        .unwrap();
        assert_eq!(
            (token.user.as_str(), token.project.as_deref()),
            ("u1", Some("p1"))
        );
        assert_eq!(token.roles, ["Member", "reader"]);
        assert_eq!(
            token.expires(),
            Timestamp::from_micros(1_795_564_801_500_000)
        );
        assert!(
            token.has_expired(token.expires()) && !token.has_expired(Timestamp::from_micros(0))
        );
    }

    #[test]
    fn scopes_without_a_project() {
        let scope = |extra: &str| {
            decode(&format!(r#"{{"token": {{"expires_at": "2026-11-25T00:00:00Z", "user": {{"id": "u"}}{extra}}}}}"#))
                .unwrap()
                .scope
        };
        assert_eq!(scope(""), Scope::Unscoped);
        assert_eq!(
            scope(r#", "project": null, "roles": null"#),
            Scope::Unscoped
        );
        assert_eq!(scope(r#", "domain": {"id": "default"}"#), Scope::Domain);
        assert_eq!(scope(r#", "system": {"all": true}"#), Scope::System);
    }

    #[test]
    fn what_is_not_a_token_is_an_error_that_repeats_nothing() {
        let deep = "[".repeat(100_000);
        for bad in [
            "",
            "canary",
            "{}",
            "[]",
            "null",
            r#"{"token": null}"#,
            r#"{"token": {}}"#,
            r#"{"token": {"expires_at": "canary", "user": {"id": "u"}}}"#,
            r#"{"token": {"expires_at": 1795564800, "user": {"id": "u"}}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z"}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": ""}}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": 1}}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": "u"}, "roles": "canary"}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": "u"}, "project": {"id": ""}}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": "u"}, "project": {"id": "p"}, "domain": {"id": "d"}}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": "u"}, "system": {"all": false}}}"#,
            r#"{"token": {"expires_at": "2026-11-25T00:00:00Z", "user": {"id": "u"}, "user": {"id": "admin"}}}"#,
            &deep,
        ] {
            let error = decode(bad).expect_err(bad);
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
