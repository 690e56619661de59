//! A delta stream is no longer than the frames of what changed: counted, for every way in which these come to be stored.
//!
//! The frame of a changed block is the one that is stored, if who has the base can decode it, else the one that the block
//! compresses to by itself. Around it a stream has a record's head, an id, and a place in a set.

#![expect(
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "a test ends at the first surprise"
)]

mod support;

use proptest::prelude::*;
use std::collections::BTreeMap;
use support::name;
use tegula_engine::{
    BackendPreference, DeltaBase, DeltaDestination, DeltaReport, DeltaRequest, DeltaSource, Engine,
    InitOptions, OptimizeOptions, Recompress, Task,
};
use tegula_format::{BlockIndex, ChunkId, RECORD_HEADER_BYTES};
use tegula_store::{LayerStack, Session, compress};

const BLOCK: usize = 64 << 10;

/// What a stream has for each block beside its frame: a record's head, an id, and two bytes at most in a set.
const AROUND_BYTES: u64 = RECORD_HEADER_BYTES as u64 + 32 + 2;

/// What it has once: header, trailer, the heads of two sets.
const ONCE_BYTES: u64 = 512;

/// A block about a third of which does not compress.
fn block(seed: u64) -> Vec<u8> {
    let mut noise = vec![0; BLOCK / 3];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut noise);
    let mut bytes: Vec<u8> = noise.iter().flat_map(|byte| [*byte, byte & 1, 7]).collect();
    bytes.resize(BLOCK, 3);
    bytes
}

/// How a block of the second image comes about.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// It is the first one's.
    None,
    /// Some of its bytes are others.
    Edited(u64),
    /// It has nothing of what was there.
    New(u64),
    /// It resembles a block of a third image, which the receiver does not have.
    LikeStranger(u64),
    /// The first image has it in another place.
    Moved(u64),
    /// It is zeroed.
    Zeroed,
}

fn edited(mut bytes: Vec<u8>, seed: u64) -> Vec<u8> {
    let at = usize::try_from(seed % 60_000).unwrap();
    let edit = block(seed ^ 0xed17);
    bytes
        .iter_mut()
        .skip(at)
        .zip(&edit)
        .take(200)
        .for_each(|(byte, new)| *byte = *new);
    bytes
}

fn changed(at: u64, change: Change) -> Vec<u8> {
    match change {
        Change::None => block(at),
        Change::Edited(seed) => edited(block(at), seed),
        Change::New(seed) => block((1 << 32) | seed),
        Change::LikeStranger(seed) => edited(block((1 << 33) | (seed % 4)), seed),
        Change::Moved(from) => block(from),
        Change::Zeroed => vec![0; BLOCK],
    }
}

struct World {
    _directory: tempfile::TempDir,
    engine: Engine,
}

impl World {
    fn new(prefix_frames: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions {
            prefix_frames,
            ..InitOptions::default()
        };
        let path = directory.path().join("store");
        let (engine, _) = Engine::init(&path, BackendPreference::Blocking, options).unwrap();
        Self {
            _directory: directory,
            engine,
        }
    }

    fn put(&self, image: &str, bytes: &[u8], parent: Option<&str>) {
        support::put(&self.engine, image, bytes, parent);
    }

    fn create(&self, base: &str, image: &str, recompress: Recompress) -> (Vec<u8>, DeltaReport) {
        let mut bytes = Vec::new();
        let to = DeltaDestination::Stream(&mut bytes);
        let (base, image) = (name(base), name(image));
        let made = self
            .engine
            .create_delta(Some(&base), &image, recompress, to, Task::unattended())
            .unwrap();
        let told = self
            .engine
            .size_delta(Some(&base), &image, recompress, Task::unattended())
            .unwrap();
        assert_eq!(told, made, "what is told is what is made");
        assert_eq!(made.bytes, bytes.len() as u64);
        (bytes, made)
    }

    /// Returns the bytes of the frames of what an image has and its base has not, in the shortest form that is at hand and
    /// that who has the base can decode.
    fn frames(&self, base: &str, image: &str) -> u64 {
        let session = self.engine.store().begin().unwrap();
        let (base, image) = (chunks(&session, base), chunks(&session, image));
        let level = self.engine.store().config().zstd_level;
        let sent = image.keys().filter(|id| !base.contains_key(*id));
        let lengths = sent.map(|id| {
            let row = session.locate(id).unwrap();
            let bases = session.bases_of(&row).unwrap();
            let has = |id: &ChunkId| base.contains_key(id) || image.contains_key(id);
            match bases.ids().iter().all(has) {
                true => u64::from(row.stored_length),
                false => {
                    let bytes = session.read_chunk(id).unwrap();
                    u64::from(compress(*id, &bytes, level).stored_length)
                }
            }
        });
        lengths.sum()
    }

