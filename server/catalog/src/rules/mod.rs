//! The rules in force: the policy and the property protection, read together from an operator's files.
//!
//! Both files are Glance's: a `policy.yaml` (`policy_file.rs`) and a property protection file
//! ([`tegula_domain::protection`]). They are read as a pair, since the second may name rules of the first, and checked as a
//! whole: what is wrong anywhere is refused with file and line, and then nothing of it is in force. [`RuleWatch`] reads
//! them anew when they change; until they are right, the old ones stay.

mod policy_file;
mod watch;

pub use watch::RuleWatch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tegula_domain::policy::{ImageTarget, Policy, PolicyError, Rule};
use tegula_domain::protection::{Format, Protection, ProtectionError};
use tegula_domain::{Caller, Image};

/// The longest file of rules, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The policy and the property protection, read together.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Who may do what.
    pub policy: Arc<Policy>,
    /// Which properties who may do what with.
    pub protection: Protection,
}

impl Rules {
    /// Whether the policy gives the caller the right to do this to an image; `member` is the project whose membership of
    /// it counts: the caller's own, where it is a member, or the one that the rule is asked about.
    pub fn allows(&self, rule: Rule, caller: &Caller, image: &Image, member: Option<&str>) -> bool {
        self.policy
            .allows(rule, caller, &ImageTarget::new(image, member))
    }
}

/// What the values of a property protection file are (`property_protection_rule_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectionFormat {
    /// Roles, with commas between them.
    Roles,
    /// The name of one rule of the policy.
    Policies,
}

/// Where the rules come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleFiles {
    /// What is written over the default policy; none: nothing.
    pub policy: Option<PathBuf>,
    /// The property protection; none: everyone may do everything with properties.
    pub protection: Option<(PathBuf, ProtectionFormat)>,
}

/// Rules, and what an operator should look at in their files.
#[derive(Debug, Clone)]
pub struct LoadedRules {
    /// The rules.
    pub rules: Rules,
    /// What is odd and not wrong, each with its file.
    pub warnings: Vec<String>,
}

/// The files do not make rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file cannot be read.
    #[error("{}: it cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is too long to be one of rules.
    #[error("{}: it is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file is not text.
    #[error("{}: byte {valid} is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// How many bytes before it are.
        valid: usize,
    },
    /// The policy is not a mapping of names to texts in YAML.
    #[error("{}: line {line}: {what}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The texts do not make a policy.
    #[error("{}:{} {error}", path.display(), line.map(|line| format!(" line {line}:")).unwrap_or_default())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Where the rule that is wrong begins, from 1, if it is in the file.
        line: Option<usize>,
        /// What is wrong.
        error: PolicyError,
    },
    /// The property protection says not who may do what.
    #[error("{}: {error}", path.display())]
    Protection {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ProtectionError,
    },
}

impl RulesError {
    /// The file that is wrong.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::TooLong { path }
            | Self::NotText { path, .. }
            | Self::Yaml { path, .. }
            | Self::Policy { path, .. }
            | Self::Protection { path, .. } => path,
        }
    }
}

impl RuleFiles {
    /// Reads the rules.
    ///
    /// # Errors
    /// [`RulesError`], of the first thing that is wrong. A file that is named must be there.
    pub fn load(&self) -> Result<LoadedRules, RulesError> {
        let policy = Arc::new(match &self.policy {
            Some(path) => read_policy(path)?,
            None => Policy::defaults(),
        });
        let protection = match &self.protection {
            Some((path, format)) => read_protection(path, *format, &policy)?,
            None => Protection::unrestricted(),
        };
        let mut warnings = Vec::new();
        if let Some(path) = &self.policy {
            let unused = policy
                .unused()
                .filter(|name| protection.policies().all(|used| used != *name));
            warnings.extend(unused.map(|name| {
                format!(
                    "{}: nothing asks for rule {name}: is it misspelt?",
                    path.display()
                )
            }));
        }
        if let Some((path, _)) = &self.protection {
            let own = protection.warnings().iter();
            warnings.extend(own.map(|warning| format!("{}: {warning}", path.display())));
        }
        Ok(LoadedRules {
            rules: Rules { policy, protection },
            warnings,
        })
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let protection = self.protection.as_ref().map(|(path, _)| path);
        self.policy.iter().chain(protection).map(PathBuf::as_path)
    }
}

fn read_policy(path: &Path) -> Result<Policy, RulesError> {
    let text = read_text(path)?;
    let rules = policy_file::parse(&text).map_err(|bad| RulesError::Yaml {
        path: path.to_owned(),
        line: bad.line,
        what: bad.what,
    })?;
    let lines: BTreeMap<&str, usize> = rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule.line))
        .collect();
    let texts = rules
        .iter()
        .map(|rule| (rule.name.clone(), rule.text.clone()))
        .collect();
    Policy::new(&texts).map_err(|error| RulesError::Policy {
        path: path.to_owned(),
        line: lines.get(error.rule()).copied(),
        error,
    })
}

fn read_protection(
    path: &Path,
    format: ProtectionFormat,
    policy: &Arc<Policy>,
) -> Result<Protection, RulesError> {
    let format = match format {
        ProtectionFormat::Roles => Format::Roles,
        ProtectionFormat::Policies => Format::Policies(Arc::clone(policy)),
    };
    Protection::parse(&read_text(path)?, &format).map_err(|error| RulesError::Protection {
        path: path.to_owned(),
        error,
    })
}

fn read_text(path: &Path) -> Result<String, RulesError> {
    let read = |source| RulesError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(RulesError::TooLong {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| RulesError::NotText {
        path: path.to_owned(),
        valid: error.utf8_error().valid_up_to(),
    })
}

#[cfg(test)]
mod tests;
