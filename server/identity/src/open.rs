//! Nothing presented: good enough from the machine itself, where that is wanted.

use http::header::{FORWARDED, HeaderName, ORIGIN, VIA};
use tegula_domain::Caller;

use crate::presented::Presented;

/// Headers that a request from the machine itself has only if it was passed on for someone else, or if a web page that a
/// browser shows made it.
const PASSED_ON: [HeaderName; 7] = [
    FORWARDED,
    VIA,
    ORIGIN,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

/// Takes whoever connects over loopback and presents no token as one caller, usually an administrator.
///
/// A proxy on the same machine connects over loopback too. A request that it marks as passed on is not taken; one that it
/// does not mark cannot be told apart. So this is for trying things out.
#[derive(Debug, Clone)]
pub struct OpenOnLoopback {
    caller: Caller,
}

impl OpenOnLoopback {
    /// Takes them as this caller.
    pub fn new(caller: Caller) -> Self {
        Self { caller }
    }

    /// The caller, if the request comes from the machine itself, for itself.
    pub(crate) fn identify(&self, presented: &Presented<'_>) -> Option<Caller> {
        let from_here = presented.peer.ip().to_canonical().is_loopback();
        let passed_on = PASSED_ON
            .iter()
            .any(|name| presented.headers.contains_key(name));
        (from_here && !passed_on).then(|| self.caller.clone())
    }
}
