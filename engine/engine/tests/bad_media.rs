//! Disks that do not give bytes back: found and located as damage is, worked around, and nothing thrown away for it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::sync::Arc;
use tegula_engine::{
    BlockSize, Depth, Destination, Engine, Environment, Finding, ImageName, InitOptions,
    PutRequest, Source, Store, StoreError, Task, Workers,
};
use tegula_format::{ChunkRules, SegmentTrailer, TocRow};
use tegula_io::sim::{Fault, Repeat, SimDisk};
use tegula_io::{SeededRandom, Storage, StorePath, SystemClock};

const DIRECTORIES: [&str; 4] = ["segments", "layers", "index", "images"];

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn open(disk: &SimDisk, seed: u64) -> Engine {
    Engine::new(
        Store::open(environment(disk, seed)).unwrap(),
        Workers::Inline,
    )
}

fn environment(disk: &SimDisk, seed: u64) -> Environment {
    Environment {
        storage: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(seed)),
    }
}

/// An image of 4 KiB blocks of noise, so that a record is about as long as a block; equal kinds are equal blocks.
fn image(kinds: &[u64]) -> Vec<u8> {
    let block = |kind: &u64| {
        let random = SeededRandom::new(*kind);
        (0..512).flat_map(move |_| random.next_u64().to_le_bytes())
    };
    kinds.iter().flat_map(block).collect()
}

fn images() -> BTreeMap<&'static str, Vec<u8>> {
    [
        ("base", image(&[1, 2, 3, 4, 5, 6])),
        ("child", image(&[1, 2, 30, 4, 5, 6, 7])),
        ("other", image(&[40, 41, 42])),
    ]
    .into()
}

fn put(engine: &Engine, image: &str, parent: Option<&str>) {
    let bytes = images().remove(image).unwrap();
    let mut stream = &*bytes;
    let request = PutRequest {
        name: name(image),
        source: Source::Stream(&mut stream),
        parent: parent.map(name),
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap();
}

/// A store of three images, two of which share chunks and a layer.
fn prepared(seed: u64) -> SimDisk {
    let disk = SimDisk::new();
    let options = InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        ..InitOptions::default()
    };
    let engine = Engine::new(
        Store::init(environment(&disk, seed), options).unwrap(),
        Workers::Inline,
    );
    put(&engine, "base", None);
    put(&engine, "child", Some("base"));
    put(&engine, "other", None);
    disk.after_kill()
}

fn files(disk: &SimDisk) -> Vec<(StorePath, u64)> {
    let files = |directory: &&str| {
        let directory = StorePath::new(*directory);
        let entries = disk.list(&directory).unwrap();
        entries
            .into_iter()
            .map(move |entry| (directory.join(&entry.name), entry.bytes))
    };
    DIRECTORIES.iter().flat_map(files).collect()
}

fn get(engine: &Engine, image: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let to = Destination::Stream(&mut bytes);
    match engine.get(&name(image), to, Task::unattended()) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn findings(engine: &Engine, depth: Depth) -> Vec<Finding> {
    let result = engine.verify(depth, &[], Task::unattended()).unwrap();
    result.findings
}

fn rows_of(disk: &SimDisk, path: &StorePath) -> (SegmentTrailer, Vec<TocRow>) {
    let file = disk.open(path).unwrap();
    let trailer = file.read_at(file.bytes() - 64, 64).wait().unwrap();
    let trailer = SegmentTrailer::decode(&trailer, file.bytes()).unwrap();
    let toc = file.read_at(trailer.toc_offset.into(), trailer.toc_bytes());
    let rules = ChunkRules {
        block_size: BlockSize::MIN,
        prefix_frames: true,
    };
    let toc = trailer.decode_toc(&toc.wait().unwrap(), &rules).unwrap();
    (trailer, toc.rows().to_vec())
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding_and_the_rest_is_checked() {
    let sound = prepared(1);
    let all = open(&sound, 9)
        .verify(Depth::Full, &[], Task::unattended())
        .unwrap();
    for (path, bytes) in files(&sound) {
        let disk = sound.after_kill();
        disk.spoil(&path, 0..bytes).unwrap();
        let engine = open(&disk, 2);
        for depth in [Depth::Fast, Depth::Full] {
            let result = engine.verify(depth, &[], Task::unattended()).unwrap();
            let located = result
                .findings
                .iter()
                .any(|finding| finding.path == path.as_str());
            assert!(located, "{path}: {:#?}", result.findings);
            assert_eq!(result.segments, all.segments, "{path}");
            assert!(result.layers >= all.layers - 1, "{path}");
            if !path.as_str().starts_with("images") {
                assert_eq!(result.images, all.images, "{path}");
            }
        }
        for (image, expected) in images() {
            if let Ok(bytes) = get(&engine, image) {
                assert!(bytes == expected, "{path}: {image} has wrong bytes");
            }
        }
    }
}

#[test]
fn a_bad_sector_costs_the_records_in_it_and_no_other() {
    let sound = prepared(1);
    for (path, _) in files(&sound)
        .iter()
        .filter(|(path, _)| path.as_str().starts_with("segments"))
    {
        let (_, rows) = rows_of(&sound, path);
        for row in rows {
            let disk = sound.after_kill();
            let start = u64::from(row.offset) + 100;
            disk.spoil(path, start..start + 1).unwrap();
            let engine = open(&disk, 2);
            let found = findings(&engine, Depth::Fast);
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].offset, Some(row.offset.into()));
            assert_eq!(found[0].chunk, Some(row.id));
            assert!(!found[0].images.is_empty());
            let report = engine.repair(None, Task::unattended()).unwrap();
            assert_eq!(report.quarantined_chunks, 1);
            // Whoever brings the block again heals the images.
            put_again(&engine);
            assert_eq!(findings(&engine, Depth::Full), []);
        }
    }
}

