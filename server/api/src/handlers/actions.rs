//! Withdrawing images and giving them back.

use crate::call::{Answer, Call, done};

/// `POST /v2/images/{id}/actions/deactivate`
pub(crate) async fn deactivate(call: Call) -> Answer {
    let id = call.image_id()?;
    call.ask(move |service, caller| service.deactivate(caller, &id))
        .await?;
    done()
}

/// `POST /v2/images/{id}/actions/reactivate`
pub(crate) async fn reactivate(call: Call) -> Answer {
    let id = call.image_id()?;
    call.ask(move |service, caller| service.reactivate(caller, &id))
        .await?;
    done()
}
