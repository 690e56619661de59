//! The store's configuration, without which nothing opens: made, lost, made again, whenever the machine stops.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use tegula_engine::{
    BlockSize, ConfigSource, Depth, Destination, Engine, Environment, ImageName, InitOptions,
    PutRequest, RepairReport, Source, Store, StoreError, Task, Workers,
};
use tegula_format::StoreConfig;
use tegula_io::sim::{Fault, Repeat, SimDisk};
use tegula_io::{Buffer, Existing, MemoryStorage, SeededRandom, Storage, StorePath, SystemClock};

const CONFIG: &str = "tegula.store";
const COPY: &str = "tegula.store.copy";

/// States of the disk that are drawn for each crash.
const DRAWS: u64 = 8;

fn environment(disk: &SimDisk, seed: u64) -> Environment {
    Environment {
        storage: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(seed)),
    }
}

fn options() -> InitOptions {
    InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 7,
        prefix_frames: false,
    }
}

fn name() -> ImageName {
    ImageName::parse("roof").unwrap()
}

fn image() -> Vec<u8> {
    (0..5 * 2048_u32)
        .flat_map(|word| u16::try_from(word % 977).unwrap().to_le_bytes())
        .collect()
}

fn put(store: &Store, bytes: &[u8]) {
    let mut stream = bytes;
    let request = PutRequest {
        name: name(),
        source: Source::Stream(&mut stream),
        parent: None,
        replace: false,
    };
    let engine = Engine::new(store.clone(), Workers::Inline);
    engine.put(request, Task::unattended()).unwrap();
}

/// A disk with a store of one image, everything durable.
fn prepared(bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    put(
        &Store::init(environment(&disk, 1), options()).unwrap(),
        bytes,
    );
    disk.after_kill()
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(&StorePath::new(path)).ok()?;
    let length = usize::try_from(file.bytes()).unwrap();
    Some(file.read_at(0, length).wait().unwrap().to_vec())
}

/// Puts other bytes in a file's place, durably.
fn overwrite(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let (path, new) = (StorePath::new(path), StorePath::new("tmp/new"));
    let mut file = disk.create(&new).unwrap();
    file.append(Buffer::copied(bytes)).unwrap();
    file.sync().unwrap();
    disk.rename(&new, &path, Existing::Replace).unwrap();
    disk.sync_directory(&StorePath::root()).unwrap();
}

fn remove(disk: &SimDisk, path: &str) {
    disk.remove(&StorePath::new(path)).unwrap();
    disk.sync_directory(&StorePath::root()).unwrap();
}

fn flip(disk: &SimDisk, path: &str) {
    let mut bytes = read(disk, path).unwrap();
    bytes
        .iter_mut()
        .skip(40)
        .take(1)
        .for_each(|byte| *byte ^= 4);
    overwrite(disk, path, &bytes);
}

/// Makes a store's files what they are in one that was made before there were copies.
fn without_copy(disk: &SimDisk) -> StoreConfig {
    let config = StoreConfig::decode(&read(disk, CONFIG).unwrap()).unwrap();
    let old = StoreConfig {
        has_copy: false,
        ..config
    };
    overwrite(disk, CONFIG, &old.encode());
    remove(disk, COPY);
    old
}

fn repair(disk: &SimDisk) -> Result<RepairReport, StoreError> {
    let (store, opening) = Store::open_to_repair(environment(disk, 5))?;
    let engine = Engine::new(store, Workers::Inline);
    let report = engine.repair(None, Task::unattended()).unwrap();
    Ok(report.after(opening))
}

/// The store opens, has nothing wrong with it, and holds the image.
fn assert_sound(disk: &SimDisk, bytes: &[u8], context: &str) {
    let store = Store::open(environment(disk, 6))
        .unwrap_or_else(|error| panic!("{context}: does not open: {error}"));
    let engine = Engine::new(store, Workers::Inline);
    let findings = engine.verify(Depth::Full, &[], Task::unattended());
    assert_eq!(findings.unwrap().findings, [], "{context}");
    let mut found = Vec::new();
    let to = Destination::Stream(&mut found);
    engine.get(&name(), to, Task::unattended()).unwrap();
    assert!(found == bytes, "{context}: other bytes");
}

