//! A store on a simulated disk, the processes that work on it, and what must hold when they are done.

use crate::meeting::{Meeting, Stop};
use crate::mortal::{Fate, Mortal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tegula_engine::{
    BlockSize, CollectOptions, Collection, DeltaDestination, DeltaRequest, DeltaSource, Depth,
    Destination, Engine, EngineError, Environment, ImageName, InitOptions, OpenImage,
    OptimizeOptions, PutRequest, Recompress, Source, Store, StoreError, Task, Workers,
};
use tegula_io::{Clock, SeededRandom, SimDisk, Storage, StorePath};

/// What images there are. Blocks of 4 KiB: 0 is zeros, every other number a content of its own. Those from 100 on are noise,
/// and resemble those with which they share their hundreds.
pub(crate) type Model = BTreeMap<String, Vec<u16>>;

pub(crate) type Result<T> = std::result::Result<T, EngineError>;

/// More calls than a put or collection in these tests makes: a fate drawn below this may also spare its process.
const CALLS: u64 = 120;

/// Makes a model.
pub(crate) fn model<const N: usize>(images: [(&str, &[u16]); N]) -> Model {
    let owned = images.map(|(name, blocks)| (name.to_owned(), blocks.to_vec()));
    owned.into()
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Makes the bytes of an image.
pub(crate) fn bytes(blocks: &[u16]) -> Vec<u8> {
    let block = |kind: &u16| {
        let kind = *kind;
        let noise = SeededRandom::new(u64::from(kind / 100));
        let word = move |at: u16| match (kind, at) {
            (0..100, _) | (_, 1) => at.wrapping_mul(kind),
            _ => u16::try_from(noise.next_u64() >> 48).unwrap(),
        };
        (0..2048).flat_map(move |at| word(at).to_le_bytes())
    };
    blocks.iter().flat_map(block).collect()
}

/// A store and all who work on it. A clone is the same.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    clock: Arc<Ticks>,
    processes: Arc<AtomicU64>,
}

impl World {
    /// Makes a store, and lets one process prepare it.
    pub(crate) fn new(prepare: impl FnOnce(&Process)) -> Self {
        let world = Self::on(SimDisk::new());
        let options = InitOptions {
            block_size: BlockSize::MIN,
            zstd_level: 1,
            ..InitOptions::default()
        };
        let store = Store::init(world.environment(Fate::Lives), options).unwrap();
        prepare(&Process(Engine::new(store, Workers::Inline)));
        world
    }

    /// Comes back to the store after a crash of the machine.
    pub(crate) fn rebooted(&self, choice: &mut dyn FnMut(usize) -> usize) -> Self {
        Self {
            disk: self.disk.after_crash(choice),
            ..self.clone()
        }
    }

    fn on(disk: SimDisk) -> Self {
        Self {
            disk,
            clock: Arc::default(),
            processes: Arc::new(AtomicU64::new(1)),
        }
    }

    fn environment(&self, fate: Fate) -> Environment {
        let disk = Arc::new(self.disk.clone());
        self.environment_on(Arc::new(Mortal::new(disk, fate, CALLS)))
    }

    fn environment_on(&self, storage: Arc<dyn Storage>) -> Environment {
        // Nobody draws the ids that another has drawn.
        let seed = self.processes.fetch_add(1, Ordering::Relaxed);
        Environment {
            storage,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::new(SeededRandom::new(seed)),
        }
    }

    /// Opens the store as another process does.
    pub(crate) fn process(&self, fate: Fate) -> Result<Process> {
        let store = Store::open(self.environment(fate))?;
        Ok(Process(Engine::new(store, Workers::Inline)))
    }

    /// Begins a process that does this.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Process) -> Result<T> + Send + 'static,
    ) -> Running<T> {
        self.begin_mortal(Fate::Lives, act)
    }

    /// Begins a process that does this unless its fate prevents it.
    pub(crate) fn begin_mortal<T: Send + 'static>(
        &self,
        fate: Fate,
        act: impl FnOnce(&Process) -> Result<T> + Send + 'static,
    ) -> Running<T> {
        let world = self.clone();
        Running(shuttle::thread::spawn(move || {
            world.process(fate).and_then(|process| act(&process))
        }))
    }

    /// Begins a process that does this and waits for others where its stops say so.
    pub(crate) fn begin_stopping<T: Send + 'static>(
        &self,
        stops: Vec<Stop>,
        act: impl FnOnce(&Process) -> Result<T> + Send + 'static,
    ) -> Running<T> {
        let world = self.clone();
        Running(shuttle::thread::spawn(move || {
            let storage = Meeting::new(Arc::new(world.disk.clone()), stops);
            let store = Store::open(world.environment_on(Arc::new(storage)))?;
            act(&Process(Engine::new(store, Workers::Inline)))
        }))
    }

    /// Makes sure that exactly these images are there, that all is well, and that collection takes all else.
    #[track_caller]
    pub(crate) fn holds(&self, expected: &Model) {
        self.holds_one_of(std::slice::from_ref(expected));
    }

    /// As [`Self::holds`], for one of several.
    #[track_caller]
    pub(crate) fn holds_one_of(&self, allowed: &[Model]) {
        let process = self.process(Fate::Lives).unwrap();
        let found = process.contents();
        let expected = allowed.iter().find(|model| is(&found, model));
        let expected = expected.unwrap_or_else(|| panic!("{}", surprise(&found, allowed)));
        process.is_whole();
        process.gc().unwrap();
        assert!(
            is(&process.contents(), expected),
            "collection changed an image"
        );
        let needed: BTreeSet<u16> = expected.values().flatten().copied().collect();
        let needed = needed.iter().filter(|kind| **kind != 0).count();
        let left = process.is_whole();
        let resembling = expected.values().flatten().any(|kind| *kind >= 100);
        // What resembles may stand on chunks that no image holds any more.
        assert!(
            left == needed as u64 || (resembling && left > needed as u64),
            "collection left {left} chunks, images need {needed}"
        );
        for image in expected.keys() {
            process.rm(image).unwrap();
        }
        process.gc().unwrap();
        for directory in ["segments", "layers", "images", "tmp"] {
            let left = self.disk.list(&StorePath::new(directory)).unwrap();
            assert_eq!(left, [], "collection left files in {directory}");
        }
        let locks = self.disk.list(&StorePath::new("locks")).unwrap();
        let ingest = |name: &str| name.starts_with("ingest-");
        assert!(!locks.iter().any(|lock| ingest(&lock.name)), "{locks:?}");
    }
}

