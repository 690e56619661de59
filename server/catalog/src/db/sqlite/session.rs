//! A transaction of SQLite.

use super::failed;
use crate::db::CatalogError;
use crate::db::session::{Dialect, Row, Session, Value, damaged, refuse_nul};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection};

/// A transaction on a connection.
pub(super) struct SqliteSession<'a>(&'a Connection);

impl<'a> SqliteSession<'a> {
    pub(super) const fn new(connection: &'a Connection) -> Self {
        Self(connection)
    }

    /// The statement, its parameters bound.
    fn prepare(
        &self,
        text: &str,
        parameters: &[Value],
    ) -> Result<CachedStatement<'a>, CatalogError> {
        refuse_nul(parameters)?;
        let mut statement = self.0.prepare_cached(text).map_err(failed)?;
        if statement.parameter_count() != parameters.len() {
            return Err(failed(rusqlite::Error::InvalidParameterCount(
                parameters.len(),
                statement.parameter_count(),
            )));
        }
        for (index, value) in (1..).zip(parameters) {
            // SQLite numbers `$1` and the like as they come: they must come in order.
            debug_assert_eq!(
                statement.parameter_name(index),
                Some(format!("${index}").as_str())
            );
            statement.raw_bind_parameter(index, value).map_err(failed)?;
        }
        Ok(statement)
    }
}

impl Session for SqliteSession<'_> {
    fn query(&mut self, text: &str, parameters: &[Value]) -> Result<Vec<Row>, CatalogError> {
        let mut statement = self.prepare(text, parameters)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let values = (0..columns)
                .map(|index| value(row.get_ref(index).map_err(failed)?))
                .collect::<Result<_, _>>()?;
            found.push(Row::new(values));
        }
        Ok(found)
    }

    fn execute(&mut self, text: &str, parameters: &[Value]) -> Result<u64, CatalogError> {
        let changed = self
            .prepare(text, parameters)?
            .raw_execute()
            .map_err(failed)?;
        Ok(u64::try_from(changed).unwrap_or(u64::MAX))
    }

    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Texts(texts) => return list(serde_json::to_string(texts)),
            Self::Integers(numbers) => return list(serde_json::to_string(numbers)),
            Self::Null => ValueRef::Null,
            Self::Flag(flag) => ValueRef::Integer((*flag).into()),
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// A list, for SQLite's table function `json_each`.
fn list(json: serde_json::Result<String>) -> rusqlite::Result<ToSqlOutput<'static>> {
    let json = json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    Ok(ToSqlOutput::Owned(json.into()))
}

fn value(found: ValueRef<'_>) -> Result<Value, CatalogError> {
    match found {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(value) => Ok(Value::Integer(value)),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(_) => {
                let text = String::from_utf8_lossy(text).into_owned();
                Err(damaged("a column", &Value::Text(text), "UTF-8"))
            }
        },
        other => {
            let found = Value::Text(other.data_type().to_string());
            Err(damaged("a column", &found, "a number or a text"))
        }
    }
}
