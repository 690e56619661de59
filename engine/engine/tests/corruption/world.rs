//! A small store with a known history, kept as plain bytes, so that thousands of damaged copies cost little.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tegula_engine::{
    BlockSize, CollectOptions, Engine, Environment, ImageName, InitOptions, PutRequest, Source,
    Store, StoreError, Task, Workers,
};
use tegula_format::{
    BlockIndex, BlockSet, ChunkId, GcState, LayerId, SEGMENT_DATA_START, SEGMENT_TRAILER_BYTES,
    SegmentHeader, SegmentTrailer, TocRow,
};
use tegula_io::{Buffer, Clock, MemoryStorage, SeededRandom, Storage, StorePath};
use tegula_store::{Ingest, LayerStack, NewImage};

pub(crate) const BLOCK: usize = 4096;

/// The directories of a store; those for locks and unfinished files are empty between calls.
const DIRECTORIES: [&str; 7] = [
    "segments",
    "index",
    "layers",
    "images",
    "quarantine",
    "tmp",
    "locks",
];

/// A file: its path and its bytes.
pub(crate) type File = (String, Arc<Vec<u8>>);

/// The files of a store by path. A clone shares all bytes.
pub(crate) type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A clock that only moves when somebody sleeps.
#[derive(Debug, Default)]
struct StillClock(AtomicI64);

impl Clock for StillClock {
    fn now_us(&self) -> i64 {
        1_800_000_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed).unsigned_abs())
    }

    fn sleep(&self, duration: Duration) {
        let us = i64::try_from(duration.as_micros()).unwrap();
        self.0.fetch_add(us, Ordering::Relaxed);
    }
}

pub(crate) fn environment(storage: &MemoryStorage, seed: u64) -> Environment {
    Environment {
        storage: Arc::new(storage.clone()),
        clock: Arc::new(StillClock::default()),
        random: Arc::new(SeededRandom::new(seed)),
    }
}

pub(crate) fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Puts files into a storage of their own.
pub(crate) fn storage_of(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    for directory in DIRECTORIES {
        storage
            .create_directory(&StorePath::new(directory))
            .unwrap();
    }
    for (path, bytes) in files {
        let mut file = storage.create(&StorePath::new(path.as_str())).unwrap();
        file.append(Buffer::copied(bytes)).unwrap();
    }
    storage
}

/// Takes the files out of a storage, except locks and what is unfinished.
pub(crate) fn files_of(storage: &MemoryStorage) -> Files {
    let read = |path: StorePath| {
        let file = storage.open(&path).unwrap();
        let length = usize::try_from(file.bytes()).unwrap();
        let bytes = file.read_at(0, length).wait().unwrap().to_vec();
        (path.as_str().to_owned(), Arc::new(bytes))
    };
    let mut files: Files = ["tegula.store", "tegula.store.copy", "gc.state"]
        .map(|path| read(StorePath::new(path)))
        .into();
    for directory in ["segments", "index", "layers", "images", "quarantine"] {
        let directory = StorePath::new(directory);
        for entry in storage.list(&directory).unwrap() {
            files.extend([read(directory.join(&entry.name))]);
        }
    }
    files
}

/// Opens the store that files make up.
pub(crate) fn open(files: &Files, seed: u64) -> Result<(MemoryStorage, Engine), StoreError> {
    let storage = storage_of(files);
    let store = Store::open(environment(&storage, seed))?;
    Ok((storage, Engine::new(store, Workers::Inline)))
}

/// Opens the store that files make up as repair does.
pub(crate) fn open_to_repair(files: &Files, seed: u64) -> Result<Engine, StoreError> {
    let storage = storage_of(files);
    let (store, _) = Store::open_to_repair(environment(&storage, seed))?;
    Ok(Engine::new(store, Workers::Inline))
}

/// One block: noise that does not compress, or a pattern that does, or zeros.
pub(crate) fn block(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Zero => vec![0; BLOCK],
        Kind::Noise(seed) => {
            let random = SeededRandom::new(seed);
            let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
            words.flatten().take(BLOCK).collect()
        }
        Kind::Pattern(seed) => (0..BLOCK)
            .map(|at| if at % 64 < 16 { seed } else { 0x55 })
            .collect(),
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Zero,
    Noise(u64),
    Pattern(u8),
}

fn disk(blocks: &[Kind], cut: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = blocks.iter().flat_map(|kind| block(*kind)).collect();
    bytes.truncate(bytes.len() - cut);
    bytes
}

