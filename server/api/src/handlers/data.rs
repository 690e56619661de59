//! Images' bytes, in and out.

use crate::body::Body;
use crate::call::{Answer, Call, done};
use crate::content_md5::{self, CONTENT_MD5, Checked};
use crate::error::ApiError;
use crate::handlers::lineage;
use crate::inflow;
use crate::outflow::{self, Sink};
use crate::range::{self, BadRange};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tegula_catalog::service::{Announced, Download, Increment, TransferError, Transfers};
use tegula_domain::policy::Rule;
use tegula_domain::{Caller, Image, ImageId};
use tokio::sync::OwnedSemaphorePermit;

const OCTETS: &str = "application/octet-stream";
/// The length that a client announces where it cannot be seen from the body; it counts more than that of the body.
const IMAGE_SIZE: HeaderName = HeaderName::from_static("x-openstack-image-size");
/// The store that the bytes are to go to.
const STORE: HeaderName = HeaderName::from_static("x-image-meta-store");

/// `PUT /v2/images/{id}/file`
pub(crate) async fn upload(call: Call) -> Answer {
    if let Some(form) = lineage::form_of(&call.head.headers) {
        let parent = lineage::supposed_parent(&call.head.headers)?;
        return take_in(call, move |transfers, caller, id, announced, source| {
            let increment = Increment {
                form,
                parent_hash: parent.as_deref(),
            };
            transfers.upload_increment(caller, id, increment, announced, source)
        })
        .await;
    }
    check_type(&call.head.headers)?;
    take_in(call, |transfers, caller, id, announced, source| {
        transfers.upload(caller, id, announced, source)
    })
    .await
}

/// `PUT /v2/images/{id}/stage`
pub(crate) async fn stage(call: Call) -> Answer {
    check_type(&call.head.headers)?;
    take_in(call, |transfers, caller, id, announced, source| {
        transfers.stage(caller, id, announced, source)
    })
    .await
}

async fn take_in<T>(call: Call, take: T) -> Answer
where
    T: FnOnce(
            &Transfers,
            &Caller,
            &ImageId,
            Announced<'_>,
            &mut (dyn Read + Send),
        ) -> Result<Image, TransferError>
        + Send
        + 'static,
{
    check_whole(&call.head.headers)?;
    let bytes = announced_bytes(&call.head.headers)?;
    let store = text(&call.head.headers, &STORE)?.map(str::to_owned);
    let id = call.image_id()?;
    let place = place(&call)?;
    let shared = Arc::clone(&call.shared);
    let (pump, source) = inflow::source(shared.settings.stall_timeout);
    let mut source = Checked::new(source, content_md5::announced(&call.head.headers)?);
    let caller = Arc::clone(&call.caller);
    let taking = tokio::task::spawn_blocking(move || {
        let announced = Announced {
            bytes,
            store: store.as_deref(),
        };
        let taken = take(&shared.transfers, &caller, &id, announced, &mut source);
        drop(place);
        match (taken, source.wrong()) {
            (Err(_), Some(wrong)) => Err(wrong),
            (taken, _) => Ok(taken?),
        }
    });
    let (fed, taken) = tokio::join!(pump.run(call.body), taking);
    call.shared.metrics.received.fetch_add(fed, Relaxed);
    taken.map_err(|failed| ApiError::internal(format!("taking in bytes ended: {failed}")))??;
    done()
}