#[test]
fn a_store_whose_making_stops_anywhere_is_none_or_whole_and_can_be_made() {
    let (mut none, mut whole) = (0, 0);
    for call in 1.. {
        let disk = SimDisk::new();
        disk.fail_at(call, Fault::Io, Repeat::FromThenOn);
        let made = Store::init(environment(&disk, 1), options());
        let reached = disk.calls() >= call;
        disk.crash();
        for draw in 0..DRAWS {
            let random = SeededRandom::new(draw * 7919 + call);
            let after =
                disk.after_crash(&mut |of| usize::try_from(random.next_u64() % of as u64).unwrap());
            let context = format!("draw {draw}: {}", disk.describe(call));
            match Store::open(environment(&after, 2)) {
                Ok(_) => whole += 1,
                Err(StoreError::NotAStore) => {
                    assert!(made.is_err(), "{context}: it was said to be there");
                    none += 1;
                    let repaired = Store::open_to_repair(environment(&after, 3));
                    assert!(
                        matches!(repaired, Err(StoreError::NotAStore)),
                        "{context}: repair made a store"
                    );
                    Store::init(environment(&after, 4), options()).unwrap();
                }
                Err(error) => panic!("{context}: {error}"),
            }
            let store = Store::open(environment(&after, 5)).unwrap();
            put(&store, &image());
            assert_sound(&after, &image(), &context);
        }
        if !reached {
            break;
        }
    }
    assert!(none > 0 && whole > 0, "{none} and {whole}");
}

#[test]
fn a_damaged_or_lost_configuration_is_made_again_from_its_copy_exactly() {
    for damage in [flip, remove] {
        let disk = prepared(&image());
        let before = read(&disk, CONFIG).unwrap();
        damage(&disk, CONFIG);
        let damaged = read(&disk, CONFIG);
        let error = Store::open(environment(&disk, 2)).unwrap_err();
        assert!(error.is_corruption(), "{error}");
        assert!(error.to_string().contains(CONFIG), "{error}");
        assert!(
            matches!(
                Store::init(environment(&disk, 3), options()),
                Err(StoreError::NotEmpty { .. })
            ),
            "made over a store"
        );
        let report = repair(&disk).unwrap();
        assert_eq!(report.config_restored, Some(ConfigSource::Copy));
        assert_eq!(report.remaining, []);
        let kept = report
            .quarantined_files
            .iter()
            .map(|path| read(&disk, path));
        assert_eq!(kept.collect::<Vec<_>>(), Vec::from_iter(damaged.map(Some)));
        assert_eq!(read(&disk, CONFIG).unwrap(), before);
        assert_sound(&disk, &image(), "repaired");
    }
}

#[test]
fn a_repair_of_the_configuration_that_stops_anywhere_can_be_done_again() {
    for with_copy in [true, false] {
        let base = prepared(&image());
        let config = match with_copy {
            true => StoreConfig::decode(&read(&base, CONFIG).unwrap()).unwrap(),
            false => without_copy(&base),
        };
        flip(&base, CONFIG);
        let mut stopped = 0;
        for call in 1.. {
            for repeat in [Repeat::Once, Repeat::FromThenOn] {
                let disk = base.after_kill();
                disk.fail_at(call, Fault::Io, repeat);
                let opened = Store::open_to_repair(environment(&disk, 2)).map(drop);
                stopped += u32::from(opened.is_err());
                disk.crash();
                for draw in 0..DRAWS {
                    let random = SeededRandom::new(draw * 7919 + call);
                    let after = disk.after_crash(&mut |of| {
                        usize::try_from(random.next_u64() % of as u64).unwrap()
                    });
                    let context = format!("draw {draw}: {}", disk.describe(call));
                    match Store::open(environment(&after, 3)) {
                        Ok(_) => {}
                        Err(error) => {
                            assert!(opened.is_err(), "{context}: it was said to be mended");
                            assert!(error.is_corruption(), "{context}: {error}");
                        }
                    }
                    repair(&after).unwrap_or_else(|error| panic!("{context}: {error}"));
                    let again = StoreConfig::decode(&read(&after, CONFIG).unwrap()).unwrap();
                    assert_eq!((again.id, again.block_size), (config.id, config.block_size));
                    assert_sound(&after, &image(), &context);
                }
            }
            let disk = base.after_kill();
            let calls = disk.calls();
            drop(Store::open_to_repair(environment(&disk, 2)).unwrap());
            if disk.calls() - calls < call {
                break;
            }
        }
        assert!(stopped > 0);
    }
}

#[test]
fn a_store_made_before_there_were_copies_is_sound_and_is_given_one_by_repair() {
    let disk = prepared(&image());
    let old = without_copy(&disk);
    assert_sound(&disk, &image(), "old");
    let report = repair(&disk).unwrap();
    assert_eq!(
        (report.config_restored, report.config_copy_restored),
        (None, true)
    );
    assert_eq!(read(&disk, COPY), Some(old.encode()));
    assert_sound(&disk, &image(), "with a copy");
}

