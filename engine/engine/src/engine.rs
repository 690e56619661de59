//! The facade: a store in a directory, and what can be done with its images.

use crate::disk_formats::DiskFormat;
use crate::disk_formats::qcow2::{Qcow2, Qcow2Options};
use crate::put::{put, put_changed};
use crate::stream::Streams;
use crate::{
    BlockSource, ChangeHint, Changed, DeltaApplied, DeltaDestination, DeltaReport, DeltaRequest,
    DeltaStream, Destination, Diff, EngineError, ExtentPage, ExtentWindow, GetReport, HintChecks,
    ImageInfo, OpenImage, PutReport, PutRequest, RawDisk, Source, Statistics, Task, Usage, Workers,
    delta, diff, extents, get, get_qcow2, usage,
};
use crate::{ImageReader, RbdNames, RbdRequest, RbdVersion, Recompress};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tegula_format::{ImageName, ImageRecord};
use tegula_io::{BackendPreference, open_storage};
use tegula_store::{
    CollectOptions, Collection, Depth, Environment, InitOptions, Optimization, OptimizeOptions,
    RepairReport, Repairs, Session, Store, Verification,
};

/// A disk in a file, to be put.
#[derive(Debug, Clone)]
pub struct PutFile<'a> {
    /// The new image's name.
    pub name: ImageName,
    /// The file or block device.
    pub path: &'a Path,
    /// The image it is a changed copy of, or lies over.
    pub parent: Option<ImageName>,
    /// Whether it may take the place of an image of that name.
    pub replace: bool,
    /// How the file holds the disk; `None` to tell it by the first bytes.
    pub format: Option<DiskFormat>,
    /// The id or name of a snapshot in the file: put is the disk as it was then.
    pub snapshot: Option<&'a str>,
}

/// What putting a file did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutFileReport {
    /// What the put did.
    pub report: PutReport,
    /// How the file held the disk.
    pub format: DiskFormat,
}

/// Opens the image that another is to be compared with, if there is one.
fn opened<'a>(
    session: &'a Session,
    base: Option<&ImageName>,
) -> Result<Option<OpenImage<'a>>, EngineError> {
    base.map(|base| OpenImage::open(session, base)).transpose()
}

fn detect(file: &RawDisk) -> Result<DiskFormat, EngineError> {
    DiskFormat::detect(file).map_err(|source| EngineError::of_source(file.name(), 0, source))
}

/// A store, ready for work. Any number may be open on the same store, in any number of processes.
#[derive(Debug, Clone)]
pub struct Engine {
    store: Store,
    workers: Workers,
    /// The streams of this engine and its clones, which share what is kept in memory for all of them.
    streams: Arc<Streams>,
}

impl Engine {
    /// Makes a store in a directory, which is created if it is absent and must otherwise be empty.
    /// Also returns a remark for people, if there is one: that io_uring is not to be had.
    ///
    /// # Errors
    /// [`EngineError::Directory`], or [`StoreError::NotEmpty`](crate::StoreError::NotEmpty).
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
    /// [`EngineError::Directory`], [`StoreError::NotAStore`](crate::StoreError::NotAStore), [`StoreError::NeedsNewerProgram`](crate::StoreError::NeedsNewerProgram).
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

    /// Opens the store in a directory to repair it: a configuration that is lost or damaged, without which no store opens
    /// otherwise, is made again. Also returns a remark for people, if there is one, and what was done; see
    /// [`RepairReport::after`].
    ///
    /// # Errors
    /// As for [`Self::open`], if nothing tells what the store was made with.
    pub fn open_to_repair(
        path: &Path,
        backend: BackendPreference,
    ) -> Result<(Self, Option<String>, RepairReport), EngineError> {
        let failed = |source| EngineError::Directory {
            path: path.to_owned(),
            source,
        };
        let (storage, remark) = open_storage(path, backend).map_err(failed)?;
        let (store, report) = Store::open_to_repair(Environment::of_system(storage))?;
        Ok((Self::new(store, Workers::Pool), remark, report))
    }

