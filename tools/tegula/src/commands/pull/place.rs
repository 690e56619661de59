//! Where an image service is, and which image is asked for.

use super::PullError;

/// An image of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageUrl {
    /// The service's URL, up to before `/v2`, without a slash at its end.
    pub(super) service: String,
    /// The image's id.
    pub(super) image: String,
}

impl ImageUrl {
    /// Reads `URL/IMAGE`, where URL may go on with `/v2` or `/v2/images`.
    ///
    /// # Errors
    /// [`PullError::Url`].
    pub(super) fn parse(text: &str) -> Result<Self, PullError> {
        let refused = |reason| PullError::Url {
            url: text.to_owned(),
            reason,
        };
        let known = ["http://", "https://"];
        let host = known.iter().find_map(|scheme| text.strip_prefix(scheme));
        let host =
            host.ok_or_else(|| refused("it begins neither with http:// nor with https://"))?;
        let dots = text.split('/').any(|part| matches!(part, "." | ".."));
        if dots || text.contains(['?', '#']) || text.contains(char::is_whitespace) {
            return Err(refused(
                "it has characters that the URL of an image has not",
            ));
        }
        let trimmed = text.trim_end_matches('/');
        let trimmed = trimmed.strip_suffix("/file").unwrap_or(trimmed);
        if !host.contains('/') {
            return Err(refused("the image's id is missing"));
        }
        let (service, image) = trimmed.rsplit_once('/').unwrap_or_default();
        check_id(image).map_err(refused)?;
        let service = service.strip_suffix("/images").unwrap_or(service);
        let service = service.strip_suffix("/v2").unwrap_or(service);
        if service.len() <= "https://".len() && !service.contains("://") || service.ends_with('/') {
            return Err(refused("the service's host is missing"));
        }
        Ok(Self {
            service: service.to_owned(),
            image: image.to_owned(),
        })
    }

    /// Returns the URL of a path of the service's second version.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}/v2/{path}", self.service)
    }
}

/// Refuses what cannot be an image's id, or would be read as something else in a URL.
pub(super) fn check_id(id: &str) -> Result<(), &'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !id.is_empty() && id.len() <= 64 && id.chars().all(fits) {
        true => Ok(()),
        false => Err("an id has letters, digits and hyphens, 36 of them as a rule"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "71c675ab-d94f-49cd-a114-e12490b328d9";

    #[test]
    fn an_image_is_found_however_its_service_is_named() {
        for (text, service) in [
            ("http://host:9292/ID", "http://host:9292"),
            ("http://host:9292/ID/", "http://host:9292"),
            ("https://host/v2/ID", "https://host"),
            ("http://[::1]:9292/v2/images/ID", "http://[::1]:9292"),
            ("https://host/image/v2/images/ID/file", "https://host/image"),
        ] {
            let found = ImageUrl::parse(&text.replace("ID", ID)).unwrap();
            assert_eq!((&*found.service, &*found.image), (service, ID), "{text}");
        }
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in [
            "",
            ID,
            "host:9292/x",
            "ftp://host/x",
            "http://host:9292",
            "http://host:9292/",
            "http:///x",
            "http://host/a b",
            "http://host/x?y=1",
            "http://host/../etc",
            "http://host/v2/images/..",
        ] {
            let error = ImageUrl::parse(text).unwrap_err();
            assert!(matches!(error, PullError::Url { .. }), "{text}: {error}");
        }
    }
}
