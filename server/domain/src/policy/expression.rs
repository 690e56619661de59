//! What a rule's text says, as a tree; written out again, it is a text that says the same.

use super::target::{Target, Value};
use crate::{Caller, Scope};
use std::borrow::Cow;
use std::fmt;

/// The text of one rule, understood. Its references to other rules are names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// `@`: whoever asks.
    Always,
    /// `!`: nobody.
    Never,
    /// `not A`
    Not(Box<Expression>),
    /// `A and B …`: two or more.
    All(Vec<Expression>),
    /// `A or B …`: two or more.
    Any(Vec<Expression>),
    /// `rule:NAME`
    Rule(String),
    /// `role:NAME`: the user has the role.
    Role(Template),
    /// `LEFT:RIGHT`: both are the same text.
    Same(Left, Template),
}

/// What stands left of the colon of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Left {
    /// Something about the caller.
    Caller(CallerAttribute),
    /// A text in quotes.
    Text(String),
    /// `True` or `False`
    Bool(bool),
    /// `None`: the attribute has no value.
    None,
    /// A whole number.
    Integer(i64),
}

/// What a rule can ask about the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerAttribute {
    /// The user's id.
    User,
    /// The project's id.
    Project,
    /// Any of the user's roles.
    Roles,
    /// Any role of the service that passes the request on.
    ServiceRoles,
    /// `all` if the token is good for the whole deployment.
    SystemScope,
}

/// A text with attributes of the target put in. At least one piece; no two texts in a row, and none empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(pub(super) Vec<Piece>);

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A text that stands for itself.
    Text(String),
    /// `%(NAME)s`: the target's attribute.
    Attribute(String),
}

/// What a template is for one target.
enum Filled<'a> {
    /// It asks for an attribute that the target does not have, or that has no value where a text is needed.
    Missing,
    /// It is nothing but an attribute that has no value.
    Null,
    /// A text.
    Text(Cow<'a, str>),
}

impl Template {
    fn fill<'a>(&'a self, target: &'a dyn Target) -> Filled<'a> {
        if let [piece] = self.0.as_slice() {
            return match piece {
                Piece::Text(text) => Filled::Text(Cow::Borrowed(text)),
                Piece::Attribute(name) => match target.attribute(name).map(Value::text) {
                    None => Filled::Missing,
                    Some(None) => Filled::Null,
                    Some(Some(text)) => Filled::Text(text),
                },
            };
        }
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Attribute(name) => match target.attribute(name).and_then(Value::text) {
                    None => return Filled::Missing,
                    Some(text) => filled.push_str(&text),
                },
            }
        }
        Filled::Text(Cow::Owned(filled))
    }
}

impl Expression {
    /// Whether it holds. `rule` says whether the rule of a name does.
    ///
    /// An attribute that the target does not have makes the comparison false, and what stands behind `not` true.
    pub(super) fn holds(
        &self,
        caller: &Caller,
        target: &dyn Target,
        rule: &dyn Fn(&str) -> bool,
    ) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Not(inner) => !inner.holds(caller, target, rule),
            Self::All(all) => all.iter().all(|each| each.holds(caller, target, rule)),
            Self::Any(any) => any.iter().any(|each| each.holds(caller, target, rule)),
            Self::Rule(name) => rule(name),
            Self::Role(role) => match role.fill(target) {
                Filled::Text(role) => caller.has_role(&role),
                Filled::Missing | Filled::Null => false,
            },
            Self::Same(left, right) => match right.fill(target) {
                Filled::Missing => false,
                Filled::Null => *left == Left::None,
                Filled::Text(text) => left.is(caller, &text),
            },
        }
    }

    /// How much work it is at worst; `rule` gives the same of a rule it refers to.
    pub(super) fn measure<E>(
        &self,
        rule: &mut dyn FnMut(&str) -> Result<Measure, E>,
    ) -> Result<Measure, E> {
        Ok(match self {
            Self::Always | Self::Never | Self::Role(_) | Self::Same(..) => Measure::LEAF,
            Self::Not(inner) => inner.measure(rule)?,
            Self::Rule(name) => {
                let measure = rule(name)?;
                Measure {
                    references: measure.references.saturating_add(1),
                    ..measure
                }
            }
            Self::All(parts) | Self::Any(parts) => {
                let mut sum = Measure::default();
                for part in parts {
                    let measure = part.measure(rule)?;
                    sum.references = sum.references.max(measure.references);
                    sum.comparisons = sum.comparisons.saturating_add(measure.comparisons);
                }
                sum
            }
        })
    }
}