    /// Wraps an open store.
    pub fn new(store: Store, workers: Workers) -> Self {
        Self {
            store,
            workers,
            streams: Arc::default(),
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Puts an image in. Once this returns it is durable.
    ///
    /// # Errors
    /// [`StoreError::ImageExists`](crate::StoreError::ImageExists) if the name is taken; [`EngineError`] for what the source or the store say. No
    /// image is left, and nothing that collection does not take.
    pub fn put(&self, request: PutRequest<'_>, task: Task<'_>) -> Result<PutReport, EngineError> {
        let session = self.store.begin()?;
        put(&session, (self.workers, &self.streams), request, task)
    }

    /// Puts in a disk of which somebody says what was changed since it was the parent: only that is read, if the hint is
    /// to be believed. The result is the same; [`PutReport::hint`] tells what became of the hint.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub fn put_changed(
        &self,
        request: PutRequest<'_>,
        hint: &ChangeHint,
        checks: HintChecks,
        task: Task<'_>,
    ) -> Result<PutReport, EngineError> {
        let session = self.store.begin()?;
        put_changed(
            &session,
            (self.workers, &self.streams),
            request,
            (hint, checks),
            task,
        )
    }

    /// Puts in the disk that a regular file or block device holds.
    ///
    /// # Errors
    /// As for [`Self::put`]; [`EngineError::Qcow2`] if the file cannot be read as what it is or is said to be.
    pub fn put_file(
        &self,
        request: PutFile<'_>,
        task: Task<'_>,
    ) -> Result<PutFileReport, EngineError> {
        self.put_file_as(request, None, task)
    }

    /// Puts in the disk that a file holds as [`Self::put_changed`] does.
    ///
    /// # Errors
    /// As for [`Self::put_file`]; [`EngineError::Hint`] if the file with the hint cannot be read. A broken hint is not used.
    pub fn put_file_changed(
        &self,
        request: PutFile<'_>,
        changed: Changed<'_>,
        task: Task<'_>,
    ) -> Result<PutFileReport, EngineError> {
        self.put_file_as(request, Some(changed), task)
    }

    fn put_file_as(
        &self,
        request: PutFile<'_>,
        changed: Option<Changed<'_>>,
        task: Task<'_>,
    ) -> Result<PutFileReport, EngineError> {
        let PutFile {
            name,
            path,
            parent,
            replace,
            format,
            snapshot,
        } = request;
        let file = RawDisk::open(path)?;
        let format = match format {
            Some(format) => format,
            None => detect(&file)?,
        };
        let put = |disk: &dyn BlockSource, qcow2: Option<&Qcow2<'_>>| {
            let request = PutRequest {
                name,
                source: Source::Disk(disk),
                parent,
                replace,
            };
            match changed {
                None => self.put(request, task),
                Some(changed) => {
                    let hint = changed.hint(disk, qcow2, self.store.config().block_size)?;
                    self.put_changed(request, &hint, changed.checks, task)
                }
            }
        };
        let report = match (format, snapshot) {
            (DiskFormat::Raw, None) => put(&file, None)?,
            (DiskFormat::Raw, Some(wanted)) => {
                let (name, wanted) = (file.name().to_owned(), wanted.to_owned());
                return Err(EngineError::NoSnapshots { name, wanted });
            }
            (DiskFormat::Qcow2, snapshot) => {
                let refused = |source| EngineError::Qcow2 {
                    name: file.name().to_owned(),
                    source,
                };
                let image = Qcow2::open(&file).map_err(refused)?;
                let disk = match snapshot {
                    None => image.disk(),
                    Some(wanted) => image.snapshot_disk(wanted).map_err(refused)?,
                };
                put(&disk, Some(&image))?
            }
        };
        Ok(PutFileReport { report, format })
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

    /// Opens an image to be read, in parts or as a whole, by any number of threads. What is open stays readable even if the
    /// image is removed, and keeps collection from freeing anything removed since: not to be kept for long.
    ///
    /// # Errors
    /// [`EngineError::Store`] if there is no such image, or its record or layers are damaged.
    pub fn open_image(&self, name: &ImageName) -> Result<ImageReader, EngineError> {
        let session = Arc::new(self.store.begin()?);
        let image = OpenImage::open_shared(session, name)?;
        Ok(ImageReader::new(
            image,
            self.workers,
            Arc::clone(&self.streams),
        ))
    }

    /// Gets an image out as a qcow2 file: all of it, or over `base`, another image, only what differs from that.
    ///
    /// Its disk has whole sectors of 512 bytes, as QEMU knows no others: a last one that the image has in part is filled
    /// with zeros.
    ///
    /// # Errors
    /// As for [`Self::get`]; [`EngineError::Qcow2Write`] if such a file cannot be, or not there.
    ///
    /// # Panics
    /// If `base` is given and `options` do not name a backing file, or the other way round.
    pub fn get_qcow2(
        &self,
        name: &ImageName,
        base: Option<&ImageName>,
        to: Destination<'_>,
        options: &Qcow2Options<'_>,
        task: Task<'_>,
    ) -> Result<GetReport, EngineError> {
        assert_eq!(
            base.is_some(),
            options.backing.is_some(),
            "what a file lies over is an image here and a name there"
        );
        let session = self.store.begin()?;
        let image = OpenImage::open(&session, name)?;
        let base = opened(&session, base)?;
        get_qcow2::get(&image, base.as_ref(), self.workers, to, options, task)
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

    /// Returns a part of the list of what turns one image into another, or, without a base, of what an image holds.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn extents(
        &self,
        base: Option<&ImageName>,
        image: &ImageName,
        window: ExtentWindow,
    ) -> Result<ExtentPage, EngineError> {
        let session = self.store.begin()?;
        let base = opened(&session, base)?;
        extents::extents(base.as_ref(), &OpenImage::open(&session, image)?, window)
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
        recompress: Recompress,
        to: DeltaDestination<'_>,
        task: Task<'_>,
    ) -> Result<DeltaReport, EngineError> {
        let session = self.store.begin()?;
        let base = opened(&session, base)?;
        let pair = (base.as_ref(), &OpenImage::open(&session, image)?);
        delta::create::create(self.workers, &session, pair, recompress, to, task)
    }

    /// Tells how long the stream of [`Self::create_delta`] would be, to the byte, without reading any chunk but those that
    /// would be compressed anew.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn size_delta(
        &self,
        base: Option<&ImageName>,
        image: &ImageName,
        recompress: Recompress,
        task: Task<'_>,
    ) -> Result<DeltaReport, EngineError> {
        let session = self.store.begin()?;
        let base = opened(&session, base)?;
        let pair = (base.as_ref(), &OpenImage::open(&session, image)?);
        delta::create::size(self.workers, &session, pair, recompress, task)
    }

