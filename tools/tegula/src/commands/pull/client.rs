//! Requests: with a token, again when the connection breaks or the server is busy, and no longer than it has patience.

use super::PullError;
use super::identity::Identity;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use ureq::http::Response;
use ureq::http::header::{HeaderMap, HeaderName};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

/// How long a server may be silent before the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// The longest document that is read: an image's record has a few KiB.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// The most that is shown of what a server says of an error.
const MESSAGE_CHARS_MAX: usize = 300;

/// The longest wait between two attempts, whatever the server asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Speaks with one service.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    identity: Identity,
    token: Option<String>,
    attempts_max: u32,
}

/// Counts attempts that led nowhere.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    attempts: u32,
    attempts_max: u32,
}

impl Patience {
    /// Begins anew: something was got.
    pub(super) fn renew(&mut self) {
        (self.left, self.attempts) = (self.attempts_max, 0);
    }

    /// Waits before another attempt; `false` if there is to be none.
    pub(super) fn wait(&mut self, asked: Option<Duration>) -> bool {
        self.attempts += 1;
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let step = self.attempts.saturating_sub(1).min(6);
        let usual = Duration::from_millis(150) * 2_u32.pow(step);
        std::thread::sleep(asked.unwrap_or(usual).min(WAIT_MAX));
        true
    }
}

/// An answer to a GET; its status may be anything.
pub(super) type Answer = Response<Body>;

impl Client {
    /// Prepares to speak, past the environment's proxies if `directly`, and gets a token if Keystone has to be asked for
    /// one.
    ///
    /// # Errors
    /// [`PullError`].
    pub(super) fn new(
        identity: Identity,
        certificates: Option<&Path>,
        https: bool,
        (attempts_max, directly): (u32, bool),
    ) -> Result<Self, PullError> {
        let keystone =
            matches!(&identity, Identity::Keystone(asked) if asked.url.starts_with("https:"));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_recv_response(Some(SILENCE_MAX))
            .timeout_per_read(Some(SILENCE_MAX))
            .timeout_per_write(Some(SILENCE_MAX))
            .user_agent(concat!("tegula/", env!("CARGO_PKG_VERSION")));
        if directly {
            config = config.proxy(None);
        }
        if https || keystone {
            config = config.tls_config(tls(certificates)?);
        }
        let mut client = Self {
            agent: config.build().into(),
            token: None,
            identity,
            attempts_max,
        };
        client.authenticate()?;
        Ok(client)
    }

    /// Gets a token, a new one if there was one.
    fn authenticate(&mut self) -> Result<(), PullError> {
        self.token = match &self.identity {
            Identity::Nobody => None,
            Identity::Token(token) => Some(token.clone()),
            Identity::Keystone(keystone) => {
                let body = keystone.body.to_string();
                let mut answer = self.persist(&keystone.url, || {
                    self.agent
                        .post(&keystone.url)
                        .header("Content-Type", "application/json")
                        .header("Accept", "application/json")
                        .send(&body)
                })?;
                if answer.status() != 201 {
                    return Err(refusal(&keystone.url, &mut answer));
                }
                let token = header(answer.headers(), "x-subject-token");
                Some(token.ok_or_else(|| PullError::Answer {
                    url: keystone.url.clone(),
                    what: "there is no token in the answer".to_owned(),
                })?)
            }
        };
        Ok(())
    }

    /// Returns a new count of attempts.
    pub(super) fn patience(&self) -> Patience {
        Patience {
            left: self.attempts_max,
            attempts: 0,
            attempts_max: self.attempts_max,
        }
    }

