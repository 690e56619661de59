//! What a request is answered with when it failed: the one table from errors to statuses.

use crate::negotiate;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tegula_catalog::db::CatalogError;
use tegula_catalog::service::{ServiceError, TransferError};

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

    /// 503: what the server needs cannot be reached. Whether a change was made may be unknown.
    fn unavailable(detail: String) -> Self {
        Self {
            detail: Some(detail),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the database cannot be reached at present; try again",
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
fn status_of(error: &ServiceError) -> StatusCode {
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
        ServiceError::Catalog(CatalogError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
        ServiceError::Catalog(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The status of each error of a use case that moves bytes.
fn status_of_transfer(error: &TransferError) -> StatusCode {
    match error {
        TransferError::Service(error) => status_of(error),
        TransferError::Size { .. } | TransferError::NoStore(_) | TransferError::Source { .. } => {
            StatusCode::BAD_REQUEST
        }
        TransferError::Full(_) => StatusCode::PAYLOAD_TOO_LARGE,
        TransferError::Refused(_) | TransferError::Increment(_) => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        TransferError::OtherParent { .. } => StatusCode::PRECONDITION_FAILED,
        TransferError::Gone(_) => StatusCode::GONE,
        TransferError::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        TransferError::Sink(_) | TransferError::Missing(_) | TransferError::Store(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl From<TransferError> for ApiError {
    fn from(error: TransferError) -> Self {
        let told = match status_of_transfer(&error) {
            StatusCode::INTERNAL_SERVER_ERROR => return Self::internal(chain(&error)),
            StatusCode::SERVICE_UNAVAILABLE => return Self::unavailable(chain(&error)),
            status => Self::new(status, error.to_string()),
        };
        match &error {
            // What the client did to the connection, or the store's disk, is the operator's to know.
            TransferError::Source { .. } | TransferError::Full(_) => Self {
                detail: Some(chain(&error)),
                ..told
            },
            // The client has sent it, so it may know what is wrong with it.
            TransferError::Increment(_) => Self {
                message: chain(&error),
                ..told
            },
            _ => told,
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        TransferError::Service(error).into()
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
