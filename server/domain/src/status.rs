//! The states of an image and the ways between them.
//!
//! ```text
//!            ┌──────────────► saving ──────────┐
//!  queued ───┼──────────────► importing ◄──┐   ├──► active ◄──► deactivated
//!    ▲       └──► uploading ───────────────┘   │       │             │
//!    └── saving, uploading, importing failed ──┘       └─────────────┴──► deleted (from every state)
//! ```

use std::fmt;

/// The state of an image (Images API, image statuses).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageStatus {
    /// Only what is known about the image exists.
    Queued,
    /// Its bytes are arriving.
    Saving,
    /// Its bytes are arriving, or have arrived, in a place to import them from.
    Uploading,
    /// A task makes it of what was staged or of a source elsewhere.
    Importing,
    /// Its bytes can be had.
    Active,
    /// It is withdrawn from all but administrators.
    Deactivated,
    /// It was deleted; its bytes may still be there.
    PendingDelete,
    /// It is gone; its id stays taken.
    Deleted,
}

/// An image cannot go from one state to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an image that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// What it is.
    pub from: ImageStatus,
    /// What it was to become.
    pub to: ImageStatus,
}

impl ImageStatus {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Saving,
        Self::Uploading,
        Self::Importing,
        Self::Active,
        Self::Deactivated,
        Self::PendingDelete,
        Self::Deleted,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Uploading => "uploading",
            Self::Importing => "importing",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::PendingDelete => "pending_delete",
            Self::Deleted => "deleted",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether an image may go from this state to the other. Staying is no transition.
    pub const fn may_become(self, to: Self) -> bool {
        use ImageStatus::{
            Active, Deactivated, Deleted, Importing, PendingDelete, Queued, Saving, Uploading,
        };
        matches!(
            (self, to),
            (Queued, Saving | Uploading | Importing | Active | Deleted)
                | (Saving, Active | Queued | Deleted)
                | (Uploading, Importing | Queued | Deleted)
                | (Importing, Active | Queued | Deleted)
                | (Active, Deactivated | PendingDelete | Deleted)
                | (Deactivated, Active | Deleted)
                | (PendingDelete, Deleted | Active)
        )
    }

    /// Checks a transition.
    ///
    /// # Errors
    /// [`IllegalTransition`] if there is no way from this state to the other.
    pub const fn become_(self, to: Self) -> Result<Self, IllegalTransition> {
        if self.may_become(to) {
            Ok(to)
        } else {
            Err(IllegalTransition { from: self, to })
        }
    }

    /// Whether the image's bytes are there.
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Active | Self::Deactivated | Self::PendingDelete)
    }
}

impl fmt::Display for ImageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transitions_are_those_of_the_table() {
        // Rows: from; columns: to; both in the order of `ALL`.
        let table = [
            "-yyyy--y", // queued
            "y---y--y", // saving
            "y--y---y", // uploading
            "y---y--y", // importing
            "-----yyy", // active
            "----y--y", // deactivated
            "----y--y", // pending_delete
            "--------", // deleted
        ];
        for (from, row) in ImageStatus::ALL.into_iter().zip(table) {
            for (to, sign) in ImageStatus::ALL.into_iter().zip(row.chars()) {
                assert_eq!(from.may_become(to), sign == 'y', "{from} to {to}");
                assert_eq!(from.become_(to).is_ok(), sign == 'y');
            }
        }
    }

    #[test]
    fn names_go_both_ways() {
        for status in ImageStatus::ALL {
            assert_eq!(ImageStatus::from_name(status.as_str()), Some(status));
        }
        assert_eq!(ImageStatus::from_name("ACTIVE"), None);
    }
}
