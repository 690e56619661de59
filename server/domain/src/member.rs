//! The projects an image is shared with.

use crate::Timestamp;
use std::fmt;

/// What a project says of an image that was shared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberStatus {
    /// Nothing yet.
    Pending,
    /// It wants the image in its lists.
    Accepted,
    /// It does not.
    Rejected,
}

impl MemberStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Accepted, Self::Rejected];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }

    /// The status of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl fmt::Display for MemberStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A project that an image is shared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The project's id.
    pub project: String,
    /// What it says of the image.
    pub status: MemberStatus,
    /// When it became a member.
    pub created_at: Timestamp,
    /// When it last said something.
    pub updated_at: Timestamp,
}
