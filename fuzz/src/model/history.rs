//! A store, its model, and the steps that change both.

use super::input::Input;
use crate::world::{self, BLOCK, get, name};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::time::Duration;
use tegula_engine::{
    CollectOptions, Depth, Diff, Engine, EngineError, Extent, ExtentKind, ImageDigest, ImageName,
    OpenImage, PutRequest, Source, Store, StoreError, Task, Workers,
};
use tegula_format::BlockIndex;
use tegula_io::{MemoryStorage, Storage, StorePath};
use tegula_store::{LayerStack, Session};

/// The names images can have: few, so that they meet.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Older sessions that may be open at a time.
const SESSIONS_MAX: usize = 3;

/// A session that stays open over later steps, and what there was when it began.
#[derive(Debug)]
struct Reader {
    session: Session,
    images: Vec<(LayerStack, Vec<u8>)>,
}

#[derive(Debug)]
pub(super) struct History {
    storage: MemoryStorage,
    engine: Engine,
    images: BTreeMap<ImageName, Vec<u8>>,
    digests: BTreeMap<Vec<u8>, ImageDigest>,
    readers: Vec<Reader>,
    seed: u64,
}

impl History {
    pub(super) fn new() -> Self {
        let (storage, engine) = world::empty();
        Self {
            storage,
            engine,
            images: BTreeMap::new(),
            digests: BTreeMap::new(),
            readers: Vec::new(),
            seed: 2,
        }
    }

    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 20 {
            0..3 => self.put_new(input),
            3..7 => self.put_child(input),
            7 => self.put_interrupted(input),
            8 | 9 => self.put_meanwhile(input),
            10 => self.read_piece(input),
            11 => self.diff(input),
            12 => self.rename(input),
            13 | 14 => self.remove(input),
            15 => self.fold(input),
            16 => self.collect(input),
            17 => self.begin_reader(input),
            18 => self.end_reader(input),
            _ => self.reopen(),
        }
        self.check();
    }

    fn name(&self, input: &mut Input<'_>) -> ImageName {
        name(input.choose::<&str>(&NAMES))
    }

    /// Compares what a put says with what the model expects of it.
    fn expect_put(
        &mut self,
        image: &ImageName,
        bytes: Vec<u8>,
        replace: bool,
        outcome: Result<tegula_engine::PutReport, EngineError>,
    ) {
        match outcome {
            Ok(report) => {
                assert!(replace || !self.images.contains_key(image));
                assert_eq!(report.record.virtual_size, bytes.len() as u64);
                let digest = self.digests.entry(bytes.clone());
                let digest = digest.or_insert(report.record.digest);
                assert_eq!(*digest, report.record.digest, "equal bytes, equal digests");
                self.images.insert(image.clone(), bytes);
            }
            Err(EngineError::Store(StoreError::ImageExists { .. })) => {
                assert!(!replace && self.images.contains_key(image));
            }
            Err(error) => panic!("put of {image}: {error}"),
        }
    }

    fn put_new(&mut self, input: &mut Input<'_>) {
        let (image, replace) = (self.name(input), input.byte() % 2 == 1);
        let bytes = input.disk();
        let outcome = world::put(&self.engine, &image, &bytes, None, replace);
        self.expect_put(&image, bytes, replace, outcome);
    }

    fn put_child(&mut self, input: &mut Input<'_>) {
        let (image, parent) = (self.name(input), self.name(input));
        let replace = input.byte() % 2 == 1;
        let Some(mut bytes) = self.images.get(&parent).cloned() else {
            let outcome = world::put(&self.engine, &image, &[], Some(&parent), true);
            return assert!(is_absent(outcome.err()));
        };
        input.edit(&mut bytes);
        let outcome = world::put(&self.engine, &image, &bytes, Some(&parent), replace);
        self.expect_put(&image, bytes, replace, outcome);
    }

    /// A source that breaks off: nothing may come of it.
    fn put_interrupted(&mut self, input: &mut Input<'_>) {
        let image = self.name(input);
        let bytes = input.disk();
        let mut stream = Interrupted::new(&bytes, || Err(io::ErrorKind::ConnectionReset.into()));
        let outcome = self.put_stream(&image, &mut stream, None);
        assert!(
            matches!(outcome, Err(EngineError::ReadSource { .. })),
            "{outcome:?}"
        );
    }

    /// A put whose source, half way, sees the store change under it.
    fn put_meanwhile(&mut self, input: &mut Input<'_>) {
        let (image, other) = (self.name(input), self.name(input));
        let parent = self.images.keys().next().cloned();
        let parent = parent.filter(|_| input.byte() % 2 == 1);
        let mut bytes = match &parent {
            Some(parent) => self.images[parent].clone(),
            None => input.disk(),
        };
        input.edit(&mut bytes);
        let min_live = f64::from(input.byte()) / 255.0;
        let removed = self.images.remove(&other).is_some();
        let engine = self.engine.clone();
        let mut stream = Interrupted::new(&bytes, move || {
            // Its chunks and layers may be just those that the put has found in the store.
            assert_eq!(engine.store().remove(&other).is_ok(), removed);
            collect(
                &engine,
                min_live,
                CollectOptions::default().recompress,
                false,
            );
            Ok(())
        });
        let outcome = self.put_stream(&image, &mut stream, parent.as_ref());
        drop(stream);
        self.expect_put(&image, bytes, true, outcome);
    }

    fn put_stream(
        &self,
        image: &ImageName,
        stream: &mut (dyn Read + Send),
        parent: Option<&ImageName>,
    ) -> Result<tegula_engine::PutReport, EngineError> {
        let request = PutRequest {
            name: image.clone(),
            source: Source::Stream(stream),
            parent: parent.cloned(),
            replace: true,
        };
        self.engine.put(request, Task::unattended())
    }

    fn read_piece(&mut self, input: &mut Input<'_>) {
        let image = self.name(input);
        let Some(bytes) = self.images.get(&image) else {
            return assert!(is_absent(get(&self.engine, &image).err()));
        };
        let offset = input.below(bytes.len() + 2);
        let mut piece = vec![0xaa; input.below(3 * BLOCK)];
        let session = self.engine.store().begin().unwrap();
        let open = OpenImage::open(&session, &image).unwrap();
        let outcome = open.read_at(&mut piece, offset as u64);
        match bytes.get(offset..offset + piece.len()) {
            Some(expected) => assert!(outcome.is_ok() && piece == expected),
            None => assert!(matches!(outcome, Err(EngineError::OutOfImage { .. }))),
        }
    }

    fn diff(&mut self, input: &mut Input<'_>) {
        let (base, image) = (self.name(input), self.name(input));
        let diff = self.engine.diff(&base, &image);
        match (self.images.get(&base), self.images.get(&image)) {
            (Some(base), Some(image)) => {
                let plain = Diff {
                    base_digest: self.digests[base],
                    digest: self.digests[image],
                    ..plain_diff(base, image)
                };
                assert_eq!(diff.unwrap(), plain);
            }
            _ => assert!(is_absent(diff.err())),
        }
    }

    fn rename(&mut self, input: &mut Input<'_>) {
        let (from, to) = (self.name(input), self.name(input));
        let outcome = self.engine.store().rename(&from, &to);
        match outcome {
            Ok(record) => {
                assert_eq!(record.name, to);
                let bytes = self.images.remove(&from).unwrap();
                assert!(self.images.insert(to, bytes).is_none());
            }
            Err(StoreError::ImageNotFound { .. }) => assert!(!self.images.contains_key(&from)),
            Err(StoreError::ImageExists { .. }) => assert!(self.images.contains_key(&to)),
            Err(error) => panic!("rename: {error}"),
        }
    }

    fn remove(&mut self, input: &mut Input<'_>) {
        let image = self.name(input);
        let outcome = self.engine.store().remove(&image);
        assert_eq!(outcome.is_ok(), self.images.remove(&image).is_some());
    }

    /// Changes on which layers an image lies, or gives it a second name.
    fn fold(&mut self, input: &mut Input<'_>) {
        let (image, other) = (self.name(input), self.name(input));
        let store = self.engine.store().clone();
        let outcome = match input.byte() % 4 {
            0 => store.coalesce(&image, None),
            1 => store.coalesce(&image, Some(&other)),
            2 => store.flatten(&image, input.byte() % 2 == 1),
            _ => return self.clone_image(&image, &other, input.byte() % 2 == 1),
        };
        match outcome {
            Ok(folded) => {
                let bytes = &self.images[&image];
                assert_eq!(Some(&folded.record.digest), self.digests.get(bytes));
                let info = self.engine.show(&image).unwrap();
                assert_eq!(info.layers, folded.layers);
                assert_eq!(info.record, folded.record);
            }
            Err(StoreError::ImageNotFound { name }) => {
                assert!(!self.images.keys().any(|image| image.as_str() == name));
            }
            Err(error) => panic!("fold: {error}"),
        }
    }

    fn clone_image(&mut self, from: &ImageName, to: &ImageName, replace: bool) {
        match self.engine.store().clone_image(from, to, replace) {
            Ok(record) => {
                let bytes = self.images[from].clone();
                assert_eq!(Some(&record.digest), self.digests.get(&bytes));
                assert!(self.images.insert(to.clone(), bytes).is_none() || replace);
            }
            Err(StoreError::ImageNotFound { .. }) => assert!(!self.images.contains_key(from)),
            Err(StoreError::ImageExists { .. }) => {
                assert!(self.images.contains_key(to) && (!replace || from == to));
            }
            Err(error) => panic!("clone: {error}"),
        }
    }

    fn collect(&mut self, input: &mut Input<'_>) {
        let (min_live, how) = (f64::from(input.byte()) / 255.0, input.byte());
        let recompress = match how / 4 % 2 {
            0 => CollectOptions::default().recompress,
            _ => Duration::ZERO,
        };
        collect(&self.engine, min_live, recompress, how % 4 == 3);
    }

    fn begin_reader(&mut self, input: &mut Input<'_>) {
        if self.readers.len() == SESSIONS_MAX {
            return self.end_reader(input);
        }
        let session = self.engine.store().begin().unwrap();
        let images = self.images.iter().map(|(image, bytes)| {
            let record = session.image(image).unwrap();
            let stack = LayerStack::open(&session, &record.layer).unwrap();
            (stack, bytes.clone())
        });
        let images = images.collect();
        self.readers.push(Reader { session, images });
    }

    /// Reads everything there was when a session began, then ends it.
    fn end_reader(&mut self, input: &mut Input<'_>) {
        if self.readers.is_empty() {
            return;
        }
        let at = input.below(self.readers.len());
        self.readers.swap_remove(at).check();
    }

    fn reopen(&mut self) {
        self.seed += 1;
        let environment = world::environment(&self.storage, self.seed);
        self.engine = Engine::new(Store::open(environment).unwrap(), Workers::Inline);
    }

    /// Compares everything there is with the model.
    fn check(&self) {
        let records = self.engine.list().unwrap();
        assert!(
            records
                .iter()
                .map(|record| &record.name)
                .eq(self.images.keys())
        );
        for record in records {
            let bytes = &self.images[&record.name];
            let got = get(&self.engine, &record.name).unwrap();
            assert!(got == *bytes, "{} reads other bytes", record.name);
            assert_eq!(Some(&record.digest), self.digests.get(bytes));
        }
        let found = self.engine.verify(Depth::Full, &[], Task::unattended());
        assert_eq!(found.unwrap().findings, []);
    }

    /// Removes everything and sees it collected.
    pub(super) fn finish(mut self) {
        self.readers.drain(..).for_each(Reader::check);
        self.check_usage();
        for image in self.images.keys() {
            self.engine.store().remove(image).unwrap();
        }
        self.images.clear();
        collect(&self.engine, 1.0, Duration::ZERO, false);
        self.check();
        for directory in ["segments", "layers", "images", "tmp", "quarantine"] {
            let left = self.storage.list(&StorePath::new(directory)).unwrap();
            assert_eq!(left, [], "{directory} is empty");
        }
        let locks = self.storage.list(&StorePath::new("locks")).unwrap();
        let ingest = locks.iter().find(|lock| lock.name.starts_with("ingest"));
        assert_eq!(ingest, None);
    }

    /// Compares what images cost with what the model's blocks say.
    fn check_usage(&self) {
        let usage = self.engine.usage(&[]).unwrap();
        let blocks = |bytes: &Vec<u8>| -> BTreeSet<Vec<u8>> {
            padded_blocks(bytes)
                .filter(|block| !is_zero(block))
                .collect()
        };
        let statistics = self.engine.statistics().unwrap();
        let mut all: BTreeSet<Vec<u8>> = BTreeSet::new();
        for image in &usage.images {
            let mine = blocks(&self.images[&image.name]);
            let others = self.images.iter().filter(|(name, _)| **name != image.name);
            let shared: BTreeSet<_> = others.flat_map(|(_, bytes)| blocks(bytes)).collect();
            // The record is the image's own.
            assert!(image.exclusive_bytes > 0);
            assert!(mine.is_disjoint(&shared) || image.shared_bytes() > 0);
            all.extend(mine);
        }
        // What images stand on counts too, and may be a chunk that no image has any more: at most two each.
        let chunks = all.len() as u64;
        assert!((chunks..=3 * chunks).contains(&statistics.chunks));
        assert_eq!(statistics.images, self.images.len() as u64);
        assert!(usage.stored_bytes >= statistics.live_bytes);
        assert_eq!(usage.stored_bytes, usage.together_bytes);
    }
}

