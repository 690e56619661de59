//! Requests to one HTTP server: bounded in time by the caller, in size here; redirects are not followed.

use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

/// The longest answer that is read: a token with some thousand roles and access rules.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long a connection is kept for the next request. Less than what servers usually grant.
const IDLE: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(crate) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The `X-Subject-Token` header.
    pub(crate) subject_token: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// Why nothing, or nothing usable, came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("its answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

impl Transport {
    pub(crate) fn new(tls: ClientConfig, connections_max: usize) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(connections_max)
            .build(connector);
        Self { client }
    }

    /// Sends a request. One that a kept connection fails to carry is sent once more, on another: the server may close a
    /// connection at the moment it is used. All requests here can be repeated.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, TransportError> {
        match self.send_once(request.clone()).await {
            Err(TransportError::Broken(_)) => self.send_once(request).await,
            answer => answer,
        }
    }

    async fn send_once(&self, request: Request<Full<Bytes>>) -> Result<Answer, TransportError> {
        let response = self.client.request(request).await.map_err(|error| {
            if error.is_connect() {
                TransportError::Connect(innermost(&error))
            } else {
                TransportError::Broken(innermost(&error))
            }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    TransportError::TooLong
                } else {
                    TransportError::Broken(innermost(error.as_ref()))
                }
            })?;
        Ok(Answer {
            status: head.status,
            subject_token: head.headers.get("x-subject-token").cloned(),
            body: body.to_bytes(),
        })
    }
}

/// The text of the first cause: those around it only say that a request failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
