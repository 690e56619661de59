//! Which part of something that never changes is asked for (RFC 9110, sections 13 and 14).

use http::HeaderMap;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use std::ops::Range;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    All,
    /// These bytes.
    Part(Range<u64>),
    /// A part that there is not.
    Nothing,
    /// Nothing, if it still is what the caller has.
    Known,
}

impl Wanted {
    /// Reads the headers of a request for something of that length and that strong tag, quotes included.
    pub(crate) fn of(headers: &HeaderMap, bytes: u64, tag: &str) -> Self {
        if is_known(headers, tag) {
            return Self::Known;
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if text(IF_RANGE).is_some_and(|supposed| supposed.trim() != tag) {
            return Self::All;
        }
        match text(RANGE).map(|range| parse(range, bytes)) {
            None | Some(Asked::SomethingElse) => Self::All,
            Some(Asked::Part(range)) => Self::Part(range),
            Some(Asked::PastTheEnd) => Self::Nothing,
        }
    }
}

/// Whether the caller has what is of that tag.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

enum Asked {
    Part(Range<u64>),
    PastTheEnd,
    /// What is no range of bytes, or several, is not answered as one.
    SomethingElse,
}

fn parse(text: &str, bytes: u64) -> Asked {
    let Some((first, last)) = text
        .trim()
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Asked::SomethingElse;
    };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => first..bytes,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (None, Some(count)) if first.is_empty() => bytes.saturating_sub(count)..bytes,
        _ => return Asked::SomethingElse,
    };
    match range.is_empty() {
        true => Asked::PastTheEnd,
        false => Asked::Part(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn wanted(headers: &[(HeaderName, &'static str)]) -> Wanted {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        Wanted::of(&map, 100, "\"a\"")
    }

    #[test]
    fn a_range_of_what_the_caller_has_is_a_part() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=10-", Wanted::Part(10..100)),
            ("bytes=90-1000", Wanted::Part(90..100)),
            ("bytes=-10", Wanted::Part(90..100)),
            ("bytes=-1000", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=99999999999999999999-", Wanted::Nothing),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("lines=0-1", Wanted::All),
            ("bytes=", Wanted::All),
            ("bytes=+1-2", Wanted::All),
        ] {
            assert_eq!(wanted(&[(RANGE, range)]), expected, "{range}");
        }
        assert_eq!(wanted(&[]), Wanted::All);
    }

    #[test]
    fn a_range_of_what_the_caller_does_not_have_is_all() {
        let with = |tag| wanted(&[(RANGE, "bytes=5-"), (IF_RANGE, tag)]);
        assert_eq!(with("\"a\""), Wanted::Part(5..100));
        for other in ["\"b\"", "W/\"a\"", "a", "Wed, 25 Nov 2026 00:00:00 GMT"] {
            assert_eq!(with(other), Wanted::All, "{other}");
        }
        for known in ["\"a\"", "\"b\", \"a\"", "W/\"a\"", "*"] {
            assert_eq!(wanted(&[(IF_NONE_MATCH, known)]), Wanted::Known, "{known}");
        }
        assert_eq!(wanted(&[(IF_NONE_MATCH, "\"b\"")]), Wanted::All);
    }
}