#[test]
fn without_a_copy_the_segments_tell_whose_they_are() {
    let disk = prepared(&image());
    let old = without_copy(&disk);
    remove(&disk, CONFIG);
    let report = repair(&disk).unwrap();
    assert_eq!(report.config_restored, Some(ConfigSource::Segments));
    assert!(report.config_copy_restored);
    let again = StoreConfig::decode(&read(&disk, CONFIG).unwrap()).unwrap();
    assert_eq!((again.id, again.block_size), (old.id, old.block_size));
    // A record with bases must not become unreadable because nobody knows that there may be some.
    assert!(again.prefix_frames && again.has_copy);
    assert_eq!(read(&disk, COPY), read(&disk, CONFIG));
    assert_sound(&disk, &image(), "repaired");
}

#[test]
fn the_copy_of_another_store_is_moved_aside_and_not_believed() {
    let (disk, other) = (prepared(&image()), SimDisk::new());
    Store::init(environment(&other, 99), options()).unwrap();
    let foreign = read(&other, COPY).unwrap();
    overwrite(&disk, COPY, &foreign);
    let store = Store::open(environment(&disk, 2)).unwrap();
    let engine = Engine::new(store, Workers::Inline);
    let findings = engine.verify(Depth::Fast, &[], Task::unattended());
    let findings = findings.unwrap().findings;
    assert!(
        matches!(&*findings, [finding] if finding.path == COPY && finding.derived),
        "{findings:?}"
    );
    flip(&disk, CONFIG);
    let report = repair(&disk).unwrap();
    assert_eq!(report.config_restored, Some(ConfigSource::Segments));
    let kept = report
        .quarantined_files
        .iter()
        .map(|path| read(&disk, path));
    assert!(
        kept.into_iter()
            .any(|bytes| bytes.as_ref() == Some(&foreign))
    );
    assert_sound(&disk, &image(), "repaired");
}

#[test]
fn a_damaged_or_lost_copy_is_found_and_made_again() {
    for damage in [flip, remove] {
        let disk = prepared(&image());
        damage(&disk, COPY);
        let store = Store::open(environment(&disk, 2)).unwrap();
        let engine = Engine::new(store, Workers::Inline);
        let findings = engine.verify(Depth::Fast, &[], Task::unattended());
        let findings = findings.unwrap().findings;
        assert!(
            matches!(&*findings, [one] if one.path == COPY),
            "{findings:?}"
        );
        let report = repair(&disk).unwrap();
        assert!(report.config_copy_restored);
        assert_eq!(read(&disk, COPY), read(&disk, CONFIG));
        assert_sound(&disk, &image(), "repaired");
    }
}

#[test]
fn images_of_zeros_alone_tell_the_block_size_and_nothing_at_all_is_left_as_it_was() {
    let zeros = vec![0; 20_000];
    let disk = prepared(&zeros);
    without_copy(&disk);
    flip(&disk, CONFIG);
    let report = repair(&disk).unwrap();
    assert_eq!(report.config_restored, Some(ConfigSource::Images));
    assert_sound(&disk, &zeros, "repaired");

    let empty = SimDisk::new();
    Store::init(environment(&empty, 1), options()).unwrap();
    without_copy(&empty);
    flip(&empty, CONFIG);
    let before = read(&empty, CONFIG);
    assert!(repair(&empty).unwrap_err().is_corruption());
    assert_eq!(read(&empty, CONFIG), before);
}

#[test]
fn of_several_that_make_a_store_in_one_directory_one_does_and_the_copy_is_its() {
    for round in 0..200_u64 {
        let storage = MemoryStorage::new();
        let init = &|seed| {
            let environment = Environment {
                storage: Arc::new(storage.clone()),
                clock: Arc::new(SystemClock),
                random: Arc::new(SeededRandom::new(round * 10 + seed)),
            };
            Store::init(environment, options()).map(|store| *store.config())
        };
        let made: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..4).map(|seed| scope.spawn(move || init(seed))).collect();
            makers
                .into_iter()
                .map(|maker| maker.join().unwrap())
                .collect()
        });
        let config = match &*made.iter().flatten().collect::<Vec<_>>() {
            [config] => **config,
            made => panic!("{} made it", made.len()),
        };
        for refused in made.iter().filter_map(|made| made.as_ref().err()) {
            assert!(matches!(refused, StoreError::NotEmpty { .. }), "{refused}");
        }
        for path in [CONFIG, COPY] {
            let file = storage.open(&StorePath::new(path)).unwrap();
            let length = usize::try_from(file.bytes()).unwrap();
            let bytes = file.read_at(0, length).wait().unwrap();
            assert_eq!(
                StoreConfig::decode(&bytes),
                Ok(config),
                "{path}, round {round}"
            );
        }
    }
}