    /// A stream between two images has nothing but the frames and what is around them, and makes the one of the other.
    fn check(&self, base: &str, image: &str, bytes: &[u8]) -> (u64, u64) {
        let frames = self.frames(base, image);
        let mut shortest = u64::MAX;
        for recompress in [
            Recompress::Needed,
            Recompress::IfSmall,
            Recompress::SameBlock,
        ] {
            let (stream, made) = self.create(base, image, recompress);
            let around = made.data_blocks * AROUND_BYTES + made.zero_blocks * 2 + ONCE_BYTES;
            assert!(
                made.bytes <= frames + around,
                "{base} to {image}, {recompress:?}: {} bytes for {frames} of frames: {made:?}",
                made.bytes
            );
            shortest = shortest.min(made.bytes);
            let other = Self::new(true);
            other.put(base, &self.get(base), None);
            other.apply(&stream, image);
            assert!(
                other.get(image) == bytes,
                "{base} to {image}, {recompress:?}"
            );
        }
        (frames, shortest)
    }

    fn get(&self, image: &str) -> Vec<u8> {
        support::get(&self.engine, image)
    }

    fn apply(&self, stream: &[u8], image: &str) {
        let mut reader = stream;
        let request = DeltaRequest {
            name: name(image),
            base: DeltaBase::ByDigest,
            replace: false,
            source: DeltaSource::Stream(&mut reader),
        };
        self.engine
            .apply_delta(request, Task::unattended())
            .unwrap();
    }

    fn optimize(&self) {
        let options = OptimizeOptions::default();
        self.engine.optimize(&options, Task::unattended()).unwrap();
    }
}

/// Returns the chunks of an image, each with a block in which it stands.
fn chunks(session: &Session, image: &str) -> BTreeMap<ChunkId, BlockIndex> {
    let record = session.image(&name(image)).unwrap();
    let stack = LayerStack::of_image(session, &record).unwrap();
    let chunks = stack.chunks().map(|chunk| chunk.unwrap());
    chunks.map(|(block, id)| (id, block)).collect()
}

/// Puts a first image, a stranger, and a second image that the changes make of the first; then checks the streams both ways,
/// as everything is stored by the puts and after it was stored again. Returns frames and bytes of the first one.
fn check(changes: &[Change], prefix_frames: bool) -> (u64, u64) {
    let world = World::new(prefix_frames);
    let numbered = || (0..).zip(changes);
    let first: Vec<u8> = numbered().flat_map(|(at, _)| block(at)).collect();
    let second: Vec<u8> = numbered()
        .flat_map(|(at, change)| changed(at, *change))
        .collect();
    let stranger: Vec<u8> = (0..4).flat_map(|kind| block((1 << 33) | kind)).collect();
    world.put("first", &first, None);
    world.put("stranger", &stranger, None);
    world.put("second", &second, Some("first"));
    let found = world.check("first", "second", &second);
    world.check("second", "first", &first);
    world.optimize();
    world.check("first", "second", &second);
    world.check("second", "first", &first);
    found
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => Just(Change::None),
        2 => any::<u64>().prop_map(Change::Edited),
        2 => any::<u32>().prop_map(|seed| Change::New(seed.into())),
        2 => any::<u64>().prop_map(Change::LikeStranger),
        1 => (0..8_u64).prop_map(Change::Moved),
        1 => Just(Change::Zeroed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_stream_holds_the_frames_of_what_changed_and_little_else(
        changes in proptest::collection::vec(change(), 1..12),
        prefix_frames in any::<bool>(),
    ) {
        check(&changes, prefix_frames);
    }
}

#[test]
fn what_is_around_whole_frames_is_half_a_percent_at_most() {
    type Kind = (&'static str, fn(u64) -> Change);
    let kinds: [Kind; 2] = [
        ("new", Change::New),
        ("like a stranger", Change::LikeStranger),
    ];
    for (what, kind) in kinds {
        let changes: Vec<_> = (0..48).map(|at| kind(at * 7919)).collect();
        let (frames, bytes) = check(&changes, true);
        let ratio = bytes as f64 / frames as f64;
        println!("{what}: {bytes} bytes for {frames} of frames, {ratio:.4}");
        assert!(bytes * 1000 <= frames * 1005, "{what}: {ratio:.4}");
    }
}

#[test]
fn small_edits_cost_what_they_are_and_not_the_blocks_they_are_in() {
    // As logs and settings change: two hundred bytes here and there.
    let changes: Vec<_> = (0..48)
        .map(|at| match at % 3 {
            0 => Change::Edited(at * 104_729),
            _ => Change::None,
        })
        .collect();
    let (frames, bytes) = check(&changes, true);
    println!("{bytes} bytes for {frames} of frames");
    assert!(bytes < 16 * 600 + ONCE_BYTES, "{bytes} for 16 edits");
}
