//! Use cases that move an image's bytes, and why they did not.
//!
//! ```text
//!            see, authorize, check        bytes, outside of any transaction          save
//!  upload    queued ──────────► saving ── hash, inspect, store ──────────► active    410 if it was deleted meanwhile
//!  stage     queued ──────────► uploading ─ store ───────────────────────► uploading, its size known
//!  download  active                       ◄── read, verify
//! ```
//! Whatever fails on the way in, the store has nothing of it and the image is queued as before. After a crash
//! [`Transfers::recover`] does the same for what was under way.

use super::late_hashes::Waiting;
use super::take_back::Unfinished;
use super::{Service, ServiceError};
use crate::content::{self, Content, Part, name_of};
use crate::db::CatalogError;
use crate::digests::HashAlgorithm;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tegula_domain::inspect::{InspectionRules, Refusal};
use tegula_domain::{Image, ImageId};
use tegula_engine::{EngineError, StoreError};

/// How bytes are taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferSettings {
    /// The id of the store, in the locations of images.
    pub store: String,
    /// The hash beside MD5.
    pub hash: HashAlgorithm,
    /// How images are judged by their bytes.
    pub inspection: InspectionRules,
    /// Where files are gathered that are read before the store takes what is in them: without a name, so that nothing is left
    /// of them whatever happens. Best on the store's disk.
    pub gather_in: PathBuf,
}

impl Default for TransferSettings {
    fn default() -> Self {
        Self {
            store: "native".to_owned(),
            hash: HashAlgorithm::Sha512,
            inspection: InspectionRules::default(),
            gather_in: std::env::temp_dir(),
        }
    }
}

/// The use cases that move bytes. Cheap to clone; calls block.
#[derive(Debug, Clone)]
pub struct Transfers {
    pub(super) service: Service,
    pub(super) content: Content,
    pub(super) settings: Arc<TransferSettings>,
    /// Images whose hashes are computed when nobody waits.
    pub(super) waiting: Arc<Waiting>,
    /// What is still to be taken back.
    pub(super) unfinished: Arc<Mutex<Vec<Unfinished>>>,
}

