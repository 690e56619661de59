//! Who asks: from what a request presents to the [`Caller`](tegula_domain::Caller) it comes from.
//!
//! [`Identity`] asks a list of providers in the order of the configuration: a Keystone, tokens of the configuration, the
//! headers of a trusted proxy, or nothing at all for requests of the machine itself. This crate says who asks, never what
//! they may do: that is the policy's part. What a request claims of its sender in headers is read in one place
//! ([`TrustedHeaders`]), and only from addresses of the configuration.
//!
//! Tokens and passwords are in no error, no `Debug` and no cache: a token is remembered by its SHA-256 alone.

#![forbid(unsafe_code)]

mod error;
mod identity;
mod keystone;
mod network;
mod open;
mod presented;
mod secret;
mod static_tokens;
mod trusted_headers;

pub use error::{Flaw, IdentityError};
pub use identity::{Identity, Provider};
pub use keystone::{Credentials, Domain, Keystone, KeystoneError, KeystoneSettings, TrustAnchors};
pub use network::{Network, NotANetwork};
pub use open::OpenOnLoopback;
pub use presented::Presented;
pub use secret::Secret;
pub use static_tokens::{NewToken, NotATokenHash, StaticToken, StaticTokens, TokenHash};
pub use trusted_headers::TrustedHeaders;

use std::sync::Arc;

use tegula_domain::Timestamp;

/// Tells the time of day: tokens end at one.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
