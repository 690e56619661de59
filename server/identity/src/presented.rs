//! What a request presents of itself.

use std::net::SocketAddr;

use http::{HeaderMap, Method};

use crate::error::{Flaw, IdentityError};

/// The longest token that is looked at, in bytes. Keystone's Fernet tokens have about 250, its signed ones up to 2,000.
const TOKEN_BYTES_MAX: usize = 8192;

/// The parts of a request that say who sends it.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's path as it came, without its query.
    pub path: &'a str,
    /// All of its headers.
    pub headers: &'a HeaderMap,
    /// The other end of the connection: a proxy's address, if there is one.
    pub peer: SocketAddr,
}

impl<'a> Presented<'a> {
    /// The caller's token, if one is presented.
    ///
    /// # Errors
    /// [`Flaw::Repeated`] and [`Flaw::Malformed`].
    pub(crate) fn token(&self) -> Result<Option<&'a str>, IdentityError> {
        self.token_in("x-auth-token")
    }

    /// The token of the service that speaks on the caller's behalf, if one is presented.
    ///
    /// # Errors
    /// [`Flaw::Repeated`] and [`Flaw::Malformed`].
    pub(crate) fn service_token(&self) -> Result<Option<&'a str>, IdentityError> {
        self.token_in("x-service-token")
    }

    /// The text of a header that stands at most once. An empty one counts as absent.
    ///
    /// # Errors
    /// [`Flaw::Repeated`], and [`Flaw::Malformed`] if it is not UTF-8 or has control characters.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a str>, IdentityError> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(IdentityError::Invalid(Flaw::Repeated));
        }
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| IdentityError::Invalid(Flaw::Malformed))?
            .trim();
        if text.chars().any(char::is_control) {
            return Err(IdentityError::Invalid(Flaw::Malformed));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn token_in(&self, name: &str) -> Result<Option<&'a str>, IdentityError> {
        let token = self.header(name)?;
        let well_formed = token.is_none_or(|token| {
            token.len() <= TOKEN_BYTES_MAX && token.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if well_formed {
            Ok(token)
        } else {
            Err(IdentityError::Invalid(Flaw::Malformed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(headers: &HeaderMap) -> Result<Option<&str>, IdentityError> {
        let presented = Presented {
            method: &Method::GET,
            path: "/",
            headers,
            peer: ([127, 0, 0, 1], 1).into(),
        };
        presented.token()
    }

    #[test]
    fn a_token_stands_once_and_is_of_visible_characters() {
        let invalid = |flaw| Err(IdentityError::Invalid(flaw));
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), Ok(None));
        for (value, expected) in [
            (&b"abc-_=."[..], Ok(Some("abc-_=."))),
            (b"", Ok(None)),
            (b" ", Ok(None)),
            (b"a b", invalid(Flaw::Malformed)),
            (b"a\xffb", invalid(Flaw::Malformed)),
            ("é".as_bytes(), invalid(Flaw::Malformed)),
            (&[b'a'; TOKEN_BYTES_MAX + 1], invalid(Flaw::Malformed)),
        ] {
            headers.insert(
                "x-auth-token",
                http::HeaderValue::from_bytes(value).unwrap(),
            );
            assert_eq!(token(&headers), expected);
        }
        headers.insert("x-auth-token", "a".parse().unwrap());
        headers.append("x-auth-token", "a".parse().unwrap());
        assert_eq!(token(&headers), invalid(Flaw::Repeated));
    }
}
