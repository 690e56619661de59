//! Who may do what: rules in the language of oslo.policy.
//!
//! A [`Policy`] is a table of rules, each a text that says of whom and of what it holds (`parse.rs` has the grammar). It is
//! made of the defaults ([`Rule`]) and of what an operator writes over them, and checked as a whole: a text that is not of
//! the language, a reference to a rule that does not exist, rules that refer to each other in a circle, and rules that
//! would take too long are refused, by name and place. What was accepted is asked without failing, and denies by default.
//!
//! It is not: where the texts come from, and what a refusal becomes (a 403, or a 404 if the image must not be seen either).
//!
//! Images belong to projects. A caller whose token is good for a domain or the whole deployment is denied everything,
//! whatever its roles, as Glance does.

mod defaults;
mod expression;
mod parse;
mod target;
#[cfg(test)]
mod tests;

pub use defaults::Rule;
pub use parse::SyntaxError;
pub use target::{Attributes, ImageTarget, Target, Value};

use crate::{Caller, Scope};
use expression::Measure;
use parse::Parsed;
use std::collections::{BTreeMap, BTreeSet};

/// How many rules may refer to each other in a row. With the nesting inside each ([`parse::NESTING_MAX`]) it bounds how
/// deep an answer recurses.
const REFERENCES_MAX: u64 = 16;

/// How many comparisons one answer may take.
const COMPARISONS_MAX: u64 = 10_000;

/// The texts do not make a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule without a name.
    #[error("a rule has no name: its text is `{text}`")]
    NoName {
        /// Its text.
        text: String,
    },
    /// A text is not of the language.
    #[error("rule {rule}, {error}")]
    Syntax {
        /// The rule it is the text of.
        rule: String,
        /// What is wrong with it.
        error: SyntaxError,
    },
    /// A rule refers to one that there is not.
    #[error("rule {rule}, at character {position}: there is no rule {reference}")]
    UnknownRule {
        /// The rule.
        rule: String,
        /// The name it gives.
        reference: String,
        /// Where in its text, in characters from 1.
        position: usize,
    },
    /// Rules refer to each other in a circle.
    #[error("rule {rule}, at character {position}: it refers to itself: {}", circle.join(" → "))]
    Circle {
        /// The first of them.
        rule: String,
        /// Where in its text it refers to the second, in characters from 1.
        position: usize,
        /// The rules on the way, the first one again at the end.
        circle: Vec<String>,
    },
    /// A rule takes too long.
    #[error("rule {rule}: it may take {found} {what}; at most {limit} are allowed")]
    TooLarge {
        /// The rule.
        rule: String,
        /// Of what there are too many.
        what: &'static str,
        /// How many it may take.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
}

impl PolicyError {
    /// The rule that is wrong.
    pub fn rule(&self) -> &str {
        match self {
            Self::NoName { .. } => "",
            Self::Syntax { rule, .. }
            | Self::UnknownRule { rule, .. }
            | Self::Circle { rule, .. }
            | Self::TooLarge { rule, .. } => rule,
        }
    }
}

/// A rule does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// What the rule says does not hold for the caller.
    #[error("the policy does not allow this: {}", .0.name())]
    Rule(Rule),
    /// The caller's token is not good for a project.
    #[error(
        "images are managed in a project: the token is good for a domain or the whole deployment"
    )]
    Scope,
}

/// A table of rules that were checked together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: BTreeMap<String, Parsed>,
}

impl Policy {
    /// The default rules.
    pub fn defaults() -> Self {
        Self::new(&BTreeMap::new()).expect("because a test reads the default rules")
    }

    /// The default rules, with texts of an operator in place of those of the same name, or beside them.
    ///
    /// # Errors
    /// [`PolicyError`], of the first rule in the order of their names that is wrong.
    pub fn new(texts: &BTreeMap<String, String>) -> Result<Self, PolicyError> {
        let defaults = Rule::ALL
            .iter()
            .map(|rule| (rule.name(), rule.default_text()))
            .filter(|(name, _)| !texts.contains_key(*name));
        let own = texts
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        let rules = defaults
            .chain(own)
            .map(|(name, text)| Ok((name.to_owned(), read(name, text)?)))
            .collect::<Result<_, PolicyError>>()?;
        let policy = Self { rules };
        policy.check_references()?;
        Ok(policy)
    }

    /// Whether the rule allows the caller to do it to the target.
    ///
    /// # Errors
    /// [`Denied`] if not.
    pub fn check(&self, rule: Rule, caller: &Caller, target: &dyn Target) -> Result<(), Denied> {
        if !of_a_project(caller) {
            return Err(Denied::Scope);
        }
        if self.holds(rule.name(), caller, target) {
            Ok(())
        } else {
            Err(Denied::Rule(rule))
        }
    }

    /// The same as [`check`](Self::check), for who does not need the reason.
    pub fn allows(&self, rule: Rule, caller: &Caller, target: &dyn Target) -> bool {
        self.check(rule, caller, target).is_ok()
    }

