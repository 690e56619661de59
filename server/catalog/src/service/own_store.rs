//! Makes sure that the database and the store belong together. A start removes bytes of images that the database does not
//! know, and takes back what the store does not have: with another's store, or another's database, that would be a loss.

use super::Transfers;
use crate::content::Named;
use crate::db::CatalogError;
use std::collections::HashSet;
use tegula_domain::ImageId;
use tegula_engine::EngineError;

/// The database and the store do not belong together, or one of them failed.
#[derive(Debug, thiserror::Error)]
pub enum OwnStoreError {
    /// The database's images have their bytes in another store.
    #[error(
        "the images of this database are kept in the store with the id {expected}, and this is the store {found}: \
         give the database its own store, or this store its own database; if the images were moved to this store, \
         `tegulad db forget-store` lets the database take it"
    )]
    OtherStore {
        /// The id of the store that the database knows.
        expected: String,
        /// The id of the store that was opened.
        found: String,
    },
    /// The store has images of a catalog, and the database knows none of them.
    #[error(
        "the store {store} holds the bytes of {images} images that this database does not know, {example} among them, \
         and none that it knows: it is another catalog's store, or the database is not the one it had"
    )]
    OtherDatabase {
        /// The store's id.
        store: String,
        /// How many images it has the bytes of.
        images: usize,
        /// One of them.
        example: ImageId,
    },
    /// The database failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] EngineError),
}

impl Transfers {
    /// Makes sure that the database and the store belong together, and notes it in the database: to be called at a start,
    /// before [`Self::recover`]. Changes nothing where they do not.
    ///
    /// # Errors
    /// [`OwnStoreError`].
    pub fn own_store(&self) -> Result<(), OwnStoreError> {
        let catalog = &self.service.catalog;
        let found = self.content.engine().store().config().id.to_string();
        let expected = match catalog.store()? {
            Some(noted) => noted,
            None => {
                self.refuse_unknown(&found)?;
                catalog.note_store(&found)?
            }
        };
        match expected == found {
            true => Ok(()),
            false => Err(OwnStoreError::OtherStore { expected, found }),
        }
    }

    /// Refuses a store with images of which the database knows none.
    fn refuse_unknown(&self, store: &str) -> Result<(), OwnStoreError> {
        let ids = self.service.catalog.ids()?;
        let known: HashSet<_> = ids.iter().map(ImageId::lower_case).collect();
        let stored: Vec<ImageId> = self
            .content
            .list()?
            .into_iter()
            .map(|named| match named {
                Named::Image(id) | Named::Staged(id) => id,
            })
            .collect();
        let is_known = stored.iter().any(|id| known.contains(&id.lower_case()));
        match stored.first() {
            Some(example) if !is_known => Err(OwnStoreError::OtherDatabase {
                store: store.to_owned(),
                images: stored.len(),
                example: example.clone(),
            }),
            _ => Ok(()),
        }
    }
}
