//! The schemas that clients ask for before they say anything: what an image and a member are made of.

use crate::settings::Settings;
use serde_json::{Map, Value, json};

/// Properties that are known though no image must have them, as the reference's `schema-image.json` lists them.
const KNOWN_TEXTS: [(&str, &str); 6] = [
    (
        "architecture",
        "The processor architecture that the image is for",
    ),
    (
        "cinder_encryption_key_id",
        "The key that the volume in the image is encrypted with",
    ),
    ("description", "What the image is, for people"),
    ("instance_uuid", "The server that the image was made of"),
    ("os_distro", "The distribution that is in the image"),
    (
        "os_version",
        "The version of the operating system in the image",
    ),
];

const UUID: &str =
    "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";

/// Whether a caller may read a property of that name.
pub(crate) type Readable<'a> = dyn Fn(&str) -> bool + 'a;

/// The schema of an image; of the known properties, those that `readable` lets through.
pub(crate) fn image_schema(settings: &Settings, readable: &Readable<'_>) -> Value {
    json!({
        "name": "image",
        "properties": properties(settings, readable),
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// The schema of a page of images.
pub(crate) fn images_schema(settings: &Settings, readable: &Readable<'_>) -> Value {
    json!({
        "name": "images",
        "properties": {
            "images": {"type": "array", "items": image_schema(settings, readable)},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// The schema of a membership.
pub(crate) fn member_schema() -> Value {
    json!({
        "name": "member",
        "properties": {
            "member_id": {"type": "string", "description": "The project that the image is shared with"},
            "image_id": {"type": "string", "pattern": UUID, "description": "The image"},
            "status": {
                "type": "string", "enum": ["pending", "accepted", "rejected"],
                "description": "What the project says of the image",
            },
            "created_at": {"type": "string", "description": "When the image was shared"},
            "updated_at": {"type": "string", "description": "When the project last said something of it"},
            "schema": {"type": "string", "readOnly": true},
        },
    })
}

/// The schema of the members of an image.
pub(crate) fn members_schema() -> Value {
    json!({
        "name": "members",
        "properties": {
            "members": {"type": "array", "items": member_schema()},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "describedby", "href": "{schema}"}],
    })
}

fn properties(settings: &Settings, readable: &Readable<'_>) -> Value {
    let mut properties: Map<String, Value> = base_properties(settings)
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let known = KNOWN_TEXTS.iter().map(|(name, description)| {
        let schema = json!({"type": "string", "is_base": false, "description": description});
        (*name, schema)
    });
    for (name, schema) in known.chain(known_with_rules()) {
        if readable(name) {
            properties.insert(name.to_owned(), schema);
        }
    }
    Value::Object(properties)
}

/// Known properties whose values are not any text.
fn known_with_rules() -> [(&'static str, Value); 3] {
    let image = |description: &str| {
        let nullable = json!(["null", "string"]);
        json!({"type": nullable, "pattern": UUID, "is_base": false, "description": description})
    };
    [
        (
            "kernel_id",
            image("The image of the kernel that the image boots with"),
        ),
        (
            "ramdisk_id",
            image("The image of the RAM disk that the image boots with"),
        ),
        (
            "cinder_encryption_key_deletion_policy",
            json!({
                "type": "string", "enum": ["on_image_deletion", "do_not_delete"], "is_base": false,
                "description": "What becomes of the key when the image is deleted",
            }),
        ),
    ]
}

fn base_properties(settings: &Settings) -> Vec<(&'static str, Value)> {
    let shown = |kinds: &str, description: &str| {
        let kinds: Value = match kinds.split_once(' ') {
            Some((empty, kind)) => json!([empty, kind]),
            None => json!(kinds),
        };
        json!({"type": kinds, "readOnly": true, "description": description})
    };
    let digest = |characters: u32, description: &str| {
        json!({
            "type": ["null", "string"], "readOnly": true, "maxLength": characters, "description": description,
        })
    };
    let text = |description: &str| json!({"type": ["null", "string"], "maxLength": 255, "description": description});
    let formats = |known: &[String], description: &str| {
        let names = known.iter().map(|name| Value::from(name.as_str()));
        let values: Vec<Value> = [Value::Null].into_iter().chain(names).collect();
        json!({"type": ["null", "string"], "enum": values, "description": description})
    };
    vec![
        (
            "id",
            json!({"type": "string", "pattern": UUID, "description": "The id of the image"}),
        ),
        ("name", text("A name for people")),
        ("owner", text("The project that the image belongs to")),
        ("status", status()),
        ("visibility", visibility()),
        (
            "protected",
            json!({"type": "boolean", "description": "Whether the image must not be deleted"}),
        ),
        (
            "os_hidden",
            json!({"type": "boolean", "description": "Whether the image stays out of lists"}),
        ),
        ("checksum", digest(32, "The MD5 of the data")),
        ("os_hash_algo", digest(64, "The function of os_hash_value")),
        ("os_hash_value", digest(128, "A digest of the data")),
        (
            "size",
            shown("null integer", "The length of the data in bytes"),
        ),
        (
            "virtual_size",
            shown(
                "null integer",
                "The length of the disk in the data in bytes",
            ),
        ),
        (
            "disk_format",
            formats(&settings.disk_formats, "The format of the disk"),
        ),
        (
            "container_format",
            formats(
                &settings.container_formats,
                "The format of what the disk comes in",
            ),
        ),
        (
            "min_ram",
            json!({"type": "integer", "description": "Memory that a server needs for the image, in MiB"}),
        ),
        (
            "min_disk",
            json!({"type": "integer", "description": "Disk that a server needs for the image, in GiB"}),
        ),
        ("tags", tags()),
        ("created_at", shown("string", "When the image was made")),
        (
            "updated_at",
            shown("string", "When the image was last changed"),
        ),
        ("self", shown("string", "The path of the image")),
        ("file", shown("string", "The path of the data")),
        ("schema", shown("string", "The path of this schema")),
        ("direct_url", shown("string", "Where the data is")),
        ("locations", locations()),
        (
            "stores",
            shown(
                "string",
                "The stores that have the data, separated by commas",
            ),
        ),
        (
            "os_parent_id",
            json!({
                "type": ["null", "string"], "pattern": UUID,
                "description": "The image that this one is an increment of",
            }),
        ),
        (
            "os_delta_size",
            shown("integer", "Bytes of the image beside those of its parent"),
        ),
        (
            "os_chain_depth",
            shown("integer", "How many ancestors the image is stored over"),
        ),
        (
            "os_tree_hash",
            shown("string", "The digest of the image's blocks"),
        ),
    ]
}

fn status() -> Value {
    let states =
        "queued saving active killed deleted uploading importing pending_delete deactivated";
    let states: Vec<&str> = states.split(' ').collect();
    json!({
        "type": "string", "readOnly": true, "enum": states, "description": "The state of the image",
    })
}

fn visibility() -> Value {
    json!({
        "type": "string", "enum": ["community", "public", "private", "shared"],
        "description": "Who may find the image",
    })
}

fn tags() -> Value {
    json!({
        "type": "array", "items": {"type": "string", "maxLength": 255},
        "description": "Words that the image is found by",
    })
}

fn locations() -> Value {
    json!({
        "type": "array", "description": "Where the data is, and what is known of those places",
        "items": {
            "type": "object", "required": ["url", "metadata"],
            "properties": {
                "url": {"type": "string", "maxLength": 255},
                "metadata": {"type": "object"},
                "validation_data": {
                    "type": "object", "writeOnly": true, "additionalProperties": false,
                    "required": ["os_hash_algo", "os_hash_value"],
                    "properties": {
                        "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
                        "os_hash_algo": {"type": "string", "maxLength": 64},
                        "os_hash_value": {"type": "string", "maxLength": 128},
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_properties_are_told_from_known_ones() {
        let schema = image_schema(&Settings::default(), &|_| true);
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties["disk_format"]["enum"][0], Value::Null);
        assert_eq!(properties["size"]["type"], json!(["null", "integer"]));
        let known = |property: &Value| property.get("is_base") == Some(&Value::Bool(false));
        for (name, property) in properties {
            assert_eq!(
                known(property),
                !super::super::values::is_base(name),
                "{name}"
            );
        }
        assert_eq!(
            properties
                .values()
                .filter(|&property| known(property))
                .count(),
            9
        );
    }

    #[test]
    fn known_properties_that_a_caller_may_not_read_are_left_out() {
        let schema = images_schema(&Settings::default(), &|name| name != "os_distro");
        let properties = &schema["properties"]["images"]["items"]["properties"];
        assert!(properties.get("os_distro").is_none() && properties.get("os_version").is_some());
    }
}