/// `GET /v2/images/{id}/file`
pub(crate) async fn download(call: Call) -> Answer {
    let id = call.image_id()?;
    let preferred = preferred_stores(&call)?;
    let place = place(&call)?;
    let found = call
        .transfer(move |transfers, caller| {
            if preferred {
                let seen = transfers.service().see(caller, &id)?;
                let service = transfers.service();
                service.authorize(caller, seen, Rule::DownloadFromStore)?;
            }
            transfers.download(caller, &id)
        })
        .await?;
    let Some(found) = found else {
        return done();
    };
    let size = found.bytes();
    let part = range::wanted(&call.head.headers, size).map_err(|bad| bad_range(bad, size))?;
    let checksum = found.image().checksum.clone();
    let status = match part {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    let range = part.clone().unwrap_or(0..size);
    let (sink, mut outflow) = outflow::outflow(range.end - range.start);
    let (start, end) = (range.start, range.end);
    tokio::task::spawn_blocking(move || give_out(&found, range, &sink, place));
    outflow
        .begin()
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = Response::new(Body::stream(outflow));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    if let Some(Ok(checksum)) = checksum.map(HeaderValue::try_from) {
        headers.insert(CONTENT_MD5, checksum);
    }
    if part.is_some() {
        let range = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
        if let Ok(range) = HeaderValue::try_from(range) {
            headers.insert(CONTENT_RANGE, range);
        }
    }
    Ok(response)
}

/// Streams bytes into the sink, on a thread that may block; `place` is held as long.
fn give_out(found: &Download, range: Range<u64>, sink: &Sink, place: OwnedSemaphorePermit) {
    let mut take = |piece| sink.take(piece);
    match found.stream(range, &mut take, sink.stop()) {
        // Who has left needs no reason.
        Ok(()) | Err(TransferError::Sink(_)) => {}
        Err(error) => sink.fail(crate::error::chain(&error)),
    }
    drop(place);
}

/// A place among the transfers under way: each holds a thread, so their number is limited.
pub(super) fn place(call: &Call) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&call.shared.places)
        .try_acquire_owned()
        .map_err(|_| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "as many transfers are under way as may be; come again",
            )
            .with(RETRY_AFTER, HeaderValue::from_static("5"))
        })
}

/// Refuses a body that is not the bytes themselves, all of them: kept as they come, they would be taken for the image.
fn check_whole(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(ApiError::bad_request(
            "Content-Range: an image's bytes are sent whole, not in parts",
        ));
    }
    let mut codings = headers.get_all(CONTENT_ENCODING).into_iter();
    match codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        None => Ok(()),
        Some(coding) => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Content-Encoding: found {coding:?}, expected bytes as they are"),
        )),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(CONTENT_TYPE) {
        Some(kind) if kind == OCTETS => Ok(()),
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the bytes of an image are sent as {OCTETS}"),
        )),
    }
}

/// How many bytes the client says it sends.
fn announced_bytes(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(text) = text(headers, &IMAGE_SIZE)? else {
        let length = headers.get(CONTENT_LENGTH);
        return Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()));
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = text.parse().ok().filter(|_| digits);
    bytes.map(Some).ok_or_else(|| {
        ApiError::bad_request(format!(
            "{IMAGE_SIZE}: found `{text}`, expected an integer from 0"
        ))
    })
}

/// Whether the query names stores to try first; all must be there.
fn preferred_stores(call: &Call) -> Result<bool, ApiError> {
    let pairs = crate::url::decode_query(call.head.uri.query().unwrap_or_default())
        .ok_or_else(|| ApiError::bad_request("the query is not percent-encoded UTF-8"))?;
    let Some((_, stores)) = pairs.iter().rfind(|(name, _)| name == "prefer") else {
        return Ok(false);
    };
    let ours = &call.shared.settings.store.id;
    match stores.split(',').find(|store| store != ours) {
        None => Ok(true),
        Some(store) => Err(ApiError::bad_request(format!(
            "there is no store `{store}`"
        ))),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    headers
        .get(name)
        .map(|value| {
            value
                .to_str()
                .map_err(|_| ApiError::bad_request(format!("{name}: it is not ASCII")))
        })
        .transpose()
}

fn bad_range(bad: BadRange, size: u64) -> ApiError {
    match bad {
        BadRange::Several => ApiError::bad_request("only one range can be had at a time"),
        BadRange::Unsatisfiable => {
            let error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                format!("the range is not in the {size} bytes of the image"),
            );
            match HeaderValue::try_from(format!("bytes */{size}")) {
                Ok(all) => error.with(CONTENT_RANGE, all),
                Err(_) => error,
            }
        }
    }
}
