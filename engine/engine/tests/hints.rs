//! Hints of what was changed: with them only that is read, and whatever they say the image is the disk.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use proptest::prelude::*;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tegula_engine::{
    BlockSize, BlockSource, ChangeHint, Content, Destination, Engine, EngineError, Environment,
    HintChecks, HintError, HintFormat, HintReport, ImageDigest, ImageName, InitOptions, PutReport,
    PutRequest, Source, SourceExtent, Store, Task, Workers,
};
use tegula_io::MemoryStorage;

const BLOCK: usize = 4096;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn fresh() -> Engine {
    let options = InitOptions {
        block_size: BlockSize::MIN,
        ..InitOptions::default()
    };
    let storage = Arc::new(MemoryStorage::new());
    let store = Store::init(Environment::of_system(storage), options).unwrap();
    Engine::new(store, Workers::Inline)
}

/// A disk in memory that counts what is read of it.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl Counted {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_owned(),
            read: AtomicU64::new(0),
        }
    }

    fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl BlockSource for Counted {
    fn name(&self) -> &str {
        "the disk"
    }

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let bytes = self.bytes.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Every eighth block that is all zeros is a hole, so that some are.
    fn next_extent(&self, from: u64) -> io::Result<Option<SourceExtent>> {
        let hole = |block: usize| {
            let start = block * BLOCK;
            let bytes = &self.bytes[start..self.bytes.len().min(start + BLOCK)];
            block.is_multiple_of(8) && bytes.iter().all(|byte| *byte == 0)
        };
        let blocks = self.bytes.len().div_ceil(BLOCK);
        let first = usize::try_from(from).unwrap() / BLOCK;
        let next = (first..blocks).find(|block| !hole(*block));
        Ok(next.map(|block| {
            let end = (block..blocks).find(|block| hole(*block));
            let end = end.map_or(self.bytes.len(), |end| end * BLOCK) as u64;
            SourceExtent {
                range: from.max((block * BLOCK) as u64)..end,
                content: Content::Data,
            }
        }))
    }

    fn check_unchanged(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

fn put(engine: &Engine, image: &str, bytes: &[u8]) -> ImageDigest {
    let disk = Counted::new(bytes);
    let request = PutRequest {
        name: name(image),
        source: Source::Disk(&disk),
        parent: None,
        replace: false,
    };
    engine
        .put(request, Task::unattended())
        .unwrap()
        .record
        .digest
}

const PLAIN: HintChecks = HintChecks {
    paranoid: false,
    sample: 0,
};

/// Puts a child of `base` with a hint.
fn put_changed(
    engine: &Engine,
    disk: &Counted,
    hint: &ChangeHint,
    checks: HintChecks,
) -> PutReport {
    let request = PutRequest {
        name: name("child"),
        source: Source::Disk(disk),
        parent: Some(name("base")),
        replace: true,
    };
    engine
        .put_changed(request, hint, checks, Task::unattended())
        .unwrap()
}

fn get(engine: &Engine, image: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = Destination::Stream(&mut bytes);
    engine.get(&name(image), to, Task::unattended()).unwrap();
    bytes
}

fn read(bytes: u64, format: HintFormat, mut text: &[u8]) -> Result<ChangeHint, HintError> {
    ChangeHint::new(bytes, BlockSize::MIN).read(format, &mut text)
}

/// Blocks of a kind each; 0 is zeros.
fn blocks(kinds: &[u8]) -> Vec<u8> {
    let block = |kind: &u8| {
        let kind = *kind;
        (0..BLOCK).map(move |at| u8::try_from(at % 251).unwrap().wrapping_mul(kind))
    };
    kinds.iter().flat_map(block).collect()
}

fn extents(list: &[Range<u64>], lengths: Option<(u64, u64)>) -> String {
    let entry = |range: &Range<u64>| {
        format!(
            r#"{{"offset": {}, "length": {}}}"#,
            range.start,
            range.end - range.start
        )
    };
    let list: Vec<_> = list.iter().map(entry).collect();
    let list = list.join(", ");
    match lengths {
        Some((base, size)) => {
            format!(r#"{{"base_size": {base}, "size": {size}, "extents": [{list}]}}"#)
        }
        None => format!("[{list}]"),
    }
}

/// The ranges that differ, rounded outwards to granules, as one who watched the writes would say.
fn written(base: &[u8], disk: &[u8], granule: usize) -> Vec<Range<u64>> {
    let at = |bytes: &[u8], range: Range<usize>| {
        let end = range.end.min(bytes.len());
        let mut part = bytes[range.start.min(end)..end].to_vec();
        part.resize(range.len(), 0);
        part
    };
    (0..disk.len().div_ceil(granule))
        .map(|number| number * granule..(number + 1) * granule)
        .filter(|range| at(base, range.clone()) != at(disk, range.clone()))
        .map(|range| range.start as u64..range.end.min(disk.len()) as u64)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Coarse and fine granules, tails that end within a sector, disks that shrink and grow, discards, more named than
    /// was changed, a wrong base: the image is always the disk, and a usable hint is used.
    #[test]
    fn whatever_a_truthful_hint_is_like_the_image_is_the_disk(
        kinds in prop::collection::vec(0..4u8, 0..24),
        cut in 0..BLOCK,
        edits in prop::collection::vec((0..24usize * BLOCK, 1..3 * BLOCK, 0..3u8), 0..6),
        length in prop::option::of(0..26 * BLOCK),
        granule in prop::sample::select(vec![512usize, 1024, 4096, 8192, 65_536]),
        extra in prop::collection::vec(0..24u64, 0..3),
        lengths in any::<bool>(),
        wrong_base in prop::bool::weighted(0.1),
        sample in 0..4u32,
    ) {
        let mut base = blocks(&kinds);
        base.truncate(base.len().saturating_sub(cut));
        let mut bytes = base.clone();
        if let Some(length) = length {
            bytes.resize(length, 0);
        }
        for (start, length, byte) in edits {
            let end = bytes.len().min(start + length);
            bytes[start.min(end)..end].fill(byte);
        }
        let engine = fresh();
        let digest = put(&engine, "base", &base);
        let mut said = written(&base, &bytes, granule);
        said.extend(extra.iter().map(|block| block * 4096..(block + 1) * 4096).filter(|range| range.end <= bytes.len() as u64));
        let sizes = lengths.then_some((base.len() as u64, bytes.len() as u64));
        let text = extents(&said, sizes);
        let hint = read(bytes.len() as u64, HintFormat::Auto, text.as_bytes()).unwrap();
        let against = match wrong_base {
            true => ImageDigest::from_bytes([1; 32]),
            false => digest,
        };
        let disk = Counted::new(&bytes);
        let checks = HintChecks { paranoid: false, sample };
        let report = put_changed(&engine, &disk, &hint.clone().against(Some(against)), checks);
        prop_assert!(get(&engine, "child") == bytes);
        let hinted = report.hint.unwrap();
        prop_assert!(!(hinted.used && wrong_base));
        prop_assert_eq!(hinted.used, hinted.reason.is_none());
        let grown_in_silence = bytes.len() > base.len() && !lengths;
        if !wrong_base && !grown_in_silence {
            prop_assert!(hinted.used, "{:?}", hinted.reason);
        }
        // The digest is that of the same disk without a hint.
        let plain = fresh();
        prop_assert_eq!(put(&plain, "plain", &bytes), report.record.digest);
        // And a truthful hint misses nothing.
        let checks = HintChecks { paranoid: true, sample: 0 };
        let paranoid = put_changed(&engine, &disk, &hint.against(Some(digest)), checks);
        prop_assert!(get(&engine, "child") == bytes);
        let missed = paranoid.hint.unwrap().missed_blocks;
        prop_assert!(missed.is_none_or(|missed| missed == 0), "{:?}", missed);
    }
}

#[test]
fn a_put_with_a_hint_reads_what_was_changed_and_nothing_else() {
    let base = blocks(&(0..200).map(|block| block % 5 + 1).collect::<Vec<_>>());
    let mut bytes = base.clone();
    bytes[100 * BLOCK + 17] ^= 1;
    bytes[150 * BLOCK..152 * BLOCK].fill(0);
    let engine = fresh();
    let digest = put(&engine, "base", &base);
    let text = extents(&written(&base, &bytes, 512), None);
    let hint = read(bytes.len() as u64, HintFormat::Extents, text.as_bytes()).unwrap();
    let hint = hint.against(Some(digest));
    let disk = Counted::new(&bytes);
    let report = put_changed(&engine, &disk, &hint, PLAIN);
    assert_eq!((report.read_bytes, disk.read()), (3 * 4096, 3 * 4096));
    assert!(disk.read() * 40 <= disk.bytes());
    assert!(get(&engine, "child") == bytes);
    let checks = HintChecks {
        paranoid: false,
        sample: 7,
    };
    let disk = Counted::new(&bytes);
    let report = put_changed(&engine, &disk, &hint, checks);
    assert_eq!(disk.read(), (3 + 7) * 4096);
    let expected = HintReport {
        used: true,
        reason: None,
        changed_bytes: 3 * 4096,
        sampled_blocks: 7,
        missed_blocks: None,
    };
    assert_eq!(report.hint, Some(expected));
}

#[test]
fn a_hint_that_lies_is_found_out_by_samples_or_by_comparing_everything() {
    let base = blocks(&[1, 2, 3, 1, 2, 3, 1, 2]);
    let mut bytes = base.clone();
    bytes[BLOCK..3 * BLOCK].fill(9);
    let engine = fresh();
    let digest = put(&engine, "base", &base);
    // It names one of the two blocks.
    let text = extents(std::slice::from_ref(&(4096..8192)), None);
    let hint = read(bytes.len() as u64, HintFormat::Auto, text.as_bytes()).unwrap();
    let hint = hint.against(Some(digest));
    let disk = Counted::new(&bytes);
    let checks = HintChecks {
        paranoid: true,
        sample: 0,
    };
    let report = put_changed(&engine, &disk, &hint, checks).hint.unwrap();
    assert_eq!((report.used, report.missed_blocks), (false, Some(1)));
    assert!(get(&engine, "child") == bytes);
    // Enough samples of eight blocks hit the wrong one.
    let checks = HintChecks {
        paranoid: false,
        sample: 500,
    };
    let report = put_changed(&engine, &disk, &hint, checks).hint.unwrap();
    let reason = report.reason.unwrap();
    assert!(reason.contains("byte 8192"), "{reason}");
    assert_eq!((report.used, report.missed_blocks), (false, Some(1)));
    assert!(get(&engine, "child") == bytes);
}

#[test]
fn every_form_of_a_hint_is_read() {
    let base = blocks(&[1; 16]);
    let mut bytes = base.clone();
    bytes[2 * BLOCK..4 * BLOCK].fill(7);
    bytes[8 * BLOCK..9 * BLOCK].fill(0);
    let engine = fresh();
    let digest = put(&engine, "base", &base);
    let forms = [
        (
            HintFormat::Extents,
            r#"{"base": "a", "base_size": 65536, "size": 65536, "extents": [
                {"offset": 8192, "length": 8192, "type": "data"}, {"offset": 32768, "length": 4096, "type": "zero"}]}"#,
        ),
        (
            HintFormat::Extents,
            r#"[{"start": 0, "length": 8192, "dirty": false, "zero": false}, {"start": 8192, "length": 8192, "dirty": true, "zero": false},
                {"start": 16384, "length": 16384, "dirty": false, "zero": true}, {"start": 32768, "length": 32768, "dirty": true, "zero": true}]"#,
        ),
        (
            HintFormat::Extents,
            r#"[{"offset": 0, "length": 8192, "type": 0, "description": "clean"}, {"offset": 8192, "length": 57344, "type": 1, "description": "dirty"}]"#,
        ),
        (
            HintFormat::QemuMap,
            r#"[{ "start": 0, "length": 8192, "depth": 1, "present": true, "zero": false, "data": true, "compressed": false, "offset": 4096},
                { "start": 8192, "length": 8192, "depth": 0, "present": true, "zero": false, "data": true, "compressed": false, "offset": 327680},
                { "start": 16384, "length": 16384, "depth": 1, "present": false, "zero": true, "data": false, "compressed": false},
                { "start": 32768, "length": 32768, "depth": 0, "present": true, "zero": true, "data": false, "compressed": false}]"#,
        ),
        (
            HintFormat::ThinDelta,
            r#"<superblock uuid="" time="1" transaction="2" data_block_size="8" nr_data_blocks="0">
                <diff left="1" right="2">
                  <same begin="0" length="2"/>
                  <different begin="2" length="2"/>
                  <left_only begin="8" length="1"/>
                  <right_only begin="15" length="1"/>
                </diff>
              </superblock>"#,
        ),
        (
            HintFormat::ThinDelta,
            r#"<superblock uuid="" time="1" transaction="2" data_block_size="16" nr_data_blocks="0">
                <diff left="1" right="2">
                  <same><range begin="0" data_begin="7" length="1"/></same>
                  <different><range begin="1" left_data_begin="0" right_data_begin="9" length="1"/></different>
                  <left_only><range begin="4" data_begin="0" length="1"/></left_only>
                </diff>
              </superblock>"#,
        ),
        (
            HintFormat::Rbd,
            r#"[{"offset":8192,"length":8192,"exists":"true"},{"offset":32768,"length":4096,"exists":"false"}]"#,
        ),
        (
            HintFormat::Rbd,
            r#"[{"offset":8192,"length":8192,"exists":true},{"offset":32768,"length":4096,"exists":false}]"#,
        ),
    ];
    for (format, text) in forms {
        for format in [format, HintFormat::Auto] {
            let hint = read(bytes.len() as u64, format, text.as_bytes()).unwrap();
            let disk = Counted::new(&bytes);
            let report = put_changed(&engine, &disk, &hint.against(Some(digest)), PLAIN);
            let hinted = report.hint.unwrap();
            assert_eq!(hinted.reason, None, "{format:?}: {text}");
            assert!(get(&engine, "child") == bytes, "{format:?}: {text}");
            assert!(disk.read() < disk.bytes(), "{format:?}: {text}");
        }
    }
}

