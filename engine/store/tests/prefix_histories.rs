//! Histories of stores whose chunks stand on each other at random: images are put, removed and collected in any order,
//! some while others are being written, and every image that is there reads back after every step.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tegula_format::{BlockIndex, BlockSet, BlockSize, ChunkId, ImageName};
use tegula_io::{MemoryStorage, SeededRandom, Storage, StorePath, SystemClock};
use tegula_store::{
    CollectOptions, Depth, Environment, Ingest, InitOptions, LayerStack, LiveSet, NewImage,
    SegmentTables, Session, Store,
};

const BLOCK: usize = 4096;

/// Different blocks there are in a history.
const KINDS: u64 = 24;

/// A store, and what it should hold: the blocks of each image by their kinds.
struct World {
    storage: MemoryStorage,
    store: Store,
    random: SeededRandom,
    images: BTreeMap<String, Vec<u64>>,
    puts: u64,
}

/// Blocks of one family resemble each other: they differ in a few words.
fn block(kind: u64) -> Vec<u8> {
    let family = SeededRandom::new(kind % 4);
    let words = std::iter::repeat_with(|| family.next_u64().to_le_bytes());
    let mut bytes: Vec<u8> = words.flatten().take(BLOCK).collect();
    let own = SeededRandom::new(1000 + kind);
    for _ in 0..6 {
        let at = usize::try_from(own.next_u64() % (BLOCK as u64 - 8)).unwrap();
        bytes[at..at + 8].copy_from_slice(&own.next_u64().to_le_bytes());
    }
    bytes
}

impl World {
    fn seeded(seed: u64) -> Self {
        let storage = MemoryStorage::new();
        let environment = Environment {
            storage: Arc::new(storage.clone()),
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(seed)),
        };
        let options = InitOptions {
            block_size: BlockSize::MIN,
            ..InitOptions::default()
        };
        Self {
            storage,
            store: Store::init(environment, options).unwrap(),
            random: SeededRandom::new(!seed),
            images: BTreeMap::new(),
            puts: 0,
        }
    }

    fn below(&self, end: u64) -> u64 {
        self.random.next_u64() % end
    }

    /// Stores a block unless it is there: by itself, or on one or two blocks that the store has or this ingest stored.
    fn store_block(&self, ingest: &Ingest<'_>, kind: u64, own: &mut BTreeSet<u64>) {
        let bytes = block(kind);
        let id = ChunkId::of(&bytes);
        if ingest.has_or_claim(&id) {
            return;
        }
        let index = ingest.session().index().unwrap();
        let mut bases = Vec::new();
        for _ in 0..self.below(3) {
            // Now and then a base that stands on others itself, as it may come about.
            let deep = self.below(8) == 0;
            let base = self.below(KINDS / 4) * 4 + kind % 4;
            let bytes = block(base);
            let id = ChunkId::of(&bytes);
            let in_store = index.lookup(&id).is_some_and(|row| row.bases == 0 || deep);
            let usable = own.contains(&base) || (in_store && ingest.has(&id));
            if base != kind && usable && bases.iter().all(|(other, _)| *other != id) {
                bases.push((id, bytes));
            }
        }
        let given: Vec<(ChunkId, &[u8])> = bases.iter().map(|(id, b)| (*id, &b[..])).collect();
        let chunk = match ingest.compress_with_bases(id, &bytes, &given, 4096) {
            Some(chunk) => chunk,
            None => {
                own.insert(kind);
                ingest.compress(id, &bytes)
            }
        };
        ingest.store(&chunk).unwrap();
    }

    /// Puts an image of random blocks; `meanwhile` happens when its chunks are stored and before it is published.
    fn put(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        self.puts += 1;
        let name = format!("image-{}", self.puts);
        let kinds: Vec<u64> = (0..=self.below(8)).map(|_| self.below(KINDS)).collect();
        let store = self.store.clone();
        let session = store.begin().unwrap();
        let ingest = Ingest::begin(&session).unwrap();
        ingest.recover_abandoned().unwrap();
        let (mut own, mut ids) = (BTreeSet::new(), ingest.id_table());
        let mut data = BlockSet::new();
        for (at, kind) in (0..).zip(&kinds) {
            self.store_block(&ingest, *kind, &mut own);
            ids.push(&ChunkId::of(&block(*kind))).unwrap();
            data.push(BlockIndex::new(at));
        }
        meanwhile(self);
        let image = NewImage {
            name: ImageName::parse(&name).unwrap(),
            replace: false,
            virtual_size: (kinds.len() * BLOCK) as u64,
            parent: None,
            base: None,
            data,
            zero: BlockSet::new(),
        };
        ingest.finish(image, ids).unwrap();
        self.images.insert(name, kinds);
    }

    fn remove(&mut self) {
        let names: Vec<String> = self.images.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = &names[usize::try_from(self.below(names.len() as u64)).unwrap()];
        self.store.remove(&ImageName::parse(name).unwrap()).unwrap();
        self.images.remove(name);
    }

    fn collect(&self) {
        let options = CollectOptions {
            min_live: [0.3, 0.7, 1.0][usize::try_from(self.below(3)).unwrap()],
            patience: Duration::ZERO,
            ..CollectOptions::default()
        };
        self.store.collect(&options).unwrap();
    }

    fn step(&mut self, may_nest: bool) {
        match self.below(if may_nest { 10 } else { 7 }) {
            0..3 => self.put(|_| {}),
            3..5 => self.remove(),
            5..7 => self.collect(),
            _ => self.put(|world| {
                for _ in 0..=world.below(4) {
                    world.step(false);
                }
            }),
        }
    }

    fn check(&self, context: &str) {
        let session = self.store.begin().unwrap();
        let records = session.images().unwrap();
        assert_eq!(records.len(), self.images.len(), "{context}");
        for record in records {
            let kinds = &self.images[record.name.as_str()];
            let stack = LayerStack::of_image(&session, &record).unwrap();
            for (chunk, kind) in stack.chunks().zip(kinds) {
                let read = session.read_chunk(&chunk.unwrap().1);
                let read = read.unwrap_or_else(|error| panic!("{context}: {error:?}"));
                assert!(*read == *block(*kind), "{context}");
            }
            LiveSet::of_image(&session, &stack).unwrap();
        }
    }

    /// Collects all garbage, and makes sure that what is left is what the images need, to the byte.
    fn check_nothing_is_left_over(&self, context: &str) {
        let options = CollectOptions {
            min_live: 1.0,
            ..CollectOptions::default()
        };
        // Another takes what stood beside the survivors of the first, and what these stood on before they were compressed
        // again; and that comes to an end.
        let freed = || self.store.collect(&options).unwrap();
        let rounds = (0..10)
            .take_while(|_| freed().segments_rewritten > 0)
            .count();
        assert!(rounds < 10, "{context}: collection finds no end");
        let session = self.store.begin().unwrap();
        let mut live = LiveSet::default();
        for record in session.images().unwrap() {
            let stack = LayerStack::of_image(&session, &record).unwrap();
            live.union_with(&LiveSet::of_image(&session, &stack).unwrap());
        }
        let mut tables = SegmentTables::new(&session);
        let needed =
            live.stored_bytes(&mut tables).unwrap() + live.table_bytes(&mut tables).unwrap();
        let files = self.storage.list(&StorePath::new("segments")).unwrap();
        // A head and a trailer each.
        let found: u64 = files.iter().map(|file| file.bytes - 137).sum();
        assert_eq!(found, needed, "{context}");
    }
}

