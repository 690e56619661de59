//! Increments: what differs between images, as extents and as streams, and which parent an image names.

use crate::body::Body;
use crate::call::{Answer, Call, json_answer, text_answer};
use crate::error::ApiError;
use crate::handlers::data::place;
use crate::outflow::{Sink, SinkWriter, outflow};
use crate::v2::{self, ExtentsAsked};
use crate::wanted::{Wanted, is_known};
use http::header::{ACCEPT, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use tegula_catalog::service::IncrementForm;
use tegula_domain::ImageId;
use tegula_engine::{DeltaStream, EngineError, Task};
use tokio::sync::oneshot;

/// The media type of a delta stream.
pub(crate) const DELTA_TYPE: &str = "application/vnd.tegula.delta";

/// The media type of a qcow2 file, which may be sent as an overlay over the parent.
pub(crate) const QCOW2_TYPE: &str = "application/x-qcow2";

/// The media type of lists of which each line is a document.
const LINES_TYPE: &str = "application/x-ndjson";

/// The digest that the parent of an increment is supposed to have.
const IF_PARENT_MATCH: HeaderName = HeaderName::from_static("if-parent-match");

/// The length of the whole stream, also where a part of it is sent.
const DELTA_SIZE: HeaderName = HeaderName::from_static("x-delta-size");

/// `GET /v2/info/lineage`
pub(crate) fn info(call: &Call) -> Answer {
    let block_size = call
        .shared
        .transfers
        .content()
        .engine()
        .store()
        .config()
        .block_size;
    let lineage = json!({
        "version": 1,
        "granularity": block_size.bytes(),
        "max_extents": v2::EXTENTS_MAX,
        "delta_formats": [DELTA_TYPE],
        "upload_formats": [DELTA_TYPE, QCOW2_TYPE],
        "digest": "blake3",
        "policies": ["owned"],
    });
    json_answer(StatusCode::OK, &json!({ "lineage": lineage }))
}

/// `GET /v2/images/{id}/extents`
pub(crate) async fn extents(call: Call) -> Answer {
    let id = call.image_id()?;
    let asked = ExtentsAsked::parse(call.head.uri.query().unwrap_or_default())?;
    let (of, base, window) = (id.clone(), asked.base.clone(), asked.window);
    let (page, base) = call
        .transfer(move |transfers, caller| transfers.extents(caller, (&of, &base), window))
        .await?;
    let from = page
        .base_digest
        .map_or("none".to_owned(), |base| base.to_string());
    let tag = format!("\"{from}-{}\"", page.digest);
    let response = if is_known(&call.head.headers, &tag) {
        not_modified()
    } else if call.accepts(LINES_TYPE) {
        text_answer(StatusCode::OK, LINES_TYPE, v2::extent_lines(&page))?
    } else {
        json_answer(
            StatusCode::OK,
            &v2::extents(&id, base.as_ref(), &asked, &page),
        )?
    };
    with(response, &[(ETAG, &tag)])
}

/// `GET /v2/images/{id}/delta`
pub(crate) async fn delta(call: Call) -> Answer {
    let id = call.image_id()?;
    let base = v2::base(call.head.uri.query().unwrap_or_default())?
        .ok_or_else(|| ApiError::bad_request("base is missing: an image's id, parent or none"))?;
    if call.head.headers.contains_key(ACCEPT) && !call.accepts(DELTA_TYPE) && !call.accepts("*/*") {
        let text = format!("a delta is {DELTA_TYPE}");
        return Err(ApiError::new(StatusCode::NOT_ACCEPTABLE, text));
    }
    let place = place(&call)?;
    let (promise, promised) = oneshot::channel();
    let (wanted, written) = oneshot::channel::<(Range<u64>, Sink)>();
    let task = call.begin_transfer(move |transfers, caller| {
        let serve = |stream: &DeltaStream<'_>| {
            let known = promise.send((stream.bytes(), format!("\"{}\"", stream.tag())));
            // Nobody waits any more, or a look at the tag was enough.
            if let (Ok(()), Ok((range, sink))) = (known, written.blocking_recv()) {
                give_out(stream, range, sink);
            }
            Ok(())
        };
        let served = transfers.delta(caller, (&id, &base), &AtomicBool::new(false), serve);
        drop(place);
        served
    });
    let Ok((bytes, tag)) = promised.await else {
        return Err(match task.await {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) => ApiError::internal("a delta was neither promised nor refused"),
            Err(failed) => ApiError::internal(format!("a use case ended: {failed}")),
        });
    };
    let (range, status) = match Wanted::of(&call.head.headers, bytes, &tag) {
        Wanted::Known => return with(not_modified(), &[(ETAG, &tag)]),
        Wanted::Nothing => {
            let text = format!("the delta has {bytes} bytes");
            let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, text);
            return Err(error.with(CONTENT_RANGE, value(&format!("bytes */{bytes}"))?));
        }
        Wanted::All => (0..bytes, StatusCode::OK),
        Wanted::Part(range) => (range, StatusCode::PARTIAL_CONTENT),
    };
    let told = format!(
        "bytes {}-{}/{bytes}",
        range.start,
        range.end.saturating_sub(1)
    );
    let length = (range.end - range.start).to_string();
    let (sink, mut outflow) = outflow(range.end - range.start);
    if wanted.send((range, sink)).is_err() {
        return Err(ApiError::internal("a delta was promised and then given up"));
    }
    outflow
        .begin()
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = Response::new(Body::stream(outflow));
    *response.status_mut() = status;
    let size = bytes.to_string();
    let mut headers = vec![
        (ETAG, &*tag),
        (CONTENT_TYPE, DELTA_TYPE),
        (CONTENT_LENGTH, &*length),
        (ACCEPT_RANGES, "bytes"),
        (DELTA_SIZE, &*size),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        headers.push((CONTENT_RANGE, &*told));
    }
    with(response, &headers)
}

