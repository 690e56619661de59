//! Delta streams through the public API: what is made of a pair of images makes the second of the first.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod support;

use proptest::prelude::*;
use support::name;
use tegula_engine::{
    BackendPreference, BlockSize, DeltaApplied, DeltaDestination, DeltaError, DeltaReport,
    DeltaRequest, DeltaSource, Engine, EngineError, InitOptions, Recompress, StoreError, Task,
};
use tegula_format::{BlockIndex, BlockSet, ChunkId};
use tegula_store::{Ingest, NewImage};

const BLOCK: usize = 4096;

struct World {
    _directory: tempfile::TempDir,
    engine: Engine,
    recompress: Recompress,
}

impl World {
    fn new() -> Self {
        Self::with_blocks(BLOCK as u64)
    }

    fn with_blocks(bytes: u64) -> Self {
        Self::with(bytes, true)
    }

    fn with(bytes: u64, prefix_frames: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions {
            block_size: BlockSize::from_bytes(bytes).unwrap(),
            prefix_frames,
            ..InitOptions::default()
        };
        let path = directory.path().join("store");
        let (engine, _) = Engine::init(&path, BackendPreference::Blocking, options).unwrap();
        Self {
            _directory: directory,
            engine,
            recompress: Recompress::default(),
        }
    }

    fn put(&self, image: &str, bytes: &[u8], parent: Option<&str>) {
        support::put(&self.engine, image, bytes, parent);
    }

    fn get(&self, image: &str) -> Vec<u8> {
        support::get(&self.engine, image)
    }

    fn create(&self, base: Option<&str>, image: &str) -> (Vec<u8>, DeltaReport) {
        let mut bytes = Vec::new();
        let (base, to) = (base.map(name), DeltaDestination::Stream(&mut bytes));
        let report = self
            .engine
            .create_delta(
                base.as_ref(),
                &name(image),
                self.recompress,
                to,
                Task::unattended(),
            )
            .unwrap();
        assert_eq!(report.bytes, bytes.len() as u64);
        let promised = self
            .engine
            .size_delta(
                base.as_ref(),
                &name(image),
                self.recompress,
                Task::unattended(),
            )
            .unwrap();
        assert_eq!(promised, report, "what was promised is what was made");
        (bytes, report)
    }

    fn apply(&self, mut delta: &[u8], image: &str) -> Result<DeltaApplied, EngineError> {
        let request = DeltaRequest {
            source: DeltaSource::Stream(&mut delta),
            name: name(image),
            replace: false,
            base: tegula_engine::DeltaBase::ByDigest,
        };
        self.engine.apply_delta(request, Task::unattended())
    }

    fn names(&self) -> Vec<String> {
        let images = self.engine.list().unwrap();
        images.iter().map(|image| image.name.to_string()).collect()
    }

    fn is_sound(&self) {
        let depth = tegula_engine::Depth::Full;
        let verification = self.engine.verify(depth, &[], Task::unattended()).unwrap();
        assert_eq!(verification.findings, []);
    }
}

/// A disk of blocks that are zeros (0), compressible (to 99), or noise (from 100 on), cut short by `short` bytes.
fn disk(blocks: &[u8], short: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = blocks
        .iter()
        .flat_map(|kind| {
            let mut block = vec![0; BLOCK];
            match kind {
                0 => {}
                1..100 => block.fill(*kind),
                _ => noise(*kind, &mut block),
            }
            block
        })
        .collect();
    bytes.truncate(bytes.len().saturating_sub(short));
    bytes
}

/// Bytes that no compressor makes shorter, the same for the same seed.
fn noise(seed: u8, bytes: &mut [u8]) {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
}

#[test]
fn a_delta_makes_the_second_image_of_the_first_in_another_store() {
    let (here, there) = (World::new(), World::new());
    let base = disk(&[1, 2, 0, 100, 101, 5], 0);
    let target = disk(&[1, 3, 102, 0, 100, 5, 0, 103, 103], 77);
    here.put("base", &base, None);
    here.put("target", &target, Some("base"));
    let (delta, report) = here.create(Some("base"), "target");
    // Blocks 1, 2, 4, 7 and 8 hold other chunks; the base has that of block 4, and 7 and 8 hold the same.
    assert_eq!((report.data_blocks, report.zero_blocks), (5, 1));
    assert_eq!(
        report.records,
        3 + 1,
        "the short last block is another chunk"
    );
    there.put("mine", &base, None);
    let applied = there.apply(&delta, "made").unwrap();
    assert_eq!(applied.record.digest, report.target.digest);
    assert_eq!(applied.record.parent.unwrap().name, name("mine"));
    assert_eq!((applied.records, applied.new_chunks), (4, 4));
    assert!(there.get("made") == target);
    there.is_sound();
}

