//! Takes in bytes to be imported: they are kept aside, and looked at when they are.

use super::ServiceError;
use super::download::StoredBytes;
use super::ingest::{Expected, Ingested};
use super::transfer::{TransferError, Transfers};
use super::upload::Announced;
use crate::content::Part;
use std::io::Read;
use tegula_domain::policy::Rule;
use tegula_domain::{Caller, Image, ImageId, ImageStatus};

impl Transfers {
    /// Takes in bytes for a queued image, which is then uploading and knows its size. Once this returns they are durable.
    ///
    /// # Errors
    /// As for [`Transfers::upload`]; they are not judged by their format yet.
    pub fn stage(
        &self,
        caller: &Caller,
        id: &ImageId,
        announced: Announced<'_>,
        source: &mut dyn Read,
    ) -> Result<Image, TransferError> {
        let allowance = self.admit(caller, id, (Rule::ModifyImage, announced))?;
        let image = self.begin(caller, id, (Rule::ModifyImage, ImageStatus::Uploading))?;
        let expected = Expected {
            bytes: announced.bytes,
            allowance,
            format: None,
        };
        let ingested = match self.ingest((&image, Part::Staged), source, expected) {
            Ok(ingested) => ingested,
            Err(error) => return self.take_back(&image, None, error),
        };
        let saved = self.save_own(id, |image| {
            image.size = Some(ingested.bytes);
            Ok(image.status == ImageStatus::Uploading)
        });
        match saved {
            Ok(Some(image)) => Ok(image),
            Ok(None) => {
                let gone = TransferError::Gone(id.clone());
                self.take_back(&image, Some(ingested.put.record), gone)
            }
            Err(error) => self.take_back(&image, Some(ingested.put.record), error.into()),
        }
    }

    /// Makes the image of what is staged for it: inspects and hashes it as an upload does, and keeps nothing of it aside.
    ///
    /// # Errors
    /// As for [`Transfers::upload`]; [`ServiceError::Status`] if nothing is staged.
    pub fn import_staged(&self, caller: &Caller, id: &ImageId) -> Result<Image, TransferError> {
        let image = self.begin_import(caller, id)?;
        let imported = self.import_into(&image);
        // Whether it is the image now or cannot be, what was staged is of no more use.
        let removed = self.content.remove(id, Part::Staged);
        match imported {
            Ok(ingested) => {
                let image = self.publish(caller, &image, ingested)?;
                // The image is whole whatever became of this; a next start removes it.
                drop(removed);
                Ok(image)
            }
            Err(error) => self.take_back(&image, None, error),
        }
    }

    fn import_into(&self, image: &Image) -> Result<Ingested, TransferError> {
        let staged = self.content.open(&image.id, Part::Staged);
        let staged = staged.map_err(TransferError::of_store)?;
        let staged = staged.ok_or_else(|| TransferError::Missing(image.id.clone()))?;
        let size = staged.record().virtual_size;
        let expected = Expected {
            bytes: Some(size),
            allowance: self.allowance(image, Some(size))?,
            format: Expected::of(image, &self.settings),
        };
        let mut source = StoredBytes::new(staged);
        self.ingest((image, Part::Data), &mut source, expected)
    }

    fn begin_import(&self, caller: &Caller, id: &ImageId) -> Result<Image, TransferError> {
        let begun = self.service.in_turn(|| {
            let seen = self.service.see(caller, id)?;
            let authorized = self.service.authorize(caller, seen, Rule::ModifyImage)?;
            let mut image = authorized.image().clone();
            if image.status != ImageStatus::Uploading || image.size.is_none() {
                return Err(ServiceError::Status {
                    image: image.id,
                    status: image.status,
                    wanted: "only an image for which bytes were staged can be imported",
                });
            }
            image
                .transition(ImageStatus::Importing)
                .map_err(|refused| ServiceError::Conflict(refused.to_string()))?;
            self.service.save(&authorized, image)
        })?;
        Ok(begun)
    }
}
