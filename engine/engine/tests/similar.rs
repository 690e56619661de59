//! Chunks that resemble others: framed over them when they are put, and by `optimize`; and nothing depends on it.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests damage files behind the store's back, and end at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tegula_engine::{
    BackendPreference, CollectOptions, Collection, Depth, Destination, Engine, EngineError,
    ImageName, InitOptions, OptimizeOptions, PutReport, PutRequest, Source, Task,
};
use tegula_format::SegmentNumber;
use tegula_store::SegmentTable;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// `bytes` with eight of them changed every 20,000: no block of 64 KiB stays what it was.
fn edited(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut edited = bytes.to_vec();
    for (at, part) in edited.chunks_mut(20_000).enumerate() {
        let change = noise(seed + at as u64, 8);
        part.iter_mut()
            .zip(change)
            .for_each(|(byte, new)| *byte = new);
    }
    edited
}

/// `bytes` moved by a number that is no multiple of anything.
fn moved(bytes: &[u8]) -> Vec<u8> {
    let mut moved = noise(77, 5_003);
    moved.extend_from_slice(bytes);
    moved.truncate(bytes.len());
    moved
}

struct World {
    directory: tempfile::TempDir,
    engine: Engine,
    images: BTreeMap<String, Vec<u8>>,
}

impl World {
    fn new(prefix_frames: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions {
            prefix_frames,
            ..InitOptions::default()
        };
        let path = directory.path().join("store");
        let (engine, _) = Engine::init(&path, BackendPreference::Auto, options).unwrap();
        Self {
            directory,
            engine,
            images: BTreeMap::new(),
        }
    }

    fn put(&mut self, image: &str, bytes: &[u8]) -> PutReport {
        self.images.insert(image.to_owned(), bytes.to_vec());
        let mut stream = bytes;
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut stream),
            parent: None,
            replace: false,
        };
        self.engine.put(request, Task::unattended()).unwrap()
    }

    fn optimize(&self, images: &[&str]) -> tegula_engine::Optimization {
        let options = OptimizeOptions {
            images: images.iter().map(|image| name(image)).collect(),
            patience: Duration::ZERO,
            ..OptimizeOptions::default()
        };
        self.engine.optimize(&options, Task::unattended()).unwrap()
    }

    fn remove(&mut self, image: &str) {
        self.images.remove(image);
        self.engine.store().remove(&name(image)).unwrap();
    }

    fn collect(&self) -> Collection {
        self.collect_within(CollectOptions::default().recompress)
    }

    /// Collects all there is to collect, and works so long on what is moved.
    fn collect_within(&self, recompress: Duration) -> Collection {
        let options = CollectOptions {
            min_live: 1.0,
            dry_run: false,
            patience: Duration::ZERO,
            recompress,
        };
        self.engine.collect(&options).unwrap()
    }

    fn sketch_runs(&self) -> Vec<std::path::PathBuf> {
        let index = std::fs::read_dir(self.directory.path().join("store/index")).unwrap();
        let paths = index.map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|kind| kind == "sketches"))
            .collect();
        paths.sort();
        paths
    }

    fn segment_bytes(&self) -> u64 {
        let session = self.engine.store().begin().unwrap();
        session.file_bytes().unwrap().segment_bytes
    }

    fn segments(&self) -> Vec<SegmentTable> {
        let session = self.engine.store().begin().unwrap();
        let files = std::fs::read_dir(self.directory.path().join("store/segments")).unwrap();
        let numbers = files.map(|file| {
            let file = file.unwrap().file_name().into_string().unwrap();
            let number = file.strip_suffix(".seg").unwrap();
            SegmentNumber::new(u32::from_str_radix(number, 16).unwrap())
        });
        numbers
            .map(|number| SegmentTable::read(&session, number).unwrap())
            .collect()
    }

    /// Whatever something stands on stands by itself.
    fn check_depth(&self) {
        let tables = self.segments();
        let rows = || tables.iter().flat_map(|table| table.rows());
        let plain = rows().filter(|row| row.bases == 0);
        let plain: BTreeSet<_> = plain.map(|row| row.id).collect();
        for table in &tables {
            for row in table.rows() {
                for base in table.toc.bases_of(row) {
                    assert!(plain.contains(base), "{} on {base}", row.id);
                }
            }
        }
    }

    /// Every image is what was put, and every chunk and every file is as it should be.
    fn check(&self) {
        for (image, bytes) in &self.images {
            let mut out = Vec::new();
            let to = Destination::Stream(&mut out);
            self.engine
                .get(&name(image), to, Task::unattended())
                .unwrap();
            assert!(out == *bytes, "{image} came back as something else");
        }
        let found = self
            .engine
            .verify(Depth::Full, &[], Task::unattended())
            .unwrap();
        assert!(found.findings.is_empty(), "{:?}", found.findings);
        self.check_depth();
    }
}