#[test]
fn a_doubtful_hint_is_not_used_and_says_why() {
    let base = blocks(&[1; 16]);
    let mut bytes = base.clone();
    bytes[5 * BLOCK..6 * BLOCK].fill(7);
    let engine = fresh();
    let digest = put(&engine, "base", &base);
    let other = ImageDigest::from_bytes([9; 32]);
    let object = |rest: &str| format!(r#"{{"extents": [], {rest}}}"#);
    let thin = |rest: &str| {
        format!(
            r#"<superblock data_block_size="8"><diff left="1" right="2">{rest}</diff></superblock>"#
        )
    };
    let doubts = [
        (r#"[{"offset": 5, "length": 512}]"#.to_owned(), "sectors"),
        (r#"[{"offset": 0, "length": 8}]"#.to_owned(), "sectors"),
        (r#"[{"offset": 512}]"#.to_owned(), "whole numbers"),
        (r#"[{"offset": -512, "length": 512}]"#.to_owned(), "whole numbers"),
        (r#"[{"offset": 0.5, "length": 512}]"#.to_owned(), "whole numbers"),
        (r#"[{"offset": "0", "length": 512}]"#.to_owned(), "whole numbers"),
        (r#"[[0, 512], 7, null, "x", true, {}]"#.to_owned(), "entry 1"),
        (r#"[{"offset": 18446744073709551104, "length": 1024}]"#.to_owned(), "last byte"),
        (r#"[{"offset": 65536, "length": 4096}]"#.to_owned(), "past the end"),
        (r#"[{"offset": 0, "length": 512, "type": "hole"}]"#.to_owned(), "hole"),
        (r#"[{"offset": 0, "length": 512, "type": 3}]"#.to_owned(), "kind"),
        (r#"[{"offset": 0, "length": 512, "dirty": 1}]"#.to_owned(), "dirty"),
        (r#"[{"offset": 0, "length": 512, "exists": "maybe"}]"#.to_owned(), "exists"),
        (r#"[{"start": 0, "length": 512, "depth": "0"}]"#.to_owned(), "depth"),
        (r#"[{"start": 0, "length": 32768, "depth": 1}]"#.to_owned(), "every byte"),
        (r#"[{"start": 0, "length": 4096, "dirty": false}, {"start": 8192, "length": 57344, "dirty": true}]"#.to_owned(), "every byte"),
        (r#"[{"offset": 20480, "length": 4096, "length": 0}]"#.to_owned(), "\"length\" twice"),
        (r#"[{"offset": 20480, "offset": 0, "length": 512}]"#.to_owned(), "\"offset\" twice"),
        (r#"[{"start": 20480, "offset": 7, "start": 0, "length": 512}]"#.to_owned(), "\"start\" twice"),
        (r#"[{"offset": 0, "length": 65536, "dirty": true, "dirty": false}]"#.to_owned(), "\"dirty\" twice"),
        (object(r#""extents": [{"offset": 0, "length": 512}]"#), "\"extents\" twice"),
        (object(r#""size": 1, "size": 65536"#), "\"size\" twice"),
        (object(&format!(r#""base_digest": "{other}", "base_digest": "{digest}""#)), "\"base_digest\" twice"),
        (object(r#""size": 4096"#), "4096"),
        (object(r#""size": "big""#), "size"),
        (object(r#""base_size": 4096"#), "4096"),
        (object(r#""base_digest": "abc""#), "digest"),
        (object(&format!(r#""base_digest": "{other}""#)), "made against"),
        (thin(r#"<changed begin="0" length="1"/>"#), "<changed>"),
        (thin(r#"<different begin="0"/>"#), "whole numbers"),
        (thin(r#"<different begin="x" length="1"/>"#), "whole numbers"),
        (thin(r#"<different begin="18446744073709551615" length="1"/>"#), "last byte"),
        (thin(r#"<different begin="16" length="1"/>"#), "past the end"),
    ];
    for (text, part) in doubts {
        let hint = read(bytes.len() as u64, HintFormat::Auto, text.as_bytes()).unwrap();
        let disk = Counted::new(&bytes);
        let report = put_changed(&engine, &disk, &hint.against(Some(digest)), PLAIN);
        assert!(get(&engine, "child") == bytes, "{text}");
        let reason = report.hint.unwrap().reason.unwrap_or_default();
        assert!(reason.contains(part), "{text}: {reason:?}");
        assert_eq!(report.read_bytes, bytes.len() as u64, "{text}");
    }
    // Nobody says against what it was made.
    let hint = read(bytes.len() as u64, HintFormat::Auto, b"[]").unwrap();
    let report = put_changed(&engine, &Counted::new(&bytes), &hint, PLAIN);
    assert!(report.hint.unwrap().reason.unwrap().contains("which image"));
    // What a form has to have is missed where it was named.
    for format in [HintFormat::QemuMap, HintFormat::Rbd] {
        let text = extents(std::slice::from_ref(&(0..512)), None);
        let hint = read(bytes.len() as u64, format, text.as_bytes()).unwrap();
        let disk = Counted::new(&bytes);
        let report = put_changed(&engine, &disk, &hint.against(Some(digest)), PLAIN);
        assert!(!report.hint.unwrap().used);
        assert!(get(&engine, "child") == bytes);
    }
}

#[test]
fn what_is_no_hint_at_all_is_an_error() {
    let texts = [
        "",
        "   ",
        "[",
        "[{\"offset\": 0, \"length\": 512}",
        "[] []",
        "7",
        "{}",
        "{\"extents\": 5}",
        "nonsense",
        "<superblock",
        "<superblock data_block_size=\"8\"><diff>",
        "<superblock data_block_size=\"8\"></superblock>",
        "<superblock data_block_size=\"0\"><diff/></superblock>",
        "<superblock><diff/></superblock>",
        "<metadata/>",
        "<!DOCTYPE x><superblock data_block_size=\"8\"><diff/></superblock>",
        "<superblock data_block_size=\"8\"><diff><different begin=\"0\" length=\"1\" begin=\"5\"/></diff></superblock>",
    ];
    for text in texts {
        let read = read(65_536, HintFormat::Auto, text.as_bytes());
        assert!(read.is_err(), "{text:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(read(65_536, HintFormat::Auto, deep.as_bytes()).is_err());
    // What would have to be held in memory whole has a limit.
    let long = "8".repeat(100_000);
    let texts = [
        format!("<superblock data_block_size=\"{long}\">"),
        format!("[{{\"offset\": 0, \"length\": 512, \"x\": \"{long}\"}}]"),
        format!("[{{\"{}\": 0}}]", "\\\"\\\\".repeat(50_000)),
    ];
    for text in texts {
        let read = read(65_536, HintFormat::Auto, text.as_bytes());
        assert!(matches!(read, Err(HintError::Read(_))), "{read:?}");
    }
    let escaped = r#"[{"offset": 0, "length": 512, "x\\": "a\"b\\\\", "y": ["\"", ""]}]"#;
    assert!(read(65_536, HintFormat::Auto, escaped.as_bytes()).is_ok());
}

#[test]
fn too_many_ranges_or_bytes_are_refused() {
    // A reader that never ends: the limit does.
    struct Endless(&'static [u8], usize);
    impl io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            for byte in buffer.iter_mut() {
                *byte = match self.1 {
                    0 => b'[',
                    at => self.0[(at - 1) % self.0.len()],
                };
                self.1 += 1;
            }
            Ok(buffer.len())
        }
    }
    let refused = |unit| {
        let mut input = io::BufReader::with_capacity(1 << 20, Endless(unit, 0));
        let hint = ChangeHint::new(1 << 30, BlockSize::DEFAULT);
        hint.read(HintFormat::Auto, &mut input).unwrap_err()
    };
    assert!(matches!(refused(b"{},"), HintError::TooManyRanges));
    assert!(matches!(refused(b" "), HintError::TooLong));
}
