//! The way of a request: id, version, route, caller, body rule, handler; and of its answer: form of errors, CORS, id, log.

use crate::access_log::AccessEntry;
use crate::app::Shared;
use crate::body::{Body, Finish};
use crate::call::{Answer, Call, endpoint, json_answer};
use crate::error::ApiError;
use crate::route::{Accepts, Endpoint, Found, Route};
use crate::{handlers, request_id, route, versions};
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tegula_domain::Caller;
use tegula_identity::{IdentityError, Presented};

/// The connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// Whether it is encrypted.
    pub(crate) secure: bool,
}

/// What is known of a request besides its head.
#[derive(Debug, Default)]
struct Noted {
    endpoint: Option<Endpoint>,
    caller: Option<Arc<Caller>>,
    accepts: Option<Accepts>,
}

impl Noted {
    /// Whether the request got so far that its body was read as JSON.
    fn reads_json(&self) -> bool {
        self.accepts == Some(Accepts::Json)
    }
}

/// Answers a request.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    shared.metrics.in_flight.fetch_add(1, Relaxed);
    let began = shared.clock.elapsed();
    let (head, body) = request.into_parts();
    let head = Arc::new(head);
    let (method, headers) = (head.method.clone(), &head.headers);
    let mut noted = Noted::default();
    let has_body = has_body(headers);
    let new_id = shared.random_ids.0;
    let (id, answer) = match request_id::of(headers, shared.settings.request_id_bytes_max, new_id) {
        Ok(id) if !is_unambiguous(&head) => (id, Err(ambiguous())),
        Ok(id) if method == Method::OPTIONS => (id, preflight(&shared, headers)),
        Ok(id) => {
            let head = Arc::clone(&head);
            let way = route_and_handle(&shared, connection, head, body, &mut noted);
            (id, way.await)
        }
        Err(request_id::TooLong) => (request_id::fresh(&new_id()), Err(id_too_long())),
    };
    let (mut response, detail) = match answer {
        Ok(response) => (response, None),
        Err(error) => {
            let unread = (has_body && !noted.reads_json()) || !is_unambiguous(&head);
            let (mut response, detail) = error_answer(headers, error);
            if unread {
                // The rest of the body is not looked at, so no request can follow it.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            (response, detail)
        }
    };
    if method != Method::OPTIONS {
        shared
            .settings
            .cors
            .decorate(headers, response.headers_mut());
    }
    let entry = AccessEntry {
        request_id: id.to_str().unwrap_or_default().to_owned(),
        peer: connection.peer,
        method,
        target: head.uri.to_string(),
        operation: noted.endpoint.map(Endpoint::name),
        user: noted.caller.as_ref().and_then(|caller| caller.user.clone()),
        project: noted.caller.and_then(|caller| caller.project.clone()),
        status: response.status(),
        bytes_sent: 0,
        complete: false,
        duration: began,
        detail,
    };
    response.headers_mut().insert(request_id::NAME, id);
    response.map(|body| {
        body.finishing(Finish {
            shared,
            endpoint: noted.endpoint,
            began,
            entry,
        })
    })
}

async fn route_and_handle(
    shared: &Arc<Shared>,
    connection: Connection,
    head: Arc<request::Parts>,
    body: Incoming,
    noted: &mut Noted,
) -> Answer {
    let path = head.uri.path();
    let (found, open) = match open_route(head.method.as_str(), path) {
        Some(found) => (found, true),
        None => match versions::asked(path, &head.headers) {
            versions::Asked::Choices => return choices(shared, connection, &head.headers),
            versions::Asked::V2(rest) => (
                route::find(head.method.as_str(), &format!("/v2{rest}")),
                false,
            ),
        },
    };
    let caller = if open {
        Arc::new(Caller::anonymous())
    } else {
        let caller = Arc::new(identify(shared, connection, &head).await?);
        noted.caller = Some(Arc::clone(&caller));
        caller
    };
    let (route, parameters) = known(found)?;
    noted.endpoint = Some(route.endpoint);
    noted.accepts = Some(route.accepts);
    check_body(route, &head)?;
    let call = Call {
        shared: Arc::clone(shared),
        head,
        body,
        parameters,
        caller,
        peer: connection.peer,
        secure: connection.secure,
    };
    handlers::handle(route.endpoint, call).await
}

