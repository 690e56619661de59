//! Merged deltas against a naive model: what one does is what all of them do, one after the other.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the deltas are the test's own files"
)]

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tegula_engine::{
    BackendPreference, BlockSize, DeltaDestination, DeltaError, DeltaRequest, DeltaSource,
    DeltaSummary, Destination, Engine, EngineError, ImageName, InitOptions, PutRequest, Recompress,
    Source, Task, merge_deltas, show_delta,
};

const BLOCK: usize = 4096;

fn name(text: impl AsRef<str>) -> ImageName {
    ImageName::parse(text.as_ref()).unwrap()
}

struct World {
    directory: tempfile::TempDir,
    engine: Engine,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions {
            block_size: BlockSize::from_bytes(BLOCK as u64).unwrap(),
            ..InitOptions::default()
        };
        let path = directory.path().join("store");
        let (engine, _) = Engine::init(&path, BackendPreference::Blocking, options).unwrap();
        Self { directory, engine }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, image: &str, mut bytes: &[u8]) {
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut bytes),
            parent: None,
            replace: false,
        };
        self.engine.put(request, Task::unattended()).unwrap();
    }

    /// Puts a series of disks and returns the deltas from each to the next.
    fn series(&self, disks: &[Vec<u8>], from_nothing: bool) -> Vec<PathBuf> {
        for (at, bytes) in disks.iter().enumerate() {
            self.put(&format!("v{at}"), bytes);
        }
        let pairs = (1..disks.len()).map(|at| (Some(at - 1), at));
        let first = from_nothing.then_some((None, 0));
        first
            .into_iter()
            .chain(pairs)
            .map(|(from, to)| self.create(from, to))
            .collect()
    }

    fn create(&self, from: Option<usize>, to: usize) -> PathBuf {
        let path = self.path(&format!(
            "{}-{to}.delta",
            from.map_or(-1, |from| from as i64)
        ));
        let base = from.map(|from| name(format!("v{from}")));
        // Chunks that build on others, wherever that is shorter.
        let recompress = Recompress::SameBlock;
        let file = DeltaDestination::File {
            path: &path,
            force: true,
        };
        self.engine
            .create_delta(
                base.as_ref(),
                &name(format!("v{to}")),
                recompress,
                file,
                Task::unattended(),
            )
            .unwrap();
        path
    }

    fn merge(&self, deltas: &[&PathBuf], to: &str) -> Result<(PathBuf, DeltaSummary), EngineError> {
        let path = self.path(to);
        let deltas: Vec<&Path> = deltas.iter().map(|delta| delta.as_path()).collect();
        let file = DeltaDestination::File {
            path: &path,
            force: true,
        };
        let summary = merge_deltas(&deltas, self.directory.path(), file, Task::unattended())?;
        assert_eq!(show_delta(&path, Task::unattended()).unwrap(), summary);
        Ok((path, summary))
    }

    fn apply(&self, delta: &Path, image: &str) -> Vec<u8> {
        let request = DeltaRequest {
            source: DeltaSource::File(delta),
            name: name(image),
            replace: false,
            base: tegula_engine::DeltaBase::ByDigest,
        };
        self.engine
            .apply_delta(request, Task::unattended())
            .unwrap();
        let mut bytes = Vec::new();
        let to = Destination::Stream(&mut bytes);
        self.engine
            .get(&name(image), to, Task::unattended())
            .unwrap();
        bytes
    }
}

/// A disk of blocks: 0 is zeros, the tens say which noise it is, the ones which patch of it.
fn disk(blocks: &[u8], short: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = blocks.iter().flat_map(|kind| block(*kind)).collect();
    bytes.truncate(bytes.len().saturating_sub(short));
    bytes
}

fn block(kind: u8) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    if kind > 0 {
        let mut state = u64::from(kind / 10) + 1;
        for byte in &mut block {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = state.to_le_bytes()[6];
        }
        block[50..60].fill(kind % 10);
    }
    block
}

/// The tables of a stream: all before its records.
fn tables(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let record = bytes.windows(4).position(|four| four == b"TGRC");
    bytes[..record.unwrap_or(bytes.len() - 60)].to_vec()
}

