//! Makes an image: what is known of it; its bytes come later.

use super::{Service, ServiceError, View};
use std::collections::BTreeMap;
use tegula_domain::policy::Rule;
use tegula_domain::quota::Limited;
use tegula_domain::{Caller, Image, ImageId, ImageStatus, Lineage, NewImage, Visibility};

impl Service {
    /// Makes an image, queued, and returns it as its maker sees it.
    ///
    /// # Errors
    /// [`ServiceError::Denied`], [`ServiceError::Forbidden`], [`ServiceError::Limit`]; [`ServiceError::Conflict`] if the id is
    /// or was taken; [`ServiceError::Invalid`] if it is to be an increment of what the caller cannot have.
    pub fn create(&self, caller: &Caller, new: NewImage) -> Result<View, ServiceError> {
        let image = self.draft(caller, new);
        self.authorize_new(caller, &image)?;
        let rules = self.rules();
        rules.protection.check_new(caller, &image.properties)?;
        self.check_counts(caller, &image)?;
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
        if !caller.is_of(image.owner.as_deref()) && !self.is_admin(caller) {
            return Err(ServiceError::Forbidden(
                "only an administrator makes images for another project, or for none".to_owned(),
            ));
        }
        let lineage = image.lineage.parent.as_ref().map(|_| Rule::SetLineage);
        let wanted = [
            Some(Rule::AddImage),
            right_to_show(image.visibility),
            lineage,
        ];
        match wanted
            .into_iter()
            .flatten()
            .find(|right| !self.rules().allows(*right, caller, image, None))
        {
            Some(right) => Err(ServiceError::Denied(right)),
            None => Ok(()),
        }
    }

    /// Checks that an image to be has not too many tags and properties.
    fn check_counts(&self, caller: &Caller, image: &Image) -> Result<(), ServiceError> {
        let properties = self.counted(caller, &image.properties);
        self.limits.check(Limited::Properties, 0, properties)?;
        let tags = image.tags.len() as u64;
        self.limits.check(Limited::Tags, 0, tags)?;
        Ok(())
    }

    /// How many of an image's properties count towards the limit for this caller.
    pub(super) fn counted(&self, caller: &Caller, properties: &BTreeMap<String, String>) -> u64 {
        let rules = self.rules();
        let counts = |name: &&String| rules.protection.counts(caller, name);
        properties.keys().filter(counts).count() as u64
    }

    /// Checks that an image may be made an increment of that one: that the caller may have its bytes, and that there are
    /// some. What it may not have looks as if it were not there.
    pub(crate) fn check_parent(&self, caller: &Caller, id: &ImageId) -> Result<(), ServiceError> {
        let refused = |why: &str| ServiceError::Invalid(format!("os_parent_id {id}: {why}"));
        let seen = self.see(caller, id).map_err(|error| match error {
            ServiceError::NoImage(_) => refused("there is no such image"),
            error => error,
        })?;
        if !self.allows(caller, &seen, Rule::DownloadImage) {
            return Err(refused("you may not have its data"));
        }
        if seen.image().status != ImageStatus::Active {
            return Err(refused("it is not active"));
        }
        Ok(())
    }
}

/// The right that showing an image to so many needs, besides that of making or changing it.
pub(crate) const fn right_to_show(visibility: Visibility) -> Option<Rule> {
    match visibility {
        Visibility::Public => Some(Rule::PublicizeImage),
        Visibility::Community => Some(Rule::CommunitizeImage),
        Visibility::Shared | Visibility::Private => None,
    }
}