impl Reader {
    fn check(self) {
        for (stack, bytes) in &self.images {
            for (block, expected) in (0..).map(BlockIndex::new).zip(padded_blocks(bytes)) {
                match stack.chunk(block).unwrap() {
                    Some(id) => {
                        let chunk = self.session.read_chunk(&id).unwrap();
                        assert!(*chunk == *expected);
                    }
                    None => assert!(is_zero(&expected)),
                }
            }
        }
    }
}

/// Collects without waiting for anybody. What is moved is compressed better if `recompress` is not zero: the clock stands
/// still meanwhile.
fn collect(engine: &Engine, min_live: f64, recompress: Duration, dry_run: bool) {
    let options = CollectOptions {
        min_live,
        recompress,
        dry_run,
        patience: Duration::ZERO,
    };
    engine.collect(&options).unwrap();
}

fn is_absent(error: Option<EngineError>) -> bool {
    matches!(
        error,
        Some(EngineError::Store(StoreError::ImageNotFound { .. }))
    )
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn padded_blocks(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    bytes.chunks(BLOCK).map(|piece| {
        let mut block = piece.to_vec();
        block.resize(BLOCK, 0);
        block
    })
}

/// Compares two images block by block.
fn plain_diff(base: &[u8], image: &[u8]) -> Diff {
    let mut theirs = padded_blocks(base);
    let mut extents: Vec<Extent> = Vec::new();
    for (at, block) in padded_blocks(image).enumerate() {
        let offset = (at * BLOCK) as u64;
        let length = (image.len() as u64 - offset).min(BLOCK as u64);
        if theirs.next().unwrap_or_else(|| vec![0; BLOCK]) == block {
            continue;
        }
        let kind = match is_zero(&block) {
            true => ExtentKind::Zero,
            false => ExtentKind::Data,
        };
        match extents.last_mut() {
            Some(last) if last.kind == kind && last.offset + last.length == offset => {
                last.length += length;
            }
            _ => extents.push(Extent {
                offset,
                length,
                kind,
            }),
        }
    }
    // Of what it is the difference, its caller knows.
    let digest = ImageDigest::from_bytes([0; 32]);
    Diff {
        base_digest: digest,
        digest,
        base_size: base.len() as u64,
        size: image.len() as u64,
        extents,
    }
}

/// A stream that does something when half of its bytes are read.
struct Interrupted<'a> {
    bytes: &'a [u8],
    half: usize,
    then: Option<Box<dyn FnOnce() -> io::Result<()> + Send + 'a>>,
}

impl<'a> Interrupted<'a> {
    fn new(bytes: &'a [u8], then: impl FnOnce() -> io::Result<()> + Send + 'a) -> Self {
        let (half, then) = (bytes.len() / 2, Box::new(then));
        Self {
            bytes,
            half,
            then: Some(then),
        }
    }
}

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.bytes.len() - self.half.min(self.bytes.len());
        match self.then.take() {
            Some(then) if before == 0 => then()?,
            then => self.then = then,
        }
        let limit = match self.then {
            Some(_) => before.min(buffer.len()),
            None => buffer.len(),
        };
        self.bytes.read(buffer.get_mut(..limit).unwrap_or_default())
    }
}
