//! Delta streams that are promised and then made from anywhere on: as HTTP asks for them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod support;

use std::io::{self, Write};
use std::sync::Arc;
use support::name;
use tegula_engine::{
    BlockSize, CollectOptions, DeltaBase, DeltaError, DeltaRequest, DeltaSource, Engine,
    EngineError, Environment, InitOptions, OptimizeOptions, Store, StreamTag, Task, Workers,
};
use tegula_format::{DeltaHeader, DeltaTrailer};
use tegula_io::sim::SimDisk;
use tegula_io::{SeededRandom, Storage, StorePath, SystemClock};

const BLOCK: usize = 4096;

struct World {
    disk: SimDisk,
    engine: Engine,
}

impl World {
    fn new(workers: Workers) -> Self {
        let disk = SimDisk::new();
        let options = InitOptions {
            block_size: BlockSize::MIN,
            ..InitOptions::default()
        };
        let store = Store::init(environment(&disk, 1), options).unwrap();
        let engine = Engine::new(store, workers);
        Self { disk, engine }
    }

    /// Opens the same store once more, as after a restart; or, of a copy of the disk, a copy of the store.
    fn again(disk: &SimDisk, seed: u64) -> Self {
        let store = Store::open(environment(disk, seed)).unwrap();
        Self {
            disk: disk.clone(),
            engine: Engine::new(store, Workers::Inline),
        }
    }

    fn put(&self, image: &str, bytes: &[u8], parent: Option<&str>) {
        support::put(&self.engine, image, bytes, parent);
    }

    fn get(&self, image: &str) -> Vec<u8> {
        support::get(&self.engine, image)
    }

    /// Returns the whole stream and its tag.
    fn whole(&self, base: Option<&str>, image: &str) -> (Vec<u8>, StreamTag) {
        self.served(base, image, |stream| {
            let mut bytes = Vec::new();
            let task = Task::unattended();
            stream.write(0..u64::MAX, &mut bytes, task).unwrap();
            assert_eq!(bytes.len() as u64, stream.bytes(), "as long as promised");
            (bytes, stream.tag())
        })
    }

    fn served<R>(
        &self,
        base: Option<&str>,
        image: &str,
        serve: impl FnOnce(&tegula_engine::DeltaStream<'_>) -> R,
    ) -> R {
        let (base, task) = (base.map(name), Task::unattended());
        let serve = |stream: &tegula_engine::DeltaStream<'_>| Ok::<_, EngineError>(serve(stream));
        self.engine
            .serve_delta(base.as_ref(), &name(image), task, serve)
            .unwrap()
    }

    fn apply(&self, delta: &[u8], image: &str) -> Result<(), EngineError> {
        self.apply_over(DeltaBase::ByDigest, delta, image)
    }

    fn apply_over(
        &self,
        base: DeltaBase,
        mut delta: &[u8],
        image: &str,
    ) -> Result<(), EngineError> {
        let request = DeltaRequest {
            source: DeltaSource::Stream(&mut delta),
            name: name(image),
            replace: false,
            base,
        };
        self.engine
            .apply_delta(request, Task::unattended())
            .map(drop)
    }
}

fn environment(disk: &SimDisk, seed: u64) -> Environment {
    Environment {
        storage: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(seed)),
    }
}

/// Blocks of noise, the same for the same kind; 0 is zeros. `edits` changes so many bytes of each block a little.
fn image(kinds: &[u64], edits: u64) -> Vec<u8> {
    let block = |kind: &u64| -> Vec<u8> {
        let random = SeededRandom::new(*kind);
        let mut block: Vec<u8> = (0..BLOCK / 8)
            .flat_map(|_| random.next_u64().to_le_bytes())
            .collect();
        for at in (0..edits).filter(|_| *kind > 0) {
            block[usize::try_from(at * 97).unwrap() % BLOCK] ^= 0x55;
        }
        if *kind == 0 {
            block.fill(0);
        }
        block
    };
    kinds.iter().flat_map(block).collect()
}

/// A world with a family of images: `base`, `target` over it, and `similar`, whose chunks resemble those of `target`, so
/// that some are stored as frames over chunks that whoever has `base` lacks.
fn family(workers: Workers) -> World {
    let world = World::new(workers);
    world.put("base", &image(&[1, 2, 3, 0, 5, 6], 0), None);
    world.put(
        "target",
        &image(&[1, 20, 0, 4, 5, 6, 7, 1], 0),
        Some("base"),
    );
    let mut similar = image(&[1, 20, 0, 4, 5, 6, 7], 3);
    similar.truncate(similar.len() - 100);
    world.put("similar", &similar, Some("target"));
    world
}

const PAIRS: [(Option<&str>, &str); 5] = [
    (Some("base"), "target"),
    (Some("base"), "similar"),
    (Some("similar"), "base"),
    (None, "similar"),
    (Some("target"), "target"),
];

