//! Which layers an image lies on: coalesced, flattened, cloned, whatever was asked for or happens by itself, an image
//! reads the same, and no chunk is looked at for it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tegula_engine::{
    BlockSize, CollectOptions, Depth, Destination, Engine, Environment, Extent, ExtentKind,
    ImageName, InitOptions, PutRequest, STACK_DEPTH_MAX, Source, Store, StoreError, Task, Workers,
};
use tegula_io::sim::SimDisk;
use tegula_io::{SeededRandom, StorePath, SystemClock};

const BLOCK: usize = 4096;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// An image of 4 KiB blocks: 0 is a zero block, every other number a block of its own.
fn image(blocks: &[u16]) -> Vec<u8> {
    blocks
        .iter()
        .flat_map(|kind| (0..2048u16).flat_map(move |at| at.wrapping_mul(*kind).to_le_bytes()))
        .collect()
}

/// A store, and what its images are.
struct World {
    disk: SimDisk,
    engine: Engine,
    images: BTreeMap<String, Vec<u8>>,
}

impl World {
    fn new() -> Self {
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
        Self {
            disk,
            engine: Engine::new(store, Workers::Inline),
            images: BTreeMap::new(),
        }
    }

    fn put(&mut self, image: &str, bytes: Vec<u8>, parent: Option<&str>) {
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut &bytes[..]),
            parent: parent.map(name),
            replace: true,
        };
        self.engine.put(request, Task::unattended()).unwrap();
        self.images.insert(image.to_owned(), bytes);
        assert!(self.layers(image) <= STACK_DEPTH_MAX);
    }

    fn layers(&self, image: &str) -> usize {
        self.engine.show(&name(image)).unwrap().layers
    }

    fn collect(&self) {
        let options = CollectOptions {
            min_live: 1.0,
            dry_run: false,
            patience: Duration::ZERO,
            ..CollectOptions::default()
        };
        self.engine.collect(&options).unwrap();
    }

    /// Every image reads as it should, and nothing is damaged.
    fn check(&self) {
        for (image, bytes) in &self.images {
            let mut found = Vec::new();
            let to = Destination::Stream(&mut found);
            self.engine
                .get(&name(image), to, Task::unattended())
                .unwrap();
            assert!(found == *bytes, "{image} reads other bytes");
        }
        let verified = self.engine.verify(Depth::Full, &[], Task::unattended());
        assert_eq!(verified.unwrap().findings, []);
        for (base, before) in &self.images {
            for (image, bytes) in &self.images {
                let diff = self.engine.diff(&name(base), &name(image)).unwrap();
                assert_eq!(
                    diff.extents,
                    differences(before, bytes),
                    "{base} to {image}"
                );
            }
        }
    }
}

/// Compares two images block by block.
fn differences(base: &[u8], image: &[u8]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (number, block) in image.chunks(BLOCK).enumerate() {
        let padded = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(BLOCK, 0);
            bytes
        };
        let before = base.chunks(BLOCK).nth(number).unwrap_or_default();
        if padded(before) == padded(block) {
            continue;
        }
        let kind = match block.iter().all(|byte| *byte == 0) {
            true => ExtentKind::Zero,
            false => ExtentKind::Data,
        };
        let (offset, length) = ((number * BLOCK) as u64, block.len() as u64);
        match extents.last_mut() {
            Some(last) if last.kind == kind && last.offset + last.length == offset => {
                last.length += length
            }
            _ => extents.push(Extent {
                offset,
                length,
                kind,
            }),
        }
    }
    extents
}

#[test]
fn neighbours_are_compared_without_a_look_at_what_the_base_holds() {
    let mut world = World::new();
    // So many that nothing is folded.
    let tail: Vec<u16> = (10..30).collect();
    let with = |head: &[u16]| image(&[head, &tail].concat());
    world.put("base", with(&[1, 2, 3, 4, 5]), None);
    world.put("child", with(&[1, 2, 9, 0, 5]), Some("base"));
    world.put("grandchild", with(&[1, 2, 9, 4, 7]), Some("child"));
    world.check();
    let record = world.engine.show(&name("base")).unwrap().record;
    let layer = StorePath::new(format!("layers/{}.layer", record.layer));
    // Damage in the table of ids is an error for whoever looks at it.
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    world.disk.alter(&layer, flip).unwrap();
    let diff = |base: &str, image: &str| world.engine.diff(&name(base), &name(image));
    let expected = |base: &str, image: &str| differences(&world.images[base], &world.images[image]);
    for (base, image) in [
        ("base", "child"),
        ("child", "base"),
        ("child", "grandchild"),
    ] {
        assert_eq!(diff(base, image).unwrap().extents, expected(base, image));
    }
    // Two layers touch block 3: whether it is as it was tells the base's table alone.
    let error = diff("base", "grandchild").unwrap_err();
    let path = layer.to_string();
    assert!(error.to_string().contains(&path), "{error}");
}

