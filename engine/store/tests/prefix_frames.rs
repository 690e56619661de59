//! Chunks that are stored as what differs from others: stored, read back, found damaged.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;
use std::time::Duration;
use tegula_format::{BlockIndex, BlockSet, BlockSize, ChunkId, ImageName, RunRow};
use tegula_io::{Buffer, MemoryStorage, SeededRandom, Storage, StorePath, SystemClock};
use tegula_store::{
    ChunkDamage, CollectOptions, Depth, Encoded, Environment, Finding, Ingest, InitOptions,
    NewImage, RepairReport, Repairs, Session, Store, StoreError,
};

const BLOCK: usize = 4096;

fn environment(storage: &MemoryStorage) -> Environment {
    Environment {
        storage: Arc::new(storage.clone()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(1)),
    }
}

fn store(prefix_frames: bool) -> (MemoryStorage, Store) {
    let storage = MemoryStorage::new();
    let options = InitOptions {
        block_size: BlockSize::MIN,
        prefix_frames,
        ..InitOptions::default()
    };
    let store = Store::init(environment(&storage), options).unwrap();
    (storage, store)
}

/// A block of noise, the same for the same seed, that no compressor makes shorter.
fn block(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A block made of the halves of two others.
fn like(one: &[u8], other: &[u8]) -> Vec<u8> {
    [&one[..BLOCK / 2], &other[BLOCK / 2..]].concat()
}

fn framed(ingest: &Ingest<'_>, block: &[u8], bases: &[&[u8]]) -> Encoded {
    let bases: Vec<_> = bases
        .iter()
        .map(|base| (ChunkId::of(base), *base))
        .collect();
    let chunk = ingest.compress_with_bases(ChunkId::of(block), block, &bases, 4096);
    chunk.expect("it resembles its bases")
}

fn store_plain(ingest: &Ingest<'_>, block: &[u8]) {
    let id = ChunkId::of(block);
    ingest.store(&ingest.compress(id, block)).unwrap();
}

fn read(session: &Session, block: &[u8]) -> Result<(), StoreError> {
    let found = session.read_chunk(&ChunkId::of(block))?;
    assert!(*found == *block);
    Ok(())
}

/// Publishes an image of these blocks, which are all stored.
fn publish(ingest: Ingest<'_>, name: &str, blocks: &[&[u8]]) {
    let mut ids = ingest.id_table();
    let mut data = BlockSet::new();
    for (at, block) in (0..).zip(blocks) {
        ids.push(&ChunkId::of(block)).unwrap();
        data.push(BlockIndex::new(at));
    }
    let image = NewImage {
        name: ImageName::parse(name).unwrap(),
        replace: false,
        virtual_size: (blocks.len() * BLOCK) as u64,
        parent: None,
        base: None,
        data,
        zero: BlockSet::new(),
    };
    ingest.finish(image, ids).unwrap();
}

/// A store of two images, `below` of a block and `above` of one that stands on it; and where the first stands.
fn two_images() -> (MemoryStorage, Store, [Vec<u8>; 2], RunRow) {
    let (storage, store) = store(true);
    let base = block(1);
    let on_it = like(&base, &block(2));
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        store_plain(&ingest, &base);
        publish(ingest, "below", &[&base]);
    }
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        ingest.store(&framed(&ingest, &on_it, &[&base])).unwrap();
        publish(ingest, "above", &[&on_it]);
    }
    let row = store.begin().unwrap().locate(&ChunkId::of(&base)).unwrap();
    (storage, store, [base, on_it], row)
}

fn segment_path(row: &RunRow) -> StorePath {
    StorePath::new(format!("segments/{}.seg", row.place.segment))
}

fn bytes_of(storage: &MemoryStorage, path: &StorePath) -> Vec<u8> {
    let file = storage.open(path).unwrap();
    let length = usize::try_from(file.bytes()).unwrap();
    file.read_at(0, length).wait().unwrap().to_vec()
}

fn write(storage: &MemoryStorage, path: &StorePath, bytes: &[u8]) {
    if storage.open(path).is_ok() {
        storage.remove(path).unwrap();
    }
    let mut file = storage.create(path).unwrap();
    file.append(Buffer::copied(bytes)).unwrap();
}

fn flip(storage: &MemoryStorage, path: &StorePath, at: usize) {
    let mut bytes = bytes_of(storage, path);
    bytes[at] ^= 1;
    write(storage, path, &bytes);
}

