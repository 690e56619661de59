//! Checking a store takes no more than 3 bytes of memory for each of its chunks, beyond what it takes for few.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod allocations;

use allocations::Allocations;
use std::io::{self, Read};
use std::path::Path;
use tegula_engine::{
    BackendPreference, BlockSize, Depth, Engine, ImageName, InitOptions, PutRequest, Source, Task,
};

/// Bytes that a chunk more may take.
const BYTES_A_CHUNK: f64 = 3.0;

/// Chunks of the smaller store: more than a segment has, and than are kept in memory before they go to a file.
const FEW: u64 = 150_000;

const MANY: u64 = 3 * FEW;

/// The largest piece of memory that is asked for at once.
const ONE_ALLOCATION_MAX: usize = 16 << 20;

const BLOCK: usize = 4096;

/// A disk of as many blocks, each of which holds its number and zeros.
#[derive(Debug)]
struct Numbered {
    next: u64,
    end: u64,
    block: Vec<u8>,
    read: usize,
}

impl Read for Numbered {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.read == self.block.len() {
            if self.next == self.end {
                return Ok(0);
            }
            self.next += 1;
            self.block = vec![0; BLOCK];
            self.block
                .iter_mut()
                .zip(self.next.to_le_bytes())
                .for_each(|(byte, digit)| *byte = digit);
            self.read = 0;
        }
        let mut rest = self.block.get(self.read..).unwrap();
        let read = rest.read(to)?;
        self.read += read;
        Ok(read)
    }
}

fn image() -> ImageName {
    ImageName::parse("numbers").unwrap()
}

fn store_of(path: &Path, chunks: u64) -> Engine {
    let options = InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        ..InitOptions::default()
    };
    let (engine, _) = Engine::init(path, BackendPreference::Blocking, options).unwrap();
    let mut blocks = Numbered {
        next: 0,
        end: chunks,
        block: Vec::new(),
        read: 0,
    };
    let request = PutRequest {
        name: image(),
        source: Source::Stream(&mut blocks),
        parent: None,
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap();
    engine
}

fn lose_index(store: &Path) {
    for run in std::fs::read_dir(store.join("index")).unwrap() {
        std::fs::remove_file(run.unwrap().path()).unwrap();
    }
}

/// What is done to a store, and what has to be done first.
type Way = (&'static str, fn(&Path), fn(&Engine));

const WAYS: [Way; 5] = [
    (
        "verify",
        |_| (),
        |engine| {
            let result = engine.verify(Depth::Fast, &[], Task::unattended());
            assert_eq!(result.unwrap().findings, []);
        },
    ),
    (
        "verify of an image",
        |_| (),
        |engine| {
            let result = engine.verify(Depth::Fast, &[image()], Task::unattended());
            assert_eq!(result.unwrap().findings, []);
        },
    ),
    (
        "repair",
        |_| (),
        |engine| {
            let report = engine.repair(None, Task::unattended()).unwrap();
            assert_eq!(report.remaining, []);
        },
    ),
    ("verify without an index", lose_index, |engine| {
        let result = engine.verify(Depth::Fast, &[], Task::unattended());
        assert_eq!(result.unwrap().findings, []);
    }),
    ("repair without an index", lose_index, |engine| {
        let report = engine.repair(None, Task::unattended()).unwrap();
        assert_eq!(report.remaining, []);
    }),
];

#[test]
fn verify_and_repair_take_three_bytes_a_chunk_at_most() {
    // What each thread holds, a segment's table, is to be the same for few and for many.
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let stores = [FEW, MANY].map(|chunks| {
        let path = directory.path().join(chunks.to_string());
        drop(store_of(&path, chunks));
        path
    });
    for (way, before, act) in WAYS {
        let peaks = stores.each_ref().map(|path| {
            before(path);
            let (engine, _) = Engine::open(path, BackendPreference::Blocking).unwrap();
            let counted = Allocations::begin();
            act(&engine);
            let counted = counted.end();
            assert!(counted.largest <= ONE_ALLOCATION_MAX, "{way}: {counted:?}");
            counted.peak
        });
        let [few, many] = peaks.map(|peak| u32::try_from(peak).unwrap());
        let more = u32::try_from(MANY - FEW).unwrap();
        let each = f64::from(many.saturating_sub(few)) / f64::from(more);
        println!("{way}: {few} and {many} bytes, {each:.2} a chunk more");
        assert!(each <= BYTES_A_CHUNK, "{way}: {each:.2} bytes a chunk");
    }
}
