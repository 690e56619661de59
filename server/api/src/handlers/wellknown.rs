//! What is asked before anything else: versions, health, metrics.

use crate::call::{Answer, Call, done, json_answer, text_answer};
use crate::error::{ApiError, chain};
use crate::route::Endpoint;
use crate::settings::MetricsAccess;
use crate::versions;
use http::{HeaderValue, StatusCode, header::LOCATION};
use std::sync::Arc;

/// The list of versions: as choices at the root, as such at its own path.
pub(crate) fn versions(endpoint: Endpoint, call: &Call) -> Answer {
    let status = match endpoint {
        Endpoint::Root => StatusCode::MULTIPLE_CHOICES,
        _ => StatusCode::OK,
    };
    json_answer(status, &versions::document(&call.endpoint()))
}

/// Where version 2 begins.
pub(crate) fn v2(call: &Call) -> Answer {
    let to = HeaderValue::from_str(&format!("{}/v2/", call.endpoint()))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = done()?;
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, to);
    Ok(response)
}

/// Whether the server is in service: by its operator's files, and by its database.
pub(crate) async fn health(call: &Call) -> Answer {
    let shared = Arc::clone(&call.shared);
    let refusal = tokio::task::spawn_blocking(move || {
        if let Some(refusal) = shared.settings.health.refusal() {
            return Some((refusal, None));
        }
        let checked = shared.transfers.service().catalog().check();
        checked
            .err()
            .map(|error| ("DATABASE UNAVAILABLE", Some(chain(&error))))
    })
    .await
    .map_err(|failed| ApiError::internal(format!("the check of health ended: {failed}")))?;
    match refusal {
        None => text_answer(StatusCode::OK, "text/plain; charset=UTF-8", "OK"),
        Some((refusal, detail)) => Err(ApiError {
            detail,
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, refusal)
        }),
    }
}

/// The metrics, for whom they are.
pub(crate) fn metrics(call: &Call) -> Answer {
    let open = match call.shared.settings.metrics {
        MetricsAccess::Nobody => false,
        MetricsAccess::Loopback => call.peer.ip().to_canonical().is_loopback(),
        MetricsAccess::Everybody => true,
    };
    if !open {
        return Err(ApiError::not_found("there is nothing under this path"));
    }
    let text = call.shared.metrics.render();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    text_answer(StatusCode::OK, kind, text)
}
