//! What images are said to cost, against brute force: copies of the store in which they are deleted and collected.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;
use tegula_engine::{
    BackendPreference, BlockSize, CollectOptions, Engine, ImageName, InitOptions, PutRequest,
    Source, Task,
};
use tegula_io::SeededRandom;

/// What a segment has, whatever is in it (SPEC 4): its header and its trailer.
const SEGMENT_FRAME_BYTES: u64 = 73 + 64;

const SEED: u64 = 20_261_124;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn open(store: &Path) -> Engine {
    Engine::open(store, BackendPreference::Blocking).unwrap().0
}

/// An image of some of 40 blocks, which shrink unequally, and holes.
fn content(random: &SeededRandom) -> Vec<u8> {
    let below = |end: u64| random.next_u64() % end;
    let blocks = 1 + below(30);
    let mut bytes = Vec::new();
    for _ in 0..blocks {
        let kind = below(40);
        let noise = SeededRandom::new(kind);
        let start = bytes.len();
        bytes.resize(start + 4096, 0);
        if kind > 6 {
            let length = usize::try_from(kind * 97).unwrap();
            bytes[start..start + length].fill_with(|| noise.next_u64().to_le_bytes()[3]);
        }
    }
    bytes.truncate(bytes.len() - usize::try_from(below(4096)).unwrap());
    bytes
}

/// A store of images that are related in all ways: children, grandchildren, twins, renamed, of no block.
fn store_in(directory: &Path, random: &SeededRandom) -> PathBuf {
    let store = directory.join("store");
    let options = InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        ..InitOptions::default()
    };
    let (engine, _) = Engine::init(&store, BackendPreference::Blocking, options).unwrap();
    let put = |image: &str, bytes: &[u8], parent: Option<String>| {
        let mut stream = bytes;
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut stream),
            parent: parent.as_deref().map(name),
            replace: false,
        };
        engine.put(request, Task::unattended()).unwrap();
    };
    put("empty", &[], None);
    for number in 0..7u64 {
        let bytes = content(random);
        let parent = (number > 0 && number % 3 > 0).then(|| format!("image-{}", number - 1));
        put(&format!("image-{number}"), &bytes, parent);
        if number == 4 {
            put("twin", &bytes, Some("image-3".to_owned()));
        }
    }
    engine
        .store()
        .rename(&name("image-5"), &name("renamed"))
        .unwrap();
    engine.store().flatten(&name("image-2"), false).unwrap();
    collect(&engine);
    store
}

fn collect(engine: &Engine) {
    let options = CollectOptions {
        min_live: 1.0,
        dry_run: false,
        patience: Duration::from_secs(30),
        // What this saves nobody can know before.
        recompress: Duration::ZERO,
    };
    engine.collect(&options).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Returns the bytes of what images consist of.
fn bytes_on_disk(store: &Path) -> u64 {
    let of = |directory: &str, less: u64| -> u64 {
        std::fs::read_dir(store.join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len() - less)
            .sum()
    };
    of("segments", SEGMENT_FRAME_BYTES) + of("layers", 0) + of("images", 0)
}

#[test]
fn images_cost_to_the_byte_what_deleting_them_frees() {
    let random = SeededRandom::new(SEED);
    for round in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path(), &random);
        let engine = open(&store);
        let before = bytes_on_disk(&store);
        let all = engine.usage(&[]).unwrap();
        assert_eq!(all.stored_bytes, before, "round {round}: all of the store");
        assert_eq!(all.together_bytes, before);
        let images: Vec<ImageName> = engine
            .list()
            .unwrap()
            .into_iter()
            .map(|record| record.name)
            .collect();
        let mut subsets: Vec<Vec<ImageName>> =
            images.iter().map(|image| vec![image.clone()]).collect();
        for _ in 0..6 {
            let chosen = images
                .iter()
                .filter(|_| random.next_u64().is_multiple_of(2));
            subsets.push(chosen.cloned().collect());
        }
        for (number, chosen) in subsets.iter().filter(|s| !s.is_empty()).enumerate() {
            let said = engine.usage(chosen).unwrap();
            let copied = directory.path().join(format!("copy-{number}"));
            copy(&store, &copied);
            let other = open(&copied);
            for image in chosen {
                other.store().remove(image).unwrap();
            }
            collect(&other);
            let freed = before - bytes_on_disk(&copied);
            assert_eq!(said.together_bytes, freed, "round {round}: {chosen:?}");
            if let [image] = &said.images[..] {
                assert_eq!(image.exclusive_bytes, freed, "round {round}: {chosen:?}");
                let shown = engine.show(&image.name).unwrap().usage;
                assert_eq!(shown, *image);
            }
        }
    }
}
