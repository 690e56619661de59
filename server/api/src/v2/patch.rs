//! The two media types that change an image.

use super::Refused;
use super::patch_operations::change;
use crate::settings::Settings;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::{Map, Value};
use tegula_catalog::service::Change;

/// What `Accept-Patch` says.
pub(crate) const ACCEPTED: &str =
    "application/openstack-images-v2.1-json-patch, application/openstack-images-v2.0-json-patch";

/// A form of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"op": "add", "path": "/x", "value": "y"}`: adding what is there replaces it (as RFC 6902 has it).
    V21,
    /// `{"add": "/x", "value": "y"}`: adding what is there is a conflict.
    V20,
}

/// An operation of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Replace,
    Remove,
}

impl Operation {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "add" => Some(Self::Add),
            "replace" => Some(Self::Replace),
            "remove" => Some(Self::Remove),
            _ => None,
        }
    }
}

impl Dialect {
    /// The form of a body by its content type; none if it is no form of changes.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/openstack-images-v2.1-json-patch") {
            Some(Self::V21)
        } else if kind.eq_ignore_ascii_case("application/openstack-images-v2.0-json-patch") {
            Some(Self::V20)
        } else {
            None
        }
    }
}

/// Reads the changes of a body. All are checked before any is made.
pub(crate) fn changes(
    settings: &Settings,
    dialect: Dialect,
    body: &Value,
) -> Result<Vec<Change>, Refused> {
    let Value::Array(list) = body else {
        return Err(Refused::invalid("the body is not a list of changes"));
    };
    let mut changes = Vec::with_capacity(list.len());
    for entry in list {
        let Value::Object(entry) = entry else {
            return Err(Refused::invalid("a change is not a JSON object"));
        };
        let (operation, path) = match dialect {
            Dialect::V21 => v21(entry)?,
            Dialect::V20 => v20(entry)?,
        };
        let value = entry.get("value");
        changes.extend(change(settings, dialect, operation, &tokens(path)?, value)?);
    }
    Ok(changes)
}

fn v21(entry: &Map<String, Value>) -> Result<(Operation, &str), Refused> {
    let text = |name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| Refused::invalid(format!("a change has no `{name}`")))
    };
    let operation = text("op")?;
    let operation = Operation::from_name(operation).ok_or_else(|| {
        Refused::invalid(format!(
            "the operation is `{operation}`, expected add, replace or remove"
        ))
    })?;
    Ok((operation, text("path")?))
}

fn v20(entry: &Map<String, Value>) -> Result<(Operation, &str), Refused> {
    let mut operations = entry
        .iter()
        .filter_map(|(name, path)| Some((Operation::from_name(name)?, path)));
    match (operations.next(), operations.next()) {
        (Some((operation, Value::String(path))), None) => Ok((operation, path)),
        _ => Err(Refused::invalid(
            "a change has exactly one of add, replace and remove, with a path",
        )),
    }
}

/// The names in a path (RFC 6901): none is empty.
fn tokens(path: &str) -> Result<Vec<String>, Refused> {
    let bad = || {
        Refused::invalid(format!(
            "the path is `{path}`, expected `/` and a name, `~` written as ~0 and `/` as ~1"
        ))
    };
    let rest = path.strip_prefix('/').ok_or_else(bad)?;
    rest.split('/')
        .map(|token| unescaped(token).filter(|name| !name.is_empty()))
        .collect::<Option<_>>()
        .ok_or_else(bad)
}

fn unescaped(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (sign, rest) = match piece.strip_prefix('0') {
            Some(rest) => ('~', rest),
            None => ('/', piece.strip_prefix('1')?),
        };
        name.push(sign);
        name.push_str(rest);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn paths_are_names_with_two_escapes() {
        assert_eq!(tokens("/a~1b~0c").unwrap(), ["a/b~c"]);
        assert_eq!(tokens("/~01").unwrap(), ["~1"]);
        assert_eq!(tokens("/a/-").unwrap(), ["a", "-"]);
        for bad in ["", "a", "/", "//a", "/a/", "/a//b", "/~", "/~2", "/a~"] {
            assert_eq!(tokens(bad).unwrap_err().status.as_u16(), 400, "{bad}");
        }
    }

    #[test]
    fn the_media_type_is_one_of_two() {
        let of = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            Dialect::of(&headers)
        };
        let (new, old) = ACCEPTED.split_once(", ").unwrap();
        assert_eq!((of(new), of(old)), (Some(Dialect::V21), Some(Dialect::V20)));
        let with_charset = "application/openstack-images-v2.0-json-patch; charset=utf-8";
        assert_eq!(of(with_charset), Some(Dialect::V20));
        assert_eq!(of("application/json"), None);
        assert_eq!(Dialect::of(&HeaderMap::new()), None);
    }
}
