//! Callers by the tokens of a Keystone (Identity API v3).
//!
//! A token is good if Keystone says so. It is asked with a token of our own, which is got with a password and renewed when
//! it ends or is refused. Good answers are remembered for a while; a token that is revoked meanwhile stays good for as long.
//! Many requests with one new token ask once.
//!
//! ```text
//! identify ──► Validations: remembered? ──► under way? wait for it ──► Client ──► Transport ──► Keystone
//!   service token, access rules        ▲                                 own token
//!                                      └── Memory: SHA-256 of the token → what Keystone said
//! ```

mod access_rules;
mod client;
mod memory;
mod settings;
mod tls;
mod token;
mod transport;
mod validations;

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use tegula_domain::{Caller, Timestamp};

pub use settings::{Credentials, Domain, KeystoneError, KeystoneSettings};
pub use tls::TrustAnchors;

use crate::WallClock;
use crate::error::{Flaw, IdentityError};
use crate::presented::Presented;
use client::Client;
use token::Token;
use validations::Validations;

/// A Keystone that vouches for callers.
pub struct Keystone {
    validations: Validations,
    service_roles: Vec<String>,
    challenge: HeaderValue,
    clock: WallClock,
}

impl fmt::Debug for Keystone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keystone")
            .field("challenge", &self.challenge)
            .finish_non_exhaustive()
    }
}

impl Keystone {
    /// Prepares to ask the Keystone of the settings. Connects to nothing yet: a Keystone that is down now may be up later.
    ///
    /// # Errors
    /// [`KeystoneError`] if a URL or a file of certificates is not usable.
    pub fn new(settings: KeystoneSettings, clock: WallClock) -> Result<Self, KeystoneError> {
        let challenge = settings.challenge()?;
        let service_roles = settings
            .service_roles
            .iter()
            .map(|role| role.to_lowercase())
            .collect();
        let (cache_lifetime, cache_entries_max) =
            (settings.cache_lifetime, settings.cache_entries_max);
        let client = Client::new(settings, Arc::clone(&clock))?;
        Ok(Self {
            validations: Validations::new(client, cache_lifetime, cache_entries_max),
            service_roles,
            challenge,
            clock,
        })
    }

    /// What `WWW-Authenticate` tells a client without a good token.
    pub fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// Returns the caller who has a token.
    ///
    /// A service that passes a request on presents its own token as well. If that one is good and has a service role, the
    /// caller's token may have expired meanwhile, and access rules do not hold; if it is not, nor is the request.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub(crate) async fn identify(
        &self,
        token: &str,
        presented: &Presented<'_>,
    ) -> Result<Caller, IdentityError> {
        let service = match presented.service_token()? {
            Some(service_token) => Some(self.service(service_token).await?),
            None => None,
        };
        let allow_expired = service.is_some();
        let token = self.validations.validate(token, allow_expired).await?;
        if !allow_expired && token.has_expired(self.now()) {
            return Err(IdentityError::Invalid(Flaw::Expired));
        }
        match service {
            Some(service) => Ok(caller(&token).with_service_roles(&service.roles)),
            None if token.allows(presented) => Ok(caller(&token)),
            None => Err(IdentityError::Forbidden),
        }
    }

    /// What Keystone says of a service's token.
    async fn service(&self, service_token: &str) -> Result<Arc<Token>, IdentityError> {
        let unknown = |error| match error {
            IdentityError::Invalid(_) => IdentityError::Invalid(Flaw::ServiceToken),
            other => other,
        };
        let service = self
            .validations
            .validate(service_token, false)
            .await
            .map_err(unknown)?;
        if service.has_expired(self.now()) {
            return Err(IdentityError::Invalid(Flaw::ServiceToken));
        }
        let is_service = service
            .roles
            .iter()
            .any(|role| self.service_roles.contains(&role.to_lowercase()));
        if is_service {
            Ok(service)
        } else {
            Err(IdentityError::Invalid(Flaw::ServiceRole))
        }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

fn caller(token: &Token) -> Caller {
    let project = token.project.as_deref().unwrap_or_default();
    Caller::new(&token.user, project, &token.roles).with_scope(token.scope)
}