#[test]
fn a_stream_that_is_begun_anywhere_is_the_rest_of_the_whole_one() {
    let world = family(Workers::Inline);
    let mut recompressed = 0;
    for (base, target) in PAIRS {
        let (whole, _) = world.whole(base, target);
        world.served(base, target, |stream| {
            recompressed += stream.report().recompressed;
            let write = |start: u64, end: u64| {
                let mut bytes = Vec::new();
                let task = Task::unattended();
                stream.write(start..end, &mut bytes, task).unwrap();
                bytes
            };
            for (at, start) in (0..=whole.len()).zip(0..) {
                // Every start is tried; whole streams of this many bytes would be long.
                let end = (at + 6000).min(whole.len());
                let (some, rest) = (write(start, end as u64), &whole[at..end]);
                assert!(some == rest, "{base:?} to {target} from {at}");
            }
            let mut at = 0;
            while at < whole.len() {
                assert!(write(at as u64, u64::MAX) == whole[at..], "from {at}");
                at += 997;
            }
            assert!(write(whole.len() as u64 + 1, u64::MAX).is_empty());
        });
    }
    assert!(
        recompressed > 0,
        "no record was compressed anew: {recompressed}"
    );
}

#[test]
fn a_served_stream_makes_the_image_of_whoever_has_the_base() {
    let here = family(Workers::Pool);
    for (base, target) in PAIRS {
        let there = World::new(Workers::Pool);
        if let Some(base) = base {
            there.put("mine", &here.get(base), None);
        }
        let (stream, _) = here.whole(base, target);
        there.apply(&stream, "made").unwrap();
        assert!(there.get("made") == here.get(target));
    }
}

#[test]
fn every_damaged_byte_of_a_served_stream_is_found() {
    let (here, there) = (family(Workers::Inline), World::new(Workers::Inline));
    there.put("mine", &here.get("base"), None);
    let (good, _) = here.whole(Some("base"), "similar");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let error = there.apply(&bad, "made").unwrap_err();
        let found = matches!(&error, EngineError::Delta(error) if error.is_damage());
        assert!(found, "byte {at}: {error}");
    }
}

#[test]
fn the_end_of_a_stream_is_made_without_reading_what_stands_before() {
    let world = World::new(Workers::Inline);
    let kinds: Vec<u64> = (1..=256).collect();
    world.put("large", &image(&kinds, 0), None);
    world.served(None, "large", |stream| {
        let read = |range: std::ops::Range<u64>| {
            let before = world.disk.stats().bytes_read;
            let mut bytes = Vec::new();
            stream.write(range, &mut bytes, Task::unattended()).unwrap();
            (bytes.len() as u64, world.disk.stats().bytes_read - before)
        };
        let bytes = stream.bytes();
        let (written, all) = read(0..bytes);
        assert_eq!(written, bytes);
        assert!(
            all >= 256 * BLOCK as u64,
            "a stream of noise is read: {all}"
        );
        let (written, some) = read(bytes - 10_000..bytes);
        assert_eq!(written, 10_000);
        // The records that these bytes are of, and no more: 10,000 bytes touch four at most.
        assert!(
            some <= 4 * (BLOCK as u64 + 52),
            "{some} bytes were read for 10,000"
        );
        assert_eq!(read(bytes - 60..bytes), (60, 0), "the trailer is known");
        assert_eq!(read(0..100), (100, 0), "so is the head");
    });
}

#[test]
fn a_tag_stands_for_the_same_bytes_whatever_becomes_of_the_store() {
    let world = family(Workers::Inline);
    let words: Vec<u8> = image(&[30, 31], 0).iter().map(|byte| byte % 7).collect();
    world.put("words", &words, None);
    let mut seen: Vec<(StreamTag, Vec<u8>)> = Vec::new();
    let mut look = |world: &World| -> Vec<StreamTag> {
        let of = |(base, target): (Option<&str>, &str)| {
            let (bytes, tag) = world.whole(base, target);
            let same = seen.iter().find(|(other, _)| *other == tag);
            assert!(
                same.is_none_or(|(_, stream)| *stream == bytes),
                "{base:?} to {target}: {tag} stands for two streams"
            );
            if seen.iter().all(|(other, _)| *other != tag) {
                seen.push((tag, bytes));
            }
            tag
        };
        PAIRS.into_iter().chain([(None, "words")]).map(of).collect()
    };
    let first = look(&world);
    assert_eq!(
        look(&World::again(&world.disk, 2)),
        first,
        "after a restart"
    );
    // Two copies of the store go their own ways: segments of the same number are made of the same chunks, differently.
    let copies = [3, 4].map(|seed| World::again(&world.disk.after_kill(), seed));
    for (copy, level) in copies.iter().zip([1, 19]) {
        let options = OptimizeOptions {
            level,
            ..OptimizeOptions::default()
        };
        copy.engine.optimize(&options, Task::unattended()).unwrap();
        let collect = CollectOptions::default();
        copy.engine.collect(&collect).unwrap();
        look(copy);
    }
    let changed = seen.iter().map(|(_, bytes)| bytes);
    let changed: std::collections::BTreeSet<_> = changed.collect();
    assert!(changed.len() > PAIRS.len() + 1, "no stream ever changed");
}

