//! What both databases are to the statements of the catalog: rows of plain values, in transactions.
//!
//! The statements are the same for both: numbered parameters (`$1`), in the order in which they first appear; integers of 64
//! bits, texts that are compared byte by byte, flags. What differs (connections, locks, what is tried again) is behind
//! [`Backend`].

use super::CatalogError;
use std::fmt;

/// A value of a row, or for a parameter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    /// No value.
    Null,
    /// A flag. SQLite gives it back as an integer.
    Flag(bool),
    /// A number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Texts, for a parameter only: what [`Dialect::among`] looks for a column's text in.
    Texts(Vec<String>),
    /// Numbers, for a parameter only: the keys of [`Dialect::of_keys`].
    Integers(Vec<i64>),
}

impl Value {
    /// The value of something that may be absent.
    pub(super) fn optional<T: Into<Self>>(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }

    /// The value of a count or a length, which the databases keep as a signed number.
    ///
    /// # Errors
    /// [`CatalogError::TooLarge`] from 2⁶³ on.
    pub(super) fn unsigned(value: u64, what: &'static str) -> Result<Self, CatalogError> {
        i64::try_from(value)
            .map(Self::Integer)
            .map_err(|_| CatalogError::TooLarge { what, value })
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

/// A row, taken apart from its first column to its last. What its methods call `place` is written only if something is wrong
/// there.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Value>);

impl Row {
    /// A row of these values.
    pub(super) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// The columns that were not taken yet.
    pub(super) fn rest(self) -> Vec<Value> {
        self.0.collect()
    }

    fn next(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Null)
    }

    /// The next column, which has a number.
    pub(super) fn integer(&mut self, place: impl fmt::Display) -> Result<i64, CatalogError> {
        match self.next() {
            Value::Integer(value) => Ok(value),
            found => Err(damaged(place, &found, "a number")),
        }
    }

    /// The next column, which has a number that is not negative and fits.
    pub(super) fn unsigned<T: TryFrom<i64>>(
        &mut self,
        place: impl fmt::Display,
    ) -> Result<T, CatalogError> {
        let value = self.integer(&place)?;
        T::try_from(value).map_err(|_| damaged(place, &Value::Integer(value), "a smaller number"))
    }

    /// The next column, which may have a number that is not negative and fits.
    pub(super) fn optional_unsigned<T: TryFrom<i64>>(
        &mut self,
        place: impl fmt::Display,
    ) -> Result<Option<T>, CatalogError> {
        match self.next() {
            Value::Null => Ok(None),
            Value::Integer(value) => T::try_from(value)
                .map(Some)
                .map_err(|_| damaged(place, &Value::Integer(value), "a smaller number")),
            found => Err(damaged(place, &found, "a number or nothing")),
        }
    }

    /// The next column, which has a flag.
    pub(super) fn flag(&mut self, place: impl fmt::Display) -> Result<bool, CatalogError> {
        match self.next() {
            Value::Flag(flag) => Ok(flag),
            Value::Integer(0) => Ok(false),
            Value::Integer(1) => Ok(true),
            found => Err(damaged(place, &found, "0 or 1")),
        }
    }

    /// The next column, which has a text.
    pub(super) fn text(&mut self, place: impl fmt::Display) -> Result<String, CatalogError> {
        match self.next() {
            Value::Text(text) => Ok(text),
            found => Err(damaged(place, &found, "a text")),
        }
    }

    /// The next column, which may have a text.
    pub(super) fn optional_text(
        &mut self,
        place: impl fmt::Display,
    ) -> Result<Option<String>, CatalogError> {
        match self.next() {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            found => Err(damaged(place, &found, "a text or nothing")),
        }
    }

    /// The next column, a text that is the name of something.
    pub(super) fn named<T>(
        &mut self,
        place: impl fmt::Display,
        read: impl FnOnce(&str) -> Option<T>,
        expected: &'static str,
    ) -> Result<T, CatalogError> {
        let text = self.text(&place)?;
        read(&text).ok_or_else(|| damaged(place, &Value::Text(text), expected))
    }
}

/// Refuses texts that PostgreSQL cannot keep: what one database refuses, both do.
///
/// # Errors
/// [`CatalogError::NulCharacter`].
pub(super) fn refuse_nul(parameters: &[Value]) -> Result<(), CatalogError> {
    for value in parameters {
        let texts = match value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::Texts(texts) => texts,
            Value::Null | Value::Flag(_) | Value::Integer(_) | Value::Integers(_) => continue,
        };
        if let Some(text) = texts.iter().find(|text| text.contains('\0')) {
            return Err(CatalogError::NulCharacter(text.clone()));
        }
    }
    Ok(())
}