/// A segment's parts.
#[derive(Debug)]
pub(crate) struct SegmentMap {
    pub(crate) rows: Vec<TocRow>,
    /// What the chunk of each row stands on.
    bases: Vec<Vec<ChunkId>>,
}

/// The store, what it holds, and what it held before.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) files: Files,
    /// The bytes of every image.
    pub(crate) images: BTreeMap<&'static str, Vec<u8>>,
    /// For every layer file, the images that lie on it.
    pub(crate) layer_users: BTreeMap<String, BTreeSet<&'static str>>,
    /// For every chunk, the images that hold it.
    pub(crate) chunk_users: BTreeMap<ChunkId, BTreeSet<&'static str>>,
    pub(crate) segments: BTreeMap<String, SegmentMap>,
    /// Earlier states of files that still exist.
    pub(crate) older: Vec<File>,
    /// Files that were removed since.
    pub(crate) removed: Files,
    /// What the replaced image held before.
    pub(crate) replaced: (&'static str, Vec<u8>),
}

impl World {
    /// A store after: put, put, remove, collect, put of a child, put of an unrelated image, put in its place, put of an
    /// image whose chunks stand on those of the others.
    pub(crate) fn new() -> Self {
        use Kind::{Noise, Pattern, Zero};
        let storage = MemoryStorage::new();
        let options = InitOptions {
            block_size: BlockSize::MIN,
            zstd_level: 1,
            ..InitOptions::default()
        };
        let store = Store::init(environment(&storage, 1), options).unwrap();
        let engine = Engine::new(store, Workers::Inline);
        let mut history = vec![files_of(&storage)];
        let mut put = |image, bytes: &[u8], parent: Option<&str>, replace| {
            put(&engine, image, bytes, parent, replace);
            history.push(files_of(&storage));
        };

        put("gone", &disk(&[Noise(90), Noise(91)], 0), None, false);
        let parent = disk(
            &[
                Noise(1),
                Pattern(2),
                Zero,
                Noise(3),
                Noise(4),
                Pattern(5),
                Zero,
                Noise(6),
                Pattern(2),
                Noise(7),
            ],
            1000,
        );
        put("parent", &parent, None, false);
        engine.store().remove(&name("gone")).unwrap();
        engine.collect(&CollectOptions::default()).unwrap();
        let after_collection = files_of(&storage);
        let mut put = |image, bytes: &[u8], parent: Option<&str>, replace| {
            self::put(&engine, image, bytes, parent, replace);
            history.push(files_of(&storage));
        };
        // One block differs, one is zeroed, and it is longer.
        let child = disk(
            &[
                Noise(1),
                Noise(8),
                Zero,
                Zero,
                Noise(4),
                Pattern(5),
                Zero,
                Noise(6),
                Pattern(2),
                Noise(7),
                Noise(9),
            ],
            0,
        );
        put("child", &child, Some("parent"), false);
        let before = disk(&[Noise(20), Noise(21), Noise(3)], 0);
        put("other", &before, None, false);
        let other = disk(&[Noise(20), Zero, Noise(22), Pattern(5), Noise(23)], 7);
        put("other", &other, None, true);
        let standing = put_standing(
            &engine,
            "standing",
            &[
                &[Noise(1)],
                &[Noise(22), Noise(6)],
                &[Noise(9)],
                &[],
                &[Noise(3)],
            ],
        );
        history.push(files_of(&storage));
        history.push(after_collection);

        let files = files_of(&storage);
        let mut images: BTreeMap<&'static str, Vec<u8>> =
            [("parent", parent), ("child", child), ("other", other)].into();
        images.insert("standing", standing);
        let layer_users = layer_users(&engine, &files, &images);
        let segments: BTreeMap<String, SegmentMap> = files
            .iter()
            .filter(|(path, _)| path.starts_with("segments/"))
            .map(|(path, bytes)| (path.clone(), SegmentMap::read(bytes)))
            .collect();
        let chunk_users = chunk_users(&images, &segments);
        let (older, removed) = past(&history, &files);
        let replaced = ("other", before);
        let world = Self {
            files,
            images,
            layer_users,
            chunk_users,
            segments,
            older,
            removed,
            replaced,
        };
        world.check_worth();
        world
    }

