//! Reading the text of a rule.
//!
//! ```text
//! rule    = "" | any                      an empty text allows, as in oslo.policy
//! any     = all ("or" all)*               the words in any case
//! all     = one ("and" one)*
//! one     = "not" one | "(" any ")" | "@" | "!" | check
//! check   = "rule:" NAME | "role:" VALUE | LEFT ":" VALUE
//! LEFT    = an attribute of the caller | 'TEXT' | "TEXT" | True | False | None | a whole number
//! VALUE   = text and %(ATTRIBUTE)s, up to the next space or parenthesis; a percent sign is %%
//! ```
//!
//! oslo.policy denies what it does not understand, and says so in its log; here such a text is refused when it is loaded.
//! Its remote checks (`http:`), its lists of lists and attributes of the caller that are not known here are refused by
//! name. What it cannot read and we can: spaces in quotes, and parentheses without spaces around them.

use super::expression::{CallerAttribute, Expression, Left, Piece, Template};

/// How deep parentheses and `not` may nest in one rule.
pub(super) const NESTING_MAX: u32 = 32;

/// The longest text of a rule, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 10;

/// The rule that `is_admin:True` refers to.
const IS_ADMIN: &str = "context_is_admin";

/// A text is not of the policy language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: expected {expected}, found {found}")]
pub struct SyntaxError {
    /// Where, counted in characters from 1.
    pub position: usize,
    /// What could have stood there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// A rule's text, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    /// What it says.
    pub(super) expression: Expression,
    /// The rules it refers to, each with its place, counted in characters from 1.
    pub(super) references: Vec<(String, usize)>,
}

/// Reads the text of a rule.
pub(super) fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(SyntaxError {
            position: 1,
            expected: format!("a text of at most {TEXT_BYTES_MAX} bytes"),
            found: format!("one of {}", text.len()),
        });
    }
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        nesting: 0,
        references: Vec::new(),
    };
    let expression = if text.is_empty() {
        Expression::Always
    } else {
        let expression = parser.any()?;
        parser.skip_space();
        if parser.peek().is_some() {
            return Err(parser.unexpected("`and`, `or` or the end"));
        }
        expression
    };
    Ok(Parsed {
        expression,
        references: parser.references,
    })
}

struct Parser {
    text: Vec<char>,
    at: usize,
    nesting: u32,
    references: Vec<(String, usize)>,
}

/// Whether a value ends before this character.
fn ends_word(character: char) -> bool {
    character.is_whitespace() || matches!(character, '(' | ')')
}

