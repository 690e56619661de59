//! One request on its way through a handler.

use crate::app::Shared;
use crate::body::Body;
use crate::error::ApiError;
use crate::json;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Incoming};
use serde::Serialize;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tegula_catalog::service::{Service, ServiceError, TransferError, Transfers};
use tegula_domain::{Caller, ImageId};
use tokio::task::JoinHandle;

/// What a handler answers.
pub(crate) type Answer = Result<Response<Body>, ApiError>;

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) head: Arc<request::Parts>,
    pub(crate) body: Incoming,
    /// What stands for the names in the route's path, in order.
    pub(crate) parameters: Vec<String>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) peer: SocketAddr,
    /// Whether the connection is encrypted.
    pub(crate) secure: bool,
}

impl Call {
    /// What stands for a name in the path; the first is 0.
    pub(crate) fn parameter(&self, index: usize) -> &str {
        self.parameters.get(index).map_or("", String::as_str)
    }

    /// The image that the path is about. What is no id is no image's.
    pub(crate) fn image_id(&self) -> Result<ImageId, ApiError> {
        ImageId::parse(self.parameter(0))
            .map_err(|_| ApiError::not_found(format!("there is no image {}", self.parameter(0))))
    }

    /// Asks a use case, on a thread that may block.
    pub(crate) async fn ask<T, A>(&self, ask: A) -> Result<T, ApiError>
    where
        T: Send + 'static,
        A: FnOnce(&Service, &Caller) -> Result<T, ServiceError> + Send + 'static,
    {
        self.transfer(|transfers, caller| Ok(ask(transfers.service(), caller)?))
            .await
    }

    /// Asks a use case that has to do with bytes, on a thread that may block.
    pub(crate) async fn transfer<T, A>(&self, ask: A) -> Result<T, ApiError>
    where
        T: Send + 'static,
        A: FnOnce(&Transfers, &Caller) -> Result<T, TransferError> + Send + 'static,
    {
        match self.begin_transfer(ask).await {
            Ok(answer) => Ok(answer?),
            Err(failed) => Err(ApiError::internal(format!("a use case ended: {failed}"))),
        }
    }

    /// As [`Self::transfer`], without waiting for it.
    pub(crate) fn begin_transfer<T, A>(&self, ask: A) -> JoinHandle<Result<T, TransferError>>
    where
        T: Send + 'static,
        A: FnOnce(&Transfers, &Caller) -> Result<T, TransferError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let caller = Arc::clone(&self.caller);
        tokio::task::spawn_blocking(move || ask(&shared.transfers, &caller))
    }

    /// Whether the caller names a media type among those that it takes.
    pub(crate) fn accepts(&self, kind: &str) -> bool {
        let values = self.head.headers.get_all(ACCEPT).into_iter();
        let types = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        types
            .filter_map(|wanted| wanted.split(';').next())
            .any(|wanted| wanted.trim().eq_ignore_ascii_case(kind))
    }

    /// Reads the body as JSON.
    pub(crate) async fn json(&mut self) -> Result<Value, ApiError> {
        let bytes = self.small_body().await?;
        if bytes.is_empty() {
            return Err(ApiError::bad_request("the request has no body"));
        }
        json::parse(&bytes)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))
    }

    /// Reads a body that is short and comes soon, or is refused.
    async fn small_body(&mut self) -> Result<Vec<u8>, ApiError> {
        let bytes_max = self.shared.settings.json_bytes_max;
        let too_large = || {
            ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has more than {bytes_max} bytes"),
            )
        };
        if self.body.size_hint().lower() > bytes_max as u64 {
            return Err(too_large());
        }
        let read = async {
            let mut bytes = Vec::new();
            while let Some(frame) = self.body.frame().await {
                let frame = frame.map_err(|error| {
                    ApiError::bad_request(format!("the body broke off: {error}"))
                })?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() + data.len() > bytes_max {
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(bytes)
        };
        tokio::time::timeout(self.shared.settings.json_timeout, read)
            .await
            .unwrap_or_else(|_| {
                Err(ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not arrive in time",
                ))
            })
    }

    /// What links of this server begin with, for this caller; without a trailing slash.
    pub(crate) fn endpoint(&self) -> String {
        endpoint(&self.shared, &self.head.headers, self.secure)
    }
}

/// See [`Call::endpoint`].
pub(crate) fn endpoint(shared: &Shared, headers: &HeaderMap, secure: bool) -> String {
    if let Some(endpoint) = &shared.settings.public_endpoint {
        return endpoint.trim_end_matches('/').to_owned();
    }
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(',').next().unwrap_or_default().trim())
            .filter(|value| !value.is_empty())
    };
    let forwarded = |name| text(name).filter(|_| shared.settings.trust_forwarded);
    let scheme = forwarded("x-forwarded-proto")
        .filter(|scheme| matches!(*scheme, "http" | "https"))
        .unwrap_or(if secure { "https" } else { "http" });
    let host = forwarded("x-forwarded-host")
        .or_else(|| text(HOST.as_str()))
        .filter(|host| !host.contains(['/', '?', '#', '@', ' ', '"', '<', '>', '\\']))
        .unwrap_or("localhost");
    format!("{scheme}://{host}")
}

/// An answer of JSON.
pub(crate) fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value)
        .map_err(|error| ApiError::internal(format!("an answer is no JSON: {error}")))?;
    json_text(status, body)
}

/// An answer of JSON that is text already.
pub(crate) fn json_text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Body::of(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// An answer of plain text.
pub(crate) fn text_answer(
    status: StatusCode,
    kind: &'static str,
    text: impl Into<String>,
) -> Answer {
    let mut response = Response::new(Body::of(text.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// The answer that has nothing to say: 204.
pub(crate) fn done() -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
