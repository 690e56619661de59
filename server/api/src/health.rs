//! Whether the server is in service: what a load balancer asks.

use std::path::PathBuf;

/// Files by which an operator takes the server out of service, without stopping it.
#[derive(Debug, Clone, Default)]
pub struct HealthFiles {
    /// Out of service as long as this file exists.
    pub disable: Option<PathBuf>,
    /// Out of service as long as this file does not exist.
    pub enable: Option<PathBuf>,
}

impl HealthFiles {
    /// Why the server is out of service, if it is. Looks at the files: blocks.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        if self.disable.as_ref().is_some_and(|file| file.exists()) {
            Some("DISABLED BY FILE")
        } else if self.enable.as_ref().is_some_and(|file| !file.exists()) {
            Some("NOT ENABLED BY FILE")
        } else {
            None
        }
    }
}
