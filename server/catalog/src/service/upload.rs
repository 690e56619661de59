//! Takes in an image's bytes.

use super::ServiceError;
use super::ingest::{Expected, Ingested};
use super::transfer::{TransferError, Transfers};
use crate::content::Part;
use std::collections::BTreeMap;
use std::io::Read;
use tegula_domain::policy::Rule;
use tegula_domain::quota::Allowance;
use tegula_domain::{Caller, Image, ImageId, ImageStatus, Lineage, Location};
use tegula_engine::ImageRecord;

/// What a caller says of the bytes it sends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Announced<'a> {
    /// How many there are.
    pub bytes: Option<u64>,
    /// The store they are to go to.
    pub store: Option<&'a str>,
}

impl Transfers {
    /// Takes in the bytes of a queued image. Once this returns they are durable and the image is active.
    ///
    /// If `source` fails, or anything else does, nothing of them is kept and the image is queued as before.
    ///
    /// # Errors
    /// [`TransferError`], all but [`TransferError::Sink`] and [`TransferError::Range`]. Within [`TransferError::Service`]:
    /// [`ServiceError::NoImage`], [`ServiceError::Denied`], [`ServiceError::Status`] if the image is not queued, and
    /// [`ServiceError::Invalid`] if its formats are not known.
    pub fn upload(
        &self,
        caller: &Caller,
        id: &ImageId,
        announced: Announced<'_>,
        source: &mut dyn Read,
    ) -> Result<Image, TransferError> {
        let allowance = self.admit(caller, id, (Rule::UploadImage, announced))?;
        let image = self.begin(caller, id, (Rule::UploadImage, ImageStatus::Saving))?;
        let expected = Expected {
            bytes: announced.bytes,
            allowance,
            format: Expected::of(&image, &self.settings),
        };
        match self.ingest((&image, Part::Data), source, expected) {
            Ok(ingested) => self.publish(caller, &image, ingested),
            Err(error) => self.take_back(&image, None, error),
        }
    }

    /// Checks what can be known before the first byte. Returns how many may come.
    pub(super) fn admit(
        &self,
        caller: &Caller,
        id: &ImageId,
        (right, announced): (Rule, Announced<'_>),
    ) -> Result<Allowance, TransferError> {
        let seen = self.service.see(caller, id)?;
        // First of all: a refusal for want of room tells how much the image's project stores.
        let authorized = self.service.authorize(caller, seen, right)?;
        if let Some(store) = announced
            .store
            .filter(|store| *store != self.settings.store)
        {
            return Err(TransferError::NoStore(store.to_owned()));
        }
        self.allowance(authorized.image(), announced.bytes)
    }

    /// How many bytes the image may have: as any, and as its project has room for.
    pub(super) fn allowance(
        &self,
        image: &Image,
        bytes: Option<u64>,
    ) -> Result<Allowance, TransferError> {
        let limits = &self.service.limits;
        let used = match (limits.project_bytes, &image.owner) {
            (Some(_), Some(project)) => self.service.catalog.usage(project)?.bytes,
            _ => 0,
        };
        Ok(limits.admit(used, bytes).map_err(ServiceError::from)?)
    }

    /// Turns a queued image to a state in which its bytes arrive: from then on nobody else can send any.
    pub(super) fn begin(
        &self,
        caller: &Caller,
        id: &ImageId,
        (right, to): (Rule, ImageStatus),
    ) -> Result<Image, TransferError> {
        self.mend();
        let begun = self.service.in_turn(|| {
            let seen = self.service.see(caller, id)?;
            let authorized = self.service.authorize(caller, seen, right)?;
            let mut image = authorized.image().clone();
            if image.status != ImageStatus::Queued {
                return Err(ServiceError::Status {
                    image: image.id,
                    status: image.status,
                    wanted: "bytes can only be sent to a queued image",
                });
            }
            if !image.has_formats() {
                return Err(ServiceError::Invalid(format!(
                    "image {id} needs a disk_format and a container_format before its bytes"
                )));
            }
            image
                .transition(to)
                .map_err(|refused| ServiceError::Conflict(refused.to_string()))?;
            self.service.save(&authorized, image)
        })?;
        Ok(begun)
    }

    /// Makes the image active, with what came in.
    pub(super) fn publish(
        &self,
        caller: &Caller,
        begun: &Image,
        ingested: Ingested,
    ) -> Result<Image, TransferError> {
        let record = ingested.put.record.clone();
        match self.activate(caller, begun, ingested) {
            Ok(Some(image)) => Ok(image),
            // Somebody deleted it: nobody will ask for its bytes again.
            Ok(None) => {
                let gone = TransferError::Gone(begun.id.clone());
                self.take_back(begun, Some(record), gone)
            }
            Err(error) => self.take_back(begun, Some(record), error),
        }
    }

    fn activate(
        &self,
        caller: &Caller,
        begun: &Image,
        ingested: Ingested,
    ) -> Result<Option<Image>, TransferError> {
        let parent = begun.lineage.parent.as_ref();
        let depth = self.depth_over(parent)?;
        let delta_bytes = self.bytes_over_parent(caller, &begun.id, parent)?;
        let location = Location {
            url: format!("tegula://{}/{}", self.settings.store, begun.id.lower_case()),
            metadata: BTreeMap::from([("store".to_owned(), self.settings.store.clone())]),
        };
        // Others of the same project may have come in meanwhile.
        let saved = self.save_arrived(&begun.id, |image| {
            if image.status != begun.status {
                return Ok(false);
            }
            check_formats_are_the_judged(image, begun)?;
            image
                .transition(ImageStatus::Active)
                .map_err(|refused| ServiceError::Conflict(refused.to_string()))?;
            image.size = Some(ingested.bytes);
            image.virtual_size = ingested.virtual_size;
            image.checksum = Some(ingested.checksum.clone());
            image.hash = Some(ingested.hash.clone());
            image.locations = vec![location.clone()];
            image.lineage = Lineage {
                parent: image.lineage.parent.take(),
                delta_bytes,
                chain_depth: depth,
                tree_hash: Some(tree_hash(&ingested.put.record)),
            };
            Ok(true)
        })?;
        Ok(saved)
    }
}

/// The formats of an image that is being imported can be changed, and its bytes were judged by those it had when that began.
fn check_formats_are_the_judged(image: &Image, begun: &Image) -> Result<(), ServiceError> {
    let formats = |image: &Image| (image.disk_format.clone(), image.container_format.clone());
    match formats(image) == formats(begun) {
        true => Ok(()),
        false => Err(ServiceError::Conflict(format!(
            "the formats of image {} were changed while its bytes were judged by those before",
            image.id
        ))),
    }
}

/// An image's digest, as the API shows it.
pub(super) fn tree_hash(record: &ImageRecord) -> String {
    let (block_size, digest) = (record.block_size, record.digest);
    format!("blake3-tree:{}k:{digest}", block_size.bytes() >> 10)
}
