//! Tags an image, and takes tags away.

use super::{Right, Service, ServiceError};
use tegula_domain::{Caller, ImageId};

impl Service {
    /// Gives the image a tag; one that it has already, it keeps.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`], [`ServiceError::Limit`].
    pub fn add_tag(&self, caller: &Caller, id: &ImageId, tag: &str) -> Result<(), ServiceError> {
        self.in_turn(|| {
            let seen = self.see(caller, id)?;
            let authorized = self.authorize(caller, seen, Right::ModifyImage)?;
            let mut image = authorized.image().clone();
            if image.tags.insert(tag.to_owned()) {
                self.check_counts(&image)?;
                self.save(&authorized, image)?;
            }
            Ok(())
        })
    }

    /// Takes a tag away.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`], [`ServiceError::NoTag`].
    pub fn remove_tag(&self, caller: &Caller, id: &ImageId, tag: &str) -> Result<(), ServiceError> {
        self.in_turn(|| {
            let seen = self.see(caller, id)?;
            let authorized = self.authorize(caller, seen, Right::ModifyImage)?;
            let mut image = authorized.image().clone();
            if !image.tags.remove(tag) {
                return Err(ServiceError::NoTag {
                    image: id.clone(),
                    tag: tag.to_owned(),
                });
            }
            self.save(&authorized, image)?;
            Ok(())
        })
    }
}