    /// Tells how many bytes of chunks an image has that another does not have, each chunk counted once. Reads no chunk.
    ///
    /// It depends on the two images alone: not on what else is stored.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn bytes_beside(&self, base: &ImageName, image: &ImageName) -> Result<u64, EngineError> {
        let session = self.store.begin()?;
        let base = OpenImage::open(&session, base)?;
        let image = OpenImage::open(&session, image)?;
        let chunks = delta::count_beside(&session, &base, &image)?;
        Ok(chunks * u64::from(session.block_size().bytes()))
    }

    /// Promises the delta stream that turns one image into another, or, without a base, one that holds all of it, and hands
    /// it to `serve`: its length and its tag are known before a byte of it is made, and any part of it can be asked for.
    ///
    /// The store is not collected past what the stream needs until `serve` returns.
    ///
    /// # Errors
    /// [`EngineError::Store`], and what `serve` returns.
    pub fn serve_delta<R, E: From<EngineError>>(
        &self,
        base: Option<&ImageName>,
        image: &ImageName,
        task: Task<'_>,
        serve: impl FnOnce(&DeltaStream<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let session = self.store.begin().map_err(EngineError::from)?;
        let stream = {
            let base = opened(&session, base)?;
            let pair = (base.as_ref(), &OpenImage::open(&session, image)?);
            DeltaStream::new(self.workers, &session, pair, task)?
        };
        serve(&stream)
    }

    /// Writes what turns one image into another in the form of Ceph's `rbd export-diff`. Returns its length.
    ///
    /// # Errors
    /// As for [`Self::create_delta`].
    pub fn create_rbd(
        &self,
        base: Option<&ImageName>,
        image: &ImageName,
        form: (RbdVersion, RbdNames<'_>),
        to: DeltaDestination<'_>,
        task: Task<'_>,
    ) -> Result<u64, EngineError> {
        let session = self.store.begin()?;
        let base = opened(&session, base)?;
        let pair = (base.as_ref(), &OpenImage::open(&session, image)?);
        delta::rbd::create(self.workers, &session, pair, form, to, task)
    }

    /// Tells how many bytes [`Self::create_rbd`] would write. Reads no chunk.
    ///
    /// # Errors
    /// As for [`Self::diff`].
    pub fn size_rbd(
        &self,
        base: Option<&ImageName>,
        image: &ImageName,
        form: (RbdVersion, RbdNames<'_>),
    ) -> Result<u64, EngineError> {
        let session = self.store.begin()?;
        let base = opened(&session, base)?;
        let pair = (base.as_ref(), &OpenImage::open(&session, image)?);
        delta::rbd::size(&session, pair, form)
    }

    /// Makes an image of a difference in the form of Ceph's `rbd export-diff` and its base.
    ///
    /// # Errors
    /// As for [`Self::apply_delta`].
    pub fn apply_rbd(
        &self,
        request: RbdRequest<'_>,
        task: Task<'_>,
    ) -> Result<ImageRecord, EngineError> {
        let session = self.store.begin()?;
        let record = delta::rbd::apply(&session, self.workers, request, task)?;
        drop(session);
        Ok(record)
    }

    /// Makes an image of a delta stream; its base must be in the store. Once this returns the image is durable.
    ///
    /// # Errors
    /// [`EngineError::Delta`] if the stream is damaged or does not fit; [`StoreError::ImageExists`](crate::StoreError::ImageExists) if the name is
    /// taken. No image is left, and nothing that collection does not take.
    pub fn apply_delta(
        &self,
        request: DeltaRequest<'_>,
        task: Task<'_>,
    ) -> Result<DeltaApplied, EngineError> {
        let session = self.store.begin()?;
        delta::apply::apply(&session, self.workers, request, task)
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
        Ok(self.store.verify(depth, only, &progress)?)
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
            self.store.coalesce_deep()?;
        }
        Ok(self.store.collect(options)?)
    }

    /// Stores again, better compressed, what images need; see [`Store::optimize`]. The task is told chunks, not bytes.
    ///
    /// # Errors
    /// As for [`Self::collect`]; [`EngineError::Interrupted`] if the task says so. What was done until then stays done,
    /// and what was half done is left to collection.
    pub fn optimize(
        &self,
        options: &OptimizeOptions,
        task: Task<'_>,
    ) -> Result<Optimization, EngineError> {
        let options = OptimizeOptions {
            inline: options.inline || self.workers == Workers::Inline,
            ..options.clone()
        };
        let going = |done, total| {
            (task.progress)(done, Some(total));
            task.check().is_ok()
        };
        let done = self.store.optimize(&options, &going)?;
        task.check().map_or_else(
            |interrupted| match done.stopped {
                true => Err(interrupted),
                false => Ok(done),
            },
            |()| Ok(done),
        )
    }
}