const MIB: usize = 1 << 20;

#[test]
fn what_resembles_a_stored_chunk_is_stored_as_what_differs() {
    let mut world = World::new(true);
    let base = noise(1, 4 * MIB);
    let first = world.put("base", &base);
    assert_eq!(first.framed_chunks, 0);
    for (image, bytes) in [("edited", edited(&base, 9)), ("moved", moved(&base))] {
        let report = world.put(image, &bytes);
        assert_eq!(report.new_chunks, 64, "{image}");
        assert!(report.framed_chunks >= 60, "{image}: {report:?}");
        assert!(report.stored_new_bytes < 600_000, "{image}: {report:?}");
    }
    world.check();
}

#[test]
fn what_resembles_another_chunk_of_the_same_image_is_framed_too_near_and_far() {
    let mut world = World::new(true);
    let near = noise(2, 4 * MIB);
    // Between the two lie more than a window of the pipeline and more than a segment.
    let far = noise(3, 80 * MIB);
    let bytes = [near.clone(), edited(&near, 5), far, edited(&near, 6)].concat();
    let report = world.put("image", &bytes);
    assert!(report.framed_chunks >= 120, "{report:?}");
    world.check();
}

#[test]
fn without_sketch_runs_or_with_damaged_ones_images_are_stored_all_the_same() {
    let base = noise(1, 2 * MIB);
    for damage in ["removed", "flipped", "cut", "emptied"] {
        let mut world = World::new(true);
        world.put("base", &base);
        let runs = world.sketch_runs();
        assert_eq!(runs.len(), 1);
        let good = std::fs::read(&runs[0]).unwrap();
        match damage {
            "removed" => std::fs::remove_file(&runs[0]).unwrap(),
            "flipped" => {
                let bad: Vec<u8> = good.iter().map(|byte| byte ^ 0x55).collect();
                let bad = [&good[..44], &bad[44..]].concat();
                std::fs::write(&runs[0], bad).unwrap();
            }
            "cut" => std::fs::write(&runs[0], &good[..good.len() - 5]).unwrap(),
            _ => std::fs::write(&runs[0], b"").unwrap(),
        }
        let report = world.put("edited", &edited(&base, 3));
        assert_eq!(report.framed_chunks, 0, "{damage}");
        let verified = world
            .engine
            .verify(Depth::Full, &[], Task::unattended())
            .unwrap();
        let found: Vec<_> = verified.findings.iter().map(|f| f.derived).collect();
        let expected = if damage == "removed" {
            vec![]
        } else {
            vec![true]
        };
        assert_eq!(found, expected, "{damage}");
        // What is derived and damaged is done without: repair takes it away.
        world.engine.repair(None, Task::unattended()).unwrap();
        world.check();
    }
}

#[test]
fn many_puts_leave_few_sketch_runs_which_still_find_the_first() {
    let mut world = World::new(true);
    let base = noise(1, MIB);
    world.put("base", &base);
    for n in 0..20 {
        world.put(&format!("other-{n}"), &noise(100 + n, 128 << 10));
    }
    assert!(world.sketch_runs().len() <= 9, "{:?}", world.sketch_runs());
    let report = world.put("edited", &edited(&base, 3));
    assert!(report.framed_chunks >= 14, "{report:?}");
    world.check();
}

