//! Deltas applied to disks in place: whatever stops it, the same request goes on, and the disk is the target in the end.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(
    clippy::disallowed_methods,
    reason = "the disks are the test's own files"
)]

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tegula_engine::{
    BackendPreference, BlockSize, DeltaDestination, DeltaError, DeltaSource, Engine, EngineError,
    ImageName, InitOptions, PutRequest, RawDeltaApplied, RawDeltaRequest, Recompress, Source, Task,
    apply_delta_to_disk,
};

const BLOCK: usize = 4096;

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes the delta of two disks in a store of its own.
    fn delta(&self, base: Option<&[u8]>, target: &[u8]) -> PathBuf {
        let store = tempfile::tempdir().unwrap();
        let options = InitOptions {
            block_size: BlockSize::from_bytes(BLOCK as u64).unwrap(),
            ..InitOptions::default()
        };
        let path = store.path().join("store");
        let (engine, _) = Engine::init(&path, BackendPreference::Blocking, options).unwrap();
        let name = |text| ImageName::parse(text).unwrap();
        let put = |image, mut bytes: &[u8]| {
            let request = PutRequest {
                name: name(image),
                source: Source::Stream(&mut bytes),
                parent: None,
                replace: false,
            };
            engine.put(request, Task::unattended()).unwrap();
        };
        put("target", target);
        base.inspect(|base| put("base", base));
        let mut bytes = Vec::new();
        let (from, to) = (name("base"), DeltaDestination::Stream(&mut bytes));
        let from = base.map(|_| &from);
        engine
            .create_delta(
                from,
                &name("target"),
                Recompress::SameBlock,
                to,
                Task::unattended(),
            )
            .unwrap();
        let path = self.path("delta");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn disk(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("disk");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn journal(&self) -> PathBuf {
        self.path("disk.tegula-journal")
    }
}

fn apply(delta: &Path, disk: &Path, task: Task<'_>) -> Result<RawDeltaApplied, EngineError> {
    let request = RawDeltaRequest {
        source: DeltaSource::File(delta),
        disk,
        journal: None,
        dry_run: false,
    };
    apply_delta_to_disk(request, task)
}

/// A disk of blocks that each hold one value, cut short by `short` bytes.
fn disk(blocks: &[u8], short: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = blocks.iter().flat_map(|kind| [*kind; BLOCK]).collect();
    bytes.truncate(bytes.len().saturating_sub(short));
    bytes
}

#[track_caller]
fn expect_delta_error(result: Result<RawDeltaApplied, EngineError>) -> DeltaError {
    match result.unwrap_err() {
        EngineError::Delta(error) => *error,
        error => panic!("{error}"),
    }
}

#[test]
fn chunks_that_change_places_are_not_lost() {
    let world = World::new();
    let base = disk(&[1, 2, 3, 4, 5, 6], 0);
    // Everything moves; nothing is carried.
    let target = disk(&[2, 3, 4, 5, 6, 1], 0);
    let (delta, on) = (world.delta(Some(&base), &target), world.disk(&base));
    let applied = apply(&delta, &on, Task::unattended()).unwrap();
    assert_eq!(applied.saved_bytes, base.len() as u64);
    assert!(std::fs::read(&on).unwrap() == target);
    assert!(!world.journal().exists());
    let again = apply(&delta, &on, Task::unattended()).unwrap();
    assert!(again.done_before && again.written_bytes == 0, "{again:?}");
    assert!(!world.journal().exists());
}

#[test]
fn a_chunk_that_stays_somewhere_is_not_saved() {
    let world = World::new();
    let base = disk(&[1, 1, 2], 0);
    let target = disk(&[3, 1, 1], 0);
    let (delta, on) = (world.delta(Some(&base), &target), world.disk(&base));
    let request = RawDeltaRequest {
        source: DeltaSource::File(&delta),
        disk: &on,
        journal: None,
        dry_run: true,
    };
    let promised = apply_delta_to_disk(request, Task::unattended()).unwrap();
    assert!(
        std::fs::read(&on).unwrap() == base,
        "a dry run writes nothing"
    );
    let applied = apply(&delta, &on, Task::unattended()).unwrap();
    assert_eq!(applied, promised);
    assert_eq!(
        (applied.saved_bytes, applied.written_bytes),
        (0, 2 * BLOCK as u64)
    );
    assert!(std::fs::read(&on).unwrap() == target);
}

#[test]
fn another_disk_is_refused_and_not_touched() {
    let world = World::new();
    let base = disk(&[1, 2, 3], 0);
    let delta = world.delta(Some(&base), &disk(&[1, 4], 0));
    for other in [
        disk(&[1, 2, 4], 0),
        disk(&[1, 2], 0),
        disk(&[1, 2, 3, 0], 0),
    ] {
        let on = world.disk(&other);
        let error = expect_delta_error(apply(&delta, &on, Task::unattended()));
        let refused = matches!(
            error,
            DeltaError::OtherDisk { .. } | DeltaError::OtherLength { .. }
        );
        assert!(refused, "{error}");
        assert!(std::fs::read(&on).unwrap() == other);
        assert!(!world.journal().exists());
    }
}

#[test]
fn a_delta_from_nothing_fills_an_empty_file_and_no_other() {
    let world = World::new();
    let target = disk(&[1, 0, 2], 5);
    let delta = world.delta(None, &target);
    let on = world.disk(&[9]);
    let error = expect_delta_error(apply(&delta, &on, Task::unattended()));
    assert!(
        matches!(error, DeltaError::StartsFromNothing { .. }),
        "{error}"
    );
    let on = world.disk(&[]);
    apply(&delta, &on, Task::unattended()).unwrap();
    assert!(std::fs::read(&on).unwrap() == target);
}

/// Stops the work at the nth time it tells how far it is.
fn stopped_at(n: u32, run: impl FnOnce(Task<'_>) -> Result<RawDeltaApplied, EngineError>) -> bool {
    let (stop, told) = (AtomicBool::new(false), AtomicU32::new(0));
    let task = Task {
        progress: &|_, _| {
            if told.fetch_add(1, Ordering::Relaxed) >= n {
                stop.store(true, Ordering::Relaxed);
            }
        },
        interrupted: &stop,
    };
    match run(task) {
        Ok(_) => false,
        Err(EngineError::Interrupted) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_journal_of_another_delta_or_disk_is_refused() {
    let world = World::new();
    let base = disk(&(1..=200).collect::<Vec<_>>(), 0);
    let moved = disk(&(1..=200).rev().collect::<Vec<_>>(), 0);
    let (delta, on) = (world.delta(Some(&base), &moved), world.disk(&base));
    // Until it is stopped with something in its journal that counts.
    let stopped = (0..).find(|n| {
        let stopped = stopped_at(*n, |task| apply(&delta, &on, task));
        assert!(stopped, "it was never stopped behind the seal");
        std::fs::metadata(world.journal()).is_ok_and(|file| file.len() > base.len() as u64)
    });
    assert!(stopped.is_some());
    let other = world.delta(Some(&base), &disk(&[7; 200], 0));
    let error = expect_delta_error(apply(&other, &on, Task::unattended()));
    let refused = matches!(error, DeltaError::JournalOfAnother { of: "delta", .. });
    assert!(refused, "{error}");
    let delta = world.delta(Some(&base), &moved);
    std::fs::rename(&on, world.path("elsewhere")).unwrap();
    let copy = world.disk(&base);
    let error = expect_delta_error(apply(&delta, &copy, Task::unattended()));
    let refused = matches!(error, DeltaError::JournalOfAnother { of: "disk", .. });
    assert!(refused, "{error}");
    std::fs::rename(world.path("elsewhere"), &on).unwrap();
    assert!(apply(&delta, &on, Task::unattended()).unwrap().resumed);
    assert!(std::fs::read(&on).unwrap() == moved);
    assert!(!world.journal().exists());
}

#[test]
fn a_file_that_is_no_journal_is_not_taken_for_one() {
    let world = World::new();
    let base = disk(&[1], 0);
    let (delta, on) = (world.delta(Some(&base), &disk(&[2], 0)), world.disk(&base));
    for text in [
        "x",
        "#!/bin/sh\nexec something that is longer than the head of a journal is, or so it should be, at least\n",
    ] {
        std::fs::write(world.journal(), text).unwrap();
        let error = expect_delta_error(apply(&delta, &on, Task::unattended()));
        assert!(matches!(error, DeltaError::NotAJournal { .. }), "{error}");
        assert_eq!(std::fs::read(world.journal()).unwrap(), text.as_bytes());
        assert!(std::fs::read(&on).unwrap() == base);
    }
}

#[test]
fn a_journal_cut_anywhere_is_begun_anew_or_gone_on_with() {
    let world = World::new();
    let base = disk(&[1, 2, 3, 4], 0);
    let target = disk(&[2, 1, 0, 9], 0);
    let (delta, on) = (world.delta(Some(&base), &target), world.disk(&base));
    let stopped = (0..).find(|n| {
        assert!(stopped_at(*n, |task| apply(&delta, &on, task)));
        std::fs::metadata(world.journal()).is_ok_and(|file| file.len() > 2 * BLOCK as u64)
    });
    assert!(stopped.is_some());
    let journal = std::fs::read(world.journal()).unwrap();
    for length in [0, 1, 8, 31, 96, 97, 120, 200, 5000, journal.len() - 1] {
        // What is not sealed was before the first write.
        std::fs::write(&on, &base).unwrap();
        std::fs::write(world.journal(), &journal[..length]).unwrap();
        let applied = apply(&delta, &on, Task::unattended()).unwrap();
        assert!(!applied.resumed, "cut at {length}");
        assert!(std::fs::read(&on).unwrap() == target, "cut at {length}");
    }
    // Sealed, with garbage where marks would stand, and a disk that is changed in part.
    let mut half = base;
    half[..BLOCK].copy_from_slice(&target[..BLOCK]);
    std::fs::write(&on, half).unwrap();
    std::fs::write(world.journal(), [&journal[..], b"torn"].concat()).unwrap();
    assert!(apply(&delta, &on, Task::unattended()).unwrap().resumed);
    assert!(std::fs::read(&on).unwrap() == target);
}

fn blocks() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let kind = prop_oneof![Just(0u8), 1u8..7];
    (
        prop::collection::vec(kind, 0..20),
        prop_oneof![Just(0usize), 1..BLOCK],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_disk_is_made_of_any_other_however_often_it_is_stopped(
        (base, base_short) in blocks(),
        (target, target_short) in blocks(),
        stops in prop::collection::vec(0u32..12, 0..4),
    ) {
        let world = World::new();
        let (base, target) = (disk(&base, base_short), disk(&target, target_short));
        let (delta, on) = (world.delta(Some(&base), &target), world.disk(&base));
        for n in stops {
            stopped_at(n, |task| apply(&delta, &on, task));
        }
        apply(&delta, &on, Task::unattended()).unwrap();
        prop_assert!(std::fs::read(&on).unwrap() == target);
        prop_assert!(!world.journal().exists());
    }
}

#[test]
fn chunks_that_build_on_what_they_replace_are_made_of_what_was_saved() {
    let world = World::new();
    let mut state = 1_u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()[6]
    };
    let base: Vec<u8> = (0..20 * BLOCK).map(|_| noise()).collect();
    let mut target = base.clone();
    target.chunks_mut(BLOCK).for_each(|block| block[7] ^= 1);
    let (delta, on) = (world.delta(Some(&base), &target), world.disk(&base));
    assert!(std::fs::metadata(&delta).unwrap().len() < 5000);
    for n in 0..6 {
        stopped_at(n, |task| apply(&delta, &on, task));
    }
    apply(&delta, &on, Task::unattended()).unwrap();
    assert!(std::fs::read(&on).unwrap() == target);
}
