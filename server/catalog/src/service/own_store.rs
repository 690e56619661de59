//! Makes sure that the database and the store belong together. A start removes bytes of images that the database does not
//! know, and takes back what the store does not have: with another's store, or another's database, that would be a loss.

use super::Transfers;
use crate::content::{Content, Named};
use crate::db::{Catalog, CatalogError};
use std::collections::HashSet;
use tegula_domain::query::{Asked, Direction, Filter, ImageQuery, ListScope, SortKey, TextColumn};
use tegula_domain::{Image, ImageId, ImageStatus};
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
    /// The database has images whose bytes were stored, and the store has those of none of its images.
    #[error(
        "this database has images whose bytes were stored, {example} among them, and the store {store} has nothing of any of \
         its images: give the database its own store; if that is lost, `tegulad db take-store` lets the database take this one"
    )]
    NothingStored {
        /// The store's id.
        store: String,
        /// One of the images.
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
        let catalog = &*self.service.catalog;
        let found = id_of(&self.content);
        let expected = match catalog.store()? {
            Some(noted) => noted,
            None => {
                if !has_known(catalog, &self.content)?
                    && let Some(example) = with_bytes(catalog)?
                {
                    let store = found;
                    return Err(OwnStoreError::NothingStored { store, example });
                }
                catalog.note_store(&found)?
            }
        };
        match expected == found {
            true => Ok(()),
            false => Err(OwnStoreError::OtherStore { expected, found }),
        }
    }
}

/// Notes in the database that its images are in this store, whatever store it noted before and whatever this one lacks: for
/// who has lost that one. No server may be working with either. Returns the store's id.
///
/// # Errors
/// [`OwnStoreError`]: [`OwnStoreError::OtherDatabase`] if the store has images, and none that the database knows.
pub fn take_store(catalog: &dyn Catalog, content: &Content) -> Result<String, OwnStoreError> {
    has_known(catalog, content)?;
    catalog.forget_store()?;
    Ok(catalog.note_store(&id_of(content))?)
}

fn id_of(content: &Content) -> String {
    content.engine().store().config().id.to_string()
}

/// Whether the store has images that the database knows; one that has others alone is refused.
fn has_known(catalog: &dyn Catalog, content: &Content) -> Result<bool, OwnStoreError> {
    let ids = catalog.ids()?;
    let known: HashSet<_> = ids.iter().map(ImageId::lower_case).collect();
    let stored: Vec<ImageId> = content
        .list()?
        .into_iter()
        .map(|named| match named {
            Named::Image(id) | Named::Staged(id) => id,
        })
        .collect();
    let is_known = stored.iter().any(|id| known.contains(&id.lower_case()));
    match stored.first() {
        Some(example) if !is_known => Err(OwnStoreError::OtherDatabase {
            store: id_of(content),
            images: stored.len(),
            example: example.clone(),
        }),
        _ => Ok(is_known),
    }
}

/// One of the database's images whose bytes are in a store of ours, if there are any.
fn with_bytes(catalog: &dyn Catalog) -> Result<Option<ImageId>, CatalogError> {
    let statuses = [ImageStatus::Active, ImageStatus::Deactivated];
    let statuses = statuses.map(|status| status.as_str().to_owned());
    for hidden in [false, true] {
        let query = ImageQuery {
            scope: ListScope {
                visibility: Asked::All,
                project: None,
                admin: true,
                member_status: None,
                hidden,
            },
            filters: vec![Filter::Text(TextColumn::Status, statuses.to_vec())],
            sort: [SortKey::CreatedAt, SortKey::Id]
                .map(|key| (key, Direction::Descending))
                .to_vec(),
            marker: None,
            limit: 1,
        };
        let found = catalog.list(&query, &is_ours)?;
        if let Some(image) = found.into_iter().next() {
            return Ok(Some(image.id));
        }
    }
    Ok(None)
}

fn is_ours(image: &Image) -> bool {
    let mut locations = image.locations.iter();
    locations.any(|location| location.url.starts_with("tegula://"))
}
