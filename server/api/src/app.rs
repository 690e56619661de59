//! The application: what all requests share.

use crate::access_log::AccessLog;
use crate::metrics::Metrics;
use crate::settings::Settings;
use std::sync::Arc;
use tegula_catalog::service::Transfers;
use tegula_domain::ImageId;
use tegula_engine::Clock;
use tegula_identity::Identity;
use tokio::sync::{Mutex, Semaphore};

/// What an application is made of.
#[derive(Debug)]
pub struct Parts {
    /// The use cases.
    pub transfers: Transfers,
    /// Who knows callers.
    pub identity: Identity,
    /// How it is served.
    pub settings: Settings,
    /// Where requests are noted.
    pub log: Arc<dyn AccessLog>,
    /// What durations are measured by.
    pub clock: Arc<dyn Clock>,
    /// Makes the ids of requests.
    pub random_ids: RandomIds,
}

/// Makes random ids.
#[derive(Clone, Copy)]
pub struct RandomIds(pub fn() -> ImageId);

impl std::fmt::Debug for RandomIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RandomIds")
    }
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) transfers: Transfers,
    /// One for each transfer that may be under way.
    pub(crate) places: Arc<Semaphore>,
    /// Who looks after the database's health: one at a time, however long it takes.
    pub(crate) health: Arc<Mutex<()>>,
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) log: Arc<dyn AccessLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random_ids: RandomIds,
    pub(crate) metrics: Metrics,
}

/// The application. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub(crate) shared: Arc<Shared>,
}

impl App {
    /// Puts it together.
    pub fn new(parts: Parts) -> Self {
        let shared = Shared {
            transfers: parts.transfers,
            places: Arc::new(Semaphore::new(parts.settings.transfers_max)),
            health: Arc::default(),
            identity: parts.identity,
            settings: parts.settings,
            log: parts.log,
            clock: parts.clock,
            random_ids: parts.random_ids,
            metrics: Metrics::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}