impl Parser {
    fn any(&mut self) -> Result<Expression, SyntaxError> {
        self.joined("or", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Expression, SyntaxError> {
        self.joined("and", Self::one, Expression::All)
    }

    fn joined(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Expression, SyntaxError>,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression, SyntaxError> {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.take_word(word) {
            parts.push(part(self)?);
        }
        match parts.pop() {
            Some(only) if parts.is_empty() => Ok(only),
            last => {
                parts.extend(last);
                Ok(join(parts))
            }
        }
    }

    fn one(&mut self) -> Result<Expression, SyntaxError> {
        if self.take_word("not") {
            return Ok(Expression::Not(Box::new(self.nested(Self::one)?)));
        }
        if self.take('(') {
            let inner = self.nested(Self::any)?;
            self.skip_space();
            if !self.take(')') {
                return Err(self.unexpected("`and`, `or` or `)`"));
            }
            return Ok(inner);
        }
        match self.word().as_str() {
            "@" => {
                self.at += 1;
                Ok(Expression::Always)
            }
            "!" => {
                self.at += 1;
                Ok(Expression::Never)
            }
            _ => self.check(),
        }
    }

    fn nested(
        &mut self,
        part: fn(&mut Self) -> Result<Expression, SyntaxError>,
    ) -> Result<Expression, SyntaxError> {
        if self.nesting == NESTING_MAX {
            return Err(self.unexpected(&format!(
                "at most {NESTING_MAX} `(` and `not` inside each other"
            )));
        }
        self.nesting += 1;
        let inner = part(self)?;
        self.nesting -= 1;
        Ok(inner)
    }

    fn check(&mut self) -> Result<Expression, SyntaxError> {
        if let Some(quote @ ('\'' | '"')) = self.peek() {
            let left = Left::Text(self.quoted(quote)?);
            if !self.take(':') {
                return Err(self.unexpected("`:` after the text in quotes"));
            }
            return Ok(Expression::Same(left, self.template()?));
        }
        let start = self.at;
        let kind = self.take_while(|character| !ends_word(character) && character != ':');
        if kind.is_empty() || self.peek() != Some(':') {
            self.at = start;
            return Err(self.unexpected("a check like `role:member`, `@`, `!`, `not` or `(`"));
        }
        self.at += 1;
        match kind.as_str() {
            "rule" => self.reference(),
            "role" => Ok(Expression::Role(self.template()?)),
            "is_admin" => self.is_admin(),
            _ => match left_of(&kind) {
                Some(left) => Ok(Expression::Same(left, self.template()?)),
                None => {
                    self.at = start;
                    Err(self.unexpected(&known_kinds()))
                }
            },
        }
    }

    fn reference(&mut self) -> Result<Expression, SyntaxError> {
        let start = self.at;
        let name = self.take_while(|character| !ends_word(character));
        if name.is_empty() {
            return Err(self.unexpected("the name of a rule"));
        }
        self.references.push((name.clone(), start + 1));
        Ok(Expression::Rule(name))
    }

    fn is_admin(&mut self) -> Result<Expression, SyntaxError> {
        let start = self.at;
        let asked = match self.word().as_str() {
            "True" => true,
            "False" => false,
            _ => return Err(self.unexpected("`True` or `False`")),
        };
        self.take_while(|character| !ends_word(character));
        self.references.push((IS_ADMIN.to_owned(), start + 1));
        let admin = Expression::Rule(IS_ADMIN.to_owned());
        Ok(if asked {
            admin
        } else {
            Expression::Not(Box::new(admin))
        })
    }

    fn quoted(&mut self, quote: char) -> Result<String, SyntaxError> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err(self.unexpected(&format!("{quote} at the end of the text"))),
                Some('\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(escaped @ ('\\' | '\'' | '"')) => text.push(escaped),
                        _ => {
                            return Err(self.unexpected("a backslash or a quote after a backslash"));
                        }
                    }
                }
                Some(character) if character == quote => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(character) => text.push(character),
            }
            self.at += 1;
        }
    }

    fn template(&mut self) -> Result<Template, SyntaxError> {
        if matches!(self.peek(), Some('\'' | '"')) {
            return Err(self
                .unexpected("a value without quotes: a text in quotes stands left of the colon"));
        }
        let mut pieces = Vec::new();
        let mut text = String::new();
        while let Some(character) = self.peek().filter(|character| !ends_word(*character)) {
            if character != '%' {
                text.push(character);
                self.at += 1;
            } else if self.text.get(self.at + 1) == Some(&'%') {
                text.push('%');
                self.at += 2;
            } else {
                let name = self.attribute()?;
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Attribute(name));
            }
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        if pieces.is_empty() {
            return Err(self.unexpected("a value after the colon"));
        }
        Ok(Template(pieces))
    }

    /// Takes `%(NAME)s`.
    fn attribute(&mut self) -> Result<String, SyntaxError> {
        const EXPECTED: &str = "`%(NAME)s`, or `%%` for a percent sign";
        let start = self.at;
        self.at += 1;
        if self.take('(') {
            let name = self.take_while(|character| !ends_word(character));
            if !name.is_empty() && self.take(')') && self.take('s') {
                return Ok(name);
            }
        }
        self.at = start;
        Err(self.unexpected(EXPECTED))
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(character) = self.peek().filter(|character| wanted(*character)) {
            taken.push(character);
            self.at += 1;
        }
        taken
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    /// The word that follows.
    fn word(&self) -> String {
        let rest = self.text.get(self.at..).unwrap_or_default();
        rest.iter()
            .take_while(|character| !ends_word(**character))
            .collect()
    }

    /// Takes space, and the word behind it if it is the one wanted, in any case.
    fn take_word(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let there = self.word().eq_ignore_ascii_case(wanted);
        if there {
            self.at += wanted.len();
        }
        there
    }

    fn unexpected(&self, expected: &str) -> SyntaxError {
        const SHOWN: usize = 40;
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(character) if ends_word(character) => format!("`{}`", character.escape_debug()),
            Some(_) => {
                let word = self.word();
                let shown: String = word.chars().take(SHOWN).collect();
                let more = if shown.len() < word.len() { "…" } else { "" };
                format!("`{shown}{more}`")
            }
        };
        SyntaxError {
            position: self.at + 1,
            expected: expected.to_owned(),
            found,
        }
    }
}

fn left_of(kind: &str) -> Option<Left> {
    match kind {
        "True" => Some(Left::Bool(true)),
        "False" => Some(Left::Bool(false)),
        "None" => Some(Left::None),
        _ => match kind.parse::<i64>() {
            // Only as a number is written: `010` and `+1` are none.
            Ok(number) if number.to_string() == kind => Some(Left::Integer(number)),
            _ => CallerAttribute::from_name(kind).map(Left::Caller),
        },
    }
}

fn known_kinds() -> String {
    let attributes: Vec<&str> = CallerAttribute::NAMES
        .iter()
        .map(|(name, _)| *name)
        .collect();
    format!(
        "one of rule, role, is_admin, {}, a text in quotes, True, False, None or a number before the colon",
        attributes.join(", ")
    )
}
