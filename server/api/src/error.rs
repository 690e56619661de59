//! What a request is answered with when it failed: the one table from errors to statuses.

use crate::negotiate;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tegula_catalog::service::ServiceError;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// For the caller.
    pub(crate) message: String,
    /// For the operator, if there is more to say than the caller is told.
    pub(crate) detail: Option<String>,
    /// Headers that the status asks for.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            detail: None,
            headers: Vec::new(),
        }
    }

    /// 400: the request makes no sense.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: there is nothing of that name.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// An error of ours: the caller is told so, the operator what it is.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the server failed; its log says why, under this request's id",
            )
        }
    }

    /// The same with a header more.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The body and its headers, in the form that the caller likes.
    pub(crate) fn render(&self, request: &HeaderMap) -> (String, HeaderMap) {
        let (body, kind) = negotiate::render(negotiate::form(request), self.status, &self.message);
        let mut headers: HeaderMap = self.headers.iter().cloned().collect();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        (body, headers)
    }
}

/// The status of each error of a use case.
pub(crate) fn status_of(error: &ServiceError) -> StatusCode {
    match error {
        ServiceError::NoImage(_) | ServiceError::NoMember { .. } | ServiceError::NoTag { .. } => {
            StatusCode::NOT_FOUND
        }
        ServiceError::Denied(_) | ServiceError::Forbidden(_) => StatusCode::FORBIDDEN,
        ServiceError::Invalid(_) => StatusCode::BAD_REQUEST,
        ServiceError::Conflict(_) | ServiceError::Status { .. } | ServiceError::Stale(_) => {
            StatusCode::CONFLICT
        }
        ServiceError::Limit(_) | ServiceError::Full { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ServiceError::Catalog(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match status_of(&error) {
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(chain(&error)),
            status => Self::new(status, error.to_string()),
        }
    }
}

/// An error with all its causes, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
