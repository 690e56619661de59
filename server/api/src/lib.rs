//! The OpenStack Images API v2 over HTTP/1.1.
//!
//! ```text
//!   connection ──► request id, CORS ──► version, route ──► caller ──► body rule ──► handler ──► service (blocking)
//!        │                                                                            │
//!        └── limits of time, size and number                        one table from errors to statuses
//! ```
//! The table of routes ([`route`](self)) is the only place that knows paths; statuses of errors are chosen in one place
//! ([`error`](self)); a handler reads its request, calls one use case of [`tegula_catalog::service`] on a thread that may
//! block, and shows the result. What an image may become and who may do it is not decided here.

#![forbid(unsafe_code)]

mod access_log;
mod app;
mod body;
mod call;
mod connection;
mod content_md5;
mod cors;
mod dispatch;
mod error;
mod handlers;
mod health;
mod inflow;
mod json;
mod metrics;
mod negotiate;
mod outflow;
mod range;
mod request_id;
mod route;
mod serve;
mod settings;
mod url;
mod v2;
mod versions;
mod wanted;

pub use access_log::{AccessEntry, AccessLog};
pub use app::{App, Parts, RandomIds};
pub use cors::Cors;
pub use health::HealthFiles;
pub use serve::Drained;
pub use settings::{MetricsAccess, Settings, StoreEntry};
