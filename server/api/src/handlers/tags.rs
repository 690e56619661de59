//! Tags of images.

use crate::call::{Answer, Call, done};
use crate::v2;

/// `PUT /v2/images/{id}/tags/{tag}`
pub(crate) async fn add(call: Call) -> Answer {
    let tag = call.parameter(1).to_owned();
    v2::check_tag(&tag)?;
    let id = call.image_id()?;
    call.ask(move |service, caller| service.add_tag(caller, &id, &tag))
        .await?;
    done()
}

/// `DELETE /v2/images/{id}/tags/{tag}`
pub(crate) async fn remove(call: Call) -> Answer {
    let (id, tag) = (call.image_id()?, call.parameter(1).to_owned());
    call.ask(move |service, caller| service.remove_tag(caller, &id, &tag))
        .await?;
    done()
}
