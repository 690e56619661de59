//! An image as one caller sees it.

use super::{PropertyOperation, Service};
use tegula_domain::{Caller, Image};

/// Properties of the service itself that nobody is shown.
const INTERNAL: [&str; 2] = ["os_glance_stage_host", "os_glance_hash_op_host"];

/// An image without the properties that the caller may not read. It is for showing: saving it would lose them, so there
/// is no way back to an [`Image`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View(Image);

impl View {
    /// What of the image may be shown.
    pub const fn image(&self) -> &Image {
        &self.0
    }
}

impl Service {
    /// The image as the caller sees it.
    pub(crate) fn view(&self, caller: &Caller, mut image: Image) -> View {
        image
            .properties
            .retain(|name, _| self.may_read(caller, name));
        View(image)
    }

    /// Whether the caller may know of a property of that name.
    pub fn may_read(&self, caller: &Caller, property: &str) -> bool {
        !INTERNAL.contains(&property) && self.rules.may(caller, PropertyOperation::Read, property)
    }
}