    /// Makes sure that the store has what the mutations are about.
    fn check_worth(&self) {
        let count = |start: &str| {
            let paths = self.files.keys();
            paths.filter(|path| path.starts_with(start)).count()
        };
        assert!(count("segments/") >= 2 && count("index/") >= 2 && count("layers/") >= 4);
        assert_eq!(count("images/"), 4);
        let rows = self.segments.values().flat_map(|segment| &segment.rows);
        let framed: Vec<u8> = rows.map(|row| row.bases).filter(|n| *n > 0).collect();
        assert!(framed.contains(&1) && framed.contains(&2), "{framed:?}");
        assert!(
            self.layer_users.values().any(|users| users.len() == 2),
            "a child lies on its parent's layer"
        );
        assert!(
            self.layer_users.values().any(BTreeSet::is_empty),
            "a replaced image leaves a layer that nobody needs"
        );
        assert!(self.older.iter().any(|(path, _)| path == "gc.state"));
        assert!(
            self.older
                .iter()
                .any(|(path, _)| path == "images/other.image")
        );
        assert!(
            self.removed
                .keys()
                .any(|path| path.starts_with("segments/"))
        );
    }

    /// Returns the images that may become unreadable when something happens to a file. Nobody else's may.
    pub(crate) fn users(&self, path: &str) -> BTreeSet<&'static str> {
        let all = || self.images.keys().copied().collect();
        match path.split_once('/') {
            Some(("index", _)) => BTreeSet::new(),
            Some(("layers", _)) => self.layer_users.get(path).cloned().unwrap_or_default(),
            Some(("images", file)) => {
                let image = file.strip_suffix(".image").unwrap_or_default();
                let names = self.images.keys().copied();
                names.filter(|name| *name == image).collect()
            }
            Some(("segments", _)) => {
                let rows = self.segments.get(path).map(|segment| &segment.rows);
                let ids = rows.into_iter().flatten().map(|row| row.id);
                ids.flat_map(|id| self.holders(&id)).collect()
            }
            _ => all(),
        }
    }

    /// Returns the images that hold a chunk.
    pub(crate) fn holders(&self, id: &ChunkId) -> BTreeSet<&'static str> {
        self.chunk_users.get(id).cloned().unwrap_or_default()
    }
}

impl SegmentMap {
    fn read(bytes: &[u8]) -> Self {
        let trailer = bytes.len() - SEGMENT_TRAILER_BYTES;
        let trailer = SegmentTrailer::decode(&bytes[trailer..], bytes.len() as u64).unwrap();
        let toc_offset = usize::try_from(trailer.toc_offset).unwrap();
        let toc = &bytes[toc_offset..toc_offset + trailer.toc_bytes()];
        let rules = tegula_format::ChunkRules {
            block_size: BlockSize::MIN,
            prefix_frames: true,
        };
        let toc = trailer.decode_toc(toc, &rules).unwrap();
        let rows = toc.rows().to_vec();
        let bases = rows.iter().map(|row| toc.bases_of(row).to_vec()).collect();
        assert_eq!(
            SegmentHeader::decode(bytes).unwrap().encode().len() as u64,
            SEGMENT_DATA_START
        );
        Self { rows, bases }
    }

    /// Returns the chunk whose record covers a byte.
    pub(crate) fn chunk_at(&self, at: usize) -> Option<&TocRow> {
        self.rows.iter().find(|row| {
            let start = usize::try_from(row.offset).unwrap();
            (start..start + row.record_bytes()).contains(&at)
        })
    }
}

pub(crate) fn put(engine: &Engine, image: &str, bytes: &[u8], parent: Option<&str>, replace: bool) {
    let mut stream = bytes;
    let request = PutRequest {
        name: name(image),
        source: Source::Stream(&mut stream),
        parent: parent.map(name),
        replace,
    };
    engine.put(request, Task::unattended()).unwrap();
}

