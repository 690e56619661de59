//! Which of an image's properties which callers may create, read, update and delete.
//!
//! A [`Protection`] is made of a file in Glance's form: sections, each a pattern (`pattern.rs`) with four keys that say who may.
//! The first section in the file whose pattern is found in a property's name decides; a property that no section is found in
//! is denied to everyone. It speaks of custom properties only: an image's own attributes are the policy's business.
//!
//! Who may is a list of roles ([`Format::Roles`]) or the name of one rule of the policy ([`Format::Policies`]), `@` for everyone
//! or `!` for no one. The roles of a service that passes the request on count as the user's own: that is how a service
//! sets properties of a user's image that the user may not.
//!
//! Three things Glance gets wrong cannot happen here, because of how it is asked:
//!
//! - *Saving purges what the caller cannot see.* There, an image is loaded as the caller may see it, changed and saved. Here
//!   a view ([`Protection::readable`]) borrows the properties and cannot be saved; a change ([`Protection::edit`]) names one
//!   property and is made in the whole map.
//! - *A list's filter tells what may not be read.* [`Protection::may_filter`] is the only question a filter needs: it is
//!   answered for a name before any image is looked at, and if not, no image has that property.
//! - *What may be written and not read breaks at the second write.* [`Protection::edit`] has an answer for every combination
//!   of rights, present or not; its table is below.
//!
//! And one more: the server's own properties are found by their prefix, not by a pattern that is searched anywhere, so that
//! naming a property `my_os_glance` takes it out of no rule.

mod edit;
mod ini;
mod pattern;
#[cfg(test)]
mod tests;

pub use edit::{EditRefused, PropertyEdit};
pub use pattern::BadPattern;

use crate::Caller;
use crate::policy::Policy;
use crate::property::{is_internal, is_reserved};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What is done to a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PropertyOperation {
    /// Giving an image a property it does not have.
    Create,
    /// Seeing it, and finding images by it.
    Read,
    /// Changing its value.
    Update,
    /// Taking it away.
    Delete,
}

impl PropertyOperation {
    /// Every operation, in the order of `Guards`.
    pub const ALL: [Self; 4] = [Self::Create, Self::Read, Self::Update, Self::Delete];

    /// Its key in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for PropertyOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the values in a file are.
#[derive(Debug, Clone)]
pub enum Format {
    /// Roles, with commas between them.
    Roles,
    /// The name of one rule of this policy. It is asked with no target.
    Policies(Arc<Policy>),
}

/// A file does not say who may do what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtectionError {
    /// A line has not the form it should.
    #[error("line {line}: {what}")]
    Form {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A section's name is no pattern that can be searched.
    #[error("line {line}: {error}")]
    Pattern {
        /// The section's line, from 1.
        line: usize,
        /// What is wrong with it.
        error: BadPattern,
    },
    /// A section does not say who may do one of the four things.
    #[error(
        "line {line}: section [{section}] has no `{operation}`: each needs create, read, update and delete"
    )]
    Missing {
        /// The section's line, from 1.
        line: usize,
        /// The section.
        section: String,
        /// What it does not speak of.
        operation: PropertyOperation,
    },
    /// A section speaks of something else.
    #[error("line {line}: `{key}` is none of create, read, update and delete")]
    UnknownKey {
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A value says both everyone and no one.
    #[error("line {line}: `{value}` says both `@`, everyone, and `!`, no one")]
    EveryoneAndNoOne {
        /// The line, from 1.
        line: usize,
        /// The value.
        value: String,
    },
    /// A value names more than one rule of the policy.
    #[error("line {line}: `{value}` is more than one rule: combine them in the policy")]
    SeveralPolicies {
        /// The line, from 1.
        line: usize,
        /// The value.
        value: String,
    },
    /// A value names a rule that the policy does not have.
    #[error("line {line}: the policy has no rule {name}")]
    UnknownPolicy {
        /// The line, from 1.
        line: usize,
        /// The name.
        name: String,
    },
}

/// Who may do one thing.
#[derive(Debug, Clone)]
enum Guard {
    Everyone,
    NoOne,
    /// Who has one of these roles, which are in lower case.
    Roles(BTreeSet<String>),
    /// Whom this rule of the policy allows it.
    Policy(Arc<Policy>, String),
}

/// Who may do each of [`PropertyOperation::ALL`].
#[derive(Debug, Clone)]
struct Guards([Guard; 4]);

/// Which properties which callers may do what with.
#[derive(Debug, Clone, Default)]
pub struct Protection {
    /// In the order of the file; none if every property may be done everything with.
    sections: Option<Vec<(Regex, Guards)>>,
    warnings: Vec<String>,
}