fn is(found: &BTreeMap<String, Vec<u8>>, model: &Model) -> bool {
    found.len() == model.len()
        && model
            .iter()
            .all(|(name, blocks)| found.get(name) == Some(&bytes(blocks)))
}

fn surprise(found: &BTreeMap<String, Vec<u8>>, allowed: &[Model]) -> String {
    let found: Vec<_> = found
        .iter()
        .map(|(name, content)| {
            let kind = |block: &[u8]| u16::from_le_bytes([block[2], block[3]]);
            (name, content.chunks(4096).map(kind).collect::<Vec<_>>())
        })
        .collect();
    format!("the store holds {found:?}, none of {allowed:?}")
}

/// A process under way.
pub(crate) struct Running<T>(shuttle::thread::JoinHandle<Result<T>>);

impl<T> Running<T> {
    /// Waits for its end.
    pub(crate) fn end(self) -> Result<T> {
        self.0.join().unwrap()
    }
}

/// A process with the store open.
pub(crate) struct Process(pub(crate) Engine);

impl Process {
    pub(crate) fn put(&self, image: &str, blocks: &[u16]) -> Result<()> {
        self.put_as(image, blocks, None, false)
    }

    pub(crate) fn put_child(&self, image: &str, blocks: &[u16], parent: &str) -> Result<()> {
        self.put_as(image, blocks, Some(parent), false)
    }

    pub(crate) fn replace(&self, image: &str, blocks: &[u16]) -> Result<()> {
        self.put_as(image, blocks, None, true)
    }

