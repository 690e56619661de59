//! Removes bytes that nobody needs: of images that are deleted, and of what a crash left.

use super::transfer::{TransferError, Transfers};
use crate::content::{Named, Part};
use std::collections::HashSet;
use tegula_domain::{Caller, Image, ImageId, ImageStatus};

/// What was found at a start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Images whose bytes did not arrive before the crash: they are queued again.
    pub queued: Vec<ImageId>,
    /// Bytes in the store that belonged to no image: they are removed.
    pub removed: Vec<ImageId>,
}

impl Transfers {
    /// Deletes an image and its bytes. Whoever is reading them can do so to the end; whoever is sending them learns of it
    /// when they are to be saved.
    ///
    /// # Errors
    /// As for [`Service::delete`](super::Service::delete); [`TransferError::Store`] if the image is deleted and its bytes
    /// could not be removed: that is made good at the next start.
    pub fn delete(&self, caller: &Caller, id: &ImageId) -> Result<(), TransferError> {
        self.service.delete(caller, id)?;
        for part in [Part::Data, Part::Staged] {
            self.content
                .remove(id, part)
                .map_err(TransferError::of_store)?;
        }
        Ok(())
    }

    /// Makes good what a crash left: to be called at a start, before anybody else works with this catalog or this store.
    ///
    /// Images whose bytes were on their way are queued again, and bytes of no image are removed. Names in the store that are
    /// not the catalog's are left alone.
    ///
    /// # Errors
    /// [`TransferError`] if database or store fail; calling it again goes on.
    pub fn recover(&self) -> Result<Recovered, TransferError> {
        let mut recovered = Recovered::default();
        let cut = [
            ImageStatus::Saving,
            ImageStatus::Uploading,
            ImageStatus::Importing,
        ];
        let mut staged = HashSet::new();
        for image in self.service.catalog.in_status(&cut)? {
            if is_staged(&image) {
                staged.insert(image.id.lower_case());
            } else if self.queue_after_crash(&image)? {
                recovered.queued.push(image.id);
            }
        }
        let queued = self.service.catalog.in_status(&[ImageStatus::Queued])?;
        let queued: HashSet<_> = queued.iter().map(|image| image.id.lower_case()).collect();
        let ids = self.service.catalog.ids()?;
        let known: HashSet<_> = ids.iter().map(ImageId::lower_case).collect();
        for named in self.content.list().map_err(TransferError::of_store)? {
            let (id, part, is_needed) = match named {
                Named::Image(id) => {
                    let text = id.lower_case();
                    let is_needed = known.contains(&text) && !queued.contains(&text);
                    (id, Part::Data, is_needed)
                }
                Named::Staged(id) => {
                    let is_needed = staged.contains(&id.lower_case());
                    (id, Part::Staged, is_needed)
                }
            };
            if !is_needed {
                self.content
                    .remove(&id, part)
                    .map_err(TransferError::of_store)?;
                recovered.removed.push(id);
            }
        }
        Ok(recovered)
    }

    fn queue_after_crash(&self, image: &Image) -> Result<bool, TransferError> {
        let saved = self.save_own(&image.id, |found| {
            Ok(found.status == image.status && found.transition(ImageStatus::Queued).is_ok())
        })?;
        Ok(saved.is_some())
    }
}

/// Whether all that is to be imported has arrived.
fn is_staged(image: &Image) -> bool {
    image.status == ImageStatus::Uploading && image.size.is_some()
}