/// Takes bytes on no thread of the pool.
struct Patient {
    taken: u64,
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let index = rayon::current_thread_index();
        assert_eq!(index, None, "a thread of the pool waits for whoever takes");
        self.taken += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_thread_of_the_pool_waits_for_whoever_takes_a_stream() {
    let world = family(Workers::Pool);
    world.served(None, "similar", |stream| {
        let mut out = Patient { taken: 0 };
        let task = Task::unattended();
        stream.write(0..u64::MAX, &mut out, task).unwrap();
        assert_eq!(out.taken, stream.bytes());
    });
}

#[test]
fn a_record_that_is_damaged_after_the_promise_ends_the_stream_where_it_stands() {
    let world = family(Workers::Inline);
    let (whole, _) = world.whole(None, "base");
    world.served(None, "base", |stream| {
        let segments = world.disk.list(&StorePath::new("segments")).unwrap();
        for entry in segments {
            let path = StorePath::new(format!("segments/{}", entry.name));
            // The last chunk's record, by a byte in its middle.
            let damage = |bytes: &mut Vec<u8>| {
                let at = whole.len() - 60 - 2000;
                let record = &whole[at..at + 100];
                let found = bytes.windows(100).position(|window| window == record);
                found.into_iter().for_each(|at| bytes[at] ^= 1);
            };
            world.disk.alter(&path, damage).unwrap();
        }
        let mut bytes = Vec::new();
        let error = stream
            .write(0..u64::MAX, &mut bytes, Task::unattended())
            .unwrap_err();
        let store = matches!(error, EngineError::Store(_));
        let promised = matches!(&error, EngineError::Delta(error)
            if matches!(**error, DeltaError::NotAsPromised { .. }));
        assert!(store || promised, "{error}");
        assert!(whole.starts_with(&bytes) && bytes.len() < whole.len());
    });
}

#[test]
fn a_confined_stream_gets_no_chunk_that_it_does_not_bring_and_its_base_does_not_have() {
    let here = family(Workers::Inline);
    let there = World::new(Workers::Inline);
    there.put("mine", &here.get("base"), None);
    // Somebody else's: the chunks that the stream would have to carry, and what some of its records build on.
    there.put("theirs", &here.get("target"), None);
    let only = |base: Option<&str>| DeltaBase::Only(base.map(name));
    for target in ["target", "similar"] {
        let (good, _) = here.whole(Some("base"), target);
        there.apply_over(only(Some("mine")), &good, target).unwrap();
        assert!(there.get(target) == here.get(target));
        let error = there.apply_over(only(Some("theirs")), &good, "made");
        assert!(is_other_base(&error.unwrap_err()));
        let error = there.apply_over(only(None), &good, "made");
        assert!(is_other_base(&error.unwrap_err()));
    }
    // The same stream without its records: by digest the store's chunks do, confined they do not.
    let (good, _) = here.whole(Some("base"), "target");
    let bare = without_records(&good);
    let error = there.apply_over(only(Some("mine")), &bare, "made");
    let EngineError::Delta(error) = error.unwrap_err() else {
        panic!("it is refused as a delta");
    };
    assert!(
        matches!(*error, DeltaError::ChunkNotCarried { .. }),
        "{error}"
    );
    there.apply(&bare, "made").unwrap();
    let (full, _) = here.whole(None, "similar");
    there.apply_over(only(None), &full, "full").unwrap();
    let bare = without_records(&full);
    let error = there.apply_over(only(None), &bare, "other");
    assert!(error.unwrap_err().to_string().contains("does not carry"));
}

fn is_other_base(error: &EngineError) -> bool {
    matches!(error, EngineError::Delta(error) if matches!(**error, DeltaError::OtherBase { .. }))
}

/// Takes the records out of a stream, which is whole otherwise.
fn without_records(stream: &[u8]) -> Vec<u8> {
    let (header, length) = DeltaHeader::decode(stream).unwrap();
    let parts = header.data_bytes() + header.zero_bytes() + header.ids_bytes();
    let head = &stream[..length + usize::try_from(parts).unwrap()];
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    [head, &DeltaTrailer::seal(0, 0, &mut hasher).encode()].concat()
}