    pub(crate) fn put_as(
        &self,
        image: &str,
        blocks: &[u16],
        parent: Option<&str>,
        replace: bool,
    ) -> Result<()> {
        let bytes = bytes(blocks);
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut bytes.as_slice()),
            parent: parent.map(name),
            replace,
        };
        self.0.put(request, Task::unattended()).map(drop)
    }

    /// Reads an image as a stream.
    pub(crate) fn get(&self, image: &str) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        self.0.get(
            &name(image),
            Destination::Stream(&mut found),
            Task::unattended(),
        )?;
        Ok(found)
    }

    /// Reads an image block by block, one session long, and makes sure that it is what it must be.
    pub(crate) fn read_slowly(&self, image: &str, blocks: &[u16]) -> Result<()> {
        let session = self.0.store().begin()?;
        let open = OpenImage::open(&session, &name(image))?;
        let expected = bytes(blocks);
        let mut found = vec![0; expected.len()];
        for (at, block) in found.chunks_mut(4096).enumerate() {
            open.read_at(block, at as u64 * 4096)?;
        }
        assert!(found == expected, "{image} reads as something else");
        Ok(())
    }

    /// Tells whether an image is there and reads as this.
    pub(crate) fn reads_exactly(&self, image: &str, blocks: &[u16]) -> bool {
        self.get(image).is_ok_and(|found| found == bytes(blocks))
    }

    /// Reads an image if it is there, and makes sure that it is one of what it can be.
    pub(crate) fn reads_as_one_of(&self, image: &str, allowed: &[&[u16]]) -> Result<()> {
        match self.get(image) {
            Ok(found) => {
                let known = allowed.iter().any(|blocks| bytes(blocks) == found);
                assert!(known, "{image} reads as something else");
                Ok(())
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn rm(&self, image: &str) -> Result<()> {
        Ok(self.0.store().remove(&name(image)).map(drop)?)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(self.0.store().rename(&name(from), &name(to)).map(drop)?)
    }

    pub(crate) fn coalesce(&self, image: &str) -> Result<()> {
        Ok(self.0.store().coalesce(&name(image), None).map(drop)?)
    }

    pub(crate) fn coalesce_onto(&self, image: &str, onto: &str) -> Result<()> {
        let (image, onto) = (name(image), name(onto));
        Ok(self.0.store().coalesce(&image, Some(&onto)).map(drop)?)
    }

    pub(crate) fn flatten(&self, image: &str) -> Result<()> {
        Ok(self.0.store().flatten(&name(image), true).map(drop)?)
    }

    pub(crate) fn clone_image(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (name(from), name(to));
        Ok(self.0.store().clone_image(&from, &to, false).map(drop)?)
    }

    /// Returns the delta stream that turns one image into another.
    pub(crate) fn delta(&self, base: &str, image: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let to = DeltaDestination::Stream(&mut bytes);
        self.0
            .create_delta(
                Some(&name(base)),
                &name(image),
                Recompress::default(),
                to,
                Task::unattended(),
            )
            .unwrap();
        bytes
    }

    pub(crate) fn apply_delta(&self, mut stream: &[u8], image: &str) -> Result<()> {
        let request = DeltaRequest {
            source: DeltaSource::Stream(&mut stream),
            name: name(image),
            replace: false,
            base: tegula_engine::DeltaBase::ByDigest,
        };
        self.0.apply_delta(request, Task::unattended()).map(drop)
    }

    /// Stores chunks again as what differs from others, unless somebody collects.
    pub(crate) fn optimize_if_free(&self) -> Result<()> {
        let options = OptimizeOptions {
            patience: Duration::ZERO,
            ..OptimizeOptions::default()
        };
        match self.0.optimize(&options, Task::unattended()) {
            Err(EngineError::Store(StoreError::Busy { .. })) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Collects everything there is to collect, without waiting for anybody.
    pub(crate) fn gc(&self) -> Result<Collection> {
        self.gc_with_patience(Duration::ZERO)
    }

    pub(crate) fn gc_with_patience(&self, patience: Duration) -> Result<Collection> {
        self.0.collect(&CollectOptions {
            min_live: 1.0,
            dry_run: false,
            patience,
            ..CollectOptions::default()
        })
    }

    /// Collects unless somebody else does.
    pub(crate) fn gc_if_free(&self) -> Result<()> {
        match self.gc() {
            Err(EngineError::Store(StoreError::Busy { .. })) => Ok(()),
            done => done.map(drop),
        }
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let records = self.0.list().unwrap();
        let names = records.iter().map(|record| record.name.as_str());
        names
            .map(|name| (name.to_owned(), self.get(name).unwrap()))
            .collect()
    }

    /// Makes sure that a full verification finds nothing. Returns how many chunks there are.
    #[track_caller]
    fn is_whole(&self) -> u64 {
        let verified = self.0.verify(Depth::Full, &[], Task::unattended()).unwrap();
        assert!(verified.findings.is_empty(), "{:#?}", verified.findings);
        verified.chunks
    }
}

/// Tells whether an error says that an image is not there.
pub(crate) fn is_absent(error: &EngineError) -> bool {
    matches!(error, EngineError::Store(StoreError::ImageNotFound { .. }))
}

/// Tells whether an error says that somebody else has changed an image meanwhile.
pub(crate) fn is_changed(error: &EngineError) -> bool {
    matches!(error, EngineError::Store(StoreError::ImageChanged { .. }))
}

/// Tells whether an error says that a name is taken.
pub(crate) fn is_taken(error: &EngineError) -> bool {
    matches!(error, EngineError::Store(StoreError::ImageExists { .. }))
}

/// Time that passes only when somebody sleeps, who then lets others run.
#[derive(Default)]
struct Ticks(AtomicU64);

impl fmt::Debug for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticks")
    }
}

impl Clock for Ticks {
    fn now_us(&self) -> i64 {
        1_000_000
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap();
        self.0.fetch_add(us, Ordering::Relaxed);
        shuttle::thread::yield_now();
    }
}
