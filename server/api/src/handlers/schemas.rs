//! Schemas.

use crate::call::{Answer, Call, json_answer};
use crate::settings::Settings;
use crate::v2;
use http::StatusCode;
use serde_json::Value;

/// `GET /v2/schemas/image`
pub(crate) fn image(call: &Call) -> Answer {
    as_read_by(call, v2::image_schema)
}

/// `GET /v2/schemas/images`
pub(crate) fn images(call: &Call) -> Answer {
    as_read_by(call, v2::images_schema)
}

/// `GET /v2/schemas/member`
pub(crate) fn member() -> Answer {
    json_answer(StatusCode::OK, &v2::member_schema())
}

/// `GET /v2/schemas/members`
pub(crate) fn members() -> Answer {
    json_answer(StatusCode::OK, &v2::members_schema())
}

/// A schema with the known properties that the caller may read.
fn as_read_by(call: &Call, schema: fn(&Settings, &v2::Readable<'_>) -> Value) -> Answer {
    let readable = |name: &str| call.shared.transfers.service().may_read(&call.caller, name);
    json_answer(StatusCode::OK, &schema(&call.shared.settings, &readable))
}
