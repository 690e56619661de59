//! Lets an image whose bytes did not come be queued again, and removes what came of them.
//!
//! That needs the database, which may be what failed: then it is tried again before the next bytes are taken in, and at the
//! next start.

use super::ServiceError;
use super::transfer::{TransferError, Transfers};
use std::sync::PoisonError;
use tegula_domain::{Image, ImageStatus};
use tegula_engine::ImageRecord;

/// What is still to be taken back.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// The image, in the state in which its bytes were to arrive.
    begun: Image,
    /// What was stored of them, if all of it was.
    stored: Option<ImageRecord>,
}

/// What an image is in the end.
#[derive(Debug)]
enum Settled {
    /// Saved, though the database said that it failed.
    Whole(Box<Image>),
    /// As it was before.
    Queued,
    /// Deleted by somebody.
    Gone,
}

impl Transfers {
    /// Takes back what was begun, because of an error: returns it, or that the image is gone. If it turns out that the image
    /// was saved nevertheless, that is no error.
    pub(super) fn take_back(
        &self,
        begun: &Image,
        stored: Option<ImageRecord>,
        error: TransferError,
    ) -> Result<Image, TransferError> {
        let unfinished = Unfinished {
            begun: begun.clone(),
            stored,
        };
        match self.settle(&unfinished) {
            Ok(Settled::Whole(image)) => Ok(*image),
            Ok(Settled::Queued) => Err(error),
            Ok(Settled::Gone) => Err(TransferError::Gone(begun.id.clone())),
            Err(_) => {
                self.unfinished().push(unfinished);
                Err(error)
            }
        }
    }

    /// Tries again to take back what could not be. Called before bytes are taken in; costs nothing if there is nothing.
    pub fn mend(&self) {
        let mut unfinished = self.unfinished();
        unfinished.retain(|unfinished| self.settle(unfinished).is_err());
    }

    fn settle(&self, unfinished: &Unfinished) -> Result<Settled, TransferError> {
        let Unfinished { begun, stored } = unfinished;
        let queued = self.save_own(&begun.id, |image| {
            if image.status != begun.status {
                return Ok(false);
            }
            image
                .transition(ImageStatus::Queued)
                .map_err(|refused| ServiceError::Conflict(refused.to_string()))?;
            Ok(true)
        })?;
        let settled = match queued {
            Some(_) => Settled::Queued,
            None => match self.service.catalog.image(&begun.id)? {
                Some(image) if image.status.has_data() => {
                    return Ok(Settled::Whole(Box::new(image)));
                }
                Some(_) => Settled::Queued,
                None => Settled::Gone,
            },
        };
        // Only what this one stored: somebody else may be sending bytes by now.
        if let Some(record) = stored {
            self.content
                .remove_exactly(record)
                .map_err(TransferError::of_store)?;
        }
        Ok(settled)
    }

    fn unfinished(&self) -> std::sync::MutexGuard<'_, Vec<Unfinished>> {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
