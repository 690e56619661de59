//! What a service says of an image, and whether it knows increments.

use super::PullError;
use super::client::Client;
use super::place::{ImageUrl, check_id};
use super::whole::Hash;
use serde_json::Value;

/// The media type of a delta stream.
pub(super) const DELTA_TYPE: &str = "application/vnd.tegula.delta";

/// The version of the protocol of increments that is spoken here.
const LINEAGE_VERSION: u64 = 1;

/// What a service says of an image; everything but the id may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) id: String,
    status: String,
    /// The length of its bytes.
    pub(super) size: Option<u64>,
    /// The best of the hashes of its bytes that are kept.
    pub(super) hash: Option<Hash>,
    /// The digest of its blocks, in hexadecimal form.
    pub(super) digest: Option<String>,
    /// The image that it is an increment over.
    pub(super) parent: Option<String>,
}

impl Image {
    /// Asks for an image's record.
    ///
    /// # Errors
    /// [`PullError::Status`] with 404 if there is none.
    pub(super) fn look(client: &mut Client, url: &ImageUrl, id: &str) -> Result<Self, PullError> {
        let url = url.path(&format!("images/{id}"));
        let record = client.document(&url)?;
        match Self::of(id, &record) {
            Some(image) => Ok(image),
            None => {
                let what = "the answer is no image's record".to_owned();
                Err(PullError::Answer { url, what })
            }
        }
    }

    fn of(id: &str, record: &Value) -> Option<Self> {
        let text = |key: &str| record.get(key).and_then(Value::as_str).map(str::to_owned);
        if text("id")? != id {
            return None;
        }
        let hash = |algorithm: Option<String>, value: Option<String>| {
            Some(Hash {
                algorithm: algorithm?.to_ascii_lowercase(),
                value: value?,
            })
        };
        let best = hash(text("os_hash_algo"), text("os_hash_value"));
        let old = hash(Some("md5".to_owned()), text("checksum"));
        let tree = text("os_tree_hash");
        Some(Self {
            id: id.to_owned(),
            status: text("status")?,
            size: record.get("size").and_then(Value::as_u64),
            hash: best.filter(Hash::is_known).or(old),
            digest: tree.as_deref().and_then(tree_digest),
            parent: text("os_parent_id").filter(|parent| check_id(parent).is_ok()),
        })
    }

    /// Refuses an image that has no data.
    pub(super) fn check_active(&self) -> Result<(), PullError> {
        match &*self.status {
            // What is deactivated is refused by the server to whomever it is to be refused.
            "active" | "deactivated" => Ok(()),
            status => Err(PullError::NotActive {
                id: self.id.clone(),
                status: status.to_owned(),
            }),
        }
    }
}

/// Reads `blake3-tree:64k:HEX`.
fn tree_digest(text: &str) -> Option<String> {
    let (_, digits) = text.strip_prefix("blake3-tree:")?.split_once(':')?;
    let hex = digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit());
    hex.then(|| digits.to_ascii_lowercase())
}

/// Tells whether a service gives deltas that can be applied here. One that has never heard of them answers 404.
pub(super) fn knows_increments(client: &mut Client, url: &ImageUrl) -> Result<bool, PullError> {
    let found = client.document_if_any(&url.path("info/lineage"))?;
    let lineage = found.as_ref().and_then(|found| found.get("lineage"));
    let Some(lineage) = lineage else {
        return Ok(false);
    };
    let version = lineage.get("version").and_then(Value::as_u64);
    let formats = lineage.get("delta_formats").and_then(Value::as_array);
    let ours = formats.is_some_and(|formats| formats.iter().any(|format| format == DELTA_TYPE));
    Ok(version == Some(LINEAGE_VERSION) && ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_best_hash_that_is_known_counts() {
        let hash = |more: Value| {
            let mut record = json!({ "id": "i", "status": "active", "checksum": "aa" });
            let fields = more.as_object().unwrap().clone();
            record.as_object_mut().unwrap().extend(fields);
            Image::of("i", &record).unwrap().hash
        };
        let found = hash(json!({ "os_hash_algo": "sha512", "os_hash_value": "bb" })).unwrap();
        assert_eq!((&*found.algorithm, &*found.value), ("sha512", "bb"));
        for other in [
            json!({ "os_hash_algo": "sha512", "os_hash_value": null }),
            json!({ "os_hash_algo": "of tomorrow", "os_hash_value": "bb" }),
            json!({}),
        ] {
            assert_eq!(hash(other).unwrap().algorithm, "md5");
        }
        assert_eq!(hash(json!({ "checksum": null })), None);
    }

    #[test]
    fn only_whole_digests_are_believed() {
        let digits = "ab".repeat(32);
        let of = |text: &str| tree_digest(&text.replace("HEX", &digits));
        assert_eq!(of("blake3-tree:64k:HEX"), Some(digits.clone()));
        for text in [
            "HEX",
            "sha512:64k:HEX",
            "blake3-tree:HEX",
            "blake3-tree:64k:HEX0",
            "",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
