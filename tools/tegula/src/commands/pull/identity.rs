//! Who asks: a token that was given, or one that Keystone gives for what OS_* variables say.

use super::PullError;
use serde_json::{Value, json};

/// How a token is come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nobody: for services that are open.
    Nobody,
    /// By this token.
    Token(String),
    /// By asking Keystone.
    Keystone(Keystone),
}

/// What Keystone is asked with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keystone {
    /// Where tokens are made.
    pub(super) url: String,
    /// The request.
    pub(super) body: Value,
}

impl std::fmt::Debug for Keystone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The body has a password in it.
        f.debug_struct("Keystone")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Looks at what was given and at the environment, in this order: `--token` or TEGULA_TOKEN, OS_TOKEN, OS_AUTH_URL.
    ///
    /// # Errors
    /// [`PullError::Credentials`] if there is a Keystone and not all that it asks for.
    pub(super) fn of(
        token: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, PullError> {
        let given = token.map(str::to_owned).or_else(|| variable("OS_TOKEN"));
        if let Some(token) = given {
            return Ok(Self::Token(token));
        }
        let Some(url) = variable("OS_AUTH_URL") else {
            return Ok(Self::Nobody);
        };
        let url = url.trim_end_matches('/');
        let url = match url.ends_with("/v3") {
            true => format!("{url}/auth/tokens"),
            false => format!("{url}/v3/auth/tokens"),
        };
        let body = request(variable)?;
        Ok(Self::Keystone(Keystone { url, body }))
    }
}

/// Returns what is sent to Keystone (Identity API v3, "Password authentication with scoped authorization").
fn request(variable: &dyn Fn(&str) -> Option<String>) -> Result<Value, PullError> {
    let needed =
        |name: &'static str| variable(name).ok_or(PullError::Credentials { missing: name });
    if let Some(id) = variable("OS_APPLICATION_CREDENTIAL_ID") {
        let secret = needed("OS_APPLICATION_CREDENTIAL_SECRET")?;
        return Ok(json!({ "auth": { "identity": {
            "methods": ["application_credential"],
            "application_credential": { "id": id, "secret": secret },
        }}}));
    }
    let domain = |kind: &str| {
        let by = |what: &str| variable(&format!("OS_{kind}_DOMAIN_{what}"));
        match (by("ID"), by("NAME")) {
            (Some(id), _) => json!({ "id": id }),
            (None, Some(name)) => json!({ "name": name }),
            (None, None) => json!({ "id": "default" }),
        }
    };
    let password = needed("OS_PASSWORD")?;
    let user = match variable("OS_USER_ID") {
        Some(id) => json!({ "id": id, "password": password }),
        None => json!({
            "name": needed("OS_USERNAME")?, "domain": domain("USER"), "password": password,
        }),
    };
    let project = match variable("OS_PROJECT_ID") {
        Some(id) => json!({ "id": id }),
        None => json!({ "name": needed("OS_PROJECT_NAME")?, "domain": domain("PROJECT") }),
    };
    Ok(json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": user } },
        "scope": { "project": project },
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(token: Option<&str>, set: &[(&str, &str)]) -> Result<Identity, PullError> {
        Identity::of(token, &|wanted| {
            let found = set.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_token_that_is_given_comes_first() {
        let set = [("OS_TOKEN", "b"), ("OS_AUTH_URL", "http://keystone")];
        let token = |text: &str| Identity::Token(text.to_owned());
        assert_eq!(of(Some("a"), &set).unwrap(), token("a"));
        assert_eq!(of(None, &set).unwrap(), token("b"));
        assert_eq!(of(None, &[]).unwrap(), Identity::Nobody);
    }

    #[test]
    fn keystone_is_asked_with_what_the_environment_says() {
        let mut set = vec![
            ("OS_AUTH_URL", "http://keystone:5000/"),
            ("OS_USERNAME", "ann"),
            ("OS_PASSWORD", "secret"),
            ("OS_PROJECT_NAME", "web"),
            ("OS_PROJECT_DOMAIN_NAME", "Default"),
        ];
        let Identity::Keystone(keystone) = of(None, &set).unwrap() else {
            panic!("Keystone is not asked");
        };
        assert_eq!(keystone.url, "http://keystone:5000/v3/auth/tokens");
        let user = &keystone.body["auth"]["identity"]["password"]["user"];
        assert_eq!(user["name"], "ann");
        assert_eq!(user["domain"]["id"], "default");
        let project = &keystone.body["auth"]["scope"]["project"];
        assert_eq!(project["domain"]["name"], "Default");
        assert!(!format!("{keystone:?}").contains("secret"));
        set.retain(|(name, _)| *name != "OS_PASSWORD");
        let error = of(None, &set).unwrap_err();
        assert!(error.to_string().contains("OS_PASSWORD"), "{error}");
    }
}