#[test]
fn folding_and_cloning_look_at_no_segment_and_no_index() {
    let mut world = World::new();
    let mut blocks: Vec<u16> = (1..=60).collect();
    world.put("v0", image(&blocks), None);
    for version in 1..=4u16 {
        blocks[usize::from(version) * 3] += 100;
        let parent = format!("v{}", version - 1);
        world.put(&format!("v{version}"), image(&blocks), Some(&parent));
    }
    world.put("stranger", image(&blocks[..50]), None);
    let store = world.engine.store().clone();
    let looked_at = || {
        ["segments", "index"].map(|directory| {
            (
                world.disk.opens_of(directory),
                world.disk.reads_of(directory),
            )
        })
    };
    let digest = |image: &str| store.begin().unwrap().image(&name(image)).unwrap().digest;
    let (before, v4) = (looked_at(), digest("v4"));
    let onto = store.coalesce(&name("v4"), Some(&name("v1"))).unwrap();
    assert_eq!((onto.layers_before, onto.layers), (5, 3));
    let all = store.coalesce(&name("v4"), None).unwrap();
    assert_eq!((all.layers_before, all.layers), (3, 2));
    let stranger = store
        .coalesce(&name("v4"), Some(&name("stranger")))
        .unwrap();
    assert_eq!((stranger.layers_before, stranger.layers), (2, 2));
    let flat = store.flatten(&name("v4"), false).unwrap();
    assert_eq!((flat.layers_before, flat.layers), (2, 1));
    let twin = store
        .clone_image(&name("v4"), &name("twin"), false)
        .unwrap();
    store.remove(&name("twin")).unwrap();
    assert_eq!(
        world
            .engine
            .diff(&name("v3"), &name("v4"))
            .unwrap()
            .extents
            .len(),
        1
    );
    assert_eq!(looked_at(), before, "(opens, reads) of segments and index");
    for record in [onto, all, stranger, flat].map(|folded| folded.record) {
        assert_eq!(record.digest, v4);
        assert_eq!(record.parent.unwrap().name, name("v3"));
    }
    assert_eq!((twin.digest, digest("v4")), (v4, v4));
    world.check();
}

#[test]
fn what_is_done_already_is_not_done_again() {
    let mut world = World::new();
    world.put("base", image(&[1, 2, 3, 4, 5, 6, 7]), None);
    world.put("child", image(&[1, 2, 3, 4, 5, 6, 8]), Some("base"));
    let store = world.engine.store().clone();
    let (child, base) = (name("child"), name("base"));
    let before = world.engine.list().unwrap();
    store.coalesce(&child, None).unwrap();
    store.coalesce(&child, Some(&base)).unwrap();
    store.coalesce(&base, None).unwrap();
    store.coalesce(&base, Some(&base)).unwrap();
    store.flatten(&base, false).unwrap();
    store.flatten(&base, true).unwrap();
    assert_eq!(world.engine.list().unwrap(), before);
    store.flatten(&child, true).unwrap();
    let after = store.flatten(&child, true).unwrap().record;
    assert_eq!((after.parent, world.layers("child")), (None, 1));
}

#[test]
fn a_chain_stays_shallow_whatever_is_removed_of_it() {
    let mut world = World::new();
    let mut blocks: Vec<u16> = (0..200).collect();
    world.put("0", image(&blocks), None);
    for version in 1..=70u16 {
        for changed in 0..2u16 {
            blocks[usize::from(version * 37 + changed * 101) % 200] = 200 + version * 2 + changed;
        }
        let parent = (version - 1).to_string();
        // `put` of the world makes sure of the depth.
        world.put(&version.to_string(), image(&blocks), Some(&parent));
        if version % 3 == 0 {
            let gone = (version - 2).to_string();
            world.engine.store().remove(&name(&gone)).unwrap();
            world.images.remove(&gone);
        }
    }
    world.check();
    world.collect();
    world.check();
}

#[test]
fn a_stack_that_a_crash_left_deep_is_coalesced_by_the_next_collection_or_child() {
    // What is published through the store alone is kept shallow too: only a failure leaves a deep stack.
    let mut world = World::new();
    let mut blocks: Vec<u16> = (1..=100).collect();
    world.put("deep", image(&blocks), None);
    for version in 0..STACK_DEPTH_MAX {
        blocks[version] += 200;
        let bytes = image(&blocks);
        let before = world.disk.after_kill();
        if version + 1 == STACK_DEPTH_MAX {
            // The commit is one rename in images/; what keeps the stack shallow comes after it.
            let crashed = crash_after_commit(&before, &bytes);
            world.disk = crashed.clone();
            world.engine = open(&crashed, 8);
            world.images.insert("deep".to_owned(), bytes);
            assert_eq!(world.layers("deep"), STACK_DEPTH_MAX + 1);
        } else {
            world.put("deep", bytes, Some("deep"));
        }
    }
    world.check();
    let deep = world.disk.after_kill();
    world.collect();
    assert!(world.layers("deep") <= STACK_DEPTH_MAX);
    world.check();
    world.disk = deep.clone();
    world.engine = open(&deep, 9);
    blocks[50] = 999;
    world.put("child", image(&blocks), Some("deep"));
    world.check();
}

