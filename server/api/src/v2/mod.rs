//! What version 2 of the API sends and takes: keys, media types, the grammar of its queries.

mod create;
mod extents;
mod image;
mod list;
mod member;
mod patch;
mod patch_operations;
mod query;
mod schema;
mod time;
mod values;

pub(crate) use create::new_image;
pub(crate) use extents::{EXTENTS_MAX, ExtentsAsked, base, extent_lines, extents};
pub(crate) use image::ImageBody;
pub(crate) use list::ListBody;
pub(crate) use member::{MemberBody, MembersBody, member_project, member_status};
pub(crate) use patch::{ACCEPTED as PATCH_TYPES, Dialect, changes};
pub(crate) use query::listing;
pub(crate) use schema::{Readable, image_schema, images_schema, member_schema, members_schema};
pub(crate) use values::check_tag;

use http::StatusCode;
use tegula_domain::property::BadText;

/// A value of a request that cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Refused {
    /// 400: it is not what is expected there.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
        }
    }

    /// 403: it is not the caller's to set.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            message: message.into(),
        }
    }

    /// 409: it does not fit what every image has.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::CONFLICT,
            message: message.into(),
        }
    }
}

impl From<BadText> for Refused {
    fn from(bad: BadText) -> Self {
        Self::invalid(bad.to_string())
    }
}
