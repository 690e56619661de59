//! An image as one caller sees it.

use super::Service;
use tegula_domain::{Caller, Image};

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
        let rules = self.rules();
        image
            .properties
            .retain(|name, _| rules.protection.may_filter(caller, name));
        View(image)
    }

    /// Whether the caller may know of a property of that name.
    pub fn may_read(&self, caller: &Caller, property: &str) -> bool {
        self.rules().protection.may_filter(caller, property)
    }
}