    /// Asks once.
    pub(super) fn get_once(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("X-Auth-Token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call()
    }

    /// Asks until there is an answer that is none of "later"; with a new token, if Keystone's is no longer good.
    ///
    /// # Errors
    /// [`PullError::Unreachable`], [`PullError::Refused`], [`PullError::Status`].
    pub(super) fn get(&mut self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, PullError> {
        let answer = self.persist(url, || self.get_once(url, headers))?;
        if answer.status() == 401 && self.renew_token()? {
            return self.persist(url, || self.get_once(url, headers));
        }
        Ok(answer)
    }

    /// Gets another token; `false` if there is none to be had.
    pub(super) fn renew_token(&mut self) -> Result<bool, PullError> {
        let renewable = matches!(self.identity, Identity::Keystone(_));
        if renewable {
            self.authenticate()?;
        }
        Ok(renewable)
    }

    fn persist(
        &self,
        url: &str,
        ask: impl Fn() -> Result<Answer, ureq::Error>,
    ) -> Result<Answer, PullError> {
        let mut patience = self.patience();
        loop {
            match ask() {
                Ok(answer) if !is_later(answer.status().as_u16()) => return Ok(answer),
                Ok(mut answer) => {
                    if !patience.wait(asked_wait(&answer)) {
                        return Err(refusal(url, &mut answer));
                    }
                }
                Err(error) if !is_passing(&error) => return Err(lasting(url, error)),
                Err(error) => {
                    if !patience.wait(None) {
                        return Err(unreachable(url, &patience, error));
                    }
                }
            }
        }
    }

    /// Gets a JSON document; `None` if the service has no such thing.
    ///
    /// # Errors
    /// As for [`Self::document`].
    pub(super) fn document_if_any(&mut self, url: &str) -> Result<Option<Value>, PullError> {
        match self.document(url) {
            Err(PullError::Status { status: 404, .. }) => Ok(None),
            document => document.map(Some),
        }
    }

    /// Gets a JSON document.
    ///
    /// # Errors
    /// As for [`Self::get`]; [`PullError::Answer`] if it is no document.
    pub(super) fn document(&mut self, url: &str) -> Result<Value, PullError> {
        let mut answer = self.get(url, &[("Accept", "application/json")])?;
        if answer.status() != 200 {
            return Err(refusal(url, &mut answer));
        }
        let wrong = |what: String| PullError::Answer {
            url: url.to_owned(),
            what,
        };
        let body = answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX);
        let text = body
            .read_to_string()
            .map_err(|error| wrong(format!("the document cannot be read: {error}")))?;
        let document = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("the answer is no JSON document: {error}")))?;
        Ok(document)
    }
}

/// Tells whether a status says that the same request may do better later.
pub(super) fn is_later(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Tells whether an error may be none the next time.
pub(super) fn is_passing(error: &ureq::Error) -> bool {
    matches!(
        error,
        ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_)
    )
}

pub(super) fn lasting(url: &str, error: ureq::Error) -> PullError {
    PullError::Refused {
        url: url.to_owned(),
        source: Box::new(error),
    }
}

pub(super) fn unreachable(url: &str, patience: &Patience, error: ureq::Error) -> PullError {
    PullError::Unreachable {
        url: url.to_owned(),
        attempts: patience.attempts,
        source: Box::new(error),
    }
}

/// Returns how long the server asks to wait.
pub(super) fn asked_wait(answer: &Answer) -> Option<Duration> {
    let asked = header(answer.headers(), "retry-after")?;
    asked.trim().parse().ok().map(Duration::from_secs)
}

/// Returns a header's text.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Makes an error of an answer that says no.
pub(super) fn refusal(url: &str, answer: &mut Answer) -> PullError {
    let status = answer.status().as_u16();
    let text = answer
        .body_mut()
        .with_config()
        .limit(64 << 10)
        .read_to_string();
    PullError::Status {
        url: url.to_owned(),
        status,
        message: message(&text.unwrap_or_default()),
    }
}

/// Returns what an error's body says, on one line: the message of Glance's JSON, or the first lines of a text.
fn message(body: &str) -> String {
    let json: Option<Value> = serde_json::from_str(body).ok();
    let json = json.as_ref().and_then(|json| {
        let keystone = json.get("error").and_then(|error| error.get("message"));
        json.get("message").or(keystone)?.as_str()
    });
    let text = match json {
        Some(text) => text.replace("<br />", " "),
        None if body.trim_start().starts_with('<') => String::new(),
        None => body.to_owned(),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Trusts the certificates in a file, or those of the system (SSL_CERT_FILE counts).
fn tls(certificates: Option<&Path>) -> Result<TlsConfig, PullError> {
    let found = match certificates {
        Some(path) => rustls_native_certs::load_certs_from_paths(Some(path), None),
        None => rustls_native_certs::load_native_certs(),
    };
    let path = || certificates.unwrap_or(Path::new("the system")).to_owned();
    if found.certs.is_empty() {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let reason = match errors.is_empty() {
            true => "there is none".to_owned(),
            false => errors.join("; "),
        };
        let path = path();
        return Err(PullError::Certificates { path, reason });
    }
    let certs: Vec<Certificate<'static>> = found
        .certs
        .iter()
        .map(|cert| Certificate::from_der(cert).to_owned())
        .collect();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&certs))
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_an_error_is_one_line() {
        for (body, said) in [
            ("", ""),
            (
                r#"{"message": "No image found<br /><br />\n\n\n", "code": "404 Not Found", "title": "Not Found"}"#,
                "No image found",
            ),
            (
                r#"{"error": {"code": 401, "message": "expired"}}"#,
                "expired",
            ),
            (
                "404 Not Found\n\nno such image\n",
                "404 Not Found no such image",
            ),
            ("<html><body>long</body></html>", ""),
        ] {
            assert_eq!(message(body), said, "{body}");
        }
        assert_eq!(message(&"x".repeat(5000)).len(), MESSAGE_CHARS_MAX);
    }
}
