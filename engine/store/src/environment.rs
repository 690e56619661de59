//! What a store is given from outside.

use std::sync::Arc;
use tegula_io::{Clock, OsRandom, Random, Storage, SystemClock};

/// Files, time and randomness: everything that is not decided by the arguments of a call.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Where the store's files are.
    pub storage: Arc<dyn Storage>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub random: Arc<dyn Random>,
}

impl Environment {
    /// Puts a storage together with the system's clock and randomness.
    pub fn of_system(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
        }
    }
}
