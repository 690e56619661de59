//! Access rules of application credentials: the only requests that their tokens are good for.

use http::Method;

/// One kind of request that is allowed (Identity API v3, "Application Credentials: Access Rules").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessRule {
    service: String,
    method: String,
    path: Vec<Piece>,
}

/// A part of a path's pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// This byte.
    Byte(u8),
    /// `{name}`: one or more bytes other than `/`.
    Name,
    /// `*`: any bytes other than `/`.
    InSegment,
    /// `**`: any bytes.
    Anything,
}

impl AccessRule {
    /// A rule for requests of a service with a method and a path: `{name}` stands for one segment, `*` for any part of one,
    /// `**` for any part of the path.
    pub(crate) fn new(service: &str, method: &str, path: &str) -> Self {
        Self {
            service: service.to_owned(),
            method: method.to_owned(),
            path: pieces(path),
        }
    }

    /// Whether it allows a request to a service.
    pub(crate) fn allows(&self, service: &str, method: &Method, path: &str) -> bool {
        self.service == service
            && self.method == method.as_str()
            && matches(&self.path, path.as_bytes())
    }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(pattern.len());
    let mut rest = pattern.as_bytes();
    while let [first, tail @ ..] = rest {
        let (piece, after) = match (first, tail) {
            (b'*', [b'*', after @ ..]) => (Piece::Anything, after),
            (b'*', after) => (Piece::InSegment, after),
            (b'{', tail) => match tail.iter().position(|byte| *byte == b'}') {
                Some(end) => (Piece::Name, tail.get(end + 1..).unwrap_or_default()),
                None => (Piece::Byte(b'{'), tail),
            },
            (byte, after) => (Piece::Byte(*byte), after),
        };
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Whether a path fits a pattern. Keeps the set of places in the pattern that the path so far can have led to, so the time
/// is at most length times length, whatever the pattern.
fn matches(pattern: &[Piece], path: &[u8]) -> bool {
    // `places[i]`: the path so far fits the first `i` pieces. A star may also stand for nothing.
    let mut places = vec![false; pattern.len() + 1];
    if let Some(first) = places.first_mut() {
        *first = true;
    }
    skip_stars(pattern, &mut places);
    for byte in path {
        let mut next = vec![false; places.len()];
        for (index, piece) in pattern.iter().enumerate() {
            let (before, inside) = (at(&places, index), at(&places, index + 1));
            let fits = match piece {
                Piece::Byte(expected) => before && byte == expected,
                Piece::Name => (before || inside) && *byte != b'/',
                Piece::InSegment => inside && *byte != b'/',
                Piece::Anything => inside,
            };
            if let Some(place) = next.get_mut(index + 1) {
                *place = fits;
            }
        }
        skip_stars(pattern, &mut next);
        places = next;
    }
    places.last() == Some(&true)
}

fn at(places: &[bool], index: usize) -> bool {
    places.get(index).copied().unwrap_or(false)
}

fn skip_stars(pattern: &[Piece], places: &mut [bool]) {
    for (index, piece) in pattern.iter().enumerate() {
        if matches!(piece, Piece::InSegment | Piece::Anything)
            && at(places, index)
            && let Some(place) = places.get_mut(index + 1)
        {
            *place = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_paths() {
        for (pattern, path, expected) in [
            ("/v2/images", "/v2/images", true),
            ("/v2/images", "/v2/images/", false),
            ("/v2/images", "/v2/image", false),
            ("/v2/images/{image_id}", "/v2/images/1", true),
            ("/v2/images/{image_id}", "/v2/images/", false),
            ("/v2/images/{image_id}", "/v2/images/1/file", false),
            ("/v2/images/{image_id}/file", "/v2/images/1/file", true),
            ("/v2/images/*", "/v2/images/1", true),
            ("/v2/images/*", "/v2/images/", true),
            ("/v2/images/*", "/v2/images/1/file", false),
            ("/v2/images/*/file", "/v2/images/1/file", true),
            ("/v2/images*", "/v2/images", true),
            ("/v2/**", "/v2/images/1/file", true),
            ("/v2/**", "/v2/", true),
            ("/v2/**", "/v2", false),
            ("**", "/anything/at/all", true),
            ("**", "", true),
            ("", "", true),
            ("", "/", false),
            ("/v2/**/file", "/v2/images/1/file", true),
            ("/v2/**/file", "/v2/images/1/stage", false),
            ("/v2/{a}{b}", "/v2/ab", true),
            ("/v2/{a}{b}", "/v2/a", false),
            ("/v2/{open", "/v2/{open", true),
            ("/v2/.", "/v2/x", false),
        ] {
            assert_eq!(
                matches(&pieces(pattern), path.as_bytes()),
                expected,
                "{pattern} on {path}"
            );
        }
    }

    #[test]
    fn a_rule_is_for_one_service_and_one_method() {
        let rule = AccessRule::new("image", "GET", "/v2/images");
        assert!(rule.allows("image", &Method::GET, "/v2/images"));
        assert!(!rule.allows("compute", &Method::GET, "/v2/images"));
        assert!(!rule.allows("image", &Method::POST, "/v2/images"));
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "**{a}*".repeat(200);
        let path = "a/".repeat(2_000) + "a";
        assert!(matches(&pieces(&pattern), path.as_bytes()));
        assert!(!matches(&pieces(&(pattern + "b")), path.as_bytes()));
    }
}
