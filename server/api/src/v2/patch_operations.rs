//! What one change of an image may be.

use super::patch::{Dialect, Operation};
use super::{Refused, values};
use crate::settings::Settings;
use serde_json::Value;
use tegula_catalog::service::{Attribute, Change, PropertyChange};

/// Names that no change may touch, besides those that a creation may not either.
const FIXED: [&str; 3] = ["id", "os_hash_algo", "os_hash_value"];

/// Reads a change. None if it changes nothing.
///
/// # Errors
/// 403 for what is not the client's to change, 400 for what does not fit, 409 for what cannot be so.
pub(crate) fn change(
    settings: &Settings,
    dialect: Dialect,
    operation: Operation,
    path: &[String],
    value: Option<&Value>,
) -> Result<Option<Change>, Refused> {
    let Some((name, deeper)) = path.split_first() else {
        return Err(Refused::invalid("the path has no name"));
    };
    if values::is_refused(name) || FIXED.contains(&name.as_str()) {
        return Err(Refused::forbidden(format!(
            "`{name}` is not yours to change"
        )));
    }
    if name == "locations" {
        let why = "locations cannot be changed on this server";
        return Err(Refused::forbidden(why));
    }
    if !deeper.is_empty() {
        return Err(Refused::invalid(format!(
            "the path goes into `{name}`, which can only be changed as a whole"
        )));
    }
    if operation == Operation::Remove {
        return removal(name);
    }
    if name == "stores" {
        return Err(Refused::forbidden("`stores` is not yours to change"));
    }
    let value = value.ok_or_else(|| Refused::invalid(format!("`{name}` is given no value")))?;
    if let Some(attribute) = values::attribute(settings, name, value)? {
        return match (operation, dialect) {
            (Operation::Add, Dialect::V20) => Err(Refused::conflict(format!(
                "`{name}` cannot be added: every image has it"
            ))),
            _ => Ok(Some(Change::Set(attribute))),
        };
    }
    let (name, value) = (name.clone(), values::property(name, value)?);
    Ok(Some(Change::Property(match (operation, dialect) {
        (Operation::Replace, _) => PropertyChange::Replace(name, value),
        (_, Dialect::V21) => PropertyChange::Add(name, value),
        (_, Dialect::V20) => PropertyChange::AddNew(name, value),
    })))
}

fn removal(name: &str) -> Result<Option<Change>, Refused> {
    match name {
        // Clients that are given a whole image to save also remove what they do not find in it.
        "stores" => Ok(None),
        "os_parent_id" => Ok(Some(Change::Set(Attribute::Parent(None)))),
        name if values::is_base(name) => Err(Refused::forbidden(format!(
            "`{name}` cannot be removed: every image has it"
        ))),
        name => {
            let removal = PropertyChange::Remove(name.to_owned());
            Ok(Some(Change::Property(removal)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::changes;
    use super::*;
    use serde_json::json;

    fn read(dialect: Dialect, body: &Value) -> Result<Vec<Change>, u16> {
        changes(&Settings::default(), dialect, body).map_err(|refused| refused.status.as_u16())
    }

    #[test]
    fn both_dialects_say_the_same_but_for_adding() {
        let new = json!([
            {"op": "add", "path": "/x~1y", "value": "1"},
            {"op": "replace", "path": "/name", "value": null},
            {"op": "remove", "path": "/z"},
            {"op": "remove", "path": "/stores"},
        ]);
        let old = json!([
            {"add": "/x~1y", "value": "1"},
            {"replace": "/name", "value": null},
            {"remove": "/z"},
            {"remove": "/stores"},
        ]);
        let (x, one) = ("x/y".to_owned(), "1".to_owned());
        let expected = |first| {
            let removal = PropertyChange::Remove("z".to_owned());
            let name = Change::Set(Attribute::Name(None));
            vec![Change::Property(first), name, Change::Property(removal)]
        };
        let added = PropertyChange::Add(x.clone(), one.clone());
        assert_eq!(read(Dialect::V21, &new).unwrap(), expected(added));
        let added = PropertyChange::AddNew(x, one);
        assert_eq!(read(Dialect::V20, &old).unwrap(), expected(added));
        assert_eq!(read(Dialect::V21, &old), Err(400));
        assert_eq!(read(Dialect::V20, &new), Err(400));
        assert_eq!(read(Dialect::V21, &json!([])), Ok(vec![]));
    }

    #[test]
    fn each_mistake_has_its_status() {
        for (change, expected) in [
            (json!({"op": "test", "path": "/x", "value": "1"}), 400),
            (json!({"op": "move", "path": "/x", "from": "/y"}), 400),
            (json!({"op": "copy", "path": "/x", "from": "/y"}), 400),
            (json!({"op": "add", "path": "/x"}), 400),
            (json!({"op": "add", "path": "/x", "value": 1}), 400),
            (json!({"op": "add", "path": "/x/y", "value": "1"}), 400),
            (json!({"op": "add", "path": "/tags/-", "value": "1"}), 400),
            (
                json!({"op": "replace", "path": "/min_ram", "value": -1}),
                400,
            ),
            (json!({"op": "remove", "path": "/name"}), 403),
            (json!({"op": "remove", "path": "/id"}), 403),
            (json!({"op": "replace", "path": "/id", "value": "x"}), 403),
            (
                json!({"op": "replace", "path": "/status", "value": "active"}),
                403,
            ),
            (
                json!({"op": "add", "path": "/os_glance_x", "value": "1"}),
                403,
            ),
            (
                json!({"op": "add", "path": "/os_glance~1x", "value": "1"}),
                403,
            ),
            (
                json!({"op": "add", "path": "/locations/-", "value": {}}),
                403,
            ),
            (
                json!({"op": "replace", "path": "/stores", "value": "x"}),
                403,
            ),
            (json!("x"), 400),
        ] {
            let read = read(Dialect::V21, &json!([change]));
            assert_eq!(read, Err(expected), "{change}");
        }
        let old = |body: Value| read(Dialect::V20, &body);
        assert_eq!(old(json!([{"add": "/name", "value": "x"}])), Err(409));
        assert_eq!(old(json!([{"add": "/x", "remove": "/y"}])), Err(400));
        assert_eq!(read(Dialect::V21, &json!({})), Err(400));
    }
}
