//! The use cases of the catalog, one a file: load, see, authorize, ask the domain, save.
//!
//! ```text
//!   id ──see──► Seen ──authorize(right)──► Authorized ──change──► save
//!        404         403                                   400, 403, 409, 413
//! ```
//! What a caller may not know of does not exist for it; what it may know of but not do is forbidden. Nothing is saved but
//! what an [`Authorized`] allows, and everything is saved by compare-and-set: a use case that lost the race begins anew.

mod actions;
mod authorize;
mod create;
mod delete;
mod download;
mod error;
mod increment;
mod ingest;
mod late_hashes;
mod lineage;
mod list;
mod members;
mod own_store;
mod recover;
mod show;
mod stage;
mod tags;
mod take_back;
mod transfer;
mod update;
mod upload;
mod view;

pub use crate::rules::Rules;
pub use authorize::{Authorized, Seen};
pub use download::Download;
pub use error::ServiceError;
pub use increment::{Increment, IncrementForm};
pub use lineage::Base;
pub use list::{ListRequest, Page};
pub use own_store::{OwnStoreError, take_store};
pub use recover::Recovered;
pub use transfer::{TransferError, TransferSettings, Transfers};
pub use update::{Attribute, Change, PropertyChange};
pub use upload::Announced;
pub use view::View;

use crate::db::Catalog;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use tegula_domain::quota::Limits;
use tegula_domain::{ImageId, Timestamp};
use tegula_engine::Clock;

/// How often a use case begins anew because somebody else saved the image in the meantime. Every turn lost is one that
/// another caller won, so this is how many may be ahead of it.
const TURNS_MAX: u32 = 64;

/// Makes the ids of new images.
pub type NewIds = Arc<dyn Fn() -> ImageId + Send + Sync>;

/// The use cases, and what they work with. Cheap to clone; calls block.
#[derive(Clone)]
pub struct Service {
    catalog: Arc<dyn Catalog>,
    rules: Arc<RwLock<Arc<Rules>>>,
    clock: Arc<dyn Clock>,
    new_ids: NewIds,
    limits: Limits,
}

impl Service {
    /// The use cases over this database, under these rules and limits.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        rules: Rules,
        clock: Arc<dyn Clock>,
        new_ids: NewIds,
        limits: Limits,
    ) -> Self {
        Self {
            catalog,
            rules: Arc::new(RwLock::new(Arc::new(rules))),
            clock,
            new_ids,
            limits,
        }
    }

    /// The database.
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&rules)
    }

    /// Puts other rules in force, for this value and all its clones. What was begun under the old ones ends under either.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.now_us())
    }

    /// Does `once`, and does it anew as long as somebody else saved the image first.
    fn in_turn<T>(
        &self,
        mut once: impl FnMut() -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        for _ in 1..TURNS_MAX {
            match once() {
                Err(ServiceError::Stale(_)) => {}
                done => return done,
            }
        }
        once()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("catalog", &self.catalog)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
