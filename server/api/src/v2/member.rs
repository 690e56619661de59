//! Members of an image as the API shows and takes them.

use super::{Refused, time, values::wrong};
use serde::Serialize;
use serde_json::Value;
use tegula_domain::{ImageId, Member, MemberStatus};

/// A membership.
#[derive(Debug, Serialize)]
pub(crate) struct MemberBody {
    member_id: String,
    image_id: String,
    status: &'static str,
    created_at: String,
    updated_at: String,
    schema: &'static str,
}

impl MemberBody {
    pub(crate) fn new(image: &ImageId, member: &Member) -> Self {
        Self {
            member_id: member.project.clone(),
            image_id: image.as_str().to_owned(),
            status: member.status.as_str(),
            created_at: time::write(member.created_at),
            updated_at: time::write(member.updated_at),
            schema: "/v2/schemas/member",
        }
    }
}

/// The memberships of an image.
#[derive(Debug, Serialize)]
pub(crate) struct MembersBody {
    members: Vec<MemberBody>,
    schema: &'static str,
}

impl MembersBody {
    pub(crate) fn new(image: &ImageId, members: &[Member]) -> Self {
        Self {
            members: members
                .iter()
                .map(|member| MemberBody::new(image, member))
                .collect(),
            schema: "/v2/schemas/members",
        }
    }
}

/// Reads the body of a new membership: the project.
pub(crate) fn member_project(body: &Value) -> Result<String, Refused> {
    let value = field(body, "member")?;
    value
        .as_str()
        .filter(|project| !project.is_empty() && project.chars().count() <= 255)
        .map(str::to_owned)
        .ok_or_else(|| wrong("member", value, "the id of a project"))
}

/// Reads the body of a change of a membership: the status.
pub(crate) fn member_status(body: &Value) -> Result<MemberStatus, Refused> {
    let value = field(body, "status")?;
    value
        .as_str()
        .and_then(MemberStatus::from_name)
        .ok_or_else(|| wrong("status", value, "accepted, pending or rejected"))
}

fn field<'a>(body: &'a Value, name: &str) -> Result<&'a Value, Refused> {
    let entries = body
        .as_object()
        .ok_or_else(|| Refused::invalid("the body is not a JSON object"))?;
    entries
        .get(name)
        .ok_or_else(|| Refused::invalid(format!("the body has no `{name}`")))
}