fn verify(store: &Store, depth: Depth, only: &[ImageName]) -> Vec<Finding> {
    let session = store.begin().unwrap();
    session.verify(depth, only, &|_, _| {}).unwrap().findings
}

fn repair(store: &Store, from: Option<&Store>) -> RepairReport {
    store.repair(Repairs { from }, &|_, _| {}).unwrap()
}

#[test]
fn damage_to_a_base_is_told_of_the_images_above_it_and_healed_by_bringing_it_again() {
    let (storage, store, [base, on_it], row) = two_images();
    let both = ["above", "below"].map(str::to_owned);
    flip(&storage, &segment_path(&row), row.offset as usize + 60);
    let above = [ImageName::parse("above").unwrap()];
    for depth in [Depth::Fast, Depth::Full] {
        for only in [&[][..], &above] {
            let found = verify(&store, depth, only);
            let of = |block: &[u8]| found.iter().find(|f| f.chunk == Some(ChunkId::of(block)));
            let (damaged, above_it) = (of(&base).unwrap(), of(&on_it).unwrap());
            match only {
                [] => assert_eq!(damaged.images, both),
                _ => assert_eq!(damaged.images, ["above"]),
            }
            assert_eq!(above_it.images, ["above"]);
            let named = above_it.message.contains(&ChunkId::of(&base).to_string());
            assert!(named, "{}", above_it.message);
            assert_eq!(found.len(), 2, "{depth:?}: {found:#?}");
        }
    }
    let report = repair(&store, None);
    assert_eq!(report.quarantined_chunks, 1, "what stands on it is sound");
    assert!(!report.remaining.is_empty());
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        assert!(!ingest.has(&ChunkId::of(&on_it)), "not to be counted on");
        assert!(!ingest.has_or_claim(&ChunkId::of(&base)));
        store_plain(&ingest, &base);
        ingest.seal_all().unwrap();
    }
    assert_eq!(verify(&store, Depth::Full, &[]), []);
    read(&store.begin().unwrap(), &on_it).unwrap();
}

#[test]
fn collection_keeps_what_stands_on_a_damaged_base_until_that_is_brought_again() {
    let (storage, store, [base, on_it], row) = two_images();
    flip(&storage, &segment_path(&row), row.offset as usize + 60);
    repair(&store, None);
    store.remove(&ImageName::parse("below").unwrap()).unwrap();
    let options = CollectOptions {
        min_live: 1.0,
        ..CollectOptions::default()
    };
    store.collect(&options).unwrap();
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        store_plain(&ingest, &base);
        ingest.seal_all().unwrap();
    }
    read(&store.begin().unwrap(), &on_it).unwrap();
    store.collect(&options).unwrap();
    read(&store.begin().unwrap(), &on_it).unwrap();
    assert_eq!(verify(&store, Depth::Full, &[]), []);
}

#[test]
fn another_store_heals_a_base_or_else_what_stood_on_it() {
    for other_has_base in [true, false] {
        let (storage, store, [base, on_it], row) = two_images();
        let (_, other) = self::store(true);
        {
            let session = other.begin().unwrap();
            let ingest = Ingest::begin(&session).unwrap();
            let block = if other_has_base { &base } else { &on_it };
            store_plain(&ingest, block);
            publish(ingest, "there", &[block]);
        }
        flip(&storage, &segment_path(&row), row.offset as usize + 60);
        let report = repair(&store, Some(&other));
        assert_eq!(report.healed_chunks, 1);
        read(&store.begin().unwrap(), &on_it).unwrap();
        let lost = read(&store.begin().unwrap(), &base).is_err();
        assert_eq!(lost, !other_has_base);
        let healed = report.remaining.is_empty();
        assert_eq!(healed, other_has_base, "{:#?}", report.remaining);
    }
}

#[test]
fn chunks_are_salvaged_from_a_segment_whose_table_is_lost_with_what_they_stand_on() {
    let (storage, store) = store(true);
    let base = block(1);
    let on_it = like(&base, &block(2));
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        ingest.store(&framed(&ingest, &on_it, &[&base])).unwrap();
        store_plain(&ingest, &base);
        publish(ingest, "image", &[&on_it]);
    }
    let row = store.begin().unwrap().locate(&ChunkId::of(&base)).unwrap();
    let path = segment_path(&row);
    let end = bytes_of(&storage, &path).len();
    flip(&storage, &path, end - 100);
    let report = repair(&store, None);
    assert_eq!(report.salvaged_chunks, 2);
    assert_eq!(report.remaining, []);
    assert_eq!(verify(&store, Depth::Full, &[]), []);
    read(&store.begin().unwrap(), &on_it).unwrap();
}

