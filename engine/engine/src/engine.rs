//! The facade: a store in a directory, and what can be done with its images.

use crate::put::put;
use crate::source::RawDisk;
use crate::{
    DeltaApplied, DeltaDestination, DeltaReport, DeltaRequest, Destination, Diff, EngineError,
    GetReport, ImageInfo, OpenImage, PutReport, PutRequest, Source, Statistics, Task, Usage,
    Workers, delta, diff, get, usage,
};
use std::io;
use std::path::Path;
use tegula_format::{ImageName, ImageRecord};
use tegula_io::{BackendPreference, open_storage};
use tegula_store::{
    CollectOptions, Collection, Depth, Environment, InitOptions, RepairReport, Repairs, Store,
    StoreError, Verification,
};

/// A store, ready for work. Any number may be open on the same store, in any number of processes.
#[derive(Debug, Clone)]
pub struct Engine {
    store: Store,
    workers: Workers,
}

impl Engine {
    /// Makes a store in a directory, which is created if it is absent and must otherwise be empty.
    /// Also returns a remark for people, if there is one: that io_uring is not to be had.
    ///
    /// # Errors
    /// [`EngineError::Directory`], or [`StoreError::NotEmpty`].
    pub fn init(
        path: &Path,
        backend: BackendPreference,
        options: InitOptions,
    ) -> Result<(Self, Option<String>), EngineError> {
        let failed = |source| EngineError::Directory {
            path: path.to_owned(),
            source,
        };
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let (storage, remark) = open_storage(path, backend).map_err(failed)?;
        let store = Store::init(Environment::of_system(storage), options)?;
        // The directory itself is a name in its parent, and durable with that.
        let parent = path.canonicalize().map_err(failed)?;
        let parent = parent.parent().unwrap_or(Path::new("/"));
        std::fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed)?;
        Ok((Self::new(store, Workers::Pool), remark))
    }

    /// Opens the store in a directory. Also returns a remark for people, if there is one.
    ///
    /// # Errors
    /// [`EngineError::Directory`], [`StoreError::NotAStore`], [`StoreError::NeedsNewerProgram`].
    pub fn open(
        path: &Path,
        backend: BackendPreference,
    ) -> Result<(Self, Option<String>), EngineError> {
        let failed = |source| EngineError::Directory {
            path: path.to_owned(),
            source,
        };
        let (storage, remark) = open_storage(path, backend).map_err(failed)?;
        Ok((
            Self::new(Store::open(Environment::of_system(storage))?, Workers::Pool),
            remark,
        ))
    }

    /// Wraps an open store.
    pub fn new(store: Store, workers: Workers) -> Self {
        Self { store, workers }
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Puts an image in. Once this returns it is durable.
    ///
    /// # Errors
    /// [`StoreError::ImageExists`] if the name is taken; [`EngineError`] for what the source or the store say. No
    /// image is left, and nothing that collection does not take.
    pub fn put(&self, request: PutRequest<'_>, task: Task<'_>) -> Result<PutReport, EngineError> {
        let session = self.store.begin()?;
        let report = put(&session, self.workers, request, task)?;
        drop(session);
        // The image is there whatever comes of this: it only keeps later reads from walking deep stacks.
        match self.coalesce_if_deep(&report.record.name) {
            Ok(Some(record)) => Ok(PutReport { record, ..report }),
            _ => Ok(report),
        }
    }

    /// Puts an image with a deep stack on a layer of its own; returns its new record.
    fn coalesce_if_deep(&self, name: &ImageName) -> Result<Option<ImageRecord>, EngineError> {
        let session = self.store.begin()?;
        let deep = OpenImage::open(&session, name)?.stack().wants_coalescing();
        drop(session);
        match deep {
            true => Ok(Some(self.store.coalesce(name)?)),
            false => Ok(None),
        }
    }

    /// Puts in a regular file or block device.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub fn put_path(
        &self,
        name: ImageName,
        path: &Path,
        parent: Option<ImageName>,
        replace: bool,
        task: Task<'_>,
    ) -> Result<PutReport, EngineError> {
        let disk = RawDisk::open(path)?;
        self.put(
            PutRequest {
                name,
                source: Source::Disk(&disk),
                parent,
                replace,
            },
            task,
        )
    }

    /// Gets an image out. Once this returns, a file is durable, under its name, and verified.
    ///
    /// # Errors
    /// [`EngineError`] for what the store or the destination say. A new file is then not there; a stream or a target
    /// in place may hold part of the image.
    pub fn get(
        &self,
        name: &ImageName,
        to: Destination<'_>,
        task: Task<'_>,
    ) -> Result<GetReport, EngineError> {
        let session = self.store.begin()?;
        get::get(&OpenImage::open(&session, name)?, self.workers, to, task)
    }

    /// Returns the records of all images, by name.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn list(&self) -> Result<Vec<ImageRecord>, EngineError> {
        Ok(self.store.begin()?.images()?)
    }

    /// Returns an image with what it costs.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn show(&self, name: &ImageName) -> Result<ImageInfo, EngineError> {
        usage::info(&self.store.begin()?, name)
    }

    /// Returns what turns one image into another.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn diff(&self, base: &ImageName, image: &ImageName) -> Result<Diff, EngineError> {
        let session = self.store.begin()?;
        diff::diff(
            &OpenImage::open(&session, base)?,
            &OpenImage::open(&session, image)?,
        )
    }

    /// Writes the delta stream that turns one image into another, or, without a base, one that holds all of it. Once
    /// this returns, a file is durable, under its name.
    ///
    /// # Errors
    /// [`EngineError`] for what the store or the destination say. A new file is then not there.
    pub fn create_delta(
        &self,
        base: Option<&ImageName>,
        image: &ImageName,
        to: DeltaDestination<'_>,
        task: Task<'_>,
    ) -> Result<DeltaReport, EngineError> {
        let session = self.store.begin()?;
        let base = base
            .map(|base| OpenImage::open(&session, base))
            .transpose()?;
        let image = OpenImage::open(&session, image)?;
        delta::create::create(self.workers, &session, (base.as_ref(), &image), to, task)
    }

    /// Tells how long the stream of [`Self::create_delta`] would be, to the byte, without reading any chunk.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn size_delta(
        &self,
        base: Option<&ImageName>,
        image: &ImageName,
    ) -> Result<DeltaReport, EngineError> {
        let session = self.store.begin()?;
        let base = base
            .map(|base| OpenImage::open(&session, base))
            .transpose()?;
        let image = OpenImage::open(&session, image)?;
        delta::create::size(&session, base.as_ref(), &image)
    }

    /// Makes an image of a delta stream; its base must be in the store. Once this returns the image is durable.
    ///
    /// # Errors
    /// [`EngineError::Delta`] if the stream is damaged or does not fit; [`StoreError::ImageExists`] if the name is
    /// taken. No image is left, and nothing that collection does not take.
    pub fn apply_delta(
        &self,
        request: DeltaRequest<'_>,
        task: Task<'_>,
    ) -> Result<DeltaApplied, EngineError> {
        let session = self.store.begin()?;
        let applied = delta::apply::apply(&session, self.workers, request, task)?;
        drop(session);
        // The image is there whatever comes of this: it only keeps later reads from walking deep stacks.
        match self.coalesce_if_deep(&applied.record.name) {
            Ok(Some(record)) => Ok(DeltaApplied { record, ..applied }),
            _ => Ok(applied),
        }
    }

    /// Returns what some images cost, or all if none is named.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn usage(&self, names: &[ImageName]) -> Result<Usage, EngineError> {
        usage::usage(&self.store.begin()?, names)
    }

    /// Returns the store in numbers.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn statistics(&self) -> Result<Statistics, EngineError> {
        usage::statistics(&self.store.begin()?)
    }

    /// Checks the store, or what some images need. Damage is no error but a finding.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn verify(
        &self,
        depth: Depth,
        only: &[ImageName],
        task: Task<'_>,
    ) -> Result<Verification, EngineError> {
        let progress = |done, total| (task.progress)(done, Some(total));
        Ok(self.store.begin()?.verify(depth, only, &progress)?)
    }

    /// Mends what can be mended, with good copies from another store if there is one.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn repair(&self, from: Option<&Self>, task: Task<'_>) -> Result<RepairReport, EngineError> {
        let progress = |done, total| (task.progress)(done, Some(total));
        Ok(self.store.repair(
            Repairs {
                from: from.map(Self::store),
            },
            &progress,
        )?)
    }

    /// Frees what no image needs. Deep stacks are coalesced first, so that what they hide is found.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn collect(&self, options: &CollectOptions) -> Result<Collection, EngineError> {
        if !options.dry_run {
            self.coalesce_deep()?;
        }
        Ok(self.store.collect(options)?)
    }

    fn coalesce_deep(&self) -> Result<(), EngineError> {
        for record in self.list()? {
            let session = self.store.begin()?;
            let deep = match OpenImage::open(&session, &record.name) {
                Ok(image) => image.stack().wants_coalescing(),
                // Removed or renamed since it was listed.
                Err(EngineError::Store(StoreError::ImageNotFound { .. })) => continue,
                Err(error) => return Err(error),
            };
            drop(session);
            if deep {
                match self.store.coalesce(&record.name) {
                    Ok(_)
                    | Err(StoreError::ImageNotFound { .. } | StoreError::ImageChanged { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