fn put_again(engine: &Engine) {
    for (image, bytes) in images() {
        let mut stream = &*bytes;
        let request = PutRequest {
            name: name(&format!("{image}-again")),
            source: Source::Stream(&mut stream),
            parent: None,
            replace: false,
        };
        engine.put(request, Task::unattended()).unwrap();
    }
}

#[test]
fn the_chunks_of_a_segment_whose_table_cannot_be_read_are_saved() {
    let sound = prepared(1);
    for (path, bytes) in files(&sound)
        .iter()
        .filter(|(path, _)| path.as_str().starts_with("segments"))
    {
        let (trailer, rows) = rows_of(&sound, path);
        let disk = sound.after_kill();
        // Nothing but the table is unreadable, and one record with it.
        disk.spoil(path, trailer.toc_offset.into()..*bytes).unwrap();
        let lost = u64::from(rows[0].offset);
        disk.spoil(path, lost + 64..lost + 65).unwrap();
        let engine = open(&disk, 2);
        let report = engine.repair(None, Task::unattended()).unwrap();
        assert_eq!(report.quarantined_files.len(), 1, "{path}");
        // A bad sector may reach into the record behind it.
        assert!(report.salvaged_chunks + 3 >= rows.len() as u64, "{path}");
        assert!(
            disk.open(&StorePath::new("quarantine").join(path.name()))
                .is_ok()
        );
        put_again(&engine);
        assert_eq!(findings(&engine, Depth::Full), []);
    }
}

#[test]
fn repair_throws_nothing_away_and_brings_images_back_from_another_store() {
    let sound = prepared(1);
    let other = prepared(77);
    let content = |disk: &SimDisk, path: &StorePath| {
        let file = disk.open(path).ok()?;
        file.read_at(0, usize::try_from(file.bytes()).unwrap())
            .wait()
            .ok()
    };
    for (path, bytes) in files(&sound) {
        for from in [None, Some(open(&other, 3))] {
            let disk = sound.after_kill();
            disk.spoil(&path, 0..bytes).unwrap();
            let engine = open(&disk, 2);
            let report = engine.repair(from.as_ref(), Task::unattended()).unwrap();
            if from.is_some() {
                for (image, bytes) in images() {
                    let found = get(&engine, image);
                    assert!(found.as_ref() == Ok(&bytes), "{path}: {image}: {found:?}");
                }
            }
            // The disk may come back to its senses: the bytes are to be there then.
            disk.disarm();
            let before = content(&sound, &path).unwrap();
            let aside = report.quarantined_files.iter().map(StorePath::new);
            let kept = aside
                .chain([path.clone()])
                .any(|path| content(&disk, &path).as_deref() == Some(&before));
            // A run is derived.
            assert!(
                kept || path.as_str().starts_with("index"),
                "{path}: {report:#?}"
            );
        }
    }
}

#[test]
fn an_error_that_is_not_the_mediums_ends_a_verification_and_accuses_nobody() {
    let sound = prepared(1);
    for call in 1.. {
        let disk = sound.after_kill();
        let engine = open(&disk, 2);
        let opened = disk.calls();
        disk.fail_at(opened + call, Fault::TooManyFiles, Repeat::Once);
        let result = engine.verify(Depth::Full, &[], Task::unattended());
        if disk.calls() < opened + call {
            break;
        }
        let context = disk.describe(opened + call);
        if let Ok(result) = result {
            assert_eq!(result.findings, [], "{context}");
        }
    }
}

#[test]
fn an_error_of_the_medium_at_any_call_lets_verification_go_on() {
    let sound = prepared(1);
    for call in 1.. {
        let disk = sound.after_kill();
        let engine = open(&disk, 2);
        let session = engine.store().begin().unwrap();
        let opened = disk.calls();
        disk.fail_at(opened + call, Fault::Io, Repeat::Once);
        let result = session.verify(Depth::Full, &[], &|_, _| ());
        if disk.calls() < opened + call {
            break;
        }
        let context = disk.describe(opened + call);
        // What a directory holds that cannot be listed is not known: that ends it, as damage.
        let unlistable = |error: &StoreError| context.contains("List") && error.is_damage();
        assert!(
            result.as_ref().err().is_none_or(unlistable),
            "{context}: {result:?}"
        );
    }
}