#[test]
fn what_a_crashed_writer_left_is_taken_over_so_that_it_stands_by_itself() {
    let (storage, store) = store(true);
    let base = block(1);
    let on_it = like(&base, &block(2));
    let on_nothing = like(&block(3), &block(4));
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        ingest.store(&framed(&ingest, &on_it, &[&base])).unwrap();
        ingest
            .store(&framed(&ingest, &on_nothing, &[&block(3)]))
            .unwrap();
        store_plain(&ingest, &base);
        ingest.seal_all().unwrap();
    }
    let row = store.begin().unwrap().locate(&ChunkId::of(&base)).unwrap();
    let (path, end) = (segment_path(&row), row.offset as usize + row.record_bytes());
    let open = StorePath::new(format!("segments/{}.open", row.place.segment));
    write(&storage, &open, &bytes_of(&storage, &path)[..end]);
    storage.remove(&path).unwrap();
    let session = store.begin().unwrap();
    let ingest = Ingest::begin(&session).unwrap();
    assert_eq!(ingest.recover_abandoned().unwrap(), 2);
    drop(ingest);
    let session = store.begin().unwrap();
    for block in [&base, &on_it] {
        read(&session, block).unwrap();
        assert_eq!(session.locate(&ChunkId::of(block)).unwrap().bases, 0);
    }
    assert!(read(&session, &on_nothing).is_err());
}

#[test]
fn a_chunk_stored_on_others_reads_back() {
    let (_, store) = store(true);
    let (one, other) = (block(1), block(2));
    let (on_both, on_one) = (like(&one, &other), like(&one, &[7; BLOCK]));
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        // A base may stand behind what is based on it.
        ingest
            .store(&framed(&ingest, &on_both, &[&one, &other]))
            .unwrap();
        store_plain(&ingest, &one);
        store_plain(&ingest, &other);
        ingest.store(&framed(&ingest, &on_one, &[&one])).unwrap();
        ingest.seal_all().unwrap();
    }
    let session = store.begin().unwrap();
    for block in [&one, &other, &on_both, &on_one] {
        read(&session, block).unwrap();
    }
    let row = session.locate(&ChunkId::of(&on_both)).unwrap();
    assert_eq!(row.bases, 2);
    assert!(row.stored_length < 200, "{}", row.stored_length);
}

#[test]
fn a_store_without_prefix_frames_makes_none_and_refuses_those_it_finds() {
    let (_, plain) = store(false);
    let (base, on_it) = (block(1), like(&block(1), &block(2)));
    let session = plain.begin().unwrap();
    let ingest = Ingest::begin(&session).unwrap();
    let bases = [(ChunkId::of(&base), &*base)];
    assert!(
        ingest
            .compress_with_bases(ChunkId::of(&on_it), &on_it, &bases, 4096)
            .is_none()
    );

    // The configuration is all that tells the two kinds of store apart.
    let (storage, framing) = store(true);
    {
        let session = framing.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        store_plain(&ingest, &base);
        ingest.store(&framed(&ingest, &on_it, &[&base])).unwrap();
        ingest.seal_all().unwrap();
    }
    let mut config = *framing.config();
    config.prefix_frames = false;
    let path = StorePath::new("tegula.store");
    storage.remove(&path).unwrap();
    let mut file = storage.create(&path).unwrap();
    file.append(Buffer::from(config.encode())).unwrap();
    let store = Store::open(environment(&storage)).unwrap();
    let session = store.begin().unwrap();
    let error = read(&session, &on_it).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    read(&session, &base).unwrap();
}

#[test]
fn what_stands_on_a_chunk_that_is_nowhere_names_it() {
    let (_, store) = store(true);
    let (base, on_it) = (block(1), like(&block(1), &block(2)));
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        ingest.store(&framed(&ingest, &on_it, &[&base])).unwrap();
        ingest.seal_all().unwrap();
    }
    let error = read(&store.begin().unwrap(), &on_it).unwrap_err();
    let StoreError::ChunkDamaged {
        id,
        source: ChunkDamage::Base { base: missing, .. },
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((id, missing), (ChunkId::of(&on_it), ChunkId::of(&base)));
}

