//! Tags an image, and takes tags away.

use super::{Service, ServiceError};
use tegula_domain::policy::Rule;
use tegula_domain::quota::Limited;
use tegula_domain::{Caller, ImageId};

impl Service {
    /// Gives the image a tag; one that it has already, it keeps.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`], [`ServiceError::Limit`].
    pub fn add_tag(&self, caller: &Caller, id: &ImageId, tag: &str) -> Result<(), ServiceError> {
        self.in_turn(|| {
            let seen = self.see(caller, id)?;
            let authorized = self.authorize(caller, seen, Rule::ModifyImage)?;
            let mut image = authorized.image().clone();
            let before = image.tags.len() as u64;
            if image.tags.insert(tag.to_owned()) {
                self.limits.check(Limited::Tags, before, before + 1)?;
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
            let authorized = self.authorize(caller, seen, Rule::ModifyImage)?;
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
