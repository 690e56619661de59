//! Makes an image: what is known of it; its bytes come later.

use super::{PropertyOperation, Right, Service, ServiceError, Target, View};
use std::collections::BTreeMap;
use tegula_domain::{Caller, Image, ImageId, ImageStatus, Lineage, NewImage, Visibility};

/// Properties of the service itself begin with it. They are not counted, and no caller writes them.
const OWN_PREFIX: &str = "os_glance";

impl Service {
    /// Makes an image, queued, and returns it as its maker sees it.
    ///
    /// # Errors
    /// [`ServiceError::Denied`], [`ServiceError::Forbidden`], [`ServiceError::Limit`]; [`ServiceError::Conflict`] if the id is
    /// or was taken; [`ServiceError::Invalid`] if it is to be an increment of what the caller cannot have.
    pub fn create(&self, caller: &Caller, new: NewImage) -> Result<View, ServiceError> {
        let image = self.draft(caller, new);
        self.authorize_new(caller, &image)?;
        for name in image.properties.keys() {
            self.check_property(caller, PropertyOperation::Create, name)?;
        }
        self.check_counts(&image)?;
        if let Some(parent) = &image.lineage.parent {
            self.check_parent(caller, parent)?;
        }
        self.catalog.insert(&image)?;
        Ok(self.view(caller, image))
    }

    fn draft(&self, caller: &Caller, new: NewImage) -> Image {
        let now = self.now();
        Image {
            id: new.id.unwrap_or_else(|| (self.new_ids)()),
            name: new.name,
            status: ImageStatus::Queued,
            visibility: new.visibility.unwrap_or(Visibility::Shared),
            protected: new.protected,
            hidden: new.hidden,
            checksum: None,
            hash: None,
            owner: new.owner.unwrap_or_else(|| caller.project.clone()),
            size: None,
            virtual_size: None,
            disk_format: new.disk_format,
            container_format: new.container_format,
            min_ram: new.min_ram,
            min_disk: new.min_disk,
            tags: new.tags,
            properties: new.properties,
            locations: Vec::new(),
            lineage: Lineage {
                parent: new.parent,
                ..Lineage::default()
            },
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    fn authorize_new(&self, caller: &Caller, image: &Image) -> Result<(), ServiceError> {
        let target = Target {
            image: Some(image),
            member: None,
        };
        if !caller.is_of(image.owner.as_deref()) && !self.is_admin(caller) {
            return Err(ServiceError::Forbidden(
                "only an administrator makes images for another project, or for none".to_owned(),
            ));
        }
        let wanted = [Some(Right::AddImage), right_to_show(image.visibility)];
        match wanted
            .into_iter()
            .flatten()
            .find(|right| !self.rules.allows(*right, caller, target))
        {
            Some(right) => Err(ServiceError::Denied(right)),
            None => Ok(()),
        }
    }

    /// Checks that a property may be made, changed or taken away.
    pub(crate) fn check_property(
        &self,
        caller: &Caller,
        operation: PropertyOperation,
        name: &str,
    ) -> Result<(), ServiceError> {
        if self.rules.may(caller, operation, name) {
            Ok(())
        } else {
            Err(ServiceError::Forbidden(format!(
                "the property protection does not let you {} `{name}`",
                operation.as_str()
            )))
        }
    }

    /// Checks that the image has not too many tags and properties.
    pub(crate) fn check_counts(&self, image: &Image) -> Result<(), ServiceError> {
        let properties = counted(&image.properties);
        for (what, count, limit) in [
            ("properties", properties, self.limits.properties),
            ("tags", image.tags.len() as u64, self.limits.tags),
        ] {
            if count > limit {
                return Err(ServiceError::Limit { what, count, limit });
            }
        }
        Ok(())
    }

    /// Checks that an image may be made an increment of that one: that the caller may have its bytes, and that there are
    /// some. What it may not have looks as if it were not there.
    pub(crate) fn check_parent(&self, caller: &Caller, id: &ImageId) -> Result<(), ServiceError> {
        let refused = |why: &str| ServiceError::Invalid(format!("os_parent_id {id}: {why}"));
        let seen = self.see(caller, id).map_err(|error| match error {
            ServiceError::NoImage(_) => refused("there is no such image"),
            error => error,
        })?;
        if !self.allows(caller, &seen, Right::DownloadImage) {
            return Err(refused("you may not have its data"));
        }
        if seen.image().status != ImageStatus::Active {
            return Err(refused("it is not active"));
        }
        Ok(())
    }
}

/// The right that showing an image to so many needs, besides that of making or changing it.
pub(crate) const fn right_to_show(visibility: Visibility) -> Option<Right> {
    match visibility {
        Visibility::Public => Some(Right::PublicizeImage),
        Visibility::Community => Some(Right::CommunitizeImage),
        Visibility::Shared | Visibility::Private => None,
    }
}

/// How many properties count towards the limit.
pub(crate) fn counted(properties: &BTreeMap<String, String>) -> u64 {
    properties
        .keys()
        .filter(|name| !name.starts_with(OWN_PREFIX))
        .count() as u64
}
