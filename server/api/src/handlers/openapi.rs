//! The description of this API, for programs.

use crate::call::{Answer, json_text};
use http::StatusCode;

/// Kept by hand; the test below compares it with the table of routes.
const DOCUMENT: &str = include_str!("../../openapi.json");

/// `GET /openapi.json`
pub(crate) fn show() -> Answer {
    json_text(StatusCode::OK, DOCUMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Accepts, ROUTES};
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_describes_exactly_the_routes() {
        let document = crate::json::parse(DOCUMENT.as_bytes()).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                let body = operation.get("requestBody").is_some();
                described.insert((path.as_str(), method.to_uppercase(), name, body));
            }
        }
        let routes = ROUTES.iter().map(|route| {
            let body = route.accepts != Accepts::Nothing;
            (
                route.path,
                route.method.to_owned(),
                route.endpoint.name(),
                body,
            )
        });
        assert_eq!(described, routes.collect());
    }

    #[test]
    fn what_the_document_refers_to_is_in_it() {
        fn check(value: &Value, whole: &Value) {
            if let Some(Value::String(reference)) = value.get("$ref") {
                let place = reference.strip_prefix('#').unwrap();
                assert!(whole.pointer(place).is_some(), "{reference}");
            }
            match value {
                Value::Object(entries) => entries.values().for_each(|value| check(value, whole)),
                Value::Array(items) => items.iter().for_each(|value| check(value, whole)),
                _ => {}
            }
        }
        let document = crate::json::parse(DOCUMENT.as_bytes()).unwrap();
        check(&document, &document);
    }
}