/// Puts an image of blocks that differ from the first half of the first of these, and the second half of the last, in a
/// few bytes, and stand on them; one that resembles nothing stands by itself. Returns its bytes.
fn put_standing(engine: &Engine, image: &str, on: &[&[Kind]]) -> Vec<u8> {
    let session = engine.store().begin().unwrap();
    let ingest = Ingest::begin(&session).unwrap();
    let (mut ids, mut data) = (ingest.id_table(), BlockSet::new());
    let mut bytes = Vec::new();
    for (at, kinds) in (0_u8..).zip(on) {
        let bases: Vec<Vec<u8>> = kinds.iter().map(|kind| block(*kind)).collect();
        let named: Vec<_> = bases
            .iter()
            .map(|base| (ChunkId::of(base), &base[..]))
            .collect();
        let own = block(Kind::Noise(70));
        let first = bases.first().unwrap_or(&own);
        let last = bases.last().unwrap_or(&own);
        let mut new = [&first[..BLOCK / 2], &last[BLOCK / 2..]].concat();
        new[..8].fill(at);
        let id = ChunkId::of(&new);
        let chunk = ingest.compress_with_bases(id, &new, &named, 4096);
        let chunk = chunk.unwrap_or_else(|| ingest.compress(id, &new));
        assert!(!ingest.has_or_claim(&id));
        ingest.store(&chunk).unwrap();
        ids.push(&id).unwrap();
        data.push(BlockIndex::new(at.into()));
        bytes.extend_from_slice(&new);
    }
    let new = NewImage {
        name: name(image),
        replace: false,
        virtual_size: bytes.len() as u64,
        parent: None,
        base: None,
        data,
        zero: BlockSet::new(),
    };
    ingest.finish(new, ids).unwrap();
    bytes
}

fn layer_users(
    engine: &Engine,
    files: &Files,
    images: &BTreeMap<&'static str, Vec<u8>>,
) -> BTreeMap<String, BTreeSet<&'static str>> {
    let layers = files.keys().filter(|path| path.starts_with("layers/"));
    let mut users: BTreeMap<String, BTreeSet<_>> =
        layers.map(|path| (path.clone(), BTreeSet::new())).collect();
    let session = engine.store().begin().unwrap();
    for image in images.keys() {
        let record = session.image(&name(image)).unwrap();
        let stack = LayerStack::open(&session, &record.layer).unwrap();
        for layer in stack.layers() {
            users
                .get_mut(&layer_path(layer.id()))
                .unwrap()
                .insert(*image);
        }
    }
    users
}

fn layer_path(id: LayerId) -> String {
    format!("layers/{id}.layer")
}

fn chunk_users(
    images: &BTreeMap<&'static str, Vec<u8>>,
    segments: &BTreeMap<String, SegmentMap>,
) -> BTreeMap<ChunkId, BTreeSet<&'static str>> {
    let mut users: BTreeMap<ChunkId, BTreeSet<_>> = BTreeMap::new();
    for (image, bytes) in images {
        for piece in bytes.chunks(BLOCK) {
            let mut block = piece.to_vec();
            block.resize(BLOCK, 0);
            if block.iter().any(|byte| *byte != 0) {
                users.entry(ChunkId::of(&block)).or_default().insert(*image);
            }
        }
    }
    // Who holds what stands on a chunk holds that chunk.
    for segment in segments.values() {
        for (row, bases) in segment.rows.iter().zip(&segment.bases) {
            let above = users.get(&row.id).cloned().unwrap_or_default();
            for base in bases {
                users.entry(*base).or_default().extend(&above);
            }
        }
    }
    users
}

/// Returns what files once were and are no more, and what files there once were.
fn past(history: &[Files], now: &Files) -> (Vec<File>, Files) {
    let mut older: Vec<File> = Vec::new();
    let mut removed = Files::new();
    for (path, bytes) in history.iter().flatten() {
        match now.get(path) {
            Some(current) if current == bytes => {}
            Some(_)
                if older
                    .iter()
                    .any(|seen| seen == &(path.clone(), Arc::clone(bytes))) => {}
            Some(_) => older.push((path.clone(), Arc::clone(bytes))),
            None => _ = removed.insert(path.clone(), Arc::clone(bytes)),
        }
    }
    // The state while the removal was under way stands between two calls and is made here.
    let condemned = removed
        .keys()
        .filter_map(|path| path.strip_prefix("segments/"));
    let condemned =
        condemned.filter_map(|file| u32::from_str_radix(file.split('.').next()?, 16).ok());
    let during = GcState {
        epoch: 1,
        segment_floor: 2,
        condemned_segments: condemned.map(tegula_format::SegmentNumber::new).collect(),
        condemned_layers: removed
            .keys()
            .filter_map(|path| path.strip_prefix("layers/")?.strip_suffix(".layer"))
            .filter_map(LayerId::parse)
            .collect(),
    };
    older.push(("gc.state".to_owned(), Arc::new(during.encode())));
    (older, removed)
}
