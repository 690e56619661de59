//! Deletes an image. Its id stays taken.

use super::{Service, ServiceError};
use tegula_domain::policy::Rule;
use tegula_domain::{Caller, ImageId, ImageStatus};

impl Service {
    /// Deletes the image. Whoever is sending its bytes learns of it when they are to be saved.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`]; [`ServiceError::Forbidden`] if it is protected.
    pub fn delete(&self, caller: &Caller, id: &ImageId) -> Result<(), ServiceError> {
        self.in_turn(|| {
            let seen = self.see(caller, id)?;
            let authorized = self.authorize(caller, seen, Rule::DeleteImage)?;
            let mut image = authorized.image().clone();
            if image.protected {
                return Err(ServiceError::Forbidden(format!(
                    "image {id} is protected from being deleted"
                )));
            }
            image
                .transition(ImageStatus::Deleted)
                .map_err(|refused| ServiceError::Forbidden(refused.to_string()))?;
            self.save(&authorized, image)?;
            Ok(())
        })
    }
}
