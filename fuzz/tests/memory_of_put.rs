//! Putting an image in takes a bounded amount of memory, however many chunks it has.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod allocations;

use allocations::Allocations;
use std::io::{self, Read};
use tegula_engine::{
    BackendPreference, BlockSize, Engine, ImageName, InitOptions, PutRequest, Source, Task,
};

/// What may be held at once: three quarters of the budget of 256 MiB, so that the allocator, the threads and the program
/// itself find room in the rest.
const HELD_MAX: usize = 192 << 20;

/// The largest piece of memory that is asked for at once.
const ONE_ALLOCATION_MAX: usize = 16 << 20;

/// More chunks than any part of a put gathers before it writes them somewhere.
const BLOCKS: u64 = 330_000;

/// A stream of blocks of the smallest size, no two alike, half of each beyond compression.
#[derive(Debug)]
struct Varied {
    next: u64,
    block: Vec<u8>,
    read: usize,
}

impl Varied {
    const BLOCK: usize = 4096;

    fn new() -> Self {
        Self {
            next: 0,
            block: Vec::new(),
            read: 0,
        }
    }

    fn fill(&mut self) {
        self.next += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.next.to_le_bytes());
        self.block.resize(Self::BLOCK / 2, 0);
        hasher.finalize_xof().fill(&mut self.block);
        // Nothing of one block stands in another: each is stored by itself, and noted as a base for others.
        self.block.resize(Self::BLOCK, 7);
        self.read = 0;
    }
}

impl Read for Varied {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.read == self.block.len() {
            if self.next == BLOCKS {
                return Ok(0);
            }
            self.fill();
        }
        let mut rest = self.block.get(self.read..).unwrap();
        let read = rest.read(to)?;
        self.read += read;
        Ok(read)
    }
}

#[test]
fn a_put_of_many_small_blocks_holds_no_more_than_its_budget() {
    let directory = tempfile::tempdir().unwrap();
    let options = InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        ..InitOptions::default()
    };
    let path = directory.path().join("store");
    let (engine, _) = Engine::init(&path, BackendPreference::Blocking, options).unwrap();
    let counted = Allocations::begin();
    let request = PutRequest {
        name: ImageName::parse("varied").unwrap(),
        source: Source::Stream(&mut Varied::new()),
        parent: None,
        replace: false,
    };
    let report = engine.put(request, Task::unattended()).unwrap();
    let counted = counted.end();
    assert_eq!(report.new_chunks, BLOCKS);
    let framed = report.framed_chunks;
    assert!(framed < BLOCKS / 1000, "{framed} blocks resemble others");
    println!("{counted:?}");
    assert!(counted.largest <= ONE_ALLOCATION_MAX, "{counted:?}");
    assert!(counted.peak <= HELD_MAX, "{counted:?}");
}
