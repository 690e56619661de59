//! Directories of a store that somebody tidied away, or that a copy left out because they were empty.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test meddles with the store's files behind its back"
)]

use std::path::{Path, PathBuf};
use tegula_engine::{
    BackendPreference, CollectOptions, Depth, Destination, Engine, EngineError, ImageName,
    InitOptions, PutRequest, Source, StoreError, Task,
};

const DISPENSABLE: [&str; 4] = ["tmp", "index", "locks", "quarantine"];

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn content(seed: u8) -> Vec<u8> {
    (0..400_000u32)
        .map(|at| at.wrapping_mul(u32::from(seed) * 2 + 1).to_le_bytes()[2])
        .collect()
}

fn put(engine: &Engine, image: &str, seed: u8) {
    let bytes = content(seed);
    let mut stream = &*bytes;
    let request = PutRequest {
        name: name(image),
        source: Source::Stream(&mut stream),
        parent: None,
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap();
}

fn get(engine: &Engine, image: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = Destination::Stream(&mut bytes);
    engine.get(&name(image), to, Task::unattended()).unwrap();
    bytes
}

fn store_in(directory: &Path) -> PathBuf {
    let store = directory.join("store");
    let options = InitOptions::default();
    let (engine, _) = Engine::init(&store, BackendPreference::Auto, options).unwrap();
    put(&engine, "one", 1);
    store
}

fn open(store: &Path) -> Engine {
    Engine::open(store, BackendPreference::Auto).unwrap().0
}

fn sound(engine: &Engine) {
    let result = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
    assert_eq!(result.findings, []);
}

#[test]
fn what_could_be_made_again_is_not_missed() {
    for missing in DISPENSABLE {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        let lose = || std::fs::remove_dir_all(store.join(missing)).unwrap();
        let acts: [fn(&Engine); 6] = [
            |engine| assert!(get(engine, "one") == content(1)),
            sound,
            |engine| put(engine, "two", 2),
            |engine| _ = engine.collect(&CollectOptions::default()).unwrap(),
            |engine| drop(engine.repair(None, Task::unattended()).unwrap()),
            |engine| drop(engine.store().rename(&name("two"), &name("three")).unwrap()),
        ];
        for act in acts {
            lose();
            act(&open(&store));
            std::fs::create_dir_all(store.join(missing)).unwrap();
        }
        let engine = open(&store);
        assert!(get(&engine, "three") == content(2), "{missing}");
        sound(&engine);
    }
}

#[test]
fn repair_makes_the_place_for_what_it_moves_aside() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    std::fs::remove_dir_all(store.join("quarantine")).unwrap();
    let segment = std::fs::read_dir(store.join("segments")).unwrap();
    let segment = segment.last().unwrap().unwrap().path();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, bytes.get(..bytes.len() - 10).unwrap()).unwrap();
    let engine = open(&store);
    let report = engine.repair(None, Task::unattended()).unwrap();
    assert_eq!(report.quarantined_files.len(), 1);
    assert!(get(&engine, "one") == content(1));
}

#[test]
fn what_could_not_be_made_again_is_damage_by_name_and_nothing_is_collected() {
    for missing in ["segments", "layers", "images"] {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        std::fs::remove_dir_all(store.join(missing)).unwrap();
        let engine = open(&store);
        let named = |error: &EngineError| {
            matches!(
                error,
                EngineError::Store(StoreError::DirectoryMissing { path }) if path.as_str() == missing
            ) && error.is_corruption()
        };
        let collected = engine.collect(&CollectOptions::default()).unwrap_err();
        assert!(collected.is_corruption(), "{missing}: {collected:?}");
        let verified = engine.verify(Depth::Fast, &[], Task::unattended());
        let verified = verified.unwrap_err();
        assert!(named(&verified), "{missing}: {verified:?}");
    }
}