impl Protection {
    /// Everyone may do everything: what holds without a file.
    pub fn unrestricted() -> Self {
        Self::default()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ProtectionError`], of the first line that is wrong.
    pub fn parse(text: &str, format: &Format) -> Result<Self, ProtectionError> {
        let read = ini::parse(text)
            .map_err(|ini::BadLine { line, what }| ProtectionError::Form { line, what })?;
        let mut sections = Vec::with_capacity(read.len());
        let mut warnings = Vec::new();
        for section in read {
            let pattern =
                pattern::compile(&section.name).map_err(|error| ProtectionError::Pattern {
                    line: section.line,
                    error,
                })?;
            let guards = guards(&section, format, &mut warnings)?;
            if is_reserved(&section.name) {
                warnings.push(format!(
                    "line {}: section [{}] is left out: such properties are the server's own",
                    section.line, section.name
                ));
                continue;
            }
            sections.push((pattern, guards));
        }
        if sections.is_empty() {
            warnings.push("no section: nobody may do anything with any property".to_owned());
        }
        Ok(Self {
            sections: Some(sections),
            warnings,
        })
    }

    /// What an operator should look at, each with its line.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The rules of the policy that it asks for.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.sections
            .iter()
            .flatten()
            .flat_map(|(_, Guards(guards))| guards)
            .filter_map(|guard| match guard {
                Guard::Policy(_, rule) => Some(rule.as_str()),
                _ => None,
            })
    }

    /// Whether the caller may do it with properties of that name. The server's own may be read by everyone; that clients do
    /// not write them is another rule ([`is_reserved`], and [`edit`](Self::edit) keeps it).
    pub fn may(&self, caller: &Caller, operation: PropertyOperation, name: &str) -> bool {
        let Some(sections) = &self.sections else {
            return true;
        };
        if is_reserved(name) {
            return true;
        }
        sections
            .iter()
            .find(|(pattern, _)| pattern.is_match(name))
            .is_some_and(|(_, guards)| guards.of(operation).lets(caller))
    }

    /// Whether the caller may find images by that property. If not, it is as if no image had one of that name.
    pub fn may_filter(&self, caller: &Caller, name: &str) -> bool {
        self.sees(caller, name)
    }

    /// The properties that the caller may see, by name.
    pub fn readable<'a>(
        &self,
        caller: &Caller,
        properties: &'a BTreeMap<String, String>,
    ) -> BTreeMap<&'a str, &'a str> {
        properties
            .iter()
            .filter(|(name, _)| self.sees(caller, name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// Whether properties of that name count towards the limit for a change that this caller makes: those it sees, and those
    /// it may make without seeing them. Were others counted, the limit would tell how many of them there are.
    pub fn counts(&self, caller: &Caller, name: &str) -> bool {
        !is_reserved(name)
            && (self.sees(caller, name) || self.may(caller, PropertyOperation::Create, name))
    }

    fn sees(&self, caller: &Caller, name: &str) -> bool {
        !is_internal(name) && self.may(caller, PropertyOperation::Read, name)
    }
}

impl Guards {
    const fn of(&self, operation: PropertyOperation) -> &Guard {
        let Self([create, read, update, delete]) = self;
        match operation {
            PropertyOperation::Create => create,
            PropertyOperation::Read => read,
            PropertyOperation::Update => update,
            PropertyOperation::Delete => delete,
        }
    }
}

impl Guard {
    fn lets(&self, caller: &Caller) -> bool {
        match self {
            Self::Everyone => true,
            Self::NoOne => false,
            Self::Roles(roles) => caller
                .roles()
                .chain(caller.service_roles())
                .any(|role| roles.contains(role)),
            Self::Policy(policy, rule) => policy.allows_named(rule, caller, &()),
        }
    }
}

fn guards(
    section: &ini::Section,
    format: &Format,
    warnings: &mut Vec<String>,
) -> Result<Guards, ProtectionError> {
    let known = |name: &str| {
        PropertyOperation::ALL
            .iter()
            .any(|operation| operation.as_str() == name)
    };
    if let Some(key) = section.keys.iter().find(|key| !known(&key.name)) {
        return Err(ProtectionError::UnknownKey {
            line: key.line,
            key: key.name.clone(),
        });
    }
    let mut guard_of = |operation: PropertyOperation| {
        let key = section
            .keys
            .iter()
            .find(|key| key.name == operation.as_str())
            .ok_or_else(|| ProtectionError::Missing {
                line: section.line,
                section: section.name.clone(),
                operation,
            })?;
        if key.value.is_empty() {
            warnings.push(format!(
                "line {}: `{operation}` is empty: nobody may",
                key.line
            ));
        }
        guard(key, format)
    };
    let [create, read, update, delete] = PropertyOperation::ALL;
    Ok(Guards([
        guard_of(create)?,
        guard_of(read)?,
        guard_of(update)?,
        guard_of(delete)?,
    ]))
}

fn guard(key: &ini::Key, format: &Format) -> Result<Guard, ProtectionError> {
    let words: BTreeSet<String> = key
        .value
        .split(',')
        .map(|word| word.trim().to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    match (words.contains("@"), words.contains("!")) {
        (true, true) => {
            return Err(ProtectionError::EveryoneAndNoOne {
                line: key.line,
                value: key.value.clone(),
            });
        }
        (false, true) => return Ok(Guard::NoOne),
        (true, false) if matches!(format, Format::Roles) => return Ok(Guard::Everyone),
        _ => {}
    }
    let Format::Policies(policy) = format else {
        if let Some(word) = words.iter().find(|word| word.contains('\n')) {
            return Err(ProtectionError::Form {
                line: key.line,
                what: format!(
                    "between the roles `{}` a comma is missing",
                    word.replace('\n', "` and `")
                ),
            });
        }
        return Ok(Guard::Roles(words));
    };
    match key.value.as_str() {
        "" => Ok(Guard::NoOne),
        "@" => Ok(Guard::Everyone),
        several if several.contains([',', '\n']) => Err(ProtectionError::SeveralPolicies {
            line: key.line,
            value: several.to_owned(),
        }),
        rule if policy.has(rule) => Ok(Guard::Policy(Arc::clone(policy), rule.to_owned())),
        unknown => Err(ProtectionError::UnknownPolicy {
            line: key.line,
            name: unknown.to_owned(),
        }),
    }
}