/// Why bytes were not moved, or not all of them. Each variant is another answer to the caller.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// What every use case may answer; [`ServiceError::Limit`] also if the image or its project's images would be too large.
    #[error(transparent)]
    Service(ServiceError),
    /// The caller announced another number of bytes than it sent.
    #[error("{expected} bytes were announced and {found} came")]
    Size {
        /// How many were announced.
        expected: u64,
        /// How many came, up to the first that was too many.
        found: u64,
    },
    /// There is no such store.
    #[error("there is no store {0:?}")]
    NoStore(String),
    /// The store has no room left.
    #[error("the store is full")]
    Full(#[source] EngineError),
    /// The image's bytes are not what was said, or are dangerous.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The parent is not the image that the increment, or whoever sent it, starts from.
    #[error("the parent, image {parent}, is {}, not {expected}", found.as_deref().unwrap_or("not known by its digest"))]
    OtherParent {
        /// The parent.
        parent: ImageId,
        /// The digest that it was to have.
        expected: String,
        /// The digest that it has.
        found: Option<String>,
    },
    /// The increment cannot be read as what it is said to be, or makes no image of the parent.
    #[error("the increment is refused")]
    Increment(#[source] EngineError),
    /// The image was deleted while its bytes were on their way.
    #[error("image {0} was deleted meanwhile")]
    Gone(ImageId),
    /// The caller stopped sending before all was there.
    #[error("the bytes broke off after {received}")]
    Source {
        /// How many had come.
        received: u64,
        /// What the connection said.
        source: io::Error,
    },
    /// The caller stopped taking the bytes.
    #[error("the bytes could not be handed over")]
    Sink(#[source] io::Error),
    /// A part of the image was asked for that it does not have.
    #[error("bytes {start} to {end} are not all in an image of {size} bytes")]
    Range {
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
        /// The image's length.
        size: u64,
    },
    /// The catalog knows of bytes that the store does not have.
    #[error("the bytes of image {0} are not in the store")]
    Missing(ImageId),
    /// The store failed, or what it holds is damaged.
    #[error("the store failed")]
    Store(#[source] EngineError),
}

impl From<ServiceError> for TransferError {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl From<CatalogError> for TransferError {
    fn from(error: CatalogError) -> Self {
        Self::Service(error.into())
    }
}

impl TransferError {
    /// What the engine says of a stream that was being handed over.
    pub fn of_stream(error: EngineError) -> Self {
        match error {
            EngineError::WriteTarget { source, .. } => Self::Sink(source),
            error => Self::of_store(error),
        }
    }

    /// What the engine says, as far as it is about the store.
    pub(super) fn of_store(error: EngineError) -> Self {
        match content::is_full(&error) {
            true => Self::Full(error),
            false => Self::Store(error),
        }
    }
}

impl Transfers {
    /// The use cases over this catalog and these bytes.
    pub fn new(service: Service, content: Content, settings: TransferSettings) -> Self {
        Self {
            service,
            content,
            settings: Arc::new(settings),
            waiting: Arc::default(),
            unfinished: Arc::default(),
        }
    }

    /// The use cases that move no bytes.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The bytes.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The settings.
    pub fn settings(&self) -> &TransferSettings {
        &self.settings
    }

    /// Why the store does not have an image's bytes: it was deleted a moment ago, or they are lost.
    pub(super) fn gone_or_missing(&self, id: &ImageId) -> TransferError {
        match self.service.catalog.image(id) {
            Ok(None) => ServiceError::NoImage(id.clone()).into(),
            Ok(Some(_)) => TransferError::Missing(id.clone()),
            Err(error) => error.into(),
        }
    }

    /// What the engine says of bytes that were to be stored as what differs from a parent's. That may have been deleted while
    /// they came.
    pub(super) fn of_store_over(
        &self,
        error: EngineError,
        parent: Option<&ImageId>,
    ) -> TransferError {
        let Some(parent) = parent.filter(|parent| is_not_there(&error, parent)) else {
            return TransferError::of_store(error);
        };
        match self.gone_or_missing(parent) {
            TransferError::Service(ServiceError::NoImage(_)) => {
                let text = format!("the parent, image {parent}, was deleted meanwhile");
                ServiceError::Conflict(text).into()
            }
            error => error,
        }
    }

    /// Saves what became of an image by our own doing, as long as `change` still wants it when others saved it first; none
    /// if the image is gone, or is no longer as `change` expects it.
    pub(super) fn save_own(
        &self,
        id: &ImageId,
        change: impl FnMut(&mut Image) -> Result<bool, ServiceError>,
    ) -> Result<Option<Image>, ServiceError> {
        self.save_within(None, id, change)
    }

    /// The same for an image whose bytes have arrived: only if its project's images amount to no more than they may then.
    /// Before it, others of the project could have arrived at the same time.
    pub(super) fn save_arrived(
        &self,
        id: &ImageId,
        change: impl FnMut(&mut Image) -> Result<bool, ServiceError>,
    ) -> Result<Option<Image>, ServiceError> {
        self.save_within(self.service.limits.project_bytes, id, change)
    }

    fn save_within(
        &self,
        project_bytes: Option<u64>,
        id: &ImageId,
        mut change: impl FnMut(&mut Image) -> Result<bool, ServiceError>,
    ) -> Result<Option<Image>, ServiceError> {
        self.service.in_turn(|| {
            let Some(mut image) = self.service.catalog.image(id)? else {
                return Ok(None);
            };
            if !change(&mut image)? {
                return Ok(None);
            }
            image.updated_at = self.service.now().max(image.updated_at);
            let catalog = &self.service.catalog;
            image.version = match project_bytes {
                // What is empty takes no room, however little there is.
                Some(limit) if image.size > Some(0) => catalog.save_within(&image, limit)?,
                _ => catalog.save(&image)?,
            };
            Ok(Some(image))
        })
    }
}

/// Whether the store does not have the bytes of this image.
pub(super) fn is_not_there(error: &EngineError, id: &ImageId) -> bool {
    let sought = name_of(id, Part::Data);
    matches!(error, EngineError::Store(StoreError::ImageNotFound { name }) if name == sought.as_str())
}
