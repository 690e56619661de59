//! A page of images as the API shows it.

use super::ImageBody;
use serde::Serialize;
use tegula_catalog::service::Page;

/// A page, with the ways to the first one and to the next.
#[derive(Debug, Serialize)]
pub(crate) struct ListBody<'a> {
    images: Vec<ImageBody<'a>>,
    first: String,
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl<'a> ListBody<'a> {
    /// `pairs` are those of the request's query. All of them are in the links, repeated ones too, but the marker, which is
    /// each link's own.
    pub(crate) fn new(page: &'a Page, pairs: &[(String, String)]) -> Self {
        let kept = pairs
            .iter()
            .filter(|(name, _)| name != "marker")
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let next = page.next.as_ref().map(|id| ("marker", id.as_str()));
        Self {
            images: page.images.iter().map(ImageBody).collect(),
            first: link(kept.clone()),
            schema: "/v2/schemas/images",
            next: next.map(|marker| link(kept.chain([marker]))),
        }
    }
}

fn link<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    match crate::url::encode_query(pairs) {
        query if query.is_empty() => "/v2/images".to_owned(),
        query => format!("/v2/images?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tegula_domain::ImageId;

    #[test]
    fn links_keep_all_that_was_asked_but_the_marker() {
        let page = Page {
            images: Vec::new(),
            next: Some(ImageId::from_random([0; 16])),
        };
        let pairs = [("tag", "a"), ("marker", "x"), ("tag", "b&c")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let body = ListBody::new(&page, &pairs);
        assert_eq!(body.first, "/v2/images?tag=a&tag=b%26c");
        let next = "/v2/images?tag=a&tag=b%26c&marker=00000000-0000-4000-8000-000000000000";
        assert_eq!(body.next.as_deref(), Some(next));
        let body = ListBody::new(&page, &[]);
        assert_eq!(body.first, "/v2/images");
    }
}
