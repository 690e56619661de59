//! What is asked before anything else: versions, health, metrics.

use crate::app::Shared;
use crate::call::{Answer, Call, done, json_answer, text_answer};
use crate::error::{ApiError, chain};
use crate::route::Endpoint;
use crate::settings::MetricsAccess;
use crate::versions;
use http::{HeaderValue, StatusCode, header::LOCATION};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;

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

/// How long the check of health may take: who asks does not wait for long.
const HEALTH: Duration = Duration::from_secs(5);

/// Whether the server is in service: by its operator's files, and by its database.
pub(crate) async fn health(call: &Call) -> Answer {
    let refused = |refusal, detail| ApiError {
        detail,
        ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, refusal)
    };
    match tokio::time::timeout(HEALTH, refusal(&call.shared)).await {
        Ok(Ok(None)) => text_answer(StatusCode::OK, "text/plain; charset=UTF-8", "OK"),
        Ok(Ok(Some((refusal, detail)))) => Err(refused(refusal, detail)),
        Ok(Err(failed)) => {
            let detail = format!("the check of health ended: {failed}");
            Err(ApiError::internal(detail))
        }
        Err(_) => {
            let detail = format!("it gave no answer within {} s", HEALTH.as_secs());
            Err(refused(DATABASE_UNAVAILABLE, Some(detail)))
        }
    }
}

const DATABASE_UNAVAILABLE: &str = "DATABASE UNAVAILABLE";

/// Why the server is out of service, if it is, and what the operator is told besides. A database that hangs holds up one
/// thread, not one for each question.
async fn refusal(
    shared: &Arc<Shared>,
) -> Result<Option<(&'static str, Option<String>)>, JoinError> {
    let turn = Arc::clone(&shared.health).lock_owned().await;
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        if let Some(refusal) = shared.settings.health.refusal() {
            return Some((refusal, None));
        }
        let checked = shared.transfers.service().catalog().check();
        checked
            .err()
            .map(|error| (DATABASE_UNAVAILABLE, Some(chain(&error))))
    })
    .await
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
