//! Small stores in memory that are the same every time.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tegula_engine::{
    BlockSize, Destination, Engine, EngineError, Environment, ImageName, InitOptions, PutReport,
    PutRequest, Source, Store, StoreError, Task, Workers,
};
use tegula_format::ChunkRules;
use tegula_io::{Buffer, Clock, MemoryStorage, SeededRandom, Storage, StorePath};

pub(crate) const BLOCK: usize = 4096;

/// The directories of a store.
pub(crate) const DIRECTORIES: [&str; 7] = [
    "segments",
    "index",
    "layers",
    "images",
    "quarantine",
    "tmp",
    "locks",
];

/// The files of a store by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A clock that only moves when it is looked at or somebody sleeps.
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
        let us = i64::try_from(duration.as_micros()).unwrap_or(1);
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

/// What its chunks are held against.
pub(crate) const RULES: ChunkRules = ChunkRules {
    block_size: BlockSize::MIN,
    prefix_frames: true,
};

/// Makes an empty store with the smallest blocks.
pub(crate) fn empty() -> (MemoryStorage, Engine) {
    let storage = MemoryStorage::new();
    let options = InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        prefix_frames: true,
    };
    let store = Store::init(environment(&storage, 1), options).unwrap();
    (storage, Engine::new(store, Workers::Inline))
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

/// Takes the finished files out of a storage.
pub(crate) fn files_of(storage: &MemoryStorage) -> Files {
    let read = |path: StorePath| {
        let file = storage.open(&path).unwrap();
        let length = usize::try_from(file.bytes()).unwrap();
        let bytes = file.read_at(0, length).wait().unwrap().to_vec();
        (path.as_str().to_owned(), bytes)
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
pub(crate) fn open(files: &Files) -> Result<(MemoryStorage, Engine), StoreError> {
    let storage = storage_of(files);
    let store = Store::open(environment(&storage, 2))?;
    Ok((storage, Engine::new(store, Workers::Inline)))
}

/// Opens the store that files make up as repair does.
pub(crate) fn open_to_repair(files: &Files) -> Result<Engine, StoreError> {
    let (store, _) = Store::open_to_repair(environment(&storage_of(files), 3))?;
    Ok(Engine::new(store, Workers::Inline))
}

pub(crate) fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Returns one of 16 blocks: zeros, noise, patterns that compress.
pub(crate) fn block(kind: u8) -> Vec<u8> {
    match kind % 16 {
        0 => vec![0; BLOCK],
        kind @ 1..10 => {
            let random = SeededRandom::new(u64::from(kind));
            let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
            words.flatten().take(BLOCK).collect()
        }
        kind => (0..BLOCK)
            .map(|at| if at % 64 < 16 { kind } else { 0x55 })
            .collect(),
    }
}

/// Returns an image of such blocks, short of its last `cut` bytes.
pub(crate) fn disk(kinds: &[u8], cut: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = kinds.iter().flat_map(|kind| block(*kind)).collect();
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

pub(crate) fn put(
    engine: &Engine,
    image: &ImageName,
    bytes: &[u8],
    parent: Option<&ImageName>,
    replace: bool,
) -> Result<PutReport, EngineError> {
    let mut stream = bytes;
    let request = PutRequest {
        name: image.clone(),
        source: Source::Stream(&mut stream),
        parent: parent.cloned(),
        replace,
    };
    engine.put(request, Task::unattended())
}

/// A stream that is full after some bytes: a hostile image may claim to be larger than any disk.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gets an image, as far as a mebibyte goes.
pub(crate) fn get(engine: &Engine, image: &ImageName) -> Result<Vec<u8>, EngineError> {
    let mut out = Bounded {
        bytes: Vec::new(),
        limit: 1 << 20,
    };
    engine.get(image, Destination::Stream(&mut out), Task::unattended())?;
    Ok(out.bytes)
}

/// A store and what is in it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) files: Files,
    pub(crate) images: BTreeMap<&'static str, Vec<u8>>,
}

/// A parent, a child with a zeroed and a longer end, an image of its own, and some garbage.
pub(crate) static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (storage, engine) = empty();
    let images: BTreeMap<_, _> = [
        ("child", disk(&[1, 12, 3, 0, 5, 10, 4], 0)),
        ("other", disk(&[7, 1, 0, 10], 7)),
        ("parent", disk(&[1, 2, 3, 10, 5, 10], 100)),
    ]
    .into();
    put(&engine, &name("other"), &disk(&[8, 9], 0), None, false).unwrap();
    put(&engine, &name("parent"), &images["parent"], None, false).unwrap();
    let parent = name("parent");
    put(
        &engine,
        &name("child"),
        &images["child"],
        Some(&parent),
        false,
    )
    .unwrap();
    put(&engine, &name("other"), &images["other"], None, true).unwrap();
    let files = files_of(&storage);
    World { files, images }
});
