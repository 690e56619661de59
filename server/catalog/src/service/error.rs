//! Why a use case did not do what it was asked for.

use crate::db::CatalogError;
use tegula_domain::policy::Rule;
use tegula_domain::protection::EditRefused;
use tegula_domain::quota::OverLimit;
use tegula_domain::{ImageId, ImageStatus};

/// Why it was not done; nothing was changed. Each variant is another answer to the caller.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such image, as far as the caller may know.
    #[error("there is no image {0}")]
    NoImage(ImageId),
    /// The project is no member of the image, as far as the caller may know.
    #[error("project {project} is no member of image {image}")]
    NoMember {
        /// The image.
        image: ImageId,
        /// The project.
        project: String,
    },
    /// The image does not have the tag.
    #[error("image {image} has no tag `{tag}`")]
    NoTag {
        /// The image.
        image: ImageId,
        /// The tag.
        tag: String,
    },
    /// The policy does not give the caller this right.
    #[error("the policy's rule {} does not allow it", .0.name())]
    Denied(Rule),
    /// A rule that no policy can lift forbids it.
    #[error("{0}")]
    Forbidden(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// The image is in a state in which this cannot be done.
    #[error("image {image} is {status}: {wanted}")]
    Status {
        /// The image.
        image: ImageId,
        /// Its state.
        status: ImageStatus,
        /// What cannot be done in it.
        wanted: &'static str,
    },
    /// A limit would be passed.
    #[error(transparent)]
    Limit(#[from] OverLimit),
    /// A limit would be passed that the database keeps.
    #[error("the limit of {limit} {what} is reached")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// Others saved the image again and again while this was tried.
    #[error("image {0} is being changed by others; try again")]
    Stale(ImageId),
    /// The database did not do its part.
    #[error(transparent)]
    Catalog(CatalogError),
}

impl From<CatalogError> for ServiceError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NoImage(id) => Self::NoImage(id),
            CatalogError::Stale(id) => Self::Stale(id),
            CatalogError::NoMember { image, project } => Self::NoMember { image, project },
            CatalogError::IdTaken(_) | CatalogError::MemberTaken { .. } => {
                Self::Conflict(error.to_string())
            }
            CatalogError::NoMarker(_)
            | CatalogError::TooLarge { .. }
            | CatalogError::NulCharacter(_) => Self::Invalid(error.to_string()),
            CatalogError::Limit { what, limit } => Self::Full { what, limit },
            error @ (CatalogError::Url(_)
            | CatalogError::Schema(_)
            | CatalogError::Damaged { .. }
            | CatalogError::Unavailable(_)
            | CatalogError::Database(_)) => Self::Catalog(error),
        }
    }
}

impl From<EditRefused> for ServiceError {
    fn from(refused: EditRefused) -> Self {
        match refused {
            EditRefused::Text(_) => Self::Invalid(refused.to_string()),
            EditRefused::Reserved(_) | EditRefused::Forbidden { .. } => {
                Self::Forbidden(refused.to_string())
            }
            EditRefused::Absent(_) | EditRefused::Present(_) => Self::Conflict(refused.to_string()),
        }
    }
}
