//! The questions that Keystone is asked, and our own token to ask them with.

use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::json;
use tegula_domain::Timestamp;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::settings::{Credentials, Domain, KeystoneError, KeystoneSettings};
use super::tls;
use super::token::Token;
use super::transport::{Answer, Transport, TransportError};
use crate::WallClock;

/// Our own token is renewed so long before it ends, so that it does not end on its way.
const MARGIN_US: i64 = 30_000_000;

/// After Keystone refused our credentials, it is not asked again for so long: repeating would lock the account.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);

/// Asks a Keystone.
pub(crate) struct Client {
    transport: Transport,
    tokens_url: Uri,
    credentials: Credentials,
    timeout: Duration,
    questions: Semaphore,
    session: Mutex<Session>,
    clock: WallClock,
}

/// Our own token.
#[derive(Default)]
struct Session {
    token: Option<OwnToken>,
    /// Until when Keystone is not asked for one.
    refused_until: Option<Instant>,
    tokens_made: u64,
}

#[derive(Clone)]
struct OwnToken {
    /// Marked as sensitive: its `Debug` does not show it.
    header: HeaderValue,
    /// Which of our tokens it is: two requests that find the same one refused renew it once.
    number: u64,
    expires: Timestamp,
}

/// Why Keystone does not say whether a token is good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("it refuses our own credentials, of user `{0}`")]
    Refused(String),
    #[error("it refuses a token that it just gave us")]
    RefusedAgain,
    #[error("it answers {asked} with status {status}")]
    Status {
        asked: &'static str,
        status: StatusCode,
    },
    #[error("its answer to {asked} is not understood: {cause}")]
    NotUnderstood { asked: &'static str, cause: String },
}

const LOGIN: &str = "our login";
const VALIDATION: &str = "the validation of a token";

impl Client {
    pub(crate) fn new(settings: KeystoneSettings, clock: WallClock) -> Result<Self, KeystoneError> {
        let tokens_url = settings.tokens_url()?;
        let tls = match tokens_url.scheme_str() {
            Some("https") => settings.trust.client_config()?,
            _ => tls::without_trust()?,
        };
        Ok(Self {
            transport: Transport::new(tls, settings.questions_max),
            tokens_url,
            credentials: settings.credentials,
            timeout: settings.timeout,
            questions: Semaphore::new(settings.questions_max),
            session: Mutex::default(),
            clock,
        })
    }

    /// What Keystone says of a token; `None` if it does not know it.
    ///
    /// With `allow_expired`, it also says it of one that ended not long ago.
    pub(crate) async fn validate(
        &self,
        token: &str,
        allow_expired: bool,
    ) -> Result<Option<Token>, Failure> {
        timeout(self.timeout, self.validate_unbounded(token, allow_expired))
            .await
            .unwrap_or(Err(Failure::Timeout(self.timeout)))
    }

    async fn validate_unbounded(
        &self,
        token: &str,
        allow_expired: bool,
    ) -> Result<Option<Token>, Failure> {
        let _permit = self
            .questions
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let own = self.own_token(None).await?;
        let mut answer = self.ask(&own, token, allow_expired).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            let renewed = self.own_token(Some(own.number)).await?;
            answer = self.ask(&renewed, token, allow_expired).await?;
        }
        match answer.status {
            StatusCode::OK => {
                Token::decode(&answer.body)
                    .map(Some)
                    .map_err(|cause| Failure::NotUnderstood {
                        asked: VALIDATION,
                        cause,
                    })
            }
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED => Err(Failure::RefusedAgain),
            status => Err(Failure::Status {
                asked: VALIDATION,
                status,
            }),
        }
    }

    async fn ask(
        &self,
        own: &OwnToken,
        token: &str,
        allow_expired: bool,
    ) -> Result<Answer, Failure> {
        let query = if allow_expired {
            "nocatalog=1&allow_expired=1"
        } else {
            "nocatalog=1"
        };
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}?{query}", self.tokens_url))
            .header("x-auth-token", &own.header)
            .header("x-subject-token", token)
            .header("openstack-identity-access-rules", "1.0")
            .header("accept", "application/json")
            .body(Full::default())
            .map_err(not_sent)?;
        Ok(self.transport.send(request).await?)
    }

    /// Our own token: the one at hand unless it ends soon or is the one that was refused, else a new one.
    async fn own_token(&self, refused: Option<u64>) -> Result<OwnToken, Failure> {
        let mut session = self.session.lock().await;
        let soon = Timestamp::from_micros((self.clock)().as_micros().saturating_add(MARGIN_US));
        if let Some(token) = &session.token
            && token.expires > soon
            && refused != Some(token.number)
        {
            return Ok(token.clone());
        }
        session.token = None;
        if session
            .refused_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(Failure::Refused(self.credentials.user.clone()));
        }
        let (header, expires) = match self.log_in().await {
            Err(refusal @ Failure::Refused(_)) => {
                session.refused_until = Some(Instant::now() + REFUSAL_HOLDS);
                return Err(refusal);
            }
            answer => answer?,
        };
        session.tokens_made += 1;
        let token = OwnToken {
            header,
            number: session.tokens_made,
            expires,
        };
        session.token = Some(token.clone());
        Ok(token)
    }

    /// Gets a new token for ourselves.
    async fn log_in(&self) -> Result<(HeaderValue, Timestamp), Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}?nocatalog=1", self.tokens_url))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::from(self.credentials.login()))
            .map_err(not_sent)?;
        let answer = self.transport.send(request).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return Err(Failure::Refused(self.credentials.user.clone()));
            }
            status => {
                return Err(Failure::Status {
                    asked: LOGIN,
                    status,
                });
            }
        }
        let not_understood = |cause| Failure::NotUnderstood {
            asked: LOGIN,
            cause,
        };
        let expires = Token::decode(&answer.body)
            .map_err(not_understood)?
            .expires();
        let mut header = answer
            .subject_token
            .ok_or_else(|| not_understood("it has no `X-Subject-Token`".to_owned()))?;
        header.set_sensitive(true);
        Ok((header, expires))
    }
}

fn not_sent(error: http::Error) -> Failure {
    Failure::Transport(TransportError::Broken(error.to_string()))
}

impl Credentials {
    /// The body of a login with a password (Identity API v3, "Password authentication with scoped authorization").
    fn login(&self) -> Bytes {
        let user = json!({
            "name": self.user,
            "domain": self.user_domain.json(),
            "password": self.password.reveal(),
        });
        let project = json!({"name": self.project, "domain": self.project_domain.json()});
        let login = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }});
        Bytes::from(login.to_string())
    }
}

impl Domain {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name) => json!({"name": name}),
        }
    }
}
