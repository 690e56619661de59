//! One event for every request that was answered.

use tegula_api::{AccessEntry, AccessLog};
use tracing::{error, info};

/// Notes requests in the log. What clients write into them is quoted.
#[derive(Debug)]
pub(crate) struct RequestsToLog {
    /// Whether every request is noted, or those only in which something went wrong in the server.
    pub(crate) all: bool,
}

impl AccessLog for RequestsToLog {
    fn log(&self, entry: &AccessEntry) {
        let microseconds = u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX);
        if entry.status.is_server_error() {
            error!(
                request_id = ?entry.request_id,
                status = entry.status.as_u16(),
                operation = entry.operation,
                detail = ?entry.detail.as_deref().unwrap_or("-"),
                "a request failed"
            );
        }
        if self.all {
            info!(
                request_id = ?entry.request_id,
                peer = %entry.peer,
                method = %entry.method,
                target = ?entry.target,
                operation = entry.operation,
                user = ?entry.user.as_deref().unwrap_or("-"),
                project = ?entry.project.as_deref().unwrap_or("-"),
                status = entry.status.as_u16(),
                bytes_sent = entry.bytes_sent,
                complete = entry.complete,
                microseconds,
                detail = ?entry.detail.as_deref().unwrap_or("-"),
                "request"
            );
        }
    }
}