/// A route beside the versions, which everybody may ask.
fn open_route(method: &str, path: &str) -> Option<Found> {
    if path.starts_with("/v2") {
        return None;
    }
    let path = match path.strip_prefix("/versions/") {
        Some(_) => "/versions",
        None => path,
    };
    let found = route::find(method, path);
    matches!(found, Found::Route(..) | Found::OtherMethods(_)).then_some(found)
}

async fn identify(
    shared: &Shared,
    connection: Connection,
    head: &request::Parts,
) -> Result<Caller, ApiError> {
    let identity = &shared.identity;
    let presented = Presented {
        method: &head.method,
        path: head.uri.path(),
        headers: &head.headers,
        peer: connection.peer,
    };
    identity.identify(&presented).await.map_err(|error| {
        let detail = Some(error.to_string());
        let refused = match error {
            IdentityError::Missing | IdentityError::Invalid(_) | IdentityError::Forbidden => {
                ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "a valid token is needed to ask for this",
                )
                .with(WWW_AUTHENTICATE, identity.challenge())
            }
            IdentityError::Unavailable(_) => ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the identity service does not answer; try again",
            ),
        };
        ApiError { detail, ..refused }
    })
}

fn known(found: Found) -> Result<(&'static Route, Vec<String>), ApiError> {
    match found {
        Found::Route(route, parameters) => Ok((route, parameters)),
        Found::OtherMethods(allow) => {
            let error = ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("this path answers only {allow}"),
            );
            let allow = HeaderValue::from_str(&allow)
                .map_err(|error| ApiError::internal(error.to_string()))?;
            Err(error.with(ALLOW, allow))
        }
        Found::NoPath => Err(ApiError::not_found("there is nothing under this path")),
        Found::NoMethod => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "there is nothing under this path, and no such method",
        )),
        Found::BadPath => Err(ApiError::bad_request(
            "the path is not percent-encoded UTF-8",
        )),
    }
}

/// Refuses a body where there is none to be: one of more than no bytes, or one of unknown length where methods have one.
fn check_body(route: &Route, head: &request::Parts) -> Result<(), ApiError> {
    if route.accepts != Accepts::Nothing {
        return Ok(());
    }
    let chunked = head.headers.contains_key(TRANSFER_ENCODING)
        && matches!(route.method, "POST" | "PUT" | "PATCH");
    if is_sized(&head.headers) || chunked {
        Err(ApiError::bad_request("a body is not expected here"))
    } else {
        Ok(())
    }
}

/// Whether everyone on the way reads the head alike: it names one host (RFC 9112 §3.2; in HTTP/1.0, which has no such rule, at
/// most one) and one coding of the body, the one that is understood here. hyper refuses the other ways to be ambiguous.
fn is_unambiguous(head: &request::Parts) -> bool {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next().map(HeaderValue::as_bytes);
    let chunked = coding.is_none_or(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match hosts.next() {
        Some(host) => is_host(host),
        None => head.version == Version::HTTP_10,
    };
    chunked && codings.next().is_none() && host && hosts.next().is_none()
}

/// Whether it is a host with or without a port, or empty, as it is for a target without one.
fn is_host(host: &HeaderValue) -> bool {
    let host = host.as_bytes();
    host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok())
}

fn ambiguous() -> ApiError {
    ApiError::bad_request(
        "the request names no host, several, or what is none, or another transfer coding than chunked",
    )
}

/// Whether the head announces a body of more than no bytes.
fn is_sized(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    length.is_some_and(|length| length.iter().any(|digit| *digit != b'0'))
}

/// Whether the head announces a body.
fn has_body(headers: &HeaderMap) -> bool {
    is_sized(headers) || headers.contains_key(TRANSFER_ENCODING)
}

fn choices(shared: &Shared, connection: Connection, headers: &HeaderMap) -> Answer {
    let endpoint = endpoint(shared, headers, connection.secure);
    json_answer(StatusCode::MULTIPLE_CHOICES, &versions::document(&endpoint))
}

fn preflight(shared: &Shared, request: &HeaderMap) -> Answer {
    let mut response = Response::new(Body::empty());
    shared
        .settings
        .cors
        .preflight(request, response.headers_mut());
    Ok(response)
}

fn id_too_long() -> ApiError {
    ApiError::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "X-OpenStack-Request-ID is too long",
    )
}

fn error_answer(request: &HeaderMap, error: ApiError) -> (Response<Body>, Option<String>) {
    let (body, headers) = error.render(request);
    let mut response = Response::new(Body::of(body));
    *response.status_mut() = error.status;
    *response.headers_mut() = headers;
    (response, error.detail)
}
