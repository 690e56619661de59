//! Streams of parts of images, and uploads that break off: what comes, what it costs, who waits for whom.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};
use tegula_engine::{
    BackendPreference, BlockSize, Engine, EngineError, Environment, ImageName, ImageReader,
    InitOptions, PutRequest, Source, Store, StreamPiece, StreamReport, Task, Workers,
};
use tegula_io::sim::SimDisk;
use tegula_io::{SeededRandom, Storage, StorePath, SystemClock};

const BLOCK: u64 = 4096;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// Blocks of noise, so that a record is about as long as a block; 0 is a block of zeros.
fn image(kinds: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let block = |kind: u64| {
        let random = SeededRandom::new(kind);
        (0..BLOCK / 8).flat_map(move |_| {
            let word = if kind == 0 { 0 } else { random.next_u64() };
            word.to_le_bytes()
        })
    };
    kinds.into_iter().flat_map(block).collect()
}

/// An engine on a disk that counts.
fn counting() -> (SimDisk, Engine) {
    let disk = SimDisk::new();
    let environment = Environment {
        storage: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(1)),
    };
    let options = InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        ..InitOptions::default()
    };
    let store = Store::init(environment, options).unwrap();
    (disk, Engine::new(store, Workers::Inline))
}

fn put(engine: &Engine, image: &str, mut bytes: &[u8], parent: Option<&str>) {
    let request = PutRequest {
        name: name(image),
        source: Source::Stream(&mut bytes),
        parent: parent.map(name),
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap();
}

fn read(reader: &ImageReader, range: Range<u64>) -> (Vec<u8>, StreamReport) {
    let mut bytes = Vec::new();
    let mut sink = |piece: StreamPiece| {
        match piece {
            StreamPiece::Data(data) => bytes.extend_from_slice(&data),
            StreamPiece::Zeros(zeros) => {
                bytes.resize(bytes.len() + usize::try_from(zeros).unwrap(), 0);
            }
        }
        Ok(())
    };
    let report = reader.stream(range, &mut sink, Task::unattended()).unwrap();
    (bytes, report)
}

fn cut(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
    bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
}

#[test]
fn any_range_of_an_image_is_what_the_image_has_there() {
    let (_disk, engine) = counting();
    let base = image([1, 2, 3, 4, 0, 0, 5, 6, 7, 0]);
    let mut child = image([1, 9, 3, 0, 0, 0, 5, 8, 7, 0, 0, 10]);
    child.truncate(child.len() - 1000);
    put(&engine, "base", &base, None);
    put(&engine, "child", &child, Some("base"));
    for (name_of, bytes) in [("base", &base), ("child", &child)] {
        let reader = engine.open_image(&name(name_of)).unwrap();
        let size = bytes.len() as u64;
        let mut places: Vec<u64> = (0..=size / BLOCK).map(|block| block * BLOCK).collect();
        places.extend([1, BLOCK - 1, 2 * BLOCK + 1, 4 * BLOCK + 7, size - 1, size]);
        for start in &places {
            for end in places.iter().filter(|end| *end >= start) {
                let (found, report) = read(&reader, *start..*end);
                assert!(
                    found == cut(bytes, &(*start..*end)),
                    "{name_of} {start}..{end}"
                );
                assert_eq!(report.data_bytes + report.zero_bytes, end - start);
            }
        }
        for outside in [
            0..size + 1,
            size..size + 1,
            size + 1..size + 1,
            Range { start: 9, end: 8 },
        ] {
            let result = reader.stream(outside.clone(), &mut |_| Ok(()), Task::unattended());
            match result {
                Err(EngineError::OutOfImage { offset, .. }) => assert_eq!(offset, outside.start),
                other => panic!("{outside:?}: {other:?}"),
            }
        }
    }
    put(&engine, "empty", &[], None);
    let reader = engine.open_image(&name("empty")).unwrap();
    assert_eq!(read(&reader, 0..0).0, b"");
}

#[test]
fn a_range_costs_what_it_holds_and_not_what_the_image_holds() {
    let (disk, engine) = counting();
    let blocks = 4096;
    let bytes = image((1..=blocks).map(|block| if block % 1024 < 512 { block } else { 0 }));
    put(&engine, "large", &bytes, None);
    let reader = engine.open_image(&name("large")).unwrap();
    // The first stream of a session reads the index.
    read(&reader, 0..1);
    let cost = |range: Range<u64>| {
        let before = disk.stats();
        let (found, report) = read(&reader, range.clone());
        assert!(found == cut(&bytes, &range), "{range:?}");
        let after = disk.stats();
        (
            after.reads - before.reads,
            after.bytes_read - before.bytes_read,
            report,
        )
    };
    let record = BLOCK + 100;
    let (reads, read_bytes, report) = cost(100 * BLOCK + 5..100 * BLOCK + 6);
    assert_eq!((reads, report.data_bytes), (1, 1));
    assert!(read_bytes <= record, "{read_bytes} bytes for one");
    // Two blocks that are touched at their ends.
    let (reads, read_bytes, _) = cost(101 * BLOCK - 1..101 * BLOCK + 1);
    assert!(
        reads <= 2 && read_bytes <= 2 * record,
        "{reads}, {read_bytes}"
    );
    // A mebibyte: windows of 256 and 512 KiB and the rest, each in pieces of an eighth.
    let (reads, read_bytes, report) = cost(0..256 * BLOCK);
    assert_eq!(report.data_bytes, 256 * BLOCK);
    assert!(
        reads <= 24 && read_bytes <= 256 * record,
        "{reads}, {read_bytes}"
    );
    // Zeros cost nothing.
    let (reads, read_bytes, report) = cost(600 * BLOCK..1000 * BLOCK);
    assert_eq!((reads, read_bytes), (0, 0));
    assert_eq!((report.data_bytes, report.zero_bytes), (0, 400 * BLOCK));
    // No layer, no index and no record is opened anew for any of it.
    let before = disk.stats();
    read(&reader, 7 * BLOCK..9 * BLOCK);
    assert_eq!(
        (disk.stats().opens, disk.stats().maps),
        (before.opens, before.maps)
    );
}

#[test]
fn what_is_read_ahead_is_bounded_and_short_at_first() {
    let (disk, engine) = counting();
    put(&engine, "long", &image(1..=8192), None);
    let reader = engine.open_image(&name("long")).unwrap();
    read(&reader, 0..1);
    let start = disk.stats().bytes_read;
    let (mut handed, mut first, mut farthest) = (0, None, 0);
    let mut sink = |piece: StreamPiece| {
        let read = disk.stats().bytes_read - start;
        first.get_or_insert(read);
        farthest = farthest.max(read - handed);
        handed += piece.bytes();
        Ok(())
    };
    let size = reader.record().virtual_size;
    reader
        .stream(0..size, &mut sink, Task::unattended())
        .unwrap();
    let (first, handed) = (first.unwrap(), handed);
    assert_eq!(handed, size);
    // A window to be handed over, one to be decoded, one that is being read.
    assert!(
        first <= 2 << 20,
        "{first} bytes were read before the first came"
    );
    assert!(farthest <= 26 << 20, "{farthest} bytes were read ahead");
}

#[test]
fn a_sink_that_fails_is_not_called_again() {
    let (_disk, engine) = counting();
    put(&engine, "image", &image(1..=100), None);
    let reader = engine.open_image(&name("image")).unwrap();
    let mut calls = 0;
    let mut sink = |_| {
        calls += 1;
        match calls {
            7 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    };
    match reader.stream(0..50 * BLOCK, &mut sink, Task::unattended()) {
        Err(EngineError::WriteTarget { source, .. }) => {
            assert_eq!(source.kind(), io::ErrorKind::BrokenPipe);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(calls, 7);
    let interrupted = AtomicBool::new(true);
    let task = Task {
        progress: &|_, _| {},
        interrupted: &interrupted,
    };
    match reader.stream(0..1, &mut |_| panic!("it was to stop"), task) {
        Err(EngineError::Interrupted) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_before_damage_is_right_and_nothing_comes_after() {
    let (disk, engine) = counting();
    let bytes = image(1..=600);
    put(&engine, "image", &bytes, None);
    let segment = disk.list(&StorePath::new("segments")).unwrap();
    let segment = StorePath::new("segments").join(&segment[0].name);
    // In the payload of about the 500th record.
    let place = 500 * 4096;
    disk.alter(&segment, |bytes| bytes[place] ^= 1).unwrap();
    let reader = engine.open_image(&name("image")).unwrap();
    let mut found = Vec::new();
    let mut sink = |piece: StreamPiece| {
        match piece {
            StreamPiece::Data(data) => found.extend_from_slice(&data),
            StreamPiece::Zeros(_) => panic!("there are none"),
        }
        Ok(())
    };
    let size = reader.record().virtual_size;
    let error = reader
        .stream(0..size, &mut sink, Task::unattended())
        .unwrap_err();
    assert!(error.is_corruption(), "{error:?}");
    assert!(found.len() > 200 * 4096 && found.len() <= 520 * 4096);
    assert!(found[..] == bytes[..found.len()]);
}

#[test]
fn an_open_image_stays_readable_when_it_is_removed_and_collected() {
    let (_disk, engine) = counting();
    let bytes = image(1..=50);
    put(&engine, "image", &bytes, None);
    let reader = engine.open_image(&name("image")).unwrap();
    engine.store().remove(&name("image")).unwrap();
    engine.collect(&Default::default()).unwrap();
    assert!(engine.open_image(&name("image")).is_err());
    assert!(read(&reader, 0..bytes.len() as u64).0 == bytes);
}

/// Gives some bytes and then fails.
struct Breaking<'a> {
    rest: &'a [u8],
}

impl Read for Breaking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.rest.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            bytes => Ok(bytes),
        }
    }
}

fn files(disk: &SimDisk) -> Vec<String> {
    ["segments", "layers", "index", "images", "tmp"]
        .into_iter()
        .flat_map(|directory| {
            let entries = disk.list(&StorePath::new(directory)).unwrap();
            entries
                .into_iter()
                .map(move |entry| format!("{directory}/{}", entry.name))
        })
        .collect()
}

#[test]
fn a_put_whose_source_breaks_off_leaves_no_image_and_nothing_open() {
    let (disk, engine) = counting();
    put(&engine, "before", &image(1..=20), None);
    let before = files(&disk);
    let bytes = image(1000..=6000);
    for length in [0, 1, 4096, 1 << 20, bytes.len()] {
        let request = PutRequest {
            name: name("broken"),
            source: Source::Stream(&mut Breaking {
                rest: &bytes[..length],
            }),
            parent: None,
            replace: false,
        };
        match engine.put(request, Task::unattended()) {
            Err(EngineError::ReadSource { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
            }
            other => panic!("{other:?}"),
        }
        assert!(engine.open_image(&name("broken")).is_err());
    }
    let handles = disk.handles();
    assert_eq!((handles.writers, handles.locks), (0, 0), "{handles:?}");
    engine.collect(&Default::default()).unwrap();
    let left: Vec<_> = files(&disk)
        .into_iter()
        .filter(|path| !before.contains(path))
        .collect();
    assert_eq!(left, [""; 0], "besides {before:?}");
}

/// Waits at its first byte until all others do, then for somebody to open the gate.
struct Waiting<'a> {
    gate: &'a Barrier,
    waited: bool,
}

impl Read for Waiting<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.waited, true) {
            self.gate.wait();
        }
        Ok(0)
    }
}

