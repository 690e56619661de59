//! The table of routes: the only place that knows paths and methods.
//!
//! From it come the answers 404, 405 with `Allow`, and 501, which routes may have a body, the names of operations in logs and
//! metrics; the OpenAPI document is checked against it.

use crate::url::decode_segment;

/// What a request may have as its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// None; one is answered with 400.
    Nothing,
    /// JSON, read as a whole.
    Json,
    /// Bytes of an image, however many.
    Bytes,
}

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// The path, `{name}` standing for one segment that is not empty.
    pub(crate) path: &'static str,
    pub(crate) endpoint: Endpoint,
    pub(crate) accepts: Accepts,
}

macro_rules! routes {
    ($($method:ident $path:literal $endpoint:ident $name:literal $accepts:ident;)*) => {
        /// What a route leads to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Endpoint { $($endpoint,)* }

        impl Endpoint {
            /// Every one, in the order of the table.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$endpoint,)*];

            /// The operation's name.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$endpoint => $name,)* }
            }
        }

        /// Every route. Of routes that fit the same path, the first counts.
        pub(crate) const ROUTES: &[Route] = &[$(Route {
            method: stringify!($method),
            path: $path,
            endpoint: Endpoint::$endpoint,
            accepts: Accepts::$accepts,
        },)*];
    };
}

routes! {
    GET "/" Root "listVersionsAsChoices" Nothing;
    GET "/versions" Versions "listVersions" Nothing;
    GET "/healthcheck" Health "checkHealth" Nothing;
    GET "/metrics" Metrics "readMetrics" Nothing;
    GET "/openapi.json" OpenApi "readOpenApi" Nothing;

    GET "/v2" V2 "findV2" Nothing;
    GET "/v2/images" ListImages "listImages" Nothing;
    POST "/v2/images" CreateImage "createImage" Json;
    GET "/v2/images/{image_id}" ShowImage "showImage" Nothing;
    PATCH "/v2/images/{image_id}" UpdateImage "updateImage" Json;
    DELETE "/v2/images/{image_id}" DeleteImage "deleteImage" Nothing;
    PUT "/v2/images/{image_id}/file" UploadImage "uploadImage" Bytes;
    GET "/v2/images/{image_id}/file" DownloadImage "downloadImage" Nothing;
    PUT "/v2/images/{image_id}/stage" StageImage "stageImage" Bytes;
    POST "/v2/images/{image_id}/actions/deactivate" Deactivate "deactivateImage" Nothing;
    POST "/v2/images/{image_id}/actions/reactivate" Reactivate "reactivateImage" Nothing;
    POST "/v2/images/{image_id}/actions/flatten" Flatten "flattenImage" Nothing;
    POST "/v2/images/{image_id}/actions/coalesce" Coalesce "coalesceImage" Json;
    GET "/v2/images/{image_id}/extents" Extents "listExtents" Nothing;
    GET "/v2/images/{image_id}/delta" Delta "downloadDelta" Nothing;
    PUT "/v2/images/{image_id}/tags/{tag}" AddTag "addTag" Nothing;
    DELETE "/v2/images/{image_id}/tags/{tag}" RemoveTag "removeTag" Nothing;
    GET "/v2/images/{image_id}/members" ListMembers "listMembers" Nothing;
    POST "/v2/images/{image_id}/members" AddMember "addMember" Json;
    GET "/v2/images/{image_id}/members/{member_id}" ShowMember "showMember" Nothing;
    PUT "/v2/images/{image_id}/members/{member_id}" UpdateMember "updateMember" Json;
    DELETE "/v2/images/{image_id}/members/{member_id}" RemoveMember "removeMember" Nothing;
    GET "/v2/schemas/image" ImageSchema "showImageSchema" Nothing;
    GET "/v2/schemas/images" ImagesSchema "showImagesSchema" Nothing;
    GET "/v2/schemas/member" MemberSchema "showMemberSchema" Nothing;
    GET "/v2/schemas/members" MembersSchema "showMembersSchema" Nothing;
    GET "/v2/info/import" ImportInfo "showImportInfo" Nothing;
    GET "/v2/info/stores" StoresInfo "showStores" Nothing;
    GET "/v2/info/stores/detail" StoresDetail "showStoresInDetail" Nothing;
    GET "/v2/info/lineage" LineageInfo "showLineageInfo" Nothing;
    GET "/v2/info/usage" Usage "showUsage" Nothing;
}

