//! What the use cases ask the rules: policy and property protection.

use std::fmt;
use tegula_domain::{Caller, Image};

/// What a caller may have the right to do, by the names of the policy's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the policy's rules")]
pub enum Right {
    ContextIsAdmin,
    AddImage,
    GetImage,
    GetImages,
    ModifyImage,
    DeleteImage,
    PublicizeImage,
    CommunitizeImage,
    DownloadImage,
    UploadImage,
    Deactivate,
    Reactivate,
    AddMember,
    GetMember,
    GetMembers,
    ModifyMember,
    DeleteMember,
    StoresInfoDetail,
}

impl Right {
    /// The rule's name.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::ContextIsAdmin => "context_is_admin",
            Self::AddImage => "add_image",
            Self::GetImage => "get_image",
            Self::GetImages => "get_images",
            Self::ModifyImage => "modify_image",
            Self::DeleteImage => "delete_image",
            Self::PublicizeImage => "publicize_image",
            Self::CommunitizeImage => "communitize_image",
            Self::DownloadImage => "download_image",
            Self::UploadImage => "upload_image",
            Self::Deactivate => "deactivate",
            Self::Reactivate => "reactivate",
            Self::AddMember => "add_member",
            Self::GetMember => "get_member",
            Self::GetMembers => "get_members",
            Self::ModifyMember => "modify_member",
            Self::DeleteMember => "delete_member",
            Self::StoresInfoDetail => "stores_info_detail",
        }
    }
}

/// What a right is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target<'a> {
    /// The image, if it is about one.
    pub image: Option<&'a Image>,
    /// The project whose membership of the image it is about: the caller's own, where it is a member.
    pub member: Option<&'a str>,
}

/// What is done to a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual four")]
pub enum PropertyOperation {
    Create,
    Read,
    Update,
    Delete,
}

impl PropertyOperation {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Policy and property protection, as the use cases ask them.
pub trait Rules: fmt::Debug + Send + Sync {
    /// Whether the policy gives the caller the right to do this to the target.
    fn allows(&self, right: Right, caller: &Caller, target: Target<'_>) -> bool;

    /// Whether the caller may do this to a property of that name.
    fn may(&self, caller: &Caller, operation: PropertyOperation, property: &str) -> bool;
}
