//! Chunks that are stored as what differs from others: stored, read back, found damaged.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;
use tegula_format::{BlockSize, ChunkId};
use tegula_io::{Buffer, MemoryStorage, SeededRandom, Storage, StorePath, SystemClock};
use tegula_store::{
    ChunkDamage, Encoded, Environment, Ingest, InitOptions, Session, Store, StoreError,
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
    let session = store.begin().unwrap();
    for (depth, block) in blocks.iter().enumerate() {
        assert_eq!(
            read(&session, block).is_ok(),
            depth <= 4,
            "at depth {depth}"
        );
    }
}