/// Methods that HTTP (RFC 9110 §9, RFC 5789) and the API know: others on a path that does not exist are answered with 501.
const KNOWN_METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// What the table says of a method and a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// The route, and what stands for the names in its path, in order.
    Route(&'static Route, Vec<String>),
    /// The path has other methods: these.
    OtherMethods(String),
    /// There is no such path.
    NoPath,
    /// There is no such path, and no such method anywhere.
    NoMethod,
    /// A segment of the path is not percent-encoded UTF-8.
    BadPath,
}

/// Looks a request up. `path` begins with a slash.
pub(crate) fn find(method: &str, path: &str) -> Found {
    let mut others = Vec::new();
    for route in ROUTES {
        let Some(parameters) = fits(route.path, path) else {
            continue;
        };
        if route.method == method {
            return match parameters.into_iter().map(decoded).collect() {
                Some(parameters) => Found::Route(route, parameters),
                None => Found::BadPath,
            };
        }
        if !others.contains(&route.method) {
            others.push(route.method);
        }
    }
    match (others.is_empty(), KNOWN_METHODS.contains(&method)) {
        (false, _) => Found::OtherMethods(others.join(", ")),
        (true, true) => Found::NoPath,
        (true, false) => Found::NoMethod,
    }
}

/// The segments of `path` that stand for names in `pattern`, if it fits.
fn fits<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut parameters = Vec::new();
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        if wanted.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            parameters.push(segment);
        } else if wanted != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(parameters)
}

fn decoded(segment: &str) -> Option<String> {
    decode_segment(segment).map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> String {
        match find(method, path) {
            Found::Route(route, parameters) => format!("{} {parameters:?}", route.endpoint.name()),
            Found::OtherMethods(allow) => format!("405 {allow}"),
            Found::NoPath => "404".to_owned(),
            Found::NoMethod => "501".to_owned(),
            Found::BadPath => "400".to_owned(),
        }
    }

    #[test]
    fn a_path_and_a_method_lead_to_one_operation() {
        for (method, path, expected) in [
            ("GET", "/v2/images", "listImages []"),
            ("GET", "/v2/images/a", r#"showImage ["a"]"#),
            ("GET", "/v2/images/", "404"),
            ("GET", "/v2/images/a/", "404"),
            ("GET", "/v2//images", "404"),
            ("PUT", "/v2/images/a/tags/b%2Fc", r#"addTag ["a", "b/c"]"#),
            ("PUT", "/v2/images/a/tags/%ff", "400"),
            ("HEAD", "/v2/images/a", "405 GET, PATCH, DELETE"),
            ("BREW", "/v2/images/a", "405 GET, PATCH, DELETE"),
            ("BREW", "/v2/x", "501"),
            ("POST", "/v2/x", "404"),
            ("POST", "/v2/info/usage", "405 GET"),
            ("GET", "/v2/info/usage", "showUsage []"),
        ] {
            assert_eq!(found(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn no_two_routes_are_the_same() {
        for (index, route) in ROUTES.iter().enumerate() {
            let probe = route.path.replace(['{', '}'], "");
            match find(route.method, &probe) {
                Found::Route(found, _) => assert_eq!(found.endpoint, route.endpoint, "{route:?}"),
                other => panic!("{route:?}: {other:?}"),
            }
            assert_eq!(Endpoint::ALL[index], route.endpoint);
        }
    }
}
