//! Nothing presented: good enough from the machine itself, where that is wanted.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, HeaderName, ORIGIN, VIA};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
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
///
/// Nor is one taken that asks for a host which is not this machine: a web page may have the name of its own host lead here
/// (DNS rebinding), and a browser then lets it read what it gets.
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
        let is_meant = asks_this_machine(presented.headers);
        (from_here && !passed_on && is_meant).then(|| self.caller.clone())
    }
}

/// Whether the request is for the machine itself by name or address, or names no host, which browsers always do.
fn asks_this_machine(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).into_iter().all(is_this_machine)
}

fn is_this_machine(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host().to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // Names under `localhost` are never resolved to another machine (RFC 6761 §6.3).
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}
