//! The id of a request: what a caller, an answer and the log name it by.

use http::{HeaderMap, HeaderValue};
use tegula_domain::ImageId;

/// The header.
pub(crate) const NAME: &str = "x-openstack-request-id";

/// A caller's own id is too long.
#[derive(Debug)]
pub(crate) struct TooLong;

/// The id of this request: the caller's own if it gives a usable one, else a new one.
///
/// # Errors
/// [`TooLong`] if the caller's is longer than `bytes_max`.
pub(crate) fn of(
    headers: &HeaderMap,
    bytes_max: usize,
    new: impl FnOnce() -> ImageId,
) -> Result<HeaderValue, TooLong> {
    match headers.get(NAME).map(HeaderValue::as_bytes) {
        Some(given) if given.len() > bytes_max => Err(TooLong),
        Some(given) if !given.is_empty() && given.iter().all(u8::is_ascii_graphic) => {
            Ok(prefixed(given))
        }
        _ => Ok(fresh(&new())),
    }
}

/// A new id.
pub(crate) fn fresh(uuid: &ImageId) -> HeaderValue {
    prefixed(uuid.as_str().as_bytes())
}

fn prefixed(text: &[u8]) -> HeaderValue {
    let prefix: &[u8] = if text.starts_with(b"req-") {
        b""
    } else {
        b"req-"
    };
    HeaderValue::from_bytes(&[prefix, text].concat())
        .expect("because visible characters make a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(given: Option<&[u8]>) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(NAME, HeaderValue::from_bytes(given).unwrap());
        }
        let id = of(&headers, 8, || ImageId::from_random([0; 16])).ok()?;
        Some(id.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_callers_id_is_taken_over_if_it_is_usable() {
        assert_eq!(id(Some(b"req-1234")).as_deref(), Some("req-1234"));
        assert_eq!(id(Some(b"1234")).as_deref(), Some("req-1234"));
        assert_eq!(id(Some(b"req-12345")), None);
        let fresh = Some("req-00000000-0000-4000-8000-000000000000");
        assert_eq!(id(None).as_deref(), fresh);
        assert_eq!(id(Some(b"")).as_deref(), fresh);
        assert_eq!(id(Some(b"a b")).as_deref(), fresh);
        assert_eq!(id(Some(b"\xff")).as_deref(), fresh);
    }
}
