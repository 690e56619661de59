//! Lists of extents, a page at a time: what they say is what the bytes say.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use proptest::prelude::*;
use std::sync::Arc;
use tegula_engine::{
    BlockSize, Engine, Environment, Extent, ExtentKind, ExtentWindow, ImageName, InitOptions,
    PutRequest, Source, Store, Task, Workers,
};
use tegula_io::MemoryStorage;

const BLOCK: usize = 4096;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn disk(kinds: &[u8], short: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = kinds.iter().flat_map(|kind| [*kind; BLOCK]).collect();
    bytes.truncate(bytes.len().saturating_sub(short));
    bytes
}

fn world(base: &[u8], image: &[u8], related: bool) -> Engine {
    let options = InitOptions {
        block_size: BlockSize::MIN,
        ..InitOptions::default()
    };
    let storage = Arc::new(MemoryStorage::new());
    let store = Store::init(Environment::of_system(storage), options).unwrap();
    let engine = Engine::new(store, Workers::Inline);
    for (image, mut bytes, parent) in [
        ("base", base, None),
        ("image", image, related.then(|| name("base"))),
    ] {
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut bytes),
            parent,
            replace: false,
        };
        engine.put(request, Task::unattended()).unwrap();
    }
    engine
}

/// What each block is to be named as; `None` if it is to be left out.
fn expected(base: Option<&[u8]>, image: &[u8]) -> Vec<Option<ExtentKind>> {
    let padded = |bytes: &[u8]| {
        let mut block = bytes.to_vec();
        block.resize(BLOCK, 0);
        block
    };
    let kind = |block: &[u8]| match block.iter().all(|byte| *byte == 0) {
        true => ExtentKind::Zero,
        false => ExtentKind::Data,
    };
    let mut old = base.unwrap_or_default().chunks(BLOCK);
    let name = |block: &[u8]| {
        let same = old.next().is_some_and(|old| padded(old) == padded(block));
        (!same).then(|| kind(block))
    };
    image.chunks(BLOCK).map(name).collect()
}

/// Spreads extents over blocks.
fn spread(extents: &[Extent], size: u64) -> Vec<Option<ExtentKind>> {
    let blocks = size.div_ceil(BLOCK as u64);
    let holder = |block: u64| {
        let at = block * BLOCK as u64;
        let holds = |extent: &&Extent| extent.offset <= at && at < extent.offset + extent.length;
        extents.iter().find(holds).map(|extent| extent.kind)
    };
    (0..blocks).map(holder).collect()
}

fn pages(
    engine: &Engine,
    base: Option<&str>,
    limit: usize,
    only: Option<ExtentKind>,
) -> Vec<Extent> {
    let (base, mut offset, mut all) = (base.map(name), 0, Vec::new());
    loop {
        let window = ExtentWindow {
            offset,
            limit,
            only,
        };
        let page = engine
            .extents(base.as_ref(), &name("image"), window)
            .unwrap();
        assert!(page.extents.len() <= limit);
        all.extend(page.extents);
        match page.next {
            Some(next) => {
                assert!(next > offset, "a page leads on");
                offset = next;
            }
            None => return all,
        }
    }
}

fn images() -> impl Strategy<Value = (Vec<u8>, usize)> {
    (prop::collection::vec(0..3_u8, 0..24), 0..BLOCK)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn pages_of_any_length_say_together_what_the_bytes_say(
        base in images(), image in images(), related: bool, limit in 1..9_usize,
    ) {
        let (base, image) = (disk(&base.0, base.1), disk(&image.0, image.1));
        let engine = world(&base, &image, related);
        let size = image.len() as u64;
        for (name, bytes) in [(None, None), (Some("base"), Some(&*base))] {
            let all = pages(&engine, name, limit, None);
            prop_assert_eq!(spread(&all, size), expected(bytes, &image));
            for pair in all.windows(2) {
                let [first, second] = pair else { unreachable!() };
                prop_assert!(first.offset + first.length <= second.offset);
            }
            let ends = all.last().map_or(0, |last| last.offset + last.length);
            prop_assert!(ends <= size);
            for kind in [ExtentKind::Data, ExtentKind::Zero] {
                let of_kind: Vec<_> = spread(&all, size)
                    .into_iter()
                    .map(|found| found.filter(|found| *found == kind))
                    .collect();
                prop_assert_eq!(spread(&pages(&engine, name, limit, Some(kind)), size), of_kind);
            }
        }
    }

    #[test]
    fn a_page_may_begin_at_any_byte(image in images(), offset in 0..100_000_u64) {
        let image = disk(&image.0, image.1);
        let engine = world(&[], &image, false);
        let window = ExtentWindow { offset, limit: 100, only: None };
        let page = engine.extents(None, &name("image"), window).unwrap();
        let size = image.len() as u64;
        prop_assert_eq!(page.size, size);
        // Without a base all of the image is named: from the offset to the end.
        let mut next = offset.min(size);
        for extent in &page.extents {
            prop_assert_eq!(extent.offset, next);
            prop_assert!(extent.length > 0);
            next += extent.length;
        }
        prop_assert_eq!(next, size);
    }
}
