//! Members of images.

use crate::call::{Answer, Call, done, json_answer};
use crate::v2::{self, MemberBody, MembersBody};
use http::StatusCode;

/// `GET /v2/images/{id}/members`
pub(crate) async fn list(call: Call) -> Answer {
    let id = call.image_id()?;
    let image = id.clone();
    let members = call
        .ask(move |service, caller| service.members(caller, &id))
        .await?;
    json_answer(StatusCode::OK, &MembersBody::new(&image, &members))
}

/// `POST /v2/images/{id}/members`
pub(crate) async fn add(mut call: Call) -> Answer {
    let project = v2::member_project(&call.json().await?)?;
    let id = call.image_id()?;
    let image = id.clone();
    let member = call
        .ask(move |service, caller| service.add_member(caller, &id, &project))
        .await?;
    json_answer(StatusCode::OK, &MemberBody::new(&image, &member))
}

/// `GET /v2/images/{id}/members/{project}`
pub(crate) async fn show(call: Call) -> Answer {
    let (id, project) = (call.image_id()?, call.parameter(1).to_owned());
    let image = id.clone();
    let member = call
        .ask(move |service, caller| service.member(caller, &id, &project))
        .await?;
    json_answer(StatusCode::OK, &MemberBody::new(&image, &member))
}

/// `PUT /v2/images/{id}/members/{project}`
pub(crate) async fn update(mut call: Call) -> Answer {
    let status = v2::member_status(&call.json().await?)?;
    let (id, project) = (call.image_id()?, call.parameter(1).to_owned());
    let image = id.clone();
    let member = call
        .ask(move |service, caller| service.set_member(caller, &id, &project, status))
        .await?;
    json_answer(StatusCode::OK, &MemberBody::new(&image, &member))
}

/// `DELETE /v2/images/{id}/members/{project}`
pub(crate) async fn remove(call: Call) -> Answer {
    let (id, project) = (call.image_id()?, call.parameter(1).to_owned());
    call.ask(move |service, caller| service.remove_member(caller, &id, &project))
        .await?;
    done()
}
