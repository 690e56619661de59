//! The list of providers, asked in order.

use std::sync::Arc;

use http::HeaderValue;
use tegula_domain::Caller;

use crate::error::{Flaw, IdentityError};
use crate::keystone::Keystone;
use crate::open::OpenOnLoopback;
use crate::presented::Presented;
use crate::static_tokens::StaticTokens;
use crate::trusted_headers::TrustedHeaders;

/// One way to know who asks.
#[derive(Debug, Clone)]
pub enum Provider {
    /// Tokens that a Keystone vouches for.
    Keystone(Arc<Keystone>),
    /// Tokens of the configuration.
    StaticTokens(StaticTokens),
    /// Headers of a proxy.
    TrustedHeaders(TrustedHeaders),
    /// Requests of the machine itself that present no token.
    OpenOnLoopback(OpenOnLoopback),
}

/// Says who asks.
#[derive(Debug, Clone)]
pub struct Identity {
    providers: Vec<Provider>,
}

impl Identity {
    /// Asks these providers, in this order. Without any, no request has a caller.
    pub fn new(providers: Vec<Provider>) -> Self {
        Self { providers }
    }

    /// Returns the caller of a request.
    ///
    /// The first provider that knows what is presented decides; one that does not know it leaves it to the next. May wait
    /// for an identity service, never longer than that service's own time limits.
    ///
    /// # Errors
    /// See [`IdentityError`]. If one provider cannot be asked and no other knows the token, it is
    /// [`Unavailable`](IdentityError::Unavailable): the token may well be good.
    pub async fn identify(&self, presented: &Presented<'_>) -> Result<Caller, IdentityError> {
        let token = presented.token()?;
        let mut unavailable = None;
        for provider in &self.providers {
            let answer = match (provider, token) {
                (Provider::TrustedHeaders(headers), _) => headers.identify(presented),
                (Provider::OpenOnLoopback(open), None) => Ok(open.identify(presented)),
                (Provider::StaticTokens(tokens), Some(token)) => tokens.identify(token, presented),
                (Provider::Keystone(keystone), Some(token)) => {
                    keystone.identify(token, presented).await.map(Some)
                }
                (Provider::OpenOnLoopback(_), Some(_))
                | (Provider::StaticTokens(_) | Provider::Keystone(_), None) => Ok(None),
            };
            match answer {
                Ok(Some(caller)) => return Ok(caller),
                Ok(None) | Err(IdentityError::Invalid(Flaw::Unknown)) => {}
                Err(error @ IdentityError::Unavailable(_)) => unavailable = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(match token {
            None => IdentityError::Missing,
            Some(_) => unavailable.unwrap_or(IdentityError::Invalid(Flaw::Unknown)),
        })
    }

    /// What `WWW-Authenticate` tells a client that is not known: where to get a token.
    pub fn challenge(&self) -> HeaderValue {
        self.providers
            .iter()
            .find_map(|provider| match provider {
                Provider::Keystone(keystone) => Some(keystone.challenge().clone()),
                _ => None,
            })
            .unwrap_or(HeaderValue::from_static("X-Auth-Token realm=\"tegula\""))
    }
}
