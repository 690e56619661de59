//! JSON as callers send it.
//!
//! Three things that JSON leaves open are refused, so that what is checked is what is kept: an object with a name twice
//! (which of the two would a proxy, a log or we believe?), the character NUL, which PostgreSQL cannot keep, and characters
//! beyond U+FFFF, which the API refuses. Nesting is bounded by serde_json (128 levels).

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads one JSON value and nothing after it.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| error.to_string())
}

/// Checks a text as [`parse`] checks those in JSON.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_text(text: &str) -> Result<(), String> {
    match text
        .chars()
        .find(|character| *character == '\0' || *character > '\u{ffff}')
    {
        None => Ok(()),
        Some(character) => Err(format!(
            "the character U+{:04X} is not supported",
            u32::from(character)
        )),
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        check_text(&text).map_err(E::custom)?;
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            check_text(&name).map_err(A::Error::custom)?;
            let value = entries.next_value_seed(Strict)?;
            if map.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!(
                    "the name `{name}` is there twice"
                )));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_whole() {
        let text = r#"{"a":[1,-2,1.5,true,null,"x"],"b":{}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
    }

    #[test]
    fn what_json_leaves_open_is_refused() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"["\u0000"]"#,
            r#"{"\u0000":1}"#,
            "[\"\u{1f600}\"]",
            r#"["\ud83d\ude00"]"#,
            r#"["\ud83d"]"#,
            "1e999",
            "NaN",
            "{} {}",
            "",
            "{",
            "[1,]",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"[\"\xff\"]").is_err());
        assert!(parse("[".repeat(200).as_bytes()).is_err());
        assert!(parse(format!("{}{}", "[".repeat(100), "]".repeat(100)).as_bytes()).is_ok());
    }
}