    /// Whether the rule of that name, which may be one of the operator's, allows it; one that does not exist does not.
    pub fn allows_named(&self, name: &str, caller: &Caller, target: &dyn Target) -> bool {
        of_a_project(caller) && self.holds(name, caller, target)
    }

    /// Whether the caller administers the deployment.
    pub fn is_admin(&self, caller: &Caller) -> bool {
        self.allows(Rule::ContextIsAdmin, caller, &())
    }

    /// Whether there is a rule of that name.
    pub fn has(&self, name: &str) -> bool {
        self.rules.contains_key(name)
    }

    /// Every rule in the order of their names, with its text as it was understood.
    pub fn texts(&self) -> impl Iterator<Item = (&str, String)> {
        self.rules
            .iter()
            .map(|(name, rule)| (name.as_str(), rule.expression.to_string()))
    }

    /// The operator's rules that nothing here asks for and no other rule refers to: perhaps a name was misspelt.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let referred: BTreeSet<&str> = self
            .rules
            .values()
            .flat_map(|rule| &rule.references)
            .map(|(name, _)| name.as_str())
            .collect();
        self.rules
            .keys()
            .map(String::as_str)
            .filter(move |name| Rule::from_name(name).is_none() && !referred.contains(name))
    }

    fn holds(&self, name: &str, caller: &Caller, target: &dyn Target) -> bool {
        self.rules.get(name).is_some_and(|rule| {
            rule.expression
                .holds(caller, target, &|name| self.holds(name, caller, target))
        })
    }

    fn check_references(&self) -> Result<(), PolicyError> {
        let mut known = BTreeMap::new();
        for name in self.rules.keys() {
            self.measure(name, &mut Vec::new(), &mut known)?;
        }
        Ok(())
    }

    /// Measures a rule and all it refers to. `path` are the rules on the way to it, `known` those measured before.
    fn measure<'a>(
        &'a self,
        name: &'a str,
        path: &mut Vec<&'a str>,
        known: &mut BTreeMap<&'a str, Measure>,
    ) -> Result<Measure, PolicyError> {
        if let Some(measure) = known.get(name) {
            return Ok(*measure);
        }
        let Some(rule) = self.rules.get(name) else {
            return Err(self.unknown_rule(path.last().copied().unwrap_or_default(), name));
        };
        if let Some(start) = path.iter().position(|earlier| *earlier == name) {
            return Err(self.circle(path.get(start..).unwrap_or_default()));
        }
        // Before going down: a long row of rules must not exhaust the stack while it is measured.
        if path.len() as u64 > REFERENCES_MAX {
            return Err(too_large(
                path.first().copied().unwrap_or(name),
                "rules in a row",
                REFERENCES_MAX + 1,
                REFERENCES_MAX,
            ));
        }
        path.push(name);
        let references = &rule.references;
        let measure = rule.expression.measure(&mut |reference: &str| {
            // The reference as `self` holds it, which lives as long as `known`.
            let reference = references
                .iter()
                .map(|(own, _)| own.as_str())
                .find(|own| *own == reference)
                .unwrap_or_default();
            self.measure(reference, path, known)
        })?;
        path.pop();
        for (what, found, limit) in [
            ("rules in a row", measure.references, REFERENCES_MAX),
            ("comparisons", measure.comparisons, COMPARISONS_MAX),
        ] {
            if found > limit {
                return Err(too_large(name, what, found, limit));
            }
        }
        known.insert(name, measure);
        Ok(measure)
    }

    fn position(&self, rule: &str, reference: &str) -> usize {
        self.rules
            .get(rule)
            .and_then(|rule| rule.references.iter().find(|(name, _)| name == reference))
            .map_or(1, |(_, position)| *position)
    }

    fn unknown_rule(&self, rule: &str, reference: &str) -> PolicyError {
        PolicyError::UnknownRule {
            rule: rule.to_owned(),
            reference: reference.to_owned(),
            position: self.position(rule, reference),
        }
    }

    fn circle(&self, circle: &[&str]) -> PolicyError {
        let first = circle.first().copied().unwrap_or_default();
        let second = circle.get(1).copied().unwrap_or(first);
        PolicyError::Circle {
            rule: first.to_owned(),
            position: self.position(first, second),
            circle: circle
                .iter()
                .chain(circle.first())
                .map(|name| (*name).to_owned())
                .collect(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::defaults()
    }
}

fn too_large(rule: &str, what: &'static str, found: u64, limit: u64) -> PolicyError {
    PolicyError::TooLarge {
        rule: rule.to_owned(),
        what,
        found,
        limit,
    }
}

fn of_a_project(caller: &Caller) -> bool {
    !matches!(caller.scope, Scope::Domain | Scope::System)
}

fn read(name: &str, text: &str) -> Result<Parsed, PolicyError> {
    if name.trim().is_empty() {
        return Err(PolicyError::NoName {
            text: text.to_owned(),
        });
    }
    parse::parse(text).map_err(|error| PolicyError::Syntax {
        rule: name.to_owned(),
        error,
    })
}
