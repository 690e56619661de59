//! Images: what is known of them.

use crate::call::{Answer, Call, done, json_answer};
use crate::error::ApiError;
use crate::v2::{self, Dialect, ImageBody, ListBody};
use http::{HeaderName, HeaderValue, StatusCode, header::LOCATION};

/// Which stores an image's data may go to.
const STORE_IDS: HeaderName = HeaderName::from_static("openstack-image-store-ids");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// `GET /v2/images`
pub(crate) async fn list(call: Call) -> Answer {
    let query = call.head.uri.query().unwrap_or_default();
    let listing = v2::listing(&call.shared.settings, query)?;
    let request = listing.request;
    let page = call
        .ask(move |service, caller| service.list(caller, request))
        .await?;
    json_answer(StatusCode::OK, &ListBody::new(&page, &listing.pairs))
}

/// `POST /v2/images`
pub(crate) async fn create(mut call: Call) -> Answer {
    let body = call.json().await?;
    let new = v2::new_image(&call.shared.settings, &body)?;
    let view = call
        .ask(move |service, caller| service.create(caller, new))
        .await?;
    let mut response = json_answer(StatusCode::CREATED, &ImageBody(&view))?;
    let header = |text: &str| {
        HeaderValue::from_str(text).map_err(|error| ApiError::internal(error.to_string()))
    };
    let location = format!("{}/v2/images/{}", call.endpoint(), view.image().id);
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(&location)?);
    headers.insert(STORE_IDS, header(&call.shared.settings.store.id)?);
    Ok(response)
}

/// `GET /v2/images/{id}`
pub(crate) async fn show(call: Call) -> Answer {
    let id = call.image_id()?;
    let view = call
        .ask(move |service, caller| service.show(caller, &id))
        .await?;
    json_answer(StatusCode::OK, &ImageBody(&view))
}

/// `PATCH /v2/images/{id}`
pub(crate) async fn update(mut call: Call) -> Answer {
    let Some(dialect) = Dialect::of(&call.head.headers) else {
        let error = ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("an image is changed by {}", v2::PATCH_TYPES),
        );
        return Err(error.with(ACCEPT_PATCH, HeaderValue::from_static(v2::PATCH_TYPES)));
    };
    let body = call.json().await?;
    let changes = v2::changes(&call.shared.settings, dialect, &body)?;
    let id = call.image_id()?;
    let view = call
        .ask(move |service, caller| service.update(caller, &id, &changes))
        .await?;
    json_answer(StatusCode::OK, &ImageBody(&view))
}

/// `DELETE /v2/images/{id}`
pub(crate) async fn delete(call: Call) -> Answer {
    let id = call.image_id()?;
    call.transfer(move |transfers, caller| transfers.delete(caller, &id))
        .await?;
    done()
}
