//! What the server has: ways to import, stores, limits.

use crate::call::{Answer, Call, json_answer};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tegula_domain::policy::Rule;

/// `GET /v2/info/import`: none so far.
pub(crate) fn import() -> Answer {
    let methods = json!({
        "description": "The ways in which images are imported.",
        "type": "array",
        "value": [],
    });
    json_answer(StatusCode::OK, &json!({ "import-methods": methods }))
}

/// `GET /v2/info/stores`
pub(crate) fn stores(call: &Call) -> Answer {
    let store = Value::Object(store(call));
    json_answer(StatusCode::OK, &json!({ "stores": [store] }))
}

/// `GET /v2/info/stores/detail`
pub(crate) async fn stores_detail(call: Call) -> Answer {
    call.ask(|service, caller| service.authorize_generally(caller, Rule::StoresInfoDetail))
        .await?;
    let mut store = store(&call);
    store.insert("type".to_owned(), "tegula".into());
    store.insert("properties".to_owned(), json!({}));
    json_answer(StatusCode::OK, &json!({ "stores": [store] }))
}

/// `GET /v2/info/usage`: the limits of an identity service are not used.
pub(crate) fn usage() -> Answer {
    json_answer(StatusCode::OK, &json!({ "usage": {} }))
}

/// The store, its truths in words, as the reference has them.
fn store(call: &Call) -> Map<String, Value> {
    let entry = &call.shared.settings.store;
    let mut store = Map::new();
    store.insert("id".to_owned(), entry.id.as_str().into());
    if let Some(description) = &entry.description {
        store.insert("description".to_owned(), description.as_str().into());
    }
    store.insert("default".to_owned(), "true".into());
    store
}