#[test]
fn no_put_is_forgotten_when_it_merges_the_runs_of_others() {
    let mut world = World::new(true);
    for n in 0..20 {
        let base = noise(100 + n, 256 << 10);
        world.put(&format!("base-{n}"), &base);
        let report = world.put(&format!("edited-{n}"), &edited(&base, 3));
        assert!(report.framed_chunks >= 2, "{n}: {report:?}");
    }
    assert!(world.sketch_runs().len() <= 9, "{:?}", world.sketch_runs());
    world.check();
}

#[test]
fn a_store_without_prefix_frames_gets_neither_frames_nor_sketches() {
    let mut world = World::new(false);
    let base = noise(1, MIB);
    world.put("base", &base);
    let report = world.put("edited", &edited(&base, 3));
    assert_eq!(report.framed_chunks, 0);
    assert_eq!(world.optimize(&[]).framed_chunks, 0);
    assert!(world.sketch_runs().is_empty());
    world.check();
}

#[test]
fn bases_stay_as_long_as_what_stands_on_them_whoever_is_removed() {
    let mut world = World::new(true);
    let base = noise(1, 2 * MIB);
    world.put("base", &base);
    world.put("edited", &edited(&base, 3));
    world.remove("base");
    world.collect();
    world.check();
    world.optimize(&[]);
    world.collect();
    world.check();
}

/// Images none of which knew of the others' features when it was put.
fn unframed() -> World {
    let mut world = World::new(true);
    let base = noise(1, 2 * MIB);
    for (image, bytes) in [
        ("one", base.clone()),
        ("two", edited(&base, 3)),
        ("three", moved(&base)),
        ("four", noise(50, MIB)),
    ] {
        let report = world.put(image, &bytes);
        assert_eq!(report.framed_chunks, 0);
        for run in world.sketch_runs() {
            std::fs::remove_file(run).unwrap();
        }
    }
    world
}

#[test]
fn optimizing_stores_the_same_images_in_less() {
    let world = unframed();
    let before = world.segment_bytes();
    let done = world.optimize(&[]);
    assert_eq!(done.pending_bytes, 0);
    assert_eq!(done.old_bytes, before);
    assert_eq!(done.new_bytes, world.segment_bytes());
    assert!(done.framed_chunks >= 60, "{done:?}");
    assert!(done.new_bytes * 100 < before * 55, "{done:?}");
    world.check();
    let again = world.optimize(&[]);
    assert!(
        again.new_bytes <= done.new_bytes + 4096,
        "{again:?} after {done:?}"
    );
    world.check();
}

#[test]
fn optimizing_one_image_leaves_the_bases_of_others_to_stand_by_themselves() {
    let mut world = World::new(true);
    let base = noise(1, 2 * MIB);
    world.put("base", &base);
    world.put("edited", &edited(&base, 3));
    world.put("again", &edited(&base, 4));
    world.optimize(&["base"]);
    world.check();
    world.optimize(&["edited"]);
    world.check();
    world.optimize(&["base"]);
    world.collect();
    world.check();
}

#[test]
fn optimizing_takes_no_garbage_along_and_what_is_new_can_be_a_base_again() {
    let mut world = unframed();
    world.remove("four");
    world.optimize(&[]);
    let report = world.put("five", &edited(&world.images["one"].clone(), 8));
    assert!(report.framed_chunks >= 30, "{report:?}");
    world.check();
}