#[test]
fn a_delta_without_a_base_holds_all_of_its_image() {
    let (here, there) = (World::new(), World::new());
    for (image, blocks) in [("some", &[0, 1, 1, 100, 0][..]), ("none", &[])] {
        let bytes = disk(blocks, 9);
        here.put(image, &bytes, None);
        let (delta, report) = here.create(None, image);
        assert_eq!(report.base, None);
        let applied = there.apply(&delta, image).unwrap();
        assert_eq!(applied.record.parent, None);
        assert!(there.get(image) == bytes);
    }
    there.is_sound();
}

#[test]
fn the_same_pair_gives_the_same_stream() {
    let world = World::new();
    world.put("base", &disk(&[1; 300], 0), None);
    let blocks: Vec<u8> = (0..300u16).map(|n| n.to_le_bytes()[0]).collect();
    world.put("target", &disk(&blocks, 0), Some("base"));
    let (first, _) = world.create(Some("base"), "target");
    assert!(world.create(Some("base"), "target").0 == first);
    // How the images are layered makes no difference.
    world
        .engine
        .store()
        .flatten(&name("target"), false)
        .unwrap();
    assert!(world.create(Some("base"), "target").0 == first);
}

#[test]
fn a_delta_for_an_absent_base_is_refused_and_the_base_named() {
    let (here, there) = (World::new(), World::new());
    here.put("base", &disk(&[1, 2], 0), None);
    here.put("target", &disk(&[1, 3], 0), Some("base"));
    let (delta, report) = here.create(Some("base"), "target");
    there.put("other", &disk(&[1, 4], 0), None);
    let error = there.apply(&delta, "made").unwrap_err();
    let EngineError::Delta(error) = error else {
        panic!("{error}");
    };
    let DeltaError::BaseMissing { base, .. } = *error else {
        panic!("{error}");
    };
    assert_eq!(Some(base), report.base);
    assert_eq!(there.names(), ["other"]);
}

#[test]
fn blocks_of_another_size_and_taken_names_are_refused() {
    let (here, large) = (World::new(), World::with_blocks(65_536));
    here.put("base", &disk(&[1, 2], 0), None);
    here.put("target", &disk(&[1, 3], 0), Some("base"));
    let (delta, _) = here.create(Some("base"), "target");
    match large.apply(&delta, "made").unwrap_err() {
        EngineError::Delta(error) => {
            assert!(
                matches!(*error, DeltaError::OtherBlockSize { .. }),
                "{error}"
            );
        }
        error => panic!("{error}"),
    }
    let error = here.apply(&delta, "target").unwrap_err();
    let taken = matches!(error, EngineError::Store(StoreError::ImageExists { .. }));
    assert!(taken, "{error}");
}

#[test]
fn every_damaged_byte_of_a_stream_is_found_before_an_image_is_made_of_it() {
    let (here, there) = (World::new(), World::new());
    let base = disk(&[1, 2, 100], 0);
    here.put("base", &base, None);
    here.put("target", &disk(&[1, 3, 0, 4], 5), Some("base"));
    there.put("base", &base, None);
    let (good, _) = here.create(Some("base"), "target");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let error = there.apply(&bad, "made").unwrap_err();
        let EngineError::Delta(error) = error else {
            panic!("byte {at}: {error}");
        };
        // Of the base's digest or size no more can be said than that no image has it: but the header is checked first.
        assert!(error.is_damage(), "byte {at}: {error}");
    }
    for length in 0..good.len() {
        assert!(
            there.apply(&good[..length], "made").is_err(),
            "cut at {length}"
        );
    }
    let longer = [&good[..], &[0]].concat();
    assert!(there.apply(&longer, "made").is_err());
    assert_eq!(there.names(), ["base"]);
    there.apply(&good, "made").unwrap();
    there.is_sound();
}

/// A block of noise with a few bytes of its own.
fn patched(noise_of: u8, patch: u8) -> Vec<u8> {
    let mut block = disk(&[noise_of], 0);
    block[100..110].fill(patch);
    block
}

/// Puts an image whose chunks are stored on others: each block with the block that its chunk builds on, if any.
fn put_framed(world: &World, image: &str, blocks: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let session = world.engine.store().begin().unwrap();
    let ingest = Ingest::begin(&session).unwrap();
    let mut ids = ingest.id_table();
    let mut data = BlockSet::new();
    for (at, (block, base)) in (0..).zip(blocks) {
        let id = ChunkId::of(block);
        if !ingest.has_or_claim(&id) {
            let chunk = match base {
                None => ingest.compress(id, block),
                Some(base) => {
                    let bases = [(ChunkId::of(base), &base[..])];
                    ingest.compress_with_bases(id, block, &bases, 1000).unwrap()
                }
            };
            ingest.store(&chunk).unwrap();
        }
        ids.push(&id).unwrap();
        data.push(BlockIndex::new(at));
    }
    let new = NewImage {
        name: name(image),
        replace: false,
        virtual_size: (blocks.len() * BLOCK) as u64,
        parent: None,
        base: None,
        data,
        zero: BlockSet::new(),
    };
    ingest.finish(new, ids).unwrap();
}

