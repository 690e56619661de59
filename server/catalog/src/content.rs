//! The bytes of images, in a store of the engine: under the image's id in lower case, and what is staged beside it.
//!
//! This is where the catalog speaks to the engine. It knows nothing of who may do what.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use tegula_domain::ImageId;
use tegula_engine::{
    CollectOptions, Collection, Engine, EngineError, ImageName, ImageReader, ImageRecord,
    PutReport, PutRequest, Source, StoreError, Task,
};

/// What is staged stands under the image's id with this before it.
const STAGED: &str = "staged-";

/// Images that are kept open for those who come next. Opening one reads its record, its layers and the index; each may hold
/// some tens of MiB of what its chunks stand on.
const OPEN_MAX: usize = 8;

/// What the name of an image in the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// The bytes of an image.
    Image(ImageId),
    /// What is staged for an image.
    Staged(ImageId),
}

/// Which of an image's bytes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those that callers can have.
    Data,
    /// Those that came to be imported.
    Staged,
}

/// The store that holds the bytes of images. Cheap to clone; calls block.
#[derive(Debug, Clone)]
pub struct Content {
    engine: Engine,
    open: Arc<Mutex<OpenImages>>,
}

/// Images that were read not long ago.
///
/// An open image keeps collection from freeing what was removed since it was opened: see [`Content::collect`].
#[derive(Debug, Default)]
struct OpenImages {
    images: HashMap<ImageName, (Arc<ImageReader>, u64)>,
    /// Counts the uses: the image used longest ago has to go.
    uses: u64,
}

impl Content {
    /// Keeps the bytes of images in this store.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            open: Arc::default(),
        }
    }

    /// Returns the store.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stores bytes until they end, durably. What stood in their place is replaced: the catalog lets only one come in at a
    /// time. If `source` fails nothing is stored.
    ///
    /// Where there is a parent whose bytes are here, only what differs takes up room.
    ///
    /// # Errors
    /// [`EngineError`]: for one of `source`, [`EngineError::ReadSource`].
    pub fn put(
        &self,
        (id, part): (&ImageId, Part),
        source: &mut (dyn Read + Send),
        parent: Option<&ImageId>,
        stop: &AtomicBool,
    ) -> Result<PutReport, EngineError> {
        let parent = parent.map(|parent| name_of(parent, Part::Data));
        let parent = match parent {
            Some(parent) if self.record(&parent)?.is_some() => Some(parent),
            _ => None,
        };
        let request = PutRequest {
            name: name_of(id, part),
            source: Source::Stream(source),
            parent,
            replace: true,
        };
        let task = Task {
            progress: &|_, _| {},
            interrupted: stop,
        };
        let report = self.engine.put(request, task)?;
        self.forget(&report.record.name);
        Ok(report)
    }

    /// Opens the bytes of an image; none if there are none.
    ///
    /// # Errors
    /// [`EngineError`] if the store does not give them back.
    pub fn open(&self, id: &ImageId, part: Part) -> Result<Option<Arc<ImageReader>>, EngineError> {
        let name = name_of(id, part);
        if let Some(reader) = self.open_images().used(&name) {
            return Ok(Some(reader));
        }
        match self.engine.open_image(&name) {
            Ok(reader) => {
                let reader = Arc::new(reader);
                self.open_images().keep(name, Arc::clone(&reader));
                Ok(Some(reader))
            }
            Err(EngineError::Store(StoreError::ImageNotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the bytes of an image, if there are any. Whoever is reading them can do so to the end.
    ///
    /// # Errors
    /// [`EngineError`] if the store fails.
    pub fn remove(&self, id: &ImageId, part: Part) -> Result<(), EngineError> {
        let name = name_of(id, part);
        self.forget(&name);
        match self.engine.store().remove(&name) {
            Ok(_) | Err(StoreError::ImageNotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what one put stored, unless something else has taken its place.
    ///
    /// # Errors
    /// [`EngineError`] if the store fails.
    pub fn remove_exactly(&self, record: &ImageRecord) -> Result<(), EngineError> {
        self.forget(&record.name);
        match self.engine.store().remove_exactly(record) {
            Ok(()) | Err(StoreError::ImageNotFound { .. } | StoreError::ImageChanged { .. }) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Frees what no image needs, and lets go of what is kept open first: that would keep it from being freed.
    ///
    /// # Errors
    /// [`EngineError`] if the store fails.
    pub fn collect(&self, options: &CollectOptions) -> Result<Collection, EngineError> {
        self.open_images().images.clear();
        self.engine.collect(options)
    }

    /// Returns what the store has of the catalog's. What others put there under other names is not the catalog's.
    ///
    /// # Errors
    /// [`EngineError`] if the list cannot be read whole.
    pub fn list(&self) -> Result<Vec<Named>, EngineError> {
        let records = self.engine.list()?;
        Ok(records.iter().filter_map(named).collect())
    }

    fn record(&self, name: &ImageName) -> Result<Option<ImageRecord>, EngineError> {
        match self.engine.store().begin()?.image(name) {
            Ok(record) => Ok(Some(record)),
            Err(StoreError::ImageNotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn forget(&self, name: &ImageName) {
        self.open_images().images.remove(name);
    }

    fn open_images(&self) -> std::sync::MutexGuard<'_, OpenImages> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenImages {
    fn used(&mut self, name: &ImageName) -> Option<Arc<ImageReader>> {
        self.uses += 1;
        let (reader, used) = self.images.get_mut(name)?;
        *used = self.uses;
        Some(Arc::clone(reader))
    }

    fn keep(&mut self, name: ImageName, reader: Arc<ImageReader>) {
        let oldest = self.images.iter().min_by_key(|(_, (_, used))| *used);
        if self.images.len() >= OPEN_MAX
            && let Some(oldest) = oldest.map(|(name, _)| name.clone())
        {
            self.images.remove(&oldest);
        }
        self.images.insert(name, (reader, self.uses));
    }
}

/// The name that an image's bytes have in the store.
pub fn name_of(id: &ImageId, part: Part) -> ImageName {
    let name = match part {
        Part::Data => id.lower_case(),
        Part::Staged => format!("{STAGED}{}", id.lower_case()),
    };
    ImageName::parse(&name).expect("because hexadecimal digits and hyphens make a name")
}

fn named(record: &ImageRecord) -> Option<Named> {
    let name = record.name.as_str();
    let (text, make): (_, fn(ImageId) -> Named) = match name.strip_prefix(STAGED) {
        Some(id) => (id, Named::Staged),
        None => (name, Named::Image),
    };
    let id = ImageId::parse(text).ok()?;
    (id.lower_case() == text).then(|| make(id))
}

/// Whether the store has no room left.
pub(crate) fn is_full(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Store(StoreError::Io { source, .. }) | EngineError::WriteTarget { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    )
}
