//! Images whose chunks stand on others come out as they went in, by every way out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test ends at the first surprise, and restores into files of its own"
)]

use std::path::Path;
use tegula_engine::{
    BackendPreference, BlockSize, Destination, Engine, ImageName, InitOptions, OpenImage, Task,
};
use tegula_format::{BlockIndex, BlockSet, ChunkId};
use tegula_io::SeededRandom;
use tegula_store::{Encoded, Ingest, NewImage};

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Blocks that no compressor makes shorter by itself, each but for a few bytes like the one of the same number in any
/// other image, and like its neighbours in one half.
fn disk(image: u64, blocks: u64, block_bytes: usize) -> Vec<u8> {
    let half = |seed: u64| {
        let random = SeededRandom::new(seed);
        let words = std::iter::repeat_with(move || random.next_u64().to_le_bytes());
        words.flatten().take(block_bytes / 2).collect::<Vec<u8>>()
    };
    let mut disk = Vec::new();
    for block in 0..blocks {
        let start = disk.len();
        disk.extend(half(block));
        disk.extend(half(1_000_000 + block / 8));
        let mark = (image << 32 | block).to_le_bytes();
        disk[start + 100..start + 108].copy_from_slice(&mark);
    }
    disk
}

/// Puts a disk: each block on the block of the same number in the image before, and on the first of its eight.
fn put(engine: &Engine, text: &str, disk: &[u8], before: Option<&[u8]>, block_bytes: usize) {
    let session = engine.store().begin().unwrap();
    let ingest = Ingest::begin(&session).unwrap();
    let (mut ids, mut data) = (ingest.id_table(), BlockSet::new());
    let blocks: Vec<&[u8]> = disk.chunks(block_bytes).collect();
    for (at, block) in blocks.iter().enumerate() {
        let id = ChunkId::of(block);
        let chunk: Encoded = match before {
            Some(before) if at % 8 > 0 => {
                let old = &before[at * block_bytes..(at + 1) * block_bytes];
                let first = blocks[at - at % 8];
                let bases = [(ChunkId::of(old), old), (ChunkId::of(first), first)];
                // The old one stands by itself only if it was the first of its eight.
                let bases = if session.locate(&bases[0].0).unwrap().bases == 0 {
                    &bases[..]
                } else {
                    &bases[1..]
                };
                let most = u32::try_from(block_bytes).unwrap();
                ingest.compress_with_bases(id, block, bases, most).unwrap()
            }
            _ => ingest.compress(id, block),
        };
        assert!(!ingest.has_or_claim(&id));
        ingest.store(&chunk).unwrap();
        ids.push(&id).unwrap();
        data.push(BlockIndex::new(u32::try_from(at).unwrap()));
    }
    let image = NewImage {
        name: name(text),
        replace: false,
        virtual_size: disk.len() as u64,
        parent: None,
        base: None,
        data,
        zero: BlockSet::new(),
    };
    ingest.finish(image, ids).unwrap();
}

fn check_every_way_out(engine: &Engine, text: &str, disk: &[u8], directory: &Path) {
    let mut streamed = Vec::new();
    let stream = Destination::Stream(&mut streamed);
    engine.get(&name(text), stream, Task::unattended()).unwrap();
    assert!(streamed == disk, "{text} streamed");
    let path = directory.join(text);
    let force = false;
    let file = Destination::File { path: &path, force };
    engine.get(&name(text), file, Task::unattended()).unwrap();
    assert!(std::fs::read(&path).unwrap() == disk, "{text} as a file");
    let mut spoilt = disk.to_vec();
    spoilt.chunks_mut(100_000).for_each(|piece| piece[0] ^= 1);
    std::fs::write(&path, &spoilt).unwrap();
    let place = Destination::InPlace { path: &path };
    engine.get(&name(text), place, Task::unattended()).unwrap();
    assert!(std::fs::read(&path).unwrap() == disk, "{text} in place");
    let session = engine.store().begin().unwrap();
    let image = OpenImage::open(&session, &name(text)).unwrap();
    for offset in (0..disk.len() - 5000).step_by(disk.len() / 50) {
        let mut bytes = vec![0; 5000];
        image.read_at(&mut bytes, offset as u64).unwrap();
        assert!(bytes == disk[offset..offset + 5000], "{text} at {offset}");
    }
}

fn in_blocks_of(block_bytes: usize, blocks: u64) {
    let directory = tempfile::tempdir().unwrap();
    let options = InitOptions {
        block_size: BlockSize::from_bytes(block_bytes as u64).unwrap(),
        ..InitOptions::default()
    };
    let store = directory.path().join("store");
    let (engine, _) = Engine::init(&store, BackendPreference::Auto, options).unwrap();
    let disks = [0, 1, 2].map(|image| disk(image, blocks, block_bytes));
    put(&engine, "first", &disks[0], None, block_bytes);
    put(&engine, "second", &disks[1], Some(&disks[0]), block_bytes);
    put(&engine, "third", &disks[2], Some(&disks[1]), block_bytes);
    let stored = engine.statistics().unwrap().stored_bytes;
    assert!(stored < disks[0].len() as u64 * 2, "{stored} bytes");
    for (text, disk) in ["first", "second", "third"].iter().zip(&disks) {
        check_every_way_out(&engine, text, disk, directory.path());
    }
    // Nobody needs the first image as such any more, and what others stand on stays.
    engine.store().remove(&name("first")).unwrap();
    engine.store().remove(&name("second")).unwrap();
    let options = tegula_engine::CollectOptions {
        min_live: 1.0,
        ..Default::default()
    };
    engine.collect(&options).unwrap();
    std::fs::remove_file(directory.path().join("third")).unwrap();
    check_every_way_out(&engine, "third", &disks[2], directory.path());
}

#[test]
fn chunks_that_stand_on_others_come_out_in_blocks_of_4_kib() {
    in_blocks_of(4096, 3000);
}

#[test]
fn chunks_that_stand_on_others_come_out_in_blocks_of_64_kib() {
    in_blocks_of(65_536, 600);
}

#[test]
fn chunks_that_stand_on_others_come_out_in_blocks_of_4_mib() {
    in_blocks_of(4 << 20, 9);
}
