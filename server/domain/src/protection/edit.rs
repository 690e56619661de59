//! Changing one property of an image on a caller's behalf.
//!
//! Made in the whole map of the image's properties, whatever of it the caller sees; what is not named is not touched.
//!
//! | the image's property is | add | add new only | replace | remove |
//! |---|---|---|---|---|
//! | not there | create, else forbidden | create, else forbidden | absent | absent |
//! | there, the caller may read it | update, else forbidden | present | update, else forbidden | delete, else forbidden |
//! | there, the caller may not read it | create and update, else forbidden | the same | absent | absent |
//!
//! So whether a property that one may not read is there shows only to who may create it and not update it, and is told no: the
//! other answer would write over a value that is not theirs. Glance fails there with an error of the server.

use super::{PropertyOperation, Protection};
use crate::Caller;
use crate::property::{BadText, check_name, check_value, is_reserved};
use std::collections::BTreeMap;

/// One change of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyEdit<'a> {
    /// Gives the property a value, whether the image has it or not (`add` of the v2.1 patch).
    Add {
        /// The property.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// Gives the image a property it does not have (`add` of the v2.0 patch).
    AddNew {
        /// The property.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// Changes the value of a property it has.
    Replace {
        /// The property.
        name: &'a str,
        /// Its new value.
        value: &'a str,
    },
    /// Takes a property away.
    Remove {
        /// The property.
        name: &'a str,
    },
}

/// A property was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditRefused {
    /// The name or the value cannot be one.
    #[error(transparent)]
    Text(#[from] BadText),
    /// It is one of the server's own.
    #[error("property {0} is the server's own")]
    Reserved(String),
    /// The caller may not.
    #[error("you may not {operation} property {name}")]
    Forbidden {
        /// What the caller may not.
        operation: PropertyOperation,
        /// The property.
        name: String,
    },
    /// The image does not have it, or the caller may not know.
    #[error("the image has no property {0}")]
    Absent(String),
    /// The image has it.
    #[error("the image has a property {0} already")]
    Present(String),
}

impl Protection {
    /// Checks the properties of an image to be.
    ///
    /// # Errors
    /// [`EditRefused`] of the first that the caller may not create.
    pub fn check_new(
        &self,
        caller: &Caller,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), EditRefused> {
        properties.iter().try_for_each(|(name, value)| {
            check(name, Some(value))?;
            self.require(caller, PropertyOperation::Create, name)
        })
    }

    /// Makes one change in the properties of an image.
    ///
    /// # Errors
    /// [`EditRefused`], and the properties are as they were.
    pub fn edit(
        &self,
        caller: &Caller,
        properties: &mut BTreeMap<String, String>,
        edit: PropertyEdit<'_>,
    ) -> Result<(), EditRefused> {
        let (name, value) = match edit {
            PropertyEdit::Add { name, value }
            | PropertyEdit::AddNew { name, value }
            | PropertyEdit::Replace { name, value } => (name, Some(value)),
            PropertyEdit::Remove { name } => (name, None),
        };
        check(name, value)?;
        let there = properties.contains_key(name);
        let seen = there && self.sees(caller, name);
        match edit {
            PropertyEdit::Add { .. } if seen => {
                self.require(caller, PropertyOperation::Update, name)?;
            }
            PropertyEdit::AddNew { .. } if seen => {
                return Err(EditRefused::Present(name.to_owned()));
            }
            PropertyEdit::Add { .. } | PropertyEdit::AddNew { .. } => {
                self.require(caller, PropertyOperation::Create, name)?;
                if there {
                    self.require(caller, PropertyOperation::Update, name)?;
                }
            }
            PropertyEdit::Replace { .. } | PropertyEdit::Remove { .. } if !seen => {
                return Err(EditRefused::Absent(name.to_owned()));
            }
            PropertyEdit::Replace { .. } => {
                self.require(caller, PropertyOperation::Update, name)?;
            }
            PropertyEdit::Remove { .. } => self.require(caller, PropertyOperation::Delete, name)?,
        }
        match value {
            Some(value) => properties.insert(name.to_owned(), value.to_owned()),
            None => properties.remove(name),
        };
        Ok(())
    }

    fn require(
        &self,
        caller: &Caller,
        operation: PropertyOperation,
        name: &str,
    ) -> Result<(), EditRefused> {
        if self.may(caller, operation, name) {
            Ok(())
        } else {
            Err(EditRefused::Forbidden {
                operation,
                name: name.to_owned(),
            })
        }
    }
}

fn check(name: &str, value: Option<&str>) -> Result<(), EditRefused> {
    check_name("a property", name)?;
    if let Some(value) = value {
        check_value(name, value)?;
    }
    if is_reserved(name) {
        return Err(EditRefused::Reserved(name.to_owned()));
    }
    Ok(())
}
