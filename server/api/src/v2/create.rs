//! The body of `POST /v2/images`.

use super::{Refused, values};
use crate::settings::Settings;
use serde_json::Value;
use tegula_catalog::service::Attribute;
use tegula_domain::NewImage;

/// Reads it. What clients may not set is refused before what is malformed, as the reference does.
pub(crate) fn new_image(settings: &Settings, body: &Value) -> Result<NewImage, Refused> {
    let Value::Object(entries) = body else {
        return Err(Refused::invalid("the body is not a JSON object"));
    };
    for name in entries.keys() {
        if values::is_refused(name) || matches!(name.as_str(), "locations" | "stores") {
            return Err(Refused::forbidden(format!("`{name}` is not yours to set")));
        }
    }
    let mut new = NewImage::default();
    for (name, value) in entries {
        match name.as_str() {
            "id" => new.id = Some(values::id(name, value)?),
            // Not the client's to say, but clients that copy an image say it: the reference ignores it.
            "os_hash_algo" | "os_hash_value" => {}
            name => match values::attribute(settings, name, value)? {
                Some(attribute) => set(&mut new, attribute),
                None => {
                    let value = values::property(name, value)?;
                    new.properties.insert(name.to_owned(), value);
                }
            },
        }
    }
    Ok(new)
}

fn set(new: &mut NewImage, attribute: Attribute) {
    match attribute {
        Attribute::Name(name) => new.name = name,
        Attribute::Visibility(visibility) => new.visibility = Some(visibility),
        Attribute::Protected(protected) => new.protected = protected,
        Attribute::Hidden(hidden) => new.hidden = hidden,
        Attribute::Owner(owner) => new.owner = Some(owner),
        Attribute::DiskFormat(format) => new.disk_format = format,
        Attribute::ContainerFormat(format) => new.container_format = format,
        Attribute::MinRam(mib) => new.min_ram = mib,
        Attribute::MinDisk(gib) => new.min_disk = gib,
        Attribute::Tags(tags) => new.tags = tags,
        Attribute::Parent(parent) => new.parent = parent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(body: Value) -> u16 {
        match new_image(&Settings::default(), &body) {
            Ok(_) => 201,
            Err(refused) => refused.status.as_u16(),
        }
    }

    #[test]
    fn what_every_image_has_is_typed_and_the_rest_is_text() {
        let body = json!({
            "id": "01234567-89AB-cdef-0123-456789abcdef", "name": null, "visibility": "private",
            "protected": true, "os_hidden": true, "owner": "p", "disk_format": "raw", "container_format": null,
            "min_ram": 2_147_483_647, "min_disk": 0, "tags": ["a", "a"], "x": "", "kernel_id": null,
            "os_hash_algo": "sha512",
        });
        let new = new_image(&Settings::default(), &body).unwrap();
        assert_eq!(new.owner, Some(Some("p".to_owned())));
        assert_eq!((new.tags.len(), new.min_ram), (1, 2_147_483_647));
        let properties: Vec<_> = new.properties.into_iter().collect();
        let empty = |name: &str| (name.to_owned(), String::new());
        assert_eq!(properties, [empty("kernel_id"), empty("x")]);
        assert_eq!(status(json!({})), 201);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = "x".repeat(256);
        for body in [
            json!([]),
            json!("x"),
            json!({"x": 1}),
            json!({"x": null}),
            json!({"x": {"y": "z"}}),
            json!({"": "x"}),
            json!({long.clone(): "x"}),
            json!({"name": long.clone()}),
            json!({"name": 1}),
            json!({"tags": [long]}),
            json!({"tags": [""]}),
            json!({"tags": "x"}),
            json!({"id": "x"}),
            json!({"id": null}),
            json!({"visibility": "Public"}),
            json!({"protected": "true"}),
            json!({"min_ram": -1}),
            json!({"min_ram": 2_147_483_648u64}),
            json!({"min_disk": 1.5}),
            json!({"disk_format": "exe"}),
            json!({"kernel_id": "x"}),
            json!({"cinder_encryption_key_deletion_policy": "later"}),
            json!({"x": "y".repeat(65_536)}),
        ] {
            assert_eq!(status(body.clone()), 400, "{body}");
        }
    }

    #[test]
    fn what_is_the_servers_is_refused_even_where_it_is_malformed() {
        for name in [
            "status",
            "size",
            "virtual_size",
            "checksum",
            "created_at",
            "updated_at",
            "direct_url",
            "self",
            "file",
            "stores",
            "schema",
            "location",
            "locations",
            "deleted",
            "deleted_at",
            "os_glance_x",
            "os_glance",
            "os_tree_hash",
            "os_delta_size",
            "os_chain_depth",
        ] {
            assert_eq!(status(json!({ name: "x", "min_ram": -1 })), 403, "{name}");
        }
    }
}
