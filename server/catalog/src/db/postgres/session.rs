//! A transaction of PostgreSQL.

use super::failed;
use crate::db::CatalogError;
use crate::db::session::{Dialect, Row, Session, Value, refuse_nul};
use ::postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use ::postgres::{Statement, Transaction};
use bytes::BytesMut;
use std::collections::HashMap;
use std::error::Error;

/// How many prepared statements a connection keeps. When there are more, it begins anew: few are used all the time.
const STATEMENTS: usize = 256;

/// A transaction on a connection.
pub(super) struct PostgresSession<'a> {
    transaction: Transaction<'a>,
    statements: &'a mut HashMap<String, Statement>,
}

impl<'a> PostgresSession<'a> {
    pub(super) const fn new(
        transaction: Transaction<'a>,
        statements: &'a mut HashMap<String, Statement>,
    ) -> Self {
        Self {
            transaction,
            statements,
        }
    }

    pub(super) fn commit(self) -> Result<(), ::postgres::Error> {
        self.transaction.commit()
    }

    fn prepare(&mut self, text: &str) -> Result<Statement, CatalogError> {
        if let Some(statement) = self.statements.get(text) {
            return Ok(statement.clone());
        }
        let statement = self.transaction.prepare(text).map_err(failed)?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn bound(parameters: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    parameters
        .iter()
        .map(|value| value as &(dyn ToSql + Sync))
        .collect()
}

impl Session for PostgresSession<'_> {
    fn query(&mut self, text: &str, parameters: &[Value]) -> Result<Vec<Row>, CatalogError> {
        refuse_nul(parameters)?;
        let statement = self.prepare(text)?;
        let found = self
            .transaction
            .query(&statement, &bound(parameters))
            .map_err(failed)?;
        found.iter().map(row).collect()
    }

    fn execute(&mut self, text: &str, parameters: &[Value]) -> Result<u64, CatalogError> {
        refuse_nul(parameters)?;
        let statement = self.prepare(text)?;
        self.transaction
            .execute(&statement, &bound(parameters))
            .map_err(failed)
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }
}

fn row(found: &::postgres::Row) -> Result<Row, CatalogError> {
    let values = (0..found.len())
        .map(|index| found.try_get(index).map_err(failed))
        .collect::<Result<Vec<Option<Value>>, _>>()?;
    let values = values.into_iter().map(|value| value.unwrap_or(Value::Null));
    Ok(Row::new(values.collect()))
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *ty {
            Type::BOOL => Self::Flag(bool::from_sql(ty, raw)?),
            Type::INT4 => Self::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Self::Integer(i64::from_sql(ty, raw)?),
            _ => Self::Text(String::from_sql(ty, raw)?),
        })
    }

    fn accepts(ty: &Type) -> bool {
        matches!(
            *ty,
            Type::BOOL | Type::INT4 | Type::INT8 | Type::TEXT | Type::VARCHAR
        )
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Flag(flag) => flag.to_sql_checked(ty, out),
            Self::Integer(value) => value.to_sql_checked(ty, out),
            Self::Text(text) => text.to_sql_checked(ty, out),
            Self::Texts(texts) => texts.to_sql_checked(ty, out),
            Self::Integers(numbers) => numbers.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true // each value asks for its own type
    }

    to_sql_checked!();
}
