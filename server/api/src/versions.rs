//! Which versions of the API there are, and which one a request is of.

use http::HeaderMap;
use serde_json::{Value, json};

/// The minor versions of v2, newest first: clients look for single ones to know what the server can do.
const MINORS: std::ops::RangeInclusive<u32> = 0..=18;

/// What a request says of versions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// The list of versions itself, or one that does not exist: the answer is the list.
    Choices,
    /// Version 2, and the path within it, with its leading slash; empty for the bare prefix.
    V2(&'a str),
}

/// Finds the version of a request: by the first segment of its path, or by `Accept`.
pub(crate) fn asked<'a>(path: &'a str, headers: &HeaderMap) -> Asked<'a> {
    let accepted = headers
        .get(http::header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .and_then(|accept| accept.strip_prefix("application/vnd.openstack.images-"));
    if let Some(version) = accepted {
        return match is_v2(version) {
            true => Asked::V2(path),
            false => Asked::Choices,
        };
    }
    let inner = path.strip_prefix('/').unwrap_or(path);
    let (version, rest) = inner
        .find('/')
        .map_or((inner, ""), |slash| inner.split_at(slash));
    match is_v2(version) {
        true => Asked::V2(rest),
        false => Asked::Choices,
    }
}

fn is_v2(version: &str) -> bool {
    match version.strip_prefix("v2") {
        Some("") => true,
        Some(minor) => minor
            .strip_prefix('.')
            .filter(|minor| {
                minor.bytes().all(|byte| byte.is_ascii_digit())
                    && !(minor.len() > 1 && minor.starts_with('0'))
            })
            .and_then(|minor| minor.parse().ok())
            .is_some_and(|minor: u32| MINORS.contains(&minor)),
        None => false,
    }
}

/// The list of versions. `endpoint` is what links begin with, without a trailing slash.
pub(crate) fn document(endpoint: &str) -> Value {
    let versions: Vec<Value> = MINORS
        .rev()
        .map(|minor| {
            json!({
                "id": format!("v2.{minor}"),
                "status": if minor == *MINORS.end() { "CURRENT" } else { "SUPPORTED" },
                "links": [{"rel": "self", "href": format!("{endpoint}/v2/")}],
            })
        })
        .collect();
    json!({ "versions": versions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_first_segment_is_the_version() {
        let headers = HeaderMap::new();
        for (path, expected) in [
            ("/v2/images", Asked::V2("/images")),
            ("/v2.18/images", Asked::V2("/images")),
            ("/v2.0/images", Asked::V2("/images")),
            ("/v2", Asked::V2("")),
            ("/v2/", Asked::V2("/")),
            ("/v2.19/images", Asked::Choices),
            ("/v2.01/images", Asked::Choices),
            ("/v2.+1/images", Asked::Choices),
            ("/v2./images", Asked::Choices),
            ("/v1/images", Asked::Choices),
            ("/v3", Asked::Choices),
            ("/", Asked::Choices),
            ("/images", Asked::Choices),
        ] {
            assert_eq!(asked(path, &headers), expected, "{path}");
        }
    }

    #[test]
    fn accept_names_the_version_of_a_path_without_one() {
        let mut headers = HeaderMap::new();
        let mut with = |accept: &'static str| {
            headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
            format!("{:?}", asked("/images", &headers))
        };
        assert_eq!(
            with("application/vnd.openstack.images-v2"),
            r#"V2("/images")"#
        );
        assert_eq!(
            with("application/vnd.openstack.images-v2.7"),
            r#"V2("/images")"#
        );
        assert_eq!(with("application/vnd.openstack.images-v1"), "Choices");
        assert_eq!(with("application/json"), "Choices");
    }

    #[test]
    fn the_newest_version_is_the_current_one() {
        let document = document("http://host:1");
        let versions = document["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 19);
        assert_eq!(versions[0]["id"], "v2.18");
        assert_eq!(versions[0]["links"][0]["href"], "http://host:1/v2/");
        let current = versions.iter().filter(|v| v["status"] == "CURRENT").count();
        assert_eq!((current, &versions[18]["id"]), (1, &"v2.0".into()));
    }
}
