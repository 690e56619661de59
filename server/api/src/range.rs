//! Which part of an image's bytes a request asks for (RFC 9110 §14, and what older clients send).

use http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName};
use std::ops::Range;

/// A part cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadRange {
    /// It is not in the image, or is no range: 416.
    Unsatisfiable,
    /// There are several: 400.
    Several,
}

/// The part of `size` bytes that is asked for; none for all of them.
pub(crate) fn wanted(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, BadRange> {
    if let Some(text) = one(headers, &RANGE)? {
        // An image's bytes have no tag that could be the one supposed, so all of them are sent (RFC 9110 §13.1.5).
        if headers.contains_key(IF_RANGE) {
            return Ok(None);
        }
        let (unit, range) = text.split_once('=').ok_or(BadRange::Unsatisfiable)?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return Err(BadRange::Unsatisfiable);
        }
        if range.contains(',') {
            return Err(BadRange::Several);
        }
        return by_range(range.trim(), size).map(Some);
    }
    let Some(text) = one(headers, &CONTENT_RANGE)? else {
        return Ok(None);
    };
    let range = text.strip_prefix("bytes").ok_or(BadRange::Unsatisfiable)?;
    by_content_range(range.trim_start_matches(['=', ' ']), size).map(Some)
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, BadRange> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(BadRange::Several);
    }
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| BadRange::Unsatisfiable)
}

/// `a-b`, `a-` or `-n`: to the end where it goes beyond it.
fn by_range(range: &str, size: u64) -> Result<Range<u64>, BadRange> {
    let (first, last) = range.split_once('-').ok_or(BadRange::Unsatisfiable)?;
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return Err(BadRange::Unsatisfiable),
    };
    if range.is_empty() {
        Err(BadRange::Unsatisfiable)
    } else {
        Ok(range)
    }
}

/// `a-b/size` or `a-b/*`: with the star, nothing goes beyond the end.
fn by_content_range(range: &str, size: u64) -> Result<Range<u64>, BadRange> {
    let (range, length) = range.split_once('/').ok_or(BadRange::Unsatisfiable)?;
    let (first, last) = range.split_once('-').ok_or(BadRange::Unsatisfiable)?;
    let within = match (length, number(length), number(last)) {
        ("*", _, last) => last.is_some_and(|last| last < size),
        (_, Some(_), Some(_)) => true,
        _ => false,
    };
    if within && number(first).is_some() {
        by_range(range, size)
    } else {
        Err(BadRange::Unsatisfiable)
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More than any number is beyond any end.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn part(
        name: HeaderName,
        value: &'static str,
        size: u64,
    ) -> Result<Option<Range<u64>>, BadRange> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        wanted(&headers, size)
    }

    #[test]
    fn a_range_is_clamped_to_the_image() {
        for (text, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=2-5", 2..6),
            ("bytes=2-99999999999999999999999", 2..10),
            ("bytes=9-", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-11", 0..10),
            ("Bytes=2-5", 2..6),
        ] {
            assert_eq!(part(RANGE, text, 10), Ok(Some(expected)), "{text}");
        }
        assert_eq!(wanted(&HeaderMap::new(), 10), Ok(None));
    }

    #[test]
    fn a_range_of_supposed_bytes_is_all_of_them() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=2-5"));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"some tag\""));
        assert_eq!(wanted(&headers, 10), Ok(None));
    }

    #[test]
    fn what_is_no_range_of_the_image_cannot_be_satisfied() {
        for text in [
            "bytes=10-",
            "bytes=10-11",
            "bytes=5-2",
            "bytes=-0",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1",
            "lines=0-1",
            "0-1",
            "bytes=18446744073709551616-",
        ] {
            assert_eq!(
                part(RANGE, text, 10),
                Err(BadRange::Unsatisfiable),
                "{text}"
            );
        }
        assert_eq!(part(RANGE, "bytes=0-", 0), Err(BadRange::Unsatisfiable));
        assert_eq!(part(RANGE, "bytes=-1", 0), Err(BadRange::Unsatisfiable));
        assert_eq!(part(RANGE, "bytes=0-1,3-4", 10), Err(BadRange::Several));
    }

    #[test]
    fn older_clients_ask_by_content_range() {
        for (text, expected) in [
            ("bytes 1-3/*", Ok(Some(1..4))),
            ("bytes=1-3/10", Ok(Some(1..4))),
            ("bytes 1-30/10", Ok(Some(1..10))),
            ("bytes 1-10/*", Err(BadRange::Unsatisfiable)),
            ("bytes 10-11/*", Err(BadRange::Unsatisfiable)),
            ("bytes 1-3", Err(BadRange::Unsatisfiable)),
            ("bytes */10", Err(BadRange::Unsatisfiable)),
            ("bytes -3/*", Err(BadRange::Unsatisfiable)),
        ] {
            assert_eq!(part(CONTENT_RANGE, text, 10), expected, "{text}");
        }
    }
}