/// How much work an expression is at worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// How many rules the longest way from it goes through, each referring to the next.
    pub(super) references: u64,
    /// How many comparisons it may take, the rules it refers to included.
    pub(super) comparisons: u64,
}

impl Measure {
    const LEAF: Self = Self {
        references: 0,
        comparisons: 1,
    };
}

impl Left {
    fn is(&self, caller: &Caller, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Bool(truth) => text == if *truth { "True" } else { "False" },
            Self::None => false,
            Self::Integer(number) => number.to_string() == text,
            Self::Caller(attribute) => attribute.is(caller, text),
        }
    }
}

impl CallerAttribute {
    /// Every attribute under every name it has; the first name of each is the one it is written with.
    pub(super) const NAMES: [(&'static str, Self); 7] = [
        ("user_id", Self::User),
        ("user", Self::User),
        ("project_id", Self::Project),
        ("tenant", Self::Project),
        ("roles", Self::Roles),
        ("service_roles", Self::ServiceRoles),
        ("system_scope", Self::SystemScope),
    ];

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find_map(|(own, attribute)| (*own == name).then_some(*attribute))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::User => "user_id",
            Self::Project => "project_id",
            Self::Roles => "roles",
            Self::ServiceRoles => "service_roles",
            Self::SystemScope => "system_scope",
        }
    }

    /// Whether it is that text. What the caller does not have is no text: nobody's project is never nobody's image's.
    fn is(self, caller: &Caller, text: &str) -> bool {
        match self {
            Self::User => caller.user.as_deref() == Some(text),
            Self::Project => caller.is_of(Some(text)),
            Self::Roles => caller.has_role(text),
            Self::ServiceRoles => {
                let role = text.to_lowercase();
                caller.service_roles().any(|own| own == role)
            }
            Self::SystemScope => caller.scope == Scope::System && text == "all",
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("@"),
            Self::Never => f.write_str("!"),
            Self::Not(inner) => {
                f.write_str("not ")?;
                inner.fmt_within(f, matches!(**inner, Self::All(_) | Self::Any(_)))
            }
            Self::All(parts) => fmt_joined(f, parts, " and ", |part| {
                matches!(part, Self::All(_) | Self::Any(_))
            }),
            Self::Any(parts) => fmt_joined(f, parts, " or ", |part| matches!(part, Self::Any(_))),
            Self::Rule(name) => write!(f, "rule:{name}"),
            Self::Role(role) => write!(f, "role:{role}"),
            Self::Same(left, right) => write!(f, "{left}:{right}"),
        }
    }
}

impl Expression {
    fn fmt_within(&self, f: &mut fmt::Formatter<'_>, parentheses: bool) -> fmt::Result {
        if parentheses {
            write!(f, "({self})")
        } else {
            write!(f, "{self}")
        }
    }
}

fn fmt_joined(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expression],
    with: &str,
    parentheses: impl Fn(&Expression) -> bool,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(with)?;
        }
        part.fmt_within(f, parentheses(part))?;
    }
    Ok(())
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(attribute) => f.write_str(attribute.name()),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::None => f.write_str("None"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => {
                let text = text.replace('\\', r"\\").replace('\'', r"\'");
                write!(f, "'{text}'")
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace('%', "%%")),
            Piece::Attribute(name) => write!(f, "%({name})s"),
        })
    }
}
