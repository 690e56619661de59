//! Changes what is known of an image: all the changes of a request, or none.

use super::create::right_to_show;
use super::{Service, ServiceError, View};
use std::collections::BTreeSet;
use tegula_domain::policy::Rule;
use tegula_domain::protection::PropertyEdit;
use tegula_domain::quota::Limited;
use tegula_domain::{Caller, Image, ImageId, ImageStatus, Visibility};

/// A value for something that every image has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `Image`")]
pub enum Attribute {
    Name(Option<String>),
    Visibility(Visibility),
    Protected(bool),
    Hidden(bool),
    Owner(Option<String>),
    DiskFormat(Option<String>),
    ContainerFormat(Option<String>),
    MinRam(u32),
    MinDisk(u32),
    Tags(BTreeSet<String>),
    Parent(Option<ImageId>),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Gives something that every image has another value.
    Set(Attribute),
    /// Changes a property.
    Property(PropertyChange),
}

/// A [`PropertyEdit`] that can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyChange {
    /// Gives the image a property, or gives one that it has another value.
    Add(String, String),
    /// Gives the image a property that it does not have.
    AddNew(String, String),
    /// Gives a property that it has another value.
    Replace(String, String),
    /// Takes a property away that it has.
    Remove(String),
}

impl PropertyChange {
    fn borrow(&self) -> PropertyEdit<'_> {
        match self {
            Self::Add(name, value) => PropertyEdit::Add { name, value },
            Self::AddNew(name, value) => PropertyEdit::AddNew { name, value },
            Self::Replace(name, value) => PropertyEdit::Replace { name, value },
            Self::Remove(name) => PropertyEdit::Remove { name },
        }
    }
}

impl Service {
    /// Makes the changes, one after the other, and returns the image as the caller sees it. Without any, nothing is saved.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`], [`ServiceError::Forbidden`], [`ServiceError::Limit`];
    /// [`ServiceError::Conflict`] if a property is not there, or is, against what a change supposes.
    pub fn update(
        &self,
        caller: &Caller,
        id: &ImageId,
        changes: &[Change],
    ) -> Result<View, ServiceError> {
        self.in_turn(|| {
            let seen = self.see(caller, id)?;
            if let Some(right) = changes
                .iter()
                .filter_map(right_besides)
                .find(|right| !self.allows(caller, &seen, *right))
            {
                return Err(ServiceError::Denied(right));
            }
            let authorized = self.authorize(caller, seen, Rule::ModifyImage)?;
            if changes.is_empty() {
                return Ok(self.view(caller, authorized.into_image()));
            }
            let mut image = authorized.image().clone();
            for change in changes {
                self.apply(caller, &mut image, change)?;
            }
            self.check_growth(caller, authorized.image(), &image)?;
            let image = self.save(&authorized, image)?;
            Ok(self.view(caller, image))
        })
    }

    fn apply(
        &self,
        caller: &Caller,
        image: &mut Image,
        change: &Change,
    ) -> Result<(), ServiceError> {
        match change {
            Change::Set(attribute) => self.set(caller, image, attribute.clone()),
            Change::Property(edit) => {
                let rules = self.rules();
                let properties = &mut image.properties;
                Ok(rules.protection.edit(caller, properties, edit.borrow())?)
            }
        }
    }

    fn set(
        &self,
        caller: &Caller,
        image: &mut Image,
        attribute: Attribute,
    ) -> Result<(), ServiceError> {
        match attribute {
            Attribute::Name(name) => image.name = name,
            Attribute::Visibility(visibility) => image.visibility = visibility,
            Attribute::Protected(protected) => image.protected = protected,
            Attribute::Hidden(hidden) => image.hidden = hidden,
            Attribute::MinRam(mib) => image.min_ram = mib,
            Attribute::MinDisk(gib) => image.min_disk = gib,
            Attribute::Tags(tags) => image.tags = tags,
            Attribute::Owner(owner) => {
                if !self.is_admin(caller) {
                    return Err(ServiceError::Forbidden(
                        "only an administrator gives an image to another project".to_owned(),
                    ));
                }
                image.owner = owner;
            }
            Attribute::DiskFormat(format) => {
                check_formats_are_open(image, "disk_format")?;
                image.disk_format = format;
            }
            Attribute::ContainerFormat(format) => {
                check_formats_are_open(image, "container_format")?;
                image.container_format = format;
            }
            Attribute::Parent(parent) => {
                if image.status != ImageStatus::Queued {
                    return Err(ServiceError::Forbidden(format!(
                        "os_parent_id can be set while the image is queued; it is {}",
                        image.status
                    )));
                }
                if let Some(parent) = &parent {
                    self.check_parent(caller, parent)?;
                }
                image.lineage.parent = parent;
            }
        }
        Ok(())
    }

    /// Checks the limits of what grew: an image that has too much since before the limit was lowered can still be changed.
    fn check_growth(
        &self,
        caller: &Caller,
        before: &Image,
        after: &Image,
    ) -> Result<(), ServiceError> {
        let limits = &self.limits;
        let properties = |image: &Image| self.counted(caller, &image.properties);
        limits.check(Limited::Properties, properties(before), properties(after))?;
        let tags = |image: &Image| image.tags.len() as u64;
        limits.check(Limited::Tags, tags(before), tags(after))?;
        Ok(())
    }
}

/// The right that a change needs, besides that of changing the image.
fn right_besides(change: &Change) -> Option<Rule> {
    match change {
        Change::Set(Attribute::Visibility(visibility)) => right_to_show(*visibility),
        Change::Set(Attribute::Parent(_)) => Some(Rule::SetLineage),
        Change::Set(_) | Change::Property(_) => None,
    }
}

/// The formats say what the bytes are: once there are any, they stay.
fn check_formats_are_open(image: &Image, which: &str) -> Result<(), ServiceError> {
    match image.status {
        ImageStatus::Queued | ImageStatus::Importing => Ok(()),
        status => Err(ServiceError::Forbidden(format!(
            "{which} can be set while the image is queued; it is {status}"
        ))),
    }
}