#[test]
fn chunks_stored_on_others_are_carried_as_they_are_where_the_receiver_has_what_they_stand_on() {
    let (here, there) = (World::new(), World::new());
    let (base, third) = (disk(&[100, 1, 101], 0), disk(&[102], 0));
    here.put("base", &base, None);
    here.put("third", &third, None);
    let noise = |kind| disk(&[kind], 0);
    let blocks = [
        // On a chunk of the base; on one that comes later; on one of another image; that which comes later.
        (patched(100, 1), Some(noise(100))),
        (patched(103, 2), Some(noise(103))),
        (patched(102, 3), Some(third)),
        (noise(103), None),
    ];
    put_framed(&here, "target", &blocks);
    there.put("base", &base, None);
    let (delta, report) = here.create(Some("base"), "target");
    // The third is compressed anew, and noise does not compress.
    assert_eq!((report.records, report.recompressed), (4, 1));
    assert!(report.record_bytes < 2 * BLOCK as u64 + 1000, "{report:?}");
    there.apply(&delta, "made").unwrap();
    assert!(there.get("made") == blocks.concat_blocks());
    there.is_sound();
    // A store that knows no such frames takes the chunks by themselves.
    let plain = World::with(BLOCK as u64, false);
    plain.put("base", &base, None);
    let applied = plain.apply(&delta, "made").unwrap();
    assert!(applied.stored_new_bytes > 4 * BLOCK as u64, "{applied:?}");
    assert!(plain.get("made") == blocks.concat_blocks());
    plain.is_sound();
    // Without a base everything that it stood on is carried or gone.
    let (full, report) = here.create(None, "target");
    assert_eq!((report.records, report.recompressed), (4, 2));
    let empty = World::new();
    empty.apply(&full, "made").unwrap();
    assert!(empty.get("made") == blocks.concat_blocks());
}

trait ConcatBlocks {
    fn concat_blocks(&self) -> Vec<u8>;
}

impl ConcatBlocks for [(Vec<u8>, Option<Vec<u8>>)] {
    fn concat_blocks(&self) -> Vec<u8> {
        self.iter().flat_map(|(block, _)| block.clone()).collect()
    }
}

#[test]
fn a_delta_that_is_recompressed_holds_what_differs_from_the_same_block() {
    // Where there are such frames, the target is stored as what differs already.
    let (mut here, there) = (World::with(BLOCK as u64, false), World::new());
    let base = disk(&[100, 101, 102], 0);
    let target = [patched(100, 1), disk(&[101], 0), patched(102, 2)].concat();
    here.put("base", &base, None);
    here.put("target", &target, Some("base"));
    let (as_stored, _) = here.create(Some("base"), "target");
    here.recompress = Recompress::SameBlock;
    let (delta, report) = here.create(Some("base"), "target");
    assert!(as_stored.len() > 2 * BLOCK);
    assert!(delta.len() < 1000, "{report:?}");
    assert_eq!(report.recompressed, 2);
    // It carries few chunks: so it is also done if only small streams are to be.
    here.recompress = Recompress::IfSmall;
    assert!(here.create(Some("base"), "target").0 == delta);
    there.put("base", &base, None);
    let applied = there.apply(&delta, "made").unwrap();
    assert!(there.get("made") == target);
    assert!(
        applied.stored_new_bytes < 1000,
        "stored as they came: {applied:?}"
    );
    there.is_sound();
}

fn blocks() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let kind = prop_oneof![Just(0u8), 1u8..5, 100u8..104];
    (
        prop::collection::vec(kind, 0..24),
        prop_oneof![Just(0usize), 1..BLOCK],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_image_is_made_of_any_other_by_their_delta(
        (base, base_short) in blocks(),
        (target, target_short) in blocks(),
        related: bool,
        recompress: bool,
    ) {
        let (mut here, there) = (World::new(), World::new());
        if recompress {
            here.recompress = Recompress::SameBlock;
        }
        let (base, target) = (disk(&base, base_short), disk(&target, target_short));
        here.put("base", &base, None);
        here.put("target", &target, related.then_some("base"));
        let (delta, report) = here.create(Some("base"), "target");
        there.put("base", &base, None);
        let applied = there.apply(&delta, "made").unwrap();
        prop_assert_eq!(applied.new_chunks, report.records);
        prop_assert!(there.get("made") == target);
        there.is_sound();
    }
}