/// The database holds something else than what was written.
pub(super) fn damaged(
    place: impl fmt::Display,
    found: &Value,
    expected: &'static str,
) -> CatalogError {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Text(text) => format!("`{text}`"),
        Value::Texts(texts) => format!("{texts:?}"),
        Value::Integers(numbers) => format!("{numbers:?}"),
    };
    CatalogError::Damaged {
        place: place.to_string(),
        found,
        expected,
    }
}

/// A transaction.
pub(super) trait Session {
    /// The rows a statement gives.
    fn query(&mut self, statement: &str, parameters: &[Value]) -> Result<Vec<Row>, CatalogError>;

    /// Runs a statement; the number of rows it changed.
    fn execute(&mut self, statement: &str, parameters: &[Value]) -> Result<u64, CatalogError>;

    /// How the database wants to be spoken to.
    fn dialect(&self) -> Dialect;
}

/// What the statements for the databases differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// That of SQLite.
    Sqlite,
    /// That of PostgreSQL.
    Postgres,
}

impl Dialect {
    /// What a SELECT ends with to keep others from changing its rows until the end of the transaction.
    pub(super) const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "", // whoever writes is alone
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// What keeps others who run it for the same project waiting until the end of the transaction.
    pub(super) const fn lock_project(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None, // whoever writes is alone
            // The first number tells these locks from others; projects that share the second wait for each other in vain.
            Self::Postgres => Some("SELECT pg_advisory_xact_lock(1, hashtext($1))"),
        }
    }

    /// That a column's text is one of those of a parameter. One parameter for all of them: the time that SQLite takes to read
    /// a statement grows with the square of their number.
    pub(super) fn among(self, column: &str, parameter: usize) -> String {
        match self {
            Self::Sqlite => format!("{column} IN (SELECT value FROM json_each(${parameter}))"),
            Self::Postgres => format!("{column} = ANY(${parameter})"),
        }
    }

    /// What follows FROM for the rows of a table that have one of the keys of the first parameter in a column: looked up one
    /// after the other in the column's index. As a list (`IN`), SQLite would first make a table of them, with a cache of
    /// pages of its own, and every count of keys would be another statement.
    pub(super) fn of_keys(self, table: &str, column: &str) -> String {
        let keys = match self {
            Self::Sqlite => "json_each($1) AS wanted",
            Self::Postgres => "unnest($1::bigint[]) AS wanted (value)",
        };
        // SQLite takes the tables of a CROSS JOIN in this order.
        format!("{keys} CROSS JOIN {table} WHERE {table}.{column} = wanted.value")
    }
}

/// Connections to a database.
pub(super) trait Backend: fmt::Debug + Send + Sync {
    /// Runs the work on one snapshot of the database; nothing is changed.
    fn read<T>(
        &self,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError>;

    /// Runs the work as a transaction: all of it is durable when this returns, or none of it happened. It may be run again
    /// when the database asks for that.
    fn write<T>(
        &self,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError>;

    /// The number of the last migration that was applied; 0 if there was none.
    fn version(&self) -> Result<u32, CatalogError>;
}
