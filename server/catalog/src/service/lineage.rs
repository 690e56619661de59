//! What one image is to another: what differs between them, and which one an image is said to be made from.
//!
//! A parent is provenance, not dependency: an image's blocks are its own, so any two images can be compared, and saying that
//! an image has another parent, or none, moves no byte. Whoever learns what differs between two images must be allowed to
//! download both.

use super::ServiceError;
use super::transfer::{TransferError, Transfers, is_not_there};
use crate::content::{Part, name_of};
use std::sync::atomic::AtomicBool;
use tegula_domain::policy::Rule;
use tegula_domain::{Caller, Image, ImageId, ImageStatus};
use tegula_engine::{DeltaStream, EngineError, ExtentPage, ExtentWindow, Task};

/// How many generations of parents are looked at.
const GENERATIONS_MAX: u32 = 1024;

/// What an image is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// With nothing: all of it counts.
    Nothing,
    /// With its parent.
    Parent,
    /// With that image.
    Image(ImageId),
}

impl Transfers {
    /// Promises the delta stream from one image to another, or from nothing, and hands it to `serve`.
    ///
    /// # Errors
    /// Within [`TransferError::Service`]: [`ServiceError::NoImage`] and [`ServiceError::Denied`] for the image,
    /// [`ServiceError::Invalid`] for a base that is not there for the caller, [`ServiceError::Forbidden`] for one that it may not
    /// download, [`ServiceError::Status`] if either has no data. [`TransferError::Store`], and what `serve` returns.
    pub fn delta<R>(
        &self,
        caller: &Caller,
        (id, base): (&ImageId, &Base),
        stop: &AtomicBool,
        serve: impl FnOnce(&DeltaStream<'_>) -> Result<R, TransferError>,
    ) -> Result<R, TransferError> {
        let base = self.base_of(caller, id, base)?;
        let task = Task {
            progress: &|_, _| {},
            interrupted: stop,
        };
        let image = name_of(id, Part::Data);
        let base_name = base.as_ref().map(|base| name_of(base, Part::Data));
        let engine = self.content.engine();
        let mut served = None;
        let promised = engine.serve_delta(base_name.as_ref(), &image, task, |stream| {
            served = Some(serve(stream));
            Ok::<_, EngineError>(())
        });
        match (promised, served) {
            (_, Some(served)) => served,
            (Err(error), None) => Err(self.missing_or(error, id, base.as_ref())),
            (Ok(()), None) => unreachable!("a stream that was promised is served"),
        }
    }

    /// Lists where an image differs from another, or what it holds; with the image that it was compared with.
    ///
    /// # Errors
    /// As for [`Self::delta`].
    pub fn extents(
        &self,
        caller: &Caller,
        (id, base): (&ImageId, &Base),
        window: ExtentWindow,
    ) -> Result<(ExtentPage, Option<ImageId>), TransferError> {
        let base = self.base_of(caller, id, base)?;
        let image = name_of(id, Part::Data);
        let base_name = base.as_ref().map(|base| name_of(base, Part::Data));
        let engine = self.content.engine();
        match engine.extents(base_name.as_ref(), &image, window) {
            Ok(page) => Ok((page, base)),
            Err(error) => Err(self.missing_or(error, id, base.as_ref())),
        }
    }

    /// Makes an image one of no parent's: nothing but what is said of it changes.
    ///
    /// # Errors
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`]; [`ServiceError::Status`] if its bytes are not there.
    pub fn flatten(&self, caller: &Caller, id: &ImageId) -> Result<Image, TransferError> {
        self.set_parent(caller, id, (Rule::LineageFlatten, None))
    }

    /// Makes one of an image's ancestors its parent, as if those between had never been. They stay as they are.
    ///
    /// # Errors
    /// As for [`Self::flatten`]; [`ServiceError::Invalid`] if `to` is no ancestor that the caller may download.
    pub fn coalesce(
        &self,
        caller: &Caller,
        id: &ImageId,
        to: &ImageId,
    ) -> Result<Image, TransferError> {
        let seen = self.service.see(caller, id)?;
        let right = Rule::LineageCoalesce;
        let authorized = self.service.authorize(caller, seen, right)?;
        self.service.check_parent(caller, to)?;
        let mut next = authorized.image().lineage.parent.clone();
        for _ in 0..GENERATIONS_MAX {
            match next {
                Some(ancestor) if ancestor == *to => {
                    return self.set_parent(caller, id, (right, Some(to)));
                }
                // Who looks past an ancestor that it may not know learns nothing but the next one's id, and that only if it
                // names it.
                Some(ancestor) => {
                    let image = self.service.catalog.image(&ancestor)?;
                    next = image.and_then(|image| image.lineage.parent);
                }
                None => break,
            }
        }
        let text = format!("image {to} is no ancestor of image {id}");
        Err(ServiceError::Invalid(text).into())
    }

    fn set_parent(
        &self,
        caller: &Caller,
        id: &ImageId,
        (right, parent): (Rule, Option<&ImageId>),
    ) -> Result<Image, TransferError> {
        let delta_bytes = match parent {
            Some(parent) => Some(self.bytes_beside(id, parent)?),
            None => None,
        };
        let depth = self.depth_over(parent)?;
        let saved = self.service.in_turn(|| {
            let seen = self.service.see(caller, id)?;
            let authorized = self.service.authorize(caller, seen, right)?;
            let mut image = authorized.image().clone();
            check_active(&image)?;
            image.lineage.parent = parent.cloned();
            image.lineage.delta_bytes = delta_bytes;
            image.lineage.chain_depth = depth;
            self.service.save(&authorized, image)
        })?;
        Ok(saved)
    }

    /// How many bytes of chunks an image has beside those of another.
    fn bytes_beside(&self, id: &ImageId, base: &ImageId) -> Result<u64, TransferError> {
        let (image, base_name) = (name_of(id, Part::Data), name_of(base, Part::Data));
        let bytes = self.content.engine().bytes_beside(&base_name, &image);
        bytes.map_err(|error| self.missing_or(error, id, Some(base)))
    }

    /// What the engine says of two images, either of which may have been deleted since it was looked up.
    fn missing_or(
        &self,
        error: EngineError,
        id: &ImageId,
        base: Option<&ImageId>,
    ) -> TransferError {
        match base.filter(|base| is_not_there(&error, base)) {
            Some(base) => match self.gone_or_missing(base) {
                TransferError::Service(ServiceError::NoImage(_)) => no_base(base).into(),
                error => error,
            },
            None if is_not_there(&error, id) => self.gone_or_missing(id),
            None => TransferError::of_stream(error),
        }
    }

    /// The same for an image that has just come in; none if it has no parent, or none any more whose bytes the caller may
    /// have.
    ///
    /// It is counted against the parent alone. What the store had to write for it would tell whether anybody, of whatever
    /// project, had stored the same bytes before.
    pub(super) fn bytes_over_parent(
        &self,
        caller: &Caller,
        id: &ImageId,
        parent: Option<&ImageId>,
    ) -> Result<Option<u64>, TransferError> {
        let Some(parent) = parent else {
            return Ok(None);
        };
        match self.service.check_parent(caller, parent) {
            Ok(()) => {}
            Err(ServiceError::Invalid(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        match self.bytes_beside(id, parent) {
            Ok(bytes) => Ok(Some(bytes)),
            // Either was deleted a moment ago.
            Err(
                TransferError::Missing(_)
                | TransferError::Service(ServiceError::Invalid(_) | ServiceError::NoImage(_)),
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many ancestors an image has whose parent this is; none if it has no parent.
    pub(super) fn depth_over(
        &self,
        parent: Option<&ImageId>,
    ) -> Result<Option<u32>, TransferError> {
        let Some(parent) = parent else {
            return Ok(None);
        };
        let above = self.service.catalog.image(parent)?;
        let above = above.and_then(|parent| parent.lineage.chain_depth);
        Ok(Some(above.unwrap_or(0).saturating_add(1)))
    }

    /// The image to compare another with, if the caller may download both.
    fn base_of(
        &self,
        caller: &Caller,
        id: &ImageId,
        base: &Base,
    ) -> Result<Option<ImageId>, TransferError> {
        let image = self.downloadable(caller, id)?;
        let base = match base {
            Base::Nothing => return Ok(None),
            Base::Image(base) => base.clone(),
            Base::Parent => image
                .lineage
                .parent
                .ok_or_else(|| ServiceError::Invalid(format!("base: image {id} has no parent")))?,
        };
        match self.downloadable(caller, &base) {
            Ok(_) => Ok(Some(base)),
            Err(ServiceError::NoImage(_)) => Err(no_base(&base).into()),
            Err(ServiceError::Denied(_)) => {
                let text = format!("you may not download the base, image {base}");
                Err(ServiceError::Forbidden(text).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn downloadable(&self, caller: &Caller, id: &ImageId) -> Result<Image, ServiceError> {
        let seen = self.service.see(caller, id)?;
        let authorized = self.service.authorize(caller, seen, Rule::DownloadImage)?;
        let image = authorized.image().clone();
        match image.status {
            ImageStatus::Deactivated if self.service.is_admin(caller) => Ok(image),
            ImageStatus::Deactivated => {
                let text = format!("image {id} was withdrawn by an administrator");
                Err(ServiceError::Forbidden(text))
            }
            _ => check_active(&image).map(|()| image),
        }
    }
}

fn check_active(image: &Image) -> Result<(), ServiceError> {
    match image.status {
        ImageStatus::Active => Ok(()),
        status => Err(ServiceError::Status {
            image: image.id.clone(),
            status,
            wanted: "its data can only be compared when all of it is there",
        }),
    }
}

fn no_base(base: &ImageId) -> ServiceError {
    ServiceError::Invalid(format!("base: there is no image {base}"))
}
