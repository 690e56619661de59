//! Why nobody is known to ask.

/// No caller was found for a request. The API answers the first three with 401 (and
/// [`Identity::challenge`](crate::Identity::challenge)), as Keystone's own middleware does, and the last with 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The request presents nothing that names a caller.
    #[error("the request presents no token")]
    Missing,
    /// What it presents is not good. The reason is for the log; callers are told no more than that.
    #[error("the request's credentials are not valid: {0}")]
    Invalid(Flaw),
    /// The token is good, but was made of an application credential that is restricted to other requests.
    #[error("no access rule of the token's application credential allows this request")]
    Forbidden,
    /// Whether the token is good cannot be found out at present; says what went wrong, without any secret.
    #[error("the identity service gave no answer: {0}")]
    Unavailable(String),
}

/// What is wrong with a request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A header of them is there twice: which one is meant cannot be known.
    #[error("a header of them stands twice")]
    Repeated,
    /// A header of them is too long, or not made of the characters it may have.
    #[error("a header of them is too long or has characters it must not have")]
    Malformed,
    /// No provider knows the token.
    #[error("the token is unknown")]
    Unknown,
    /// The token has ended.
    #[error("the token has expired")]
    Expired,
    /// A service speaks on the caller's behalf, and its own token is not good.
    #[error("the service's token is unknown or has expired")]
    ServiceToken,
    /// A service speaks on the caller's behalf, but has no role of a service.
    #[error("the service's token has no service role")]
    ServiceRole,
    /// The trusted proxy says that the caller's token is not good.
    #[error("the proxy says that the token is not valid")]
    Unconfirmed,
    /// The trusted proxy names no user or no roles.
    #[error("the proxy does not say who asks")]
    Incomplete,
}