#[test]
fn clients_that_do_not_go_on_keep_nobody_else_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (engine, _) = Engine::init(&path, BackendPreference::Auto, InitOptions::default()).unwrap();
    let bytes = image(1..=2000);
    put(&engine, "image", &bytes, None);
    // More of either kind than there are cores.
    let count = std::thread::available_parallelism().unwrap().get() + 1;
    let gate = Barrier::new(2 * count + 1);
    std::thread::scope(|scope| {
        for number in 0..count {
            let (engine, gate) = (&engine, &gate);
            scope.spawn(move || {
                let reader = engine.open_image(&name("image")).unwrap();
                let mut waited = false;
                let mut sink = |_| {
                    if !std::mem::replace(&mut waited, true) {
                        gate.wait();
                    }
                    Ok(())
                };
                let size = reader.record().virtual_size;
                reader
                    .stream(0..size, &mut sink, Task::unattended())
                    .unwrap();
            });
            scope.spawn(move || {
                let request = PutRequest {
                    name: name(&format!("slow {number}")),
                    source: Source::Stream(&mut Waiting {
                        gate,
                        waited: false,
                    }),
                    parent: None,
                    replace: false,
                };
                engine.put(request, Task::unattended()).unwrap();
            });
        }
        // All of these come through before anybody is let go.
        let reader = engine.open_image(&name("image")).unwrap();
        assert!(read(&reader, 0..bytes.len() as u64).0 == bytes);
        put(&engine, "quick", &image(3000..=4000), None);
        gate.wait();
    });
    assert_eq!(engine.list().unwrap().len(), count + 2);
}
