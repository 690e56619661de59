//! Calls from pages of other origins (the Fetch standard, CORS): what a browser is told.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

/// Methods that a page may use.
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "PATCH"];
/// Headers that a page may send, besides those that every page may.
const SENT: [&str; 8] = [
    "Content-Type",
    "Range",
    "X-Auth-Token",
    "X-Image-Meta-Store",
    "X-OpenStack-Image-Size",
    "X-OpenStack-Request-ID",
    "X-Service-Token",
    "Accept-Encoding",
];
/// Headers of an answer that a page may read.
const SHOWN: [&str; 9] = [
    "Content-MD5",
    "Content-Range",
    "Location",
    "OpenStack-image-import-methods",
    "OpenStack-image-store-ids",
    "X-Auth-Token",
    "X-OpenStack-Request-ID",
    "X-Service-Token",
    "X-Subject-Token",
];

/// Which origins' pages may call. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins (`https://dashboard.example`); `*` is any.
    pub allowed_origins: Vec<String>,
    /// Whether pages may send the browser's credentials. Not with `*`, which no browser takes together.
    pub allow_credentials: bool,
    /// How long a browser may remember the answer to a preflight, in seconds.
    pub max_age_s: u32,
}

impl Cors {
    /// Adds to the answer of a request what lets a page of its origin read it.
    pub(crate) fn decorate(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        if self.allowed_origins.is_empty() {
            return;
        }
        answer.append(VARY, HeaderValue::from_static("Origin"));
        if self.allow_origin(request, answer) {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, list(&SHOWN));
        }
    }

    /// Adds to the answer of an `OPTIONS` request what lets a page send the request it asks about. Nothing if it may not:
    /// a browser then does not send it.
    pub(crate) fn preflight(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        let Some(method) = request.get(ACCESS_CONTROL_REQUEST_METHOD) else {
            return self.decorate(request, answer);
        };
        let method_allowed = METHODS.iter().any(|allowed| method == allowed);
        if !method_allowed || !headers_allowed(request) || !self.allow_origin(request, answer) {
            return;
        }
        answer.append(VARY, HeaderValue::from_static("Origin"));
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, list(&METHODS));
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, list(&SENT));
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age_s));
    }

    fn allow_origin(&self, request: &HeaderMap, answer: &mut HeaderMap) -> bool {
        let Some(origin) = request.get(ORIGIN) else {
            return false;
        };
        let named = self.allowed_origins.iter().any(|allowed| origin == allowed);
        if !named && !self.allowed_origins.iter().any(|allowed| allowed == "*") {
            return false;
        }
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.allow_credentials && named {
            let yes = HeaderValue::from_static("true");
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        true
    }
}

/// Whether all headers that the page wants to send are among those it may.
fn headers_allowed(request: &HeaderMap) -> bool {
    let simple = ["Accept", "Accept-Language", "Content-Language"];
    request
        .get_all(ACCESS_CONTROL_REQUEST_HEADERS)
        .iter()
        .all(|value| {
            value.to_str().is_ok_and(|names| {
                names
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .all(|name| {
                        SENT.iter()
                            .chain(&simple)
                            .any(|allowed| allowed.eq_ignore_ascii_case(name))
                    })
            })
        })
}

fn list(names: &[&str]) -> HeaderValue {
    debug_assert!(names.iter().all(|name| !name.is_empty()));
    HeaderValue::from_str(&names.join(", ")).expect("because the names are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn cors(origins: &[&str]) -> Cors {
        Cors {
            allowed_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            allow_credentials: true,
            max_age_s: 600,
        }
    }

    fn preflight(cors: &Cors, headers: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut request = HeaderMap::new();
        for (name, value) in headers {
            request.insert(name, HeaderValue::from_static(value));
        }
        let mut answer = HeaderMap::new();
        cors.preflight(&request, &mut answer);
        answer
    }

    #[test]
    fn a_page_of_an_allowed_origin_may_send_what_it_asks_about() {
        let answer = preflight(
            &cors(&["https://a"]),
            &[
                (ORIGIN, "https://a"),
                (ACCESS_CONTROL_REQUEST_METHOD, "PUT"),
                (ACCESS_CONTROL_REQUEST_HEADERS, "x-auth-token, content-type"),
            ],
        );
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "600");
    }

    #[test]
    fn other_origins_methods_and_headers_are_told_nothing() {
        let origin = (ORIGIN, "https://a");
        let method = (ACCESS_CONTROL_REQUEST_METHOD, "PUT");
        for (cors, headers) in [
            (cors(&[]), vec![origin.clone(), method.clone()]),
            (cors(&["https://b"]), vec![origin.clone(), method.clone()]),
            (cors(&["https://a"]), vec![method.clone()]),
            (
                cors(&["https://a"]),
                vec![origin.clone(), (ACCESS_CONTROL_REQUEST_METHOD, "TRACE")],
            ),
            (
                cors(&["https://a"]),
                vec![origin, method, (ACCESS_CONTROL_REQUEST_HEADERS, "x-other")],
            ),
        ] {
            assert_eq!(preflight(&cors, &headers).len(), 0, "{headers:?}");
        }
    }

    #[test]
    fn any_origin_gets_no_credentials() {
        let answer = preflight(
            &cors(&["*"]),
            &[
                (ORIGIN, "https://c"),
                (ACCESS_CONTROL_REQUEST_METHOD, "GET"),
            ],
        );
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://c");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