#[test]
fn an_interrupted_optimization_harms_nothing_and_collection_takes_what_it_left() {
    let world = unframed();
    let before = world.segment_bytes();
    let (asked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let task = Task {
        progress: &|_, _| {
            // While the first chunks are compressed: all have been sketched, four segments' worth.
            if asked.fetch_add(1, Ordering::Relaxed) == 4 {
                stop.store(true, Ordering::Relaxed);
            }
        },
        interrupted: &stop,
    };
    let stopped = world.engine.optimize(&OptimizeOptions::default(), task);
    assert!(
        matches!(stopped, Err(EngineError::Interrupted)),
        "{stopped:?}"
    );
    world.check();
    world.collect();
    assert_eq!(world.segment_bytes(), before);
    world.check();
}

/// Two segments of which a third is dead, and the rest of one resembles that of the other, which no put knew.
fn half_dead() -> World {
    let mut world = World::new(true);
    let base = noise(1, 2 * MIB);
    for (image, bytes, dead) in [("one", base.clone(), 61), ("two", edited(&base, 3), 62)] {
        let both = [bytes.clone(), noise(dead, MIB)].concat();
        world.put("both", &both);
        let report = world.put(image, &bytes);
        assert_eq!(report.new_chunks, 0);
        world.remove("both");
        for run in world.sketch_runs() {
            std::fs::remove_file(run).unwrap();
        }
    }
    world
}

#[test]
fn collection_compresses_better_what_it_moves() {
    let (world, other) = (half_dead(), half_dead());
    let collected = world.collect();
    assert_eq!(collected.segments_rewritten, 2, "{collected:?}");
    assert!(collected.recompressed_chunks >= 30, "{collected:?}");
    world.check();
    let copied = other.collect_within(Duration::ZERO);
    assert_eq!(copied.segments_rewritten, 2, "{copied:?}");
    assert_eq!(copied.recompressed_chunks, 0);
    other.check();
    let (less, more) = (world.segment_bytes(), other.segment_bytes());
    assert!(less * 100 < more * 60, "{less} of {more}");
    assert_eq!(collected.freed_bytes - copied.freed_bytes, more - less);
}

#[test]
fn when_the_time_is_up_collection_moves_the_rest_as_it_stands() {
    let world = half_dead();
    // More than nothing, and gone with the first look at the chunks.
    let collected = world.collect_within(Duration::from_nanos(1));
    assert_eq!(collected.segments_rewritten, 2, "{collected:?}");
    assert_eq!(collected.recompressed_chunks, 0, "{collected:?}");
    world.check();
}

#[test]
fn what_stands_on_chunks_elsewhere_is_not_made_longer_by_being_moved() {
    let mut world = World::new(true);
    let base = noise(1, 2 * MIB);
    world.put("base", &base);
    let both = [edited(&base, 3), noise(9, MIB)].concat();
    let report = world.put("both", &both);
    assert!(report.framed_chunks >= 30, "{report:?}");
    world.put("edited", &both[..2 * MIB]);
    world.remove("both");
    let before = world.segment_bytes();
    let collected = world.collect();
    assert_eq!(collected.segments_rewritten, 1, "{collected:?}");
    let after = world.segment_bytes();
    assert!(after + (MIB as u64) < before + 4096, "{after} of {before}");
    world.check();
    // Nor when nothing but what stands on it needs the base.
    world.remove("base");
    world.put("other", &noise(33, MIB));
    world.remove("other");
    world.collect();
    assert!(world.segment_bytes() <= after, "{after}");
    world.check();
    let again = world.optimize(&["edited"]);
    assert!(again.new_bytes <= again.old_bytes, "{again:?}");
    world.check();
}

#[test]
fn a_dry_run_of_an_optimization_tells_what_it_would_make_and_changes_nothing() {
    let world = unframed();
    let before = world.segment_bytes();
    let run = |one_in| {
        let options = OptimizeOptions {
            dry_run: NonZeroUsize::new(one_in),
            ..OptimizeOptions::default()
        };
        world.engine.optimize(&options, Task::unattended()).unwrap()
    };
    let (exact, sampled) = (run(1), run(5));
    assert_eq!(world.segment_bytes(), before);
    let done = world.optimize(&[]);
    assert_eq!(exact, done, "what is told is what is done");
    assert_eq!(sampled.chunks, done.chunks);
    assert_eq!(sampled.compressed_chunks, done.chunks.div_ceil(5));
    assert_eq!(sampled.old_bytes, done.old_bytes);
    let off = sampled.new_bytes.abs_diff(done.new_bytes);
    assert!(off * 4 < done.new_bytes, "{sampled:?} and {done:?}");
    world.check();
}
