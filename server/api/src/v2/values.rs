//! Values of JSON that are to be values of an image.

use super::Refused;
use crate::settings::Settings;
use serde_json::Value;
use std::collections::BTreeSet;
use tegula_catalog::service::Attribute;
use tegula_domain::property::{NAME_CHARACTERS_MAX, check_name, check_value, is_reserved};
use tegula_domain::{ImageId, Visibility};

/// Names that only the server gives values to. A client that sends one is refused with 403.
const READ_ONLY: [&str; 13] = [
    "checksum",
    "created_at",
    "direct_url",
    "file",
    "os_chain_depth",
    "os_delta_size",
    "os_tree_hash",
    "schema",
    "self",
    "size",
    "status",
    "updated_at",
    "virtual_size",
];
/// Names that the reference refuses for its history.
const RESERVED: [&str; 3] = ["deleted", "deleted_at", "location"];
/// Other names of what every image has.
const SETTABLE: [&str; 16] = [
    "container_format",
    "disk_format",
    "id",
    "locations",
    "min_disk",
    "min_ram",
    "name",
    "os_hash_algo",
    "os_hash_value",
    "os_hidden",
    "os_parent_id",
    "owner",
    "protected",
    "stores",
    "tags",
    "visibility",
];

/// Whether clients may never set that name, at creation or later.
pub(crate) fn is_refused(name: &str) -> bool {
    READ_ONLY.contains(&name) || RESERVED.contains(&name) || is_reserved(name)
}

/// Whether it is the name of something that every image has, rather than of a property.
pub(crate) fn is_base(name: &str) -> bool {
    READ_ONLY.contains(&name) || SETTABLE.contains(&name)
}

/// The attribute of that name with that value; none if it is no attribute that clients set.
pub(crate) fn attribute(
    settings: &Settings,
    name: &str,
    value: &Value,
) -> Result<Option<Attribute>, Refused> {
    Ok(Some(match name {
        "name" => Attribute::Name(nullable_text(name, value)?),
        "owner" => Attribute::Owner(nullable_text(name, value)?),
        "visibility" => Attribute::Visibility(
            value
                .as_str()
                .and_then(Visibility::from_name)
                .ok_or_else(|| wrong(name, value, "public, community, shared or private"))?,
        ),
        "protected" => Attribute::Protected(boolean(name, value)?),
        "os_hidden" => Attribute::Hidden(boolean(name, value)?),
        "min_ram" => Attribute::MinRam(count(name, value)?),
        "min_disk" => Attribute::MinDisk(count(name, value)?),
        "disk_format" => Attribute::DiskFormat(format(name, value, &settings.disk_formats)?),
        "container_format" => {
            Attribute::ContainerFormat(format(name, value, &settings.container_formats)?)
        }
        "tags" => Attribute::Tags(tags(value)?),
        "os_parent_id" => Attribute::Parent(match value {
            Value::Null => None,
            value => Some(id(name, value)?),
        }),
        _ => return Ok(None),
    }))
}

/// The value of a property. A few names have rules of their own, those of the reference's schema.
pub(crate) fn property(name: &str, value: &Value) -> Result<String, Refused> {
    check_name("a property", name)?;
    match (name, value) {
        ("kernel_id" | "ramdisk_id", Value::Null) => return Ok(String::new()),
        ("kernel_id" | "ramdisk_id", value) => {
            id(name, value)?;
        }
        ("cinder_encryption_key_deletion_policy", value)
            if !matches!(value.as_str(), Some("on_image_deletion" | "do_not_delete")) =>
        {
            return Err(wrong(name, value, "on_image_deletion or do_not_delete"));
        }
        _ => {}
    }
    let text = value
        .as_str()
        .ok_or_else(|| wrong(name, value, "a string"))?;
    check_value(name, text)?;
    Ok(text.to_owned())
}

/// Checks a tag.
pub(crate) fn check_tag(tag: &str) -> Result<(), Refused> {
    crate::json::check_text(tag).map_err(|why| Refused::invalid(format!("tag: {why}")))?;
    check_name("a tag", tag)?;
    Ok(())
}

/// An image's id.
pub(crate) fn id(name: &str, value: &Value) -> Result<ImageId, Refused> {
    value
        .as_str()
        .and_then(|text| ImageId::parse(text).ok())
        .ok_or_else(|| wrong(name, value, "a UUID"))
}

fn nullable_text(name: &str, value: &Value) -> Result<Option<String>, Refused> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() <= NAME_CHARACTERS_MAX => {
            Ok(Some(text.clone()))
        }
        value => Err(wrong(
            name,
            value,
            "null or a string of at most 255 characters",
        )),
    }
}

fn boolean(name: &str, value: &Value) -> Result<bool, Refused> {
    value
        .as_bool()
        .ok_or_else(|| wrong(name, value, "true or false"))
}

fn count(name: &str, value: &Value) -> Result<u32, Refused> {
    value
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| *count <= i32::MAX.unsigned_abs())
        .ok_or_else(|| wrong(name, value, "an integer from 0 to 2147483647"))
}

fn format(name: &str, value: &Value, known: &[String]) -> Result<Option<String>, Refused> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if known.contains(text) => Ok(Some(text.clone())),
        value => {
            let expected = format!("null or one of {}", known.join(", "));
            Err(wrong(name, value, &expected))
        }
    }
}

fn tags(value: &Value) -> Result<BTreeSet<String>, Refused> {
    let list = value
        .as_array()
        .ok_or_else(|| wrong("tags", value, "a list of strings"))?;
    list.iter()
        .map(|tag| {
            let text = tag.as_str().ok_or_else(|| wrong("tags", tag, "a string"))?;
            check_tag(text)?;
            Ok(text.to_owned())
        })
        .collect()
}

/// A value that does not fit, shown as far as it helps.
pub(crate) fn wrong(name: &str, value: &Value, expected: &str) -> Refused {
    let shown: String = value.to_string().chars().take(80).collect();
    Refused::invalid(format!("{name}: found {shown}, expected {expected}"))
}
