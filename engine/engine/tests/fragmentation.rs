//! After many versions the newest image is still read in long runs. Counts, not times.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::HashSet;
use tegula_engine::{
    BackendPreference, BlockSize, CollectOptions, Depth, Destination, Engine, ImageName,
    InitOptions, OpenImage, PutRequest, Source, Task,
};

const BLOCK: usize = 4096;

fn name(version: usize) -> ImageName {
    ImageName::parse(&format!("v{version}")).unwrap()
}

/// A block like no other.
fn block(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn put(engine: &Engine, version: usize, disk: &[u8]) -> u64 {
    let mut stream = disk;
    let request = PutRequest {
        name: name(version),
        source: Source::Stream(&mut stream),
        parent: version.checked_sub(1).map(name),
        replace: false,
    };
    let report = engine.put(request, Task::unattended()).unwrap();
    report.stored_again_chunks
}

fn get(engine: &Engine, version: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = Destination::Stream(&mut bytes);
    engine.get(&name(version), to, Task::unattended()).unwrap();
    bytes
}

fn segments_touched(engine: &Engine, version: usize) -> usize {
    let session = engine.store().begin().unwrap();
    let image = OpenImage::open(&session, &name(version)).unwrap();
    let segments: HashSet<_> = image
        .stack()
        .chunks()
        .map(|chunk| session.locate(&chunk.unwrap().1).unwrap().place.segment)
        .collect();
    segments.len()
}

#[test]
fn the_newest_of_many_versions_is_read_in_long_runs() {
    const BLOCKS: usize = 2000;
    const VERSIONS: usize = 80;
    const CHANGED: usize = 4;
    let directory = tempfile::tempdir().unwrap();
    let options = InitOptions {
        block_size: BlockSize::from_bytes(BLOCK as u64).unwrap(),
        ..InitOptions::default()
    };
    let path = directory.path().join("store");
    let (engine, _) = Engine::init(&path, BackendPreference::Auto, options).unwrap();
    let mut disk: Vec<u8> = (0..BLOCKS as u64).flat_map(block).collect();
    put(&engine, 0, &disk);
    let mut disks = vec![disk.clone()];
    let mut again = 0;
    for version in 1..=VERSIONS {
        for change in 0..CHANGED {
            // Far from each other, never twice the same.
            let at = (version * CHANGED + change) * 7919 % BLOCKS * BLOCK;
            let seed = (version * CHANGED + change + BLOCKS) as u64;
            disk[at..at + BLOCK].copy_from_slice(&block(seed));
        }
        let moved = put(&engine, version, &disk);
        assert!(moved <= BLOCKS as u64 / 50, "{moved} chunks stored again");
        again += moved;
        disks.push(disk.clone());
    }
    // A segment an increment would be 81 of them; 320 changed blocks in groups of 16 are 20.
    let touched = segments_touched(&engine, VERSIONS);
    assert!((2..=28).contains(&touched), "{touched} segments are read");
    let shown = engine.show(&name(VERSIONS)).unwrap();
    assert!(
        shown.runs.runs <= touched as u64 + 10,
        "{} runs in {touched} segments",
        shown.runs.runs
    );
    assert_eq!(
        shown.runs.mean_bytes(),
        shown.runs.bytes / shown.runs.runs,
        "bytes of a run on average"
    );
    assert!(again > 0);
    // What was stored again is all that is garbage, and no version needs it.
    let collected = engine
        .collect(&CollectOptions {
            min_live: 1.0,
            ..CollectOptions::default()
        })
        .unwrap();
    assert!(
        collected.freed_bytes >= again * BLOCK as u64,
        "{collected:?}"
    );
    for (version, disk) in disks.iter().enumerate() {
        assert!(get(&engine, version) == *disk, "version {version}");
    }
    let verified = engine.verify(Depth::Full, &[], Task::unattended()).unwrap();
    assert!(verified.findings.is_empty(), "{:?}", verified.findings);
}