fn open(disk: &SimDisk, seed: u64) -> Engine {
    let environment = Environment {
        storage: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(seed)),
    };
    Engine::new(Store::open(environment).unwrap(), Workers::Inline)
}

/// Puts a child of `deep` in its place on copies of a disk, each killed a call later, until one has it and is deep.
fn crash_after_commit(disk: &SimDisk, bytes: &[u8]) -> SimDisk {
    for call in 1.. {
        let attempt = disk.after_kill();
        let engine = open(&attempt, 1000 + call);
        attempt.crash_at(attempt.calls() + call);
        let request = PutRequest {
            name: name("deep"),
            source: Source::Stream(&mut &bytes[..]),
            parent: Some(name("deep")),
            replace: true,
        };
        let put = engine.put(request, Task::unattended());
        drop(engine);
        assert!(
            attempt.has_crashed(),
            "no crash leaves a deep stack: {put:?}"
        );
        let killed = attempt.after_kill();
        if open(&killed, 0).show(&name("deep")).unwrap().layers > STACK_DEPTH_MAX {
            return killed;
        }
    }
    unreachable!()
}

/// What can be done to images and their layers.
#[derive(Debug, Clone)]
enum Step {
    Put {
        image: u8,
        parent: Option<u8>,
        blocks: Vec<u16>,
        cut: usize,
    },
    Coalesce {
        image: u8,
        onto: Option<u8>,
    },
    Flatten {
        image: u8,
    },
    Clone {
        from: u8,
        to: u8,
    },
    Remove {
        image: u8,
    },
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let blocks = prop::collection::vec(0..6u16, 0..12);
    let step = prop_oneof![
        8 => (0..5u8, prop::option::weighted(0.8, 0..5u8), blocks, 0..4096usize)
            .prop_map(|(image, parent, blocks, cut)| Step::Put { image, parent, blocks, cut }),
        4 => (0..5u8, prop::option::of(0..5u8)).prop_map(|(image, onto)| Step::Coalesce { image, onto }),
        1 => (0..5u8).prop_map(|image| Step::Flatten { image }),
        1 => (0..5u8, 0..5u8).prop_map(|(from, to)| Step::Clone { from, to }),
        2 => (0..5u8).prop_map(|image| Step::Remove { image }),
        1 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Images grow, shrink within a block, are zeroed; their layers are folded, their parents removed in any order.
    #[test]
    fn whatever_is_done_to_layers_images_read_the_same(steps in steps()) {
        let mut world = World::new();
        let absent = |error| matches!(error, StoreError::ImageNotFound { .. });
        for step in steps {
            let store = world.engine.store().clone();
            match step {
                Step::Put { image: to, parent, blocks, cut } => {
                    let mut bytes = image(&blocks);
                    bytes.truncate(bytes.len().saturating_sub(cut));
                    let parent = parent.map(|parent| parent.to_string());
                    let parent = parent.filter(|parent| world.images.contains_key(parent));
                    world.put(&to.to_string(), bytes, parent.as_deref());
                }
                Step::Coalesce { image, onto } => {
                    let onto = onto.map(|onto| name(&onto.to_string()));
                    let before = world.engine.list().unwrap();
                    match store.coalesce(&name(&image.to_string()), onto.as_ref()) {
                        Ok(folded) => prop_assert_eq!(world.layers(&image.to_string()), folded.layers),
                        Err(error) => {
                            prop_assert!(absent(error));
                            prop_assert_eq!(world.engine.list().unwrap(), before);
                        }
                    }
                }
                Step::Flatten { image } => match store.flatten(&name(&image.to_string()), false) {
                    Ok(_) => prop_assert_eq!(world.layers(&image.to_string()), 1),
                    Err(error) => prop_assert!(absent(error)),
                },
                Step::Clone { from, to } => {
                    let (from, to) = (from.to_string(), to.to_string());
                    if store.clone_image(&name(&from), &name(&to), true).is_ok() {
                        let bytes = world.images[&from].clone();
                        world.images.insert(to, bytes);
                    }
                }
                Step::Remove { image } => {
                    let image = image.to_string();
                    prop_assert_eq!(store.remove(&name(&image)).is_ok(), world.images.remove(&image).is_some());
                }
                Step::Collect => world.collect(),
            }
            world.check();
        }
    }
}
