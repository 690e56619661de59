//! Shows an image.

use super::{Service, ServiceError, View};
use tegula_domain::{Caller, ImageId};

impl Service {
    /// The image as the caller sees it.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`].
    pub fn show(&self, caller: &Caller, id: &ImageId) -> Result<View, ServiceError> {
        let seen = self.see(caller, id)?;
        Ok(self.view(caller, seen.into_image()))
    }
}
