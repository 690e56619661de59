//! What is noted of each request when its answer has gone out, or was given up.

use http::{Method, StatusCode};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct AccessEntry {
    /// Its id.
    pub request_id: String,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Its method.
    pub method: Method,
    /// Its path and query, as they came.
    pub target: String,
    /// The name of the operation; none if the path has none.
    pub operation: Option<&'static str>,
    /// The caller's user, if one is known.
    pub user: Option<String>,
    /// The caller's project, if one is known.
    pub project: Option<String>,
    /// The status of the answer.
    pub status: StatusCode,
    /// How many bytes of the answer's body were taken.
    pub bytes_sent: u64,
    /// Whether the whole body was taken.
    pub complete: bool,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// What went wrong in the server, for its operator; never shown to callers.
    pub detail: Option<String>,
}

/// Takes the entries; called on threads that serve connections, so it must not block for long.
pub trait AccessLog: fmt::Debug + Send + Sync {
    /// Notes a request.
    fn log(&self, entry: &AccessEntry);
}
