//! Extents as the API asks for them and shows them.

use super::Refused;
use serde_json::{Value, json};
use tegula_catalog::service::Base;
use tegula_domain::ImageId;
use tegula_engine::{Extent, ExtentKind, ExtentPage, ExtentWindow};

/// Extents of a page at most.
pub(crate) const EXTENTS_MAX: usize = 10_000;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExtentsAsked {
    pub(crate) base: Base,
    pub(crate) window: ExtentWindow,
    /// `base`, `limit` and `context` as they were asked for: the next page is asked for the same way.
    again: Vec<(String, String)>,
}

impl ExtentsAsked {
    /// Reads a query.
    pub(crate) fn parse(query: &str) -> Result<Self, Refused> {
        let pairs = pairs(query)?;
        let mut asked = Self {
            base: Base::Nothing,
            window: ExtentWindow {
                offset: 0,
                limit: EXTENTS_MAX,
                only: None,
            },
            again: Vec::new(),
        };
        for (name, value) in pairs {
            match &*name {
                "base" => asked.base = read_base(&value)?,
                "offset" => asked.window.offset = number(&name, &value, 0)?,
                "limit" => {
                    let limit = usize::try_from(number(&name, &value, 1)?);
                    asked.window.limit = limit.unwrap_or(EXTENTS_MAX).min(EXTENTS_MAX);
                }
                "context" => {
                    asked.window.only = match &*value {
                        "all" => None,
                        "data" => Some(ExtentKind::Data),
                        "zero" => Some(ExtentKind::Zero),
                        _ => return Err(Refused::invalid("context is data, zero or all")),
                    }
                }
                _ => return Err(Refused::invalid(format!("{name} cannot be asked for here"))),
            }
            if name != "offset" {
                asked.again.push((name, value));
            }
        }
        Ok(asked)
    }

    /// The path of the page after this one.
    fn next(&self, id: &ImageId, offset: u64) -> String {
        let offset = offset.to_string();
        let again = self.again.iter().map(|(name, value)| (&**name, &**value));
        let query = crate::url::encode_query(again.chain([("offset", &*offset)]));
        format!("/v2/images/{id}/extents?{query}")
    }
}

/// Reads the base that a delta is to start from; none if none was given.
pub(crate) fn base(query: &str) -> Result<Option<Base>, Refused> {
    let mut found = None;
    for (name, value) in pairs(query)? {
        match &*name {
            "base" => found = Some(read_base(&value)?),
            _ => return Err(Refused::invalid(format!("{name} cannot be asked for here"))),
        }
    }
    Ok(found)
}

fn pairs(query: &str) -> Result<Vec<(String, String)>, Refused> {
    crate::url::decode_query(query)
        .ok_or_else(|| Refused::invalid("the query is not percent-encoded UTF-8"))
}

fn read_base(value: &str) -> Result<Base, Refused> {
    match value {
        "none" => Ok(Base::Nothing),
        "parent" => Ok(Base::Parent),
        id => ImageId::parse(id)
            .map(Base::Image)
            .map_err(|_| Refused::invalid("base is an image's id, parent or none")),
    }
}

fn number(name: &str, value: &str, least: u64) -> Result<u64, Refused> {
    let digits = value.bytes().all(|digit| digit.is_ascii_digit());
    let number = value
        .parse()
        .ok()
        .filter(|number| digits && *number >= least);
    number.ok_or_else(|| Refused::invalid(format!("{name} is a whole number from {least} on")))
}

fn shown(extent: &Extent) -> Value {
    let kind = match extent.kind {
        ExtentKind::Data => "data",
        ExtentKind::Zero => "zero",
    };
    json!({ "offset": extent.offset, "length": extent.length, "type": kind })
}

/// A page as one document.
pub(crate) fn extents(
    id: &ImageId,
    base: Option<&ImageId>,
    asked: &ExtentsAsked,
    page: &ExtentPage,
) -> Value {
    let changed: u64 = page.extents.iter().map(|extent| extent.length).sum();
    let mut document = json!({
        "image": id.as_str(),
        "base": base.map(ImageId::as_str),
        "size": page.size,
        "granularity": page.block_size.bytes(),
        "extents": page.extents.iter().map(shown).collect::<Vec<_>>(),
        "changed_bytes": changed,
    });
    if let (Some(next), Some(fields)) = (page.next, document.as_object_mut()) {
        fields.insert("next".to_owned(), asked.next(id, next).into());
    }
    document
}

/// A page as a document a line; the last says where the next page begins, if there is one.
pub(crate) fn extent_lines(page: &ExtentPage) -> String {
    let mut lines: String = page
        .extents
        .iter()
        .map(|extent| format!("{}\n", shown(extent)))
        .collect();
    if let Some(next) = page.next {
        lines.push_str(&format!("{}\n", json!({ "next_offset": next })));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "71c675ab-d94f-49cd-a114-e12490b328d9";

    #[test]
    fn a_page_is_asked_for_and_so_is_the_next() {
        let asked =
            ExtentsAsked::parse(&format!("base={ID}&limit=3&offset=65536&context=data")).unwrap();
        let window = ExtentWindow {
            offset: 65536,
            limit: 3,
            only: Some(ExtentKind::Data),
        };
        assert_eq!(asked.window, window);
        let id = ImageId::parse(ID).unwrap();
        let next = asked.next(&id, 131_072);
        let (path, query) = next.split_once('?').unwrap();
        assert_eq!(path, format!("/v2/images/{ID}/extents"));
        let again = ExtentsAsked::parse(query).unwrap();
        assert_eq!(again.base, asked.base);
        assert_eq!(
            again.window,
            ExtentWindow {
                offset: 131_072,
                ..window
            }
        );
        let all = ExtentsAsked::parse("limit=99999999").unwrap();
        assert_eq!(all.window.limit, EXTENTS_MAX);
    }

    #[test]
    fn nonsense_is_refused() {
        for query in [
            "offset=-1",
            "offset=x",
            "offset=",
            "limit=0",
            "limit=-1",
            "limit=x",
            "offset=+1",
            "offset=99999999999999999999",
            "context=maybe",
            "base=",
            "base=x",
            "what=1",
            "base=%ff",
        ] {
            assert!(ExtentsAsked::parse(query).is_err(), "{query}");
        }
        assert_eq!(base("").unwrap(), None);
        assert_eq!(base("base=parent").unwrap(), Some(Base::Parent));
        assert!(base("offset=1").is_err());
    }
}