#[test]
fn chunks_that_stand_on_each_other_in_a_circle_are_damage_and_no_endless_loop() {
    let (_, store) = store(true);
    let blocks: Vec<_> = (0..3).map(|n| like(&block(1), &block(2 + n))).collect();
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        for n in 0..3 {
            let base = &blocks[(n + 1) % 3];
            ingest.store(&framed(&ingest, &blocks[n], &[base])).unwrap();
        }
        ingest.seal_all().unwrap();
    }
    for block in &blocks {
        let error = read(&store.begin().unwrap(), block).unwrap_err();
        assert!(error.is_corruption(), "{error}");
    }
}

#[test]
fn four_levels_are_followed_and_a_fifth_is_not() {
    let (_, store) = store(true);
    let blocks: Vec<_> = (0..6).map(|n| like(&block(1), &block(2 + n))).collect();
    {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        store_plain(&ingest, &blocks[0]);
        for pair in blocks.windows(2) {
            ingest
                .store(&framed(&ingest, &pair[1], &[&pair[0]]))
                .unwrap();
        }
        ingest.seal_all().unwrap();
    }
    for (depth, block) in blocks.iter().enumerate() {
        // A session of its own: what another read has decoded need not be followed again.
        let session = store.begin().unwrap();
        assert_eq!(
            read(&session, block).is_ok(),
            depth <= 4,
            "at depth {depth}"
        );
    }
}

/// Returns how many levels of bases a chunk stands on where it is read.
fn depth(session: &Session, id: &ChunkId) -> u32 {
    let row = session.locate(id).unwrap();
    let bases = session.bases_of(&row).unwrap();
    let deepest = bases.ids().iter().map(|base| depth(session, base)).max();
    deepest.map_or(0, |below| below + 1)
}

/// A store of chunks each of which stands on the one before, down to the deepest that can be read, in segments of their own.
/// Those in `rewritten` share theirs with garbage, so that collection rewrites them. All are images'.
fn chain(blocks: &[Vec<u8>], rewritten: usize) -> Store {
    let (_, store) = store(true);
    for (level, block) in blocks.iter().enumerate() {
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        match level.checked_sub(1).map(|below| &blocks[below]) {
            None => store_plain(&ingest, block),
            Some(below) => ingest.store(&framed(&ingest, block, &[below])).unwrap(),
        }
        if rewritten & (1 << level) != 0 {
            store_plain(&ingest, &self::block(100 + u8::try_from(level).unwrap()));
        }
        publish(ingest, &format!("level-{level}"), &[block]);
    }
    store
}

#[test]
fn whatever_part_of_a_chain_collection_moves_nothing_stands_deeper_than_before() {
    let blocks: Vec<_> = (0..5).map(|n| like(&block(1), &block(2 + n))).collect();
    let ids: Vec<_> = blocks.iter().map(|block| ChunkId::of(block)).collect();
    let mut compressed = 0;
    for rewritten in 1..1 << blocks.len() {
        for recompress in [Duration::MAX, Duration::from_nanos(1), Duration::ZERO] {
            let context = format!("{rewritten:05b} rewritten, {recompress:?}");
            let store = chain(&blocks, rewritten);
            let depths = || {
                let session = store.begin().unwrap();
                ids.iter().map(|id| depth(&session, id)).collect::<Vec<_>>()
            };
            assert_eq!(depths(), [0, 1, 2, 3, 4]);
            let options = CollectOptions {
                min_live: 1.0,
                recompress,
                ..CollectOptions::default()
            };
            let collected = store.collect(&options).unwrap();
            let wanted = u64::from(rewritten.count_ones());
            assert_eq!(collected.segments_rewritten, wanted, "{context}");
            compressed += collected.recompressed_chunks;
            for (level, block) in blocks.iter().enumerate() {
                // A session of its own: what another read has decoded need not be followed again.
                let session = store.begin().unwrap();
                read(&session, block).unwrap_or_else(|error| panic!("{context}: {error}"));
                let found = depth(&session, &ids[level]);
                // What stood by itself and nobody stands on any more may stand on another.
                let most = level.max(1);
                assert!(
                    found as usize <= most,
                    "{context}: level {level} at {found}"
                );
                // What was moved and compressed stands on what stands by itself.
                let moved = rewritten & (1 << level) != 0;
                if moved && recompress == Duration::MAX {
                    assert!(found <= 1, "{context}: level {level} at {found}");
                }
            }
            assert_eq!(verify(&store, Depth::Full, &[]), [], "{context}");
        }
    }
    assert!(compressed > 0, "nothing was compressed");
}
