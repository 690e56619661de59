//! Where the bytes of an image are.

use std::collections::BTreeMap;

/// A place that an image's bytes can be had from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The place.
    pub url: String,
    /// What is known of it; `store` names the store it belongs to.
    pub metadata: BTreeMap<String, String>,
}

impl Location {
    /// The store it belongs to, if that is known.
    pub fn store(&self) -> Option<&str> {
        self.metadata.get("store").map(String::as_str)
    }
}
