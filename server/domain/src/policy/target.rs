//! What a rule is asked about: the attributes of an image, a membership or a namespace, by name.

use crate::{Image, Visibility};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The value of an attribute.
///
/// Rules compare texts: `True` and `False` for a truth, decimal digits for a number (as oslo.policy spells them). That there
/// is no value is not the text `None`: only the literal `None` of a rule equals it, and no caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// The attribute has no value.
    Null,
    /// A truth.
    Bool(bool),
    /// A number.
    Number(u64),
    /// A text.
    Text(&'a str),
}

impl<'a> Value<'a> {
    /// The value of a text that may be missing.
    pub fn of(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }

    /// The value of a number that may be missing.
    pub fn of_number(number: Option<u64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }

    /// How rules spell it; none if there is no value.
    pub fn text(self) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(true) => Cow::Borrowed("True"),
            Self::Bool(false) => Cow::Borrowed("False"),
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        })
    }
}

/// Something a rule can be asked about.
pub trait Target {
    /// The attribute of that name; none if there is no such attribute.
    fn attribute(&self, name: &str) -> Option<Value<'_>>;
}

/// Nothing in particular: it has no attributes.
impl Target for () {
    fn attribute(&self, _name: &str) -> Option<Value<'_>> {
        None
    }
}

impl Target for BTreeMap<String, String> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        self.get(name).map(|value| Value::Text(value))
    }
}

/// An image, as rules see it: its attributes by their names in the API, then its other properties.
///
/// What the image is stands before what its properties say of it: a property named `project_id` or `member_id` is never
/// looked at. Tags, locations and times are no attributes here.
#[derive(Debug, Clone, Copy)]
pub struct ImageTarget<'a> {
    image: &'a Image,
    member: Option<&'a str>,
}

impl<'a> ImageTarget<'a> {
    /// The image, which `member` is a member of: the caller's project, if the image is shared with it. A membership counts
    /// only while the image's visibility is shared.
    pub fn new(image: &'a Image, member: Option<&'a str>) -> Self {
        let member = member.filter(|_| image.visibility == Visibility::Shared);
        Self { image, member }
    }
}

impl Target for ImageTarget<'_> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        let image = self.image;
        Some(match name {
            "id" | "image_id" => Value::Text(image.id.as_str()),
            "name" => Value::of(image.name.as_deref()),
            "status" => Value::Text(image.status.as_str()),
            "visibility" => Value::Text(image.visibility.as_str()),
            "protected" => Value::Bool(image.protected),
            "os_hidden" => Value::Bool(image.hidden),
            "checksum" => Value::of(image.checksum.as_deref()),
            "os_hash_algo" => Value::of(image.hash.as_ref().map(|hash| hash.algorithm.as_str())),
            "os_hash_value" => Value::of(image.hash.as_ref().map(|hash| hash.value.as_str())),
            "owner" | "project_id" => Value::of(image.owner.as_deref()),
            "member_id" | "member" => Value::of(self.member),
            "size" => Value::of_number(image.size),
            "virtual_size" => Value::of_number(image.virtual_size),
            "disk_format" => Value::of(image.disk_format.as_deref()),
            "container_format" => Value::of(image.container_format.as_deref()),
            "min_ram" => Value::Number(image.min_ram.into()),
            "min_disk" => Value::Number(image.min_disk.into()),
            "os_parent_id" => Value::of(image.lineage.parent.as_ref().map(|id| id.as_str())),
            "tags" | "locations" | "created_at" | "updated_at" => return None,
            property => Value::Text(image.properties.get(property)?),
        })
    }
}

/// A few attributes: an image to be, a membership, a namespace.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a>(Vec<(&'a str, Value<'a>)>);

impl<'a> Attributes<'a> {
    /// What belongs to a project: its attributes `owner` and `project_id`.
    pub fn owned_by(owner: Option<&'a str>) -> Self {
        let owner = Value::of(owner);
        Self(vec![("owner", owner), ("project_id", owner)])
    }

    /// The same, with another attribute. The first of a name counts.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.0.push((name, value));
        self
    }
}

impl Target for Attributes<'_> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        self.0
            .iter()
            .find_map(|(own, value)| (*own == name).then_some(*value))
    }
}