#[test]
fn what_was_cut_off_reads_as_zeros_when_the_image_grows_again() {
    let world = World::new();
    let disks = [
        disk(&[11, 21, 31, 41, 51], 0),
        disk(&[11, 22], 0),
        disk(&[11, 22, 0, 42, 0, 0], 0),
    ];
    let deltas = world.series(&disks, false);
    let (merged, summary) = world.merge(&[&deltas[0], &deltas[1]], "merged").unwrap();
    assert_eq!((summary.data_blocks, summary.zero_blocks), (2, 2));
    let other = World::new();
    other.put("v0", &disks[0]);
    assert!(other.apply(&merged, "made") == disks[2]);
}

#[test]
fn deltas_that_do_not_follow_each_other_are_refused_and_both_are_named() {
    let world = World::new();
    let disks = [disk(&[11], 0), disk(&[21], 0), disk(&[31], 0)];
    let deltas = world.series(&disks, true);
    for (before, after) in [
        (&deltas[2], &deltas[1]),
        (&deltas[0], &deltas[2]),
        (&deltas[1], &deltas[0]),
    ] {
        let error = world.merge(&[before, after], "merged").unwrap_err();
        let EngineError::Delta(error) = error else {
            panic!("{error}");
        };
        assert!(
            matches!(*error, DeltaError::DoesNotFollow { .. }),
            "{error}"
        );
        for path in [before, after] {
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
        }
        assert!(!world.path("merged").exists());
    }
}

#[test]
fn chunks_that_build_on_each_other_through_several_deltas_take_what_they_stand_on_along() {
    let world = World::new();
    let disks: Vec<_> = (1..=6).map(|patch| disk(&[10 + patch, 20], 0)).collect();
    let deltas = world.series(&disks, false);
    let deltas: Vec<_> = deltas.iter().collect();
    let (merged, summary) = world.merge(&deltas, "merged").unwrap();
    // One block is set, its chunk stands on four others, and they on the base's.
    assert_eq!((summary.data_blocks, summary.records), (1, 5));
    assert!(summary.bytes < 2000, "{summary:?}");
    let other = World::new();
    other.put("v0", &disks[0]);
    assert!(other.apply(&merged, "made") == disks[5]);
    let on = world.path("disk");
    std::fs::write(&on, &disks[0]).unwrap();
    let request = tegula_engine::RawDeltaRequest {
        source: DeltaSource::File(&merged),
        disk: &on,
        journal: None,
        dry_run: false,
    };
    tegula_engine::apply_delta_to_disk(request, Task::unattended()).unwrap();
    assert!(std::fs::read(&on).unwrap() == disks[5]);
}

fn disks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let kind = prop_oneof![Just(0u8), 11u8..16, 21u8..23];
    let blocks = prop::collection::vec(kind, 0..14);
    let one = (blocks, prop_oneof![Just(0usize), 1..BLOCK]);
    let one = one.prop_map(|(blocks, short)| disk(&blocks, short));
    prop::collection::vec(one, 4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn merging_is_applying_one_after_the_other_and_associative(
        disks in disks(),
        from_nothing: bool,
    ) {
        let world = World::new();
        let deltas = world.series(&disks, from_nothing);
        let all: Vec<_> = deltas.iter().collect();
        let (merged, _) = world.merge(&all, "all").unwrap();
        let last = deltas.len() - 1;
        let (left, _) = world.merge(&all[..last], "left").unwrap();
        let (left, _) = world.merge(&[&left, all[last]], "left-first").unwrap();
        let (right, _) = world.merge(&all[1..], "right").unwrap();
        let (right, _) = world.merge(&[all[0], &right], "right-first").unwrap();
        prop_assert!(tables(&left) == tables(&merged));
        prop_assert!(tables(&right) == tables(&merged));
        for (at, delta) in [merged, left, right].iter().enumerate() {
            let other = World::new();
            if !from_nothing {
                other.put("v0", &disks[0]);
            }
            prop_assert!(other.apply(delta, "made") == disks[3], "way {at}");
        }
    }
}