/// Counts the kinds that stand on others.
fn framed(session: &Session) -> usize {
    let index = session.index().unwrap();
    let row = |kind| index.lookup(&ChunkId::of(&block(kind)));
    let bases = (0..KINDS).filter_map(row).map(|row| row.bases);
    bases.filter(|bases| *bases > 0).count()
}

fn play(seed: u64) -> usize {
    let mut world = World::seeded(seed);
    let mut most = 0;
    for step in 0..30 {
        let context = format!("seed {seed}, step {step}");
        world.step(true);
        world.check(&context);
        most = most.max(framed(&world.store.begin().unwrap()));
    }
    let session = world.store.begin().unwrap();
    let found = session.verify(Depth::Full, &[], &|_, _| {}).unwrap();
    assert!(
        found.findings.is_empty(),
        "seed {seed}: {:?}",
        found.findings
    );
    drop(session);
    world.check_nothing_is_left_over(&format!("seed {seed}"));
    world.check(&format!("seed {seed}, at the end"));
    while !world.images.is_empty() {
        world.remove();
        world.check_nothing_is_left_over(&format!("seed {seed}, emptied"));
        world.check(&format!("seed {seed}, emptied"));
    }
    most
}

#[test]
fn whatever_stands_on_whatever_no_history_loses_a_block_or_leaves_garbage() {
    let histories = std::env::var("TEGULA_HISTORIES").map_or(60, |text| text.parse().unwrap());
    let framed: u64 = (0..histories).map(|seed| play(seed) as u64).sum();
    assert!(
        framed > 3 * histories,
        "too few chunks stood on others: {framed}"
    );
}

/// Puts images over each other's blocks in one thread, while another removes and collects: what a put counts on, and
/// what it is about to publish, may be condemned at any moment.
fn race(seed: u64) {
    let world = World::seeded(seed);
    let store = world.store.clone();
    std::thread::scope(|scope| {
        let putting = scope.spawn(move || {
            let mut world = world;
            for _ in 0..25 {
                world.put(|_| {});
                world.check(&format!("seed {seed}, while it is collected"));
                if world.images.len() > 3 {
                    world.remove();
                }
            }
            world
        });
        let options = CollectOptions {
            min_live: 1.0,
            patience: Duration::ZERO,
            ..CollectOptions::default()
        };
        while !putting.is_finished() {
            store.collect(&options).unwrap();
        }
        let world = putting.join().unwrap();
        world.check(&format!("seed {seed}, after a race"));
        world.check_nothing_is_left_over(&format!("seed {seed}, after a race"));
    });
}

#[test]
fn puts_that_count_on_what_others_stand_on_race_with_collections() {
    let races = std::env::var("TEGULA_HISTORIES").map_or(20, |text| text.parse().unwrap());
    (0..races).for_each(race);
}
