//! An image as the API shows it.

use super::time;
use serde::{Serialize, Serializer, ser::SerializeMap};
use tegula_catalog::service::View;

/// An image as one caller is shown it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageBody<'a>(pub(crate) &'a View);

impl Serialize for ImageBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let image = self.0.image();
        let id = image.id.as_str();
        let mut map = serializer.serialize_map(None)?;
        // No property is named as what every image has; if one were, it would not be shown in its place.
        for (name, value) in &image.properties {
            if !super::values::is_base(name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("id", id)?;
        map.serialize_entry("name", &image.name)?;
        map.serialize_entry("status", image.status.as_str())?;
        map.serialize_entry("visibility", image.visibility.as_str())?;
        map.serialize_entry("protected", &image.protected)?;
        map.serialize_entry("os_hidden", &image.hidden)?;
        map.serialize_entry("checksum", &image.checksum)?;
        let hash = image.hash.as_ref();
        map.serialize_entry("os_hash_algo", &hash.map(|hash| &hash.algorithm))?;
        map.serialize_entry("os_hash_value", &hash.map(|hash| &hash.value))?;
        map.serialize_entry("owner", &image.owner)?;
        map.serialize_entry("size", &image.size)?;
        map.serialize_entry("virtual_size", &image.virtual_size)?;
        map.serialize_entry("disk_format", &image.disk_format)?;
        map.serialize_entry("container_format", &image.container_format)?;
        map.serialize_entry("min_ram", &image.min_ram)?;
        map.serialize_entry("min_disk", &image.min_disk)?;
        map.serialize_entry("tags", &image.tags)?;
        map.serialize_entry("created_at", &time::write(image.created_at))?;
        map.serialize_entry("updated_at", &time::write(image.updated_at))?;
        map.serialize_entry("self", &format_args!("/v2/images/{id}"))?;
        map.serialize_entry("file", &format_args!("/v2/images/{id}/file"))?;
        map.serialize_entry("schema", "/v2/schemas/image")?;
        let stores: Vec<&str> = image.locations.iter().filter_map(|at| at.store()).collect();
        if !stores.is_empty() {
            map.serialize_entry("stores", &stores.join(","))?;
        }
        let lineage = &image.lineage;
        if let Some(parent) = &lineage.parent {
            map.serialize_entry("os_parent_id", parent.as_str())?;
        }
        if let Some(bytes) = lineage.delta_bytes {
            map.serialize_entry("os_delta_size", &bytes)?;
        }
        if let Some(depth) = lineage.chain_depth {
            map.serialize_entry("os_chain_depth", &depth)?;
        }
        if let Some(hash) = &lineage.tree_hash {
            map.serialize_entry("os_tree_hash", hash)?;
        }
        map.end()
    }
}
