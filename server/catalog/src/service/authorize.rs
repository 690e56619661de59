//! The two steps before every use case: may the caller know of the image, and may it do this to it.

use super::{Service, ServiceError};
use tegula_domain::policy::{Attributes, Rule};
use tegula_domain::{Caller, Image, ImageId, Visibility};

/// An image that the caller may know of.
#[derive(Debug, Clone)]
pub struct Seen {
    image: Image,
    /// Whether the caller's project is a member of it.
    member: bool,
}

/// An image that the caller may do something to. It is made here alone, and what is saved is saved by it.
#[derive(Debug)]
pub struct Authorized {
    image: Image,
    right: Rule,
}

impl Seen {
    /// The image.
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// Whether the caller's project is a member of it.
    pub const fn is_member(&self) -> bool {
        self.member
    }

    /// The image itself: the caller may know of it, and no more.
    pub fn into_image(self) -> Image {
        self.image
    }
}

impl Authorized {
    /// The image.
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// The image itself: nothing is done to it.
    pub(crate) fn into_image(self) -> Image {
        self.image
    }

    /// What may be done to it.
    pub const fn right(&self) -> Rule {
        self.right
    }
}

impl Service {
    /// The image, if the caller may know of it.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`] if there is none or the caller may not know: the two cannot be told apart.
    pub fn see(&self, caller: &Caller, id: &ImageId) -> Result<Seen, ServiceError> {
        let image = self
            .catalog
            .image(id)?
            .ok_or_else(|| ServiceError::NoImage(id.clone()))?;
        let member = self.is_member(caller, &image)?;
        let seen = Seen { image, member };
        if self.is_visible(caller, &seen) && self.allows(caller, &seen, Rule::GetImage) {
            Ok(seen)
        } else {
            Err(ServiceError::NoImage(id.clone()))
        }
    }

    /// Whether the caller administers all projects.
    pub fn is_admin(&self, caller: &Caller) -> bool {
        self.rules().policy.is_admin(caller)
    }

    /// Asks for a right to an image that the caller may know of.
    ///
    /// # Errors
    /// [`ServiceError::Denied`].
    pub fn authorize(
        &self,
        caller: &Caller,
        seen: Seen,
        right: Rule,
    ) -> Result<Authorized, ServiceError> {
        if self.allows(caller, &seen, right) {
            let image = seen.image;
            Ok(Authorized { image, right })
        } else {
            Err(ServiceError::Denied(right))
        }
    }

    /// Asks for a right to no image in particular: to those of the caller's own project, as the texts of Glance expect.
    ///
    /// # Errors
    /// [`ServiceError::Denied`].
    pub fn authorize_generally(&self, caller: &Caller, right: Rule) -> Result<(), ServiceError> {
        let own = Attributes::owned_by(caller.project.as_deref());
        if self.rules().policy.allows(right, caller, &own) {
            Ok(())
        } else {
            Err(ServiceError::Denied(right))
        }
    }

    /// Saves what became of the image; it counts as changed now.
    ///
    /// # Errors
    /// [`ServiceError::Stale`] if somebody else saved it since it was seen.
    pub(crate) fn save(
        &self,
        authorized: &Authorized,
        mut image: Image,
    ) -> Result<Image, ServiceError> {
        debug_assert_eq!(
            (&authorized.image.id, authorized.image.version),
            (&image.id, image.version),
            "what is saved is what was authorized"
        );
        image.updated_at = self.now().max(image.updated_at);
        image.version = self.catalog.save(&image)?;
        Ok(image)
    }

    /// Whether the policy gives the right.
    pub(crate) fn allows(&self, caller: &Caller, seen: &Seen, right: Rule) -> bool {
        let member = caller.project.as_deref().filter(|_| seen.member);
        self.rules().allows(right, caller, &seen.image, member)
    }

    /// Whether the caller's project is a member of a shared image: only of those does the database need to be asked.
    fn is_member(&self, caller: &Caller, image: &Image) -> Result<bool, ServiceError> {
        match caller.project.as_deref() {
            Some(project)
                if image.visibility == Visibility::Shared
                    && !caller.is_of(image.owner.as_deref()) =>
            {
                Ok(self.catalog.member(&image.id, project)?.is_some())
            }
            _ => Ok(false),
        }
    }

    /// What the visibility says, before the policy: an image without an owner is left to the policy alone.
    fn is_visible(&self, caller: &Caller, seen: &Seen) -> bool {
        let image = &seen.image;
        image.owner.is_none()
            || caller.is_of(image.owner.as_deref())
            || seen.member
            || matches!(image.visibility, Visibility::Public | Visibility::Community)
            || self.is_admin(caller)
    }
}
