//! Images in and out, through the public API: what comes out is what went in.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use std::path::Path;
use tegula_engine::{
    BackendPreference, Destination, Engine, ImageName, InitOptions, PutRequest, Source, Task,
};

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Bytes that compress a little, differ from block to block, and repeat for the same seed.
fn disk(seed: u8, blocks: &[u8]) -> Vec<u8> {
    blocks
        .iter()
        .flat_map(|kind| {
            let mut block = vec![0; 65_536];
            if *kind > 0 {
                for (at, byte) in block.iter_mut().enumerate() {
                    *byte = (u32::try_from(at).unwrap() * (u32::from(*kind) * 7 + u32::from(seed)))
                        .to_le_bytes()[1];
                }
            }
            block
        })
        .collect()
}

fn fresh() -> (tempfile::TempDir, Engine) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (engine, _) = Engine::init(&path, BackendPreference::Auto, InitOptions::default()).unwrap();
    (directory, engine)
}

fn put(
    engine: &Engine,
    image: &str,
    bytes: &[u8],
    parent: Option<&str>,
) -> tegula_engine::PutReport {
    let mut stream = bytes;
    let source = Source::Stream(&mut stream);
    let request = PutRequest {
        name: name(image),
        source,
        parent: parent.map(name),
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap()
}

fn get(engine: &Engine, image: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    engine
        .get(
            &name(image),
            Destination::Stream(&mut bytes),
            Task::unattended(),
        )
        .unwrap();
    bytes
}

fn get_file(engine: &Engine, image: &str, to: &Path) -> Vec<u8> {
    engine
        .get(
            &name(image),
            Destination::File {
                path: to,
                force: false,
            },
            Task::unattended(),
        )
        .unwrap();
    std::fs::read(to).unwrap()
}

#[test]
fn an_image_comes_back_as_it_went_in() {
    let (directory, engine) = fresh();
    let mut bytes = disk(1, &[1, 0, 2, 2, 0, 3]);
    bytes.truncate(bytes.len() - 1000);
    let report = put(&engine, "one", &bytes, None);
    assert_eq!(
        (report.new_chunks, report.zero_blocks, report.reused_chunks),
        (3, 2, 1)
    );
    assert!(get(&engine, "one") == bytes);
    assert!(get_file(&engine, "one", &directory.path().join("out")) == bytes);
}

#[test]
fn a_child_stores_only_what_differs_and_outlives_its_parent() {
    let (directory, engine) = fresh();
    let parent = disk(1, &[1, 2, 3, 4, 5, 6, 0, 7]);
    let child = disk(1, &[1, 9, 3, 0, 5, 6, 8, 7]);
    put(&engine, "parent", &parent, None);
    let report = put(&engine, "child", &child, Some("parent"));
    assert_eq!(
        (report.new_chunks, report.reused_chunks, report.zero_blocks),
        (2, 5, 1)
    );
    let diff = engine.diff(&name("parent"), &name("child")).unwrap();
    let extents: Vec<_> = diff
        .extents
        .iter()
        .map(|e| (e.offset >> 16, e.length >> 16))
        .collect();
    assert_eq!(extents, [(1, 1), (3, 1), (6, 1)]);
    engine.store().remove(&name("parent")).unwrap();
    let freed = engine.collect(&Default::default()).unwrap();
    assert!(get(&engine, "child") == child);
    assert!(get_file(&engine, "child", &directory.path().join("out")) == child);
    let verification = engine
        .verify(tegula_engine::Depth::Full, &[], Task::unattended())
        .unwrap();
    assert_eq!(verification.findings, [], "after {freed:?}");
}

#[test]
fn the_same_bytes_have_the_same_digest_however_they_are_layered() {
    let (_directory, engine) = fresh();
    let base = disk(1, &[1, 2, 3, 4, 5, 6]);
    let bytes = disk(1, &[1, 9, 0, 4, 5]);
    put(&engine, "base", &base, None);
    let child = put(&engine, "child", &bytes, Some("base")).record;
    let full = put(&engine, "full", &bytes, None).record;
    assert_eq!(child.digest, full.digest);
    let flat = engine.store().flatten(&name("child"), false).unwrap();
    assert_eq!((flat.layers_before, flat.layers), (2, 1));
    assert_eq!(flat.record.digest, full.digest);
    assert_ne!(flat.record.layer, child.layer);
    assert_eq!(flat.record.parent, child.parent);
    assert!(get(&engine, "child") == bytes);
}

#[test]
fn an_image_with_chunks_in_two_segments_is_read_across_both() {
    let (_directory, engine) = fresh();
    // The second segment's first record stands before the first segment's second one.
    put(&engine, "first", &disk(1, &[1, 2, 3]), None);
    let both = disk(1, &[3, 4, 2]);
    put(&engine, "both", &both, None);
    assert!(get(&engine, "both") == both);
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "damage does not go through the seam"
)]
fn flip_a_bit(path: &Path, from_the_end: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - from_the_end;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn collection_does_not_believe_a_damaged_index() {
    // In the last row: the id, the segment's number, the slot, the reserved field.
    for from_the_end in [45, 15, 4, 2] {
        let (directory, engine) = fresh();
        let kept = disk(1, &[1]);
        put(&engine, "kept", &kept, None);
        put(&engine, "gone", &disk(1, &[5, 6]), None);
        engine.store().remove(&name("gone")).unwrap();
        for run in files(&directory.path().join("store/index")) {
            flip_a_bit(&run, from_the_end);
        }
        engine.collect(&Default::default()).unwrap();
        assert!(
            get(&engine, "kept") == kept,
            "a bit {from_the_end} bytes before the end of a run"
        );
    }
}

#[test]
fn repair_saves_the_chunks_of_a_segment_whose_trailer_is_damaged() {
    let (directory, engine) = fresh();
    let kept = disk(1, &[1, 2, 3]);
    put(&engine, "kept", &kept, None);
    for segment in files(&directory.path().join("store/segments")) {
        flip_a_bit(&segment, 10);
    }
    let report = engine.repair(None, Task::unattended()).unwrap();
    assert_eq!((report.salvaged_chunks, report.remaining.len()), (3, 0));
    assert!(get(&engine, "kept") == kept);
}