/// Writes a part of a delta into the sink, on a thread that may block.
fn give_out(stream: &DeltaStream<'_>, range: Range<u64>, sink: Sink) {
    let mut writer = SinkWriter::new(sink);
    match stream.write(range, &mut writer, Task::unattended()) {
        // Who has left needs no reason.
        Ok(()) | Err(EngineError::WriteTarget { .. }) => {}
        Err(error) => writer.sink().fail(crate::error::chain(&error)),
    }
}

/// How the body of an upload holds an increment, if it is one.
pub(crate) fn form_of(headers: &HeaderMap) -> Option<IncrementForm> {
    match headers.get(CONTENT_TYPE)?.to_str().ok()?.trim() {
        DELTA_TYPE => Some(IncrementForm::Delta),
        QCOW2_TYPE => Some(IncrementForm::Qcow2),
        _ => None,
    }
}

/// The `os_tree_hash` that the caller supposes the parent to have, if it says so.
pub(crate) fn supposed_parent(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IF_PARENT_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().ok().map(str::trim);
    let inner = text.and_then(|text| text.strip_prefix('"')?.strip_suffix('"'));
    match inner.filter(|inner| !inner.is_empty() && !inner.contains('"')) {
        Some(hash) => Ok(Some(hash.to_owned())),
        None => Err(ApiError::bad_request(format!(
            "{IF_PARENT_MATCH}: expected an os_tree_hash in quotes"
        ))),
    }
}

/// `POST /v2/images/{id}/actions/flatten`
pub(crate) async fn flatten(call: Call) -> Answer {
    let id = call.image_id()?;
    call.transfer(move |transfers, caller| transfers.flatten(caller, &id))
        .await?;
    accepted()
}

/// `POST /v2/images/{id}/actions/coalesce`
pub(crate) async fn coalesce(mut call: Call) -> Answer {
    let id = call.image_id()?;
    let body = call.json().await?;
    let to = body.get("to").and_then(Value::as_str);
    let to = to.and_then(|to| ImageId::parse(to).ok());
    let to = to.ok_or_else(|| ApiError::bad_request("to: the id of an ancestor is needed"))?;
    call.transfer(move |transfers, caller| transfers.coalesce(caller, &id, &to))
        .await?;
    accepted()
}

/// The answer to what is done already, of which a list of tasks would tell: 202.
fn accepted() -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn not_modified() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

fn value(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|error| ApiError::internal(error.to_string()))
}

fn with(mut response: Response<Body>, headers: &[(HeaderName, &str)]) -> Answer {
    for (name, text) in headers {
        response.headers_mut().insert(name, value(text)?);
    }
    Ok(response)
}
