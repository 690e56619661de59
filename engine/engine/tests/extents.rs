//! Sources that say what they hold: data, zeros, or what the parent holds. Compared with a plain model of bytes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use proptest::prelude::*;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tegula_engine::{
    BlockSize, BlockSource, Content, Destination, Engine, EngineError, Environment, ImageName,
    InitOptions, PutReport, PutRequest, Source, SourceExtent, Store, Task, Workers,
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

/// A disk in memory that answers as its list of extents says.
#[derive(Debug)]
struct Listed {
    bytes: Vec<u8>,
    extents: Vec<SourceExtent>,
    overlay_of: Option<String>,
}

impl BlockSource for Listed {
    fn name(&self) -> &str {
        "the list"
    }

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn overlay_of(&self) -> Option<&str> {
        self.overlay_of.as_deref()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = offset..offset + buffer.len() as u64;
        let touches = |extent: &SourceExtent| {
            extent.content == Content::Inherited
                && extent.range.start < wanted.end
                && wanted.start < extent.range.end
        };
        if self.overlay_of.is_some() && self.extents.iter().any(touches) {
            return Err(io::Error::other("it does not hold what it inherits"));
        }
        let from = usize::try_from(offset).unwrap();
        let bytes = self.bytes.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn next_extent(&self, from: u64) -> io::Result<Option<SourceExtent>> {
        let next = self.extents.iter().find(|extent| extent.range.end > from);
        Ok(next.cloned())
    }

    fn check_unchanged(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

fn put(
    engine: &Engine,
    image: &str,
    disk: &dyn BlockSource,
    parent: Option<&str>,
) -> Result<PutReport, EngineError> {
    let request = PutRequest {
        name: name(image),
        source: Source::Disk(disk),
        parent: parent.map(name),
        replace: false,
    };
    engine.put(request, Task::unattended())
}

fn put_bytes(engine: &Engine, image: &str, bytes: &[u8]) -> PutReport {
    let mut stream = bytes;
    let request = PutRequest {
        name: name(image),
        source: Source::Stream(&mut stream),
        parent: None,
        replace: false,
    };
    engine.put(request, Task::unattended()).unwrap()
}

fn get(engine: &Engine, image: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = Destination::Stream(&mut bytes);
    engine.get(&name(image), to, Task::unattended()).unwrap();
    bytes
}

/// What one stretch of the child is.
#[derive(Debug, Clone, Copy)]
enum Stretch {
    Data(u8),
    Zero,
    Inherited,
}

fn stretches() -> impl Strategy<Value = Vec<(usize, Stretch)>> {
    let kind = prop_oneof![
        (0..4_u8).prop_map(Stretch::Data),
        Just(Stretch::Zero),
        Just(Stretch::Inherited),
    ];
    // Whole blocks, sectors, and odd lengths.
    let length = prop_oneof![
        (1..5_usize).prop_map(|blocks| blocks * BLOCK),
        (1..20_usize).prop_map(|sectors| sectors * 512),
        1..3000_usize,
    ];
    prop::collection::vec((length, kind), 0..24)
}

/// Builds the child and the bytes it should read as.
fn child(parent: &[u8], stretches: &[(usize, Stretch)], overlay: bool) -> (Listed, Vec<u8>) {
    let (mut bytes, mut extents) = (Vec::new(), Vec::new());
    for (length, kind) in stretches {
        let range = bytes.len() as u64..(bytes.len() + length) as u64;
        let from = bytes.len();
        match kind {
            Stretch::Data(byte) => bytes.resize(from + length, *byte),
            Stretch::Zero => bytes.resize(from + length, 0),
            Stretch::Inherited => {
                let rest = parent.get(from..).unwrap_or_default();
                bytes.extend_from_slice(&rest[..rest.len().min(*length)]);
                bytes.resize(from + length, 0);
            }
        }
        let content = match kind {
            Stretch::Zero => continue,
            Stretch::Data(_) => Content::Data,
            Stretch::Inherited => Content::Inherited,
        };
        extents.push(SourceExtent { range, content });
    }
    let disk = Listed {
        bytes: bytes.clone(),
        extents,
        overlay_of: overlay.then(|| "below.qcow2".to_owned()),
    };
    (disk, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_inherited_is_the_parents_and_all_else_the_sources(
        parent in prop::collection::vec((1..3 * BLOCK, 0..4_u8), 0..12),
        stretches in stretches(),
        overlay in any::<bool>(),
    ) {
        let parent: Vec<u8> = parent
            .iter()
            .flat_map(|(length, byte)| std::iter::repeat_n(*byte, *length))
            .collect();
        let (disk, expected) = child(&parent, &stretches, overlay);
        let engine = fresh();
        put_bytes(&engine, "parent", &parent);
        let report = put(&engine, "child", &disk, Some("parent")).unwrap();
        prop_assert!(get(&engine, "child") == expected);
        let plain = put_bytes(&engine, "plain", &expected);
        prop_assert_eq!(report.record.digest, plain.record.digest);
        prop_assert_eq!(report.zero_blocks, plain.zero_blocks);
        if !overlay {
            // With no parent to inherit from, everything is read.
            let alone = put(&engine, "alone", &disk, None).unwrap();
            prop_assert_eq!(alone.record.digest, plain.record.digest);
        }
    }
}

/// Returns a disk of blocks that all differ, and a child of it that changes some bytes.
fn base_and_change(change: Range<usize>) -> (Vec<u8>, Listed) {
    let bytes: Vec<u8> = (1..=64).flat_map(|block: u8| [block; BLOCK]).collect();
    let mut changed = bytes.clone();
    changed[change.clone()].fill(0xEE);
    let extent = |range: Range<usize>, content| SourceExtent {
        range: range.start as u64..range.end as u64,
        content,
    };
    let extents = vec![
        extent(0..change.start, Content::Inherited),
        extent(change.clone(), Content::Data),
        extent(change.end..bytes.len(), Content::Inherited),
    ];
    let disk = Listed {
        bytes: changed,
        extents,
        overlay_of: None,
    };
    (bytes, disk)
}

#[test]
fn what_is_inherited_is_not_read() {
    let (bytes, mut disk) = base_and_change(10 * BLOCK + 100..11 * BLOCK + 7);
    let engine = fresh();
    put_bytes(&engine, "base", &bytes);
    let report = put(&engine, "read", &disk, Some("base")).unwrap();
    assert_eq!(report.read_bytes, 2 * BLOCK as u64);
    assert_eq!((report.new_chunks, report.reused_chunks), (2, 62));
    disk.overlay_of = Some("base.qcow2".to_owned());
    let report = put(&engine, "composed", &disk, Some("base")).unwrap();
    assert_eq!(report.read_bytes, (BLOCK - 100 + 7) as u64);
    assert!(get(&engine, "composed") == disk.bytes);
}

#[test]
fn an_overlay_without_a_parent_is_refused_by_the_name_of_what_it_lies_over() {
    let (_, mut disk) = base_and_change(0..1);
    disk.overlay_of = Some("base.qcow2".to_owned());
    let engine = fresh();
    let error = put(&engine, "alone", &disk, None).unwrap_err();
    assert!(matches!(error, EngineError::ParentNeeded { .. }));
    assert!(error.to_string().contains("base.qcow2"), "{error}");
    assert_eq!(engine.list().unwrap(), []);
}

#[test]
fn a_source_that_makes_no_headway_is_an_error() {
    let (_, mut disk) = base_and_change(0..1);
    disk.extents = vec![SourceExtent {
        range: 5..5,
        content: Content::Data,
    }];
    // `find` passes over it: it has to be the answer to every question.
    #[derive(Debug)]
    struct Stuck(Listed);
    impl BlockSource for Stuck {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn bytes(&self) -> u64 {
            self.0.bytes()
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(buffer, offset)
        }
        fn next_extent(&self, _: u64) -> io::Result<Option<SourceExtent>> {
            Ok(self.0.extents.first().cloned())
        }
        fn check_unchanged(&self) -> Result<(), EngineError> {
            Ok(())
        }
    }
    let engine = fresh();
    let error = put(&engine, "stuck", &Stuck(disk), None).unwrap_err();
    assert!(matches!(error, EngineError::ReadSource { .. }), "{error}");
}
