//! Failures and crashes at every storage call: what was acknowledged stays, what was not is there whole or not at all,
//! and the store always opens.
//!
//! `TEGULA_SWEEP=deep` draws more states of the disk for each crash, and crashes recovery at every call.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tegula_engine::{
    BlockSize, CollectOptions, Collection, DeltaDestination, DeltaRequest, DeltaSource, Depth,
    Destination, Engine, EngineError, Environment, ImageName, InitOptions, OptimizeOptions,
    PutRequest, Recompress, Source, Store, StoreError, Task, Workers,
};
use tegula_io::sim::{Fault, Repeat, SimDisk};
use tegula_io::{SeededRandom, SystemClock};

/// What images there are, with their bytes.
type Model = BTreeMap<String, Vec<u8>>;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

fn environment(disk: &SimDisk, seed: u64) -> Environment {
    Environment {
        storage: Arc::new(disk.clone()),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(seed)),
    }
}

fn open(disk: &SimDisk, seed: u64) -> Result<Engine, EngineError> {
    Ok(Engine::new(
        Store::open(environment(disk, seed))?,
        Workers::Inline,
    ))
}

/// An image of 4 KiB blocks: 0 is a zero block, every other number a block of its own.
fn image(blocks: &[u16]) -> Vec<u8> {
    blocks
        .iter()
        .flat_map(|kind| (0..2048u16).flat_map(move |at| at.wrapping_mul(*kind).to_le_bytes()))
        .collect()
}

fn put(
    engine: &Engine,
    target: &str,
    bytes: &[u8],
    parent: Option<&str>,
    replace: bool,
) -> Result<(), EngineError> {
    let mut stream = bytes;
    let source = Source::Stream(&mut stream);
    let request = PutRequest {
        name: name(target),
        source,
        parent: parent.map(name),
        replace,
    };
    engine.put(request, Task::unattended()).map(drop)
}

fn collect(engine: &Engine) -> Result<(), EngineError> {
    collection(engine).map(drop)
}

fn collection(engine: &Engine) -> Result<Collection, EngineError> {
    let options = CollectOptions {
        min_live: 1.0,
        dry_run: false,
        patience: Duration::ZERO,
        ..CollectOptions::default()
    };
    engine.collect(&options)
}

/// Something that is done to a store, and what the store holds before and after it.
struct Scenario {
    name: &'static str,
    setup: fn(&Engine),
    act: fn(&Engine) -> Result<(), EngineError>,
    before: Model,
    after: Model,
    /// Whether an error means that nothing has changed.
    is_undone: bool,
}

fn parent() -> Vec<u8> {
    image(&[1, 2, 3, 0, 5, 6, 7, 8])
}

fn child() -> Vec<u8> {
    let mut bytes = image(&[1, 9, 0, 4, 5, 6, 7, 8, 10]);
    bytes.truncate(bytes.len() - 100);
    bytes
}

fn with_two(engine: &Engine) {
    put(engine, "parent", &parent(), None, false).unwrap();
    put(engine, "child", &child(), Some("parent"), false).unwrap();
}

fn child_of_child() -> Vec<u8> {
    image(&[1, 9, 3, 4, 11, 6, 7, 8, 0, 12])
}

fn with_grandchild(engine: &Engine) {
    with_two(engine);
    put(engine, "third", &child_of_child(), Some("child"), false).unwrap();
}

fn with_stranger(engine: &Engine) {
    with_two(engine);
    put(engine, "stranger", &image(&[1, 9, 31, 32]), None, false).unwrap();
}

fn with_garbage(engine: &Engine) {
    with_two(engine);
    put(engine, "other", &image(&[20, 21, 22]), None, false).unwrap();
    engine.store().remove(&name("parent")).unwrap();
    engine.store().remove(&name("other")).unwrap();
}

/// An image whose blocks do not compress, and resemble those of every other such image.
fn similar(edit: u8) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes: Vec<u8> = (0..12 * 4096)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect();
    bytes.chunks_mut(4096).for_each(|block| block[100] = edit);
    bytes
}

fn with_resembling(engine: &Engine) {
    put(engine, "one", &similar(1), None, false).unwrap();
    put(engine, "two", &similar(2), Some("one"), false).unwrap();
    put(engine, "gone", &similar(9)[..4 * 4096], None, false).unwrap();
    engine.store().remove(&name("gone")).unwrap();
}

/// An image of words: a higher level of compression finds more in it.
fn words() -> Vec<u8> {
    let random = SeededRandom::new(5);
    let words = [
        "tile ", "ridge ", "eaves ", "gutter ", "a ", "of ", "under ", "rain ",
    ];
    let choose = || words[usize::try_from(random.next_u64() % 8).unwrap()].as_bytes();
    let mut bytes: Vec<u8> = std::iter::repeat_with(choose)
        .flatten()
        .take(8 * 4096)
        .copied()
        .collect();
    bytes.truncate(8 * 4096);
    bytes
}

/// An image in a segment of which a part is garbage.
fn with_words(engine: &Engine) {
    let both = [words(), image(&[20, 21, 22])].concat();
    put(engine, "both", &both, None, false).unwrap();
    put(engine, "words", &words(), None, false).unwrap();
    engine.store().remove(&name("both")).unwrap();
}

fn optimize(engine: &Engine) -> Result<(), EngineError> {
    let options = OptimizeOptions {
        patience: Duration::ZERO,
        ..OptimizeOptions::default()
    };
    engine.optimize(&options, Task::unattended()).map(drop)
}

/// Makes the stream that turns the parent into the child, and applies it: to make a twin of the child.
fn apply_delta(engine: &Engine) -> Result<(), EngineError> {
    let (base, target) = (name("parent"), name("child"));
    let mut stream = Vec::new();
    let to = DeltaDestination::Stream(&mut stream);
    engine.create_delta(
        Some(&base),
        &target,
        Recompress::default(),
        to,
        Task::unattended(),
    )?;
    let request = DeltaRequest {
        source: DeltaSource::Stream(&mut &stream[..]),
        name: name("twin"),
        replace: false,
        base: tegula_engine::DeltaBase::ByDigest,
    };
    engine.apply_delta(request, Task::unattended()).map(drop)
}

fn is_put(scenario: &str) -> bool {
    scenario.contains("put") || scenario == "replace"
}

fn scenarios() -> Vec<Scenario> {
    let two: Model = [
        ("parent".to_owned(), parent()),
        ("child".to_owned(), child()),
    ]
    .into();
    let mut three = two.clone();
    three.insert("third".to_owned(), image(&[30, 31, 0, 3]));
    let mut replaced = two.clone();
    replaced.insert("child".to_owned(), image(&[40, 41]));
    let mut renamed = two.clone();
    renamed.insert("moved".to_owned(), renamed["child"].clone());
    renamed.remove("child");
    let only_child: Model = [("child".to_owned(), child())].into();
    let mut twin = two.clone();
    twin.insert("twin".to_owned(), child());
    let mut grandchild = two.clone();
    grandchild.insert("third".to_owned(), child_of_child());
    let mut stranger = two.clone();
    stranger.insert("stranger".to_owned(), image(&[1, 9, 31, 32]));
    let mut rewritten = two.clone();
    rewritten.insert("child".to_owned(), image(&[40, 41, 42, 43, 44, 45]));
    let mut both_child = two.clone();
    both_child.insert("parent".to_owned(), child());
    let resembling: Model = [
        ("one".to_owned(), similar(1)),
        ("two".to_owned(), similar(2)),
    ]
    .into();
    let worded: Model = [("words".to_owned(), words())].into();
    let mut resembling_three = resembling.clone();
    resembling_three.insert("third".to_owned(), similar(3));
    let scenario = |name, setup, act, before: &Model, after: &Model| Scenario {
        name,
        setup,
        act,
        before: before.clone(),
        after: after.clone(),
        is_undone: is_put(name),
    };
    vec![
        scenario(
            "put",
            with_two,
            |e| put(e, "third", &image(&[30, 31, 0, 3]), None, false),
            &two,
            &three,
        ),
        scenario(
            "put of what is there",
            with_two,
            |e| put(e, "twin", &child(), None, false),
            &two,
            &twin,
        ),
        scenario(
            "child put",
            with_two,
            |e| put(e, "twin", &child(), Some("parent"), false),
            &two,
            &twin,
        ),
        scenario(
            "replace",
            with_two,
            |e| put(e, "child", &image(&[40, 41]), Some("child"), true),
            &two,
            &replaced,
        ),
        scenario(
            "remove",
            with_two,
            |e| Ok(e.store().remove(&name("parent")).map(drop)?),
            &two,
            &only_child,
        ),
        scenario(
            "rename",
            with_two,
            |e| Ok(e.store().rename(&name("child"), &name("moved")).map(drop)?),
            &two,
            &renamed,
        ),
        scenario(
            "flatten",
            with_two,
            |e| Ok(e.store().flatten(&name("child"), true).map(drop)?),
            &two,
            &two,
        ),
        scenario(
            "coalesce",
            with_grandchild,
            |e| Ok(e.store().coalesce(&name("third"), None).map(drop)?),
            &grandchild,
            &grandchild,
        ),
        scenario(
            "coalesce onto a stranger",
            with_stranger,
            |e| {
                let onto = name("stranger");
                Ok(e.store().coalesce(&name("child"), Some(&onto)).map(drop)?)
            },
            &stranger,
            &stranger,
        ),
        scenario(
            "clone",
            with_two,
            |e| {
                let store = e.store();
                Ok(store
                    .clone_image(&name("child"), &name("twin"), false)
                    .map(drop)?)
            },
            &two,
            &twin,
        ),
        scenario(
            "clone in place of another",
            with_two,
            |e| {
                let store = e.store();
                Ok(store
                    .clone_image(&name("child"), &name("parent"), true)
                    .map(drop)?)
            },
            &two,
            &both_child,
        ),
        scenario(
            "a put of so many changes that it is folded",
            with_two,
            |e| {
                put(
                    e,
                    "child",
                    &image(&[40, 41, 42, 43, 44, 45]),
                    Some("parent"),
                    true,
                )
            },
            &two,
            &rewritten,
        ),
        scenario(
            "optimize",
            with_resembling,
            optimize,
            &resembling,
            &resembling,
        ),
        scenario(
            "put of what resembles",
            with_resembling,
            |e| put(e, "third", &similar(3), None, false),
            &resembling,
            &resembling_three,
        ),
        scenario("delta applied", with_two, apply_delta, &two, &twin),
        scenario(
            "collect and compact",
            with_garbage,
            collect,
            &only_child,
            &only_child,
        ),
        scenario(
            "collect and compress",
            with_words,
            collect,
            &worded,
            &worded,
        ),
        scenario(
            "repair",
            with_two,
            |e| e.repair(None, Task::unattended()).map(drop),
            &two,
            &two,
        ),
    ]
}

#[test]
fn the_sweeps_go_through_a_collection_that_compresses() {
    let scenarios = scenarios();
    let compressing = scenarios.iter().find(|s| s.name == "collect and compress");
    let engine = open(&prepared(compressing.unwrap()), 3).unwrap();
    let collected = collection(&engine).unwrap();
    assert!(collected.recompressed_chunks > 0, "{collected:?}");
}

/// A disk with the scenario's store on it, everything durable.
fn prepared(scenario: &Scenario) -> SimDisk {
    let disk = SimDisk::new();
    let options = InitOptions {
        block_size: BlockSize::MIN,
        zstd_level: 1,
        ..InitOptions::default()
    };
    let store = Store::init(environment(&disk, 1), options).unwrap();
    (scenario.setup)(&Engine::new(store, Workers::Inline));
    assert_eq!(
        contents(&open(&disk, 2).unwrap()).unwrap(),
        scenario.before,
        "{}",
        scenario.name
    );
    disk.after_kill()
}

/// Reads every image.
fn contents(engine: &Engine) -> Result<BTreeMap<String, Vec<u8>>, EngineError> {
    let mut images = BTreeMap::new();
    for record in engine.list()? {
        let mut bytes = Vec::new();
        engine.get(
            &record.name,
            Destination::Stream(&mut bytes),
            Task::unattended(),
        )?;
        images.insert(record.name.as_str().to_owned(), bytes);
    }
    Ok(images)
}

/// The promise: the store opens, holds one of the states it may hold, verifies clean, and stays so through a
/// collection, which leaves nothing that is not needed.
fn check(disk: &SimDisk, allowed: &[&Model], context: &str) {
    let engine = open(disk, 77)
        .unwrap_or_else(|error| panic!("{context}: the store does not open: {error:?}"));
    let found =
        contents(&engine).unwrap_or_else(|error| panic!("{context}: cannot be read: {error:?}"));
    let state = allowed.iter().find(|model| ***model == found);
    let state =
        state.unwrap_or_else(|| panic!("{context}: holds {:?}", found.keys().collect::<Vec<_>>()));
    let session = engine.store().begin().unwrap();
    for image in allowed.iter().flat_map(|model| model.keys()) {
        let opened = session.image(&name(image)).is_ok();
        assert_eq!(
            opened,
            found.contains_key(image),
            "{context}: {image:?} opened by its name, but not listed, or the reverse"
        );
    }
    drop(session);
    let findings = engine
        .verify(Depth::Full, &[], Task::unattended())
        .unwrap()
        .findings;
    assert!(findings.is_empty(), "{context}: {findings:#?}");
    collect(&engine).unwrap_or_else(|error| panic!("{context}: collection fails: {error:?}"));
    let found = contents(&engine)
        .unwrap_or_else(|error| panic!("{context}: cannot be read after collection: {error:?}"));
    assert!(found == **state, "{context}: collection changed images");
    let leftover = collection(&engine).unwrap().freed_bytes;
    assert_eq!(
        leftover, 0,
        "{context}: a second collection still freed bytes"
    );
}

fn deep() -> bool {
    std::env::var("TEGULA_SWEEP").is_ok_and(|depth| depth == "deep")
}

#[test]
fn an_error_at_any_call_loses_nothing_and_leaves_nothing() {
    for scenario in scenarios() {
        let base = prepared(&scenario);
        let mut points = 0;
        for fault in Fault::SURVIVABLE {
            for repeat in [Repeat::Once, Repeat::FromThenOn] {
                for call in 1.. {
                    let disk = base.after_kill();
                    let engine = open(&disk, 3).unwrap();
                    let opened = disk.calls();
                    disk.fail_at(opened + call, fault, repeat);
                    let result = (scenario.act)(&engine);
                    let reached = disk.calls() >= opened + call;
                    disk.disarm();
                    drop(engine);
                    let context = format!(
                        "{}: {fault:?} {repeat:?} at call {call}: {}",
                        scenario.name,
                        disk.describe(opened + call)
                    );
                    match result {
                        Ok(()) => check(&disk, &[&scenario.after], &context),
                        // A put that fails has changed nothing, unless the disk does not let it take anything back.
                        Err(_) if scenario.is_undone && repeat == Repeat::Once => {
                            check(&disk, &[&scenario.before], &context);
                        }
                        Err(_) => check(&disk, &[&scenario.before, &scenario.after], &context),
                    }
                    points += 1;
                    if !reached {
                        break;
                    }
                }
            }
        }
        println!("{}: {points} points", scenario.name);
    }
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged_and_shows_nothing_partial() {
    // Scenarios share nothing, and each takes as long as a core can give.
    let sums = scenarios().into_par_iter().with_max_len(1).map(|scenario| {
        let (states, recoveries) = crash_everywhere(&scenario);
        println!(
            "{}: {states} states after a crash, {recoveries} after a crash of recovery",
            scenario.name
        );
        (states, recoveries)
    });
    let (states, recoveries) = sums.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("{states} states after a crash, {recoveries} after a crash of recovery");
}

/// Crashes a scenario at every call. Returns how many states were checked after that, and after a crash of recovery.
fn crash_everywhere(scenario: &Scenario) -> (u64, u64) {
    let draws = if deep() { 64 } else { 6 };
    let recovered = if deep() { u64::from(RECOVERY_STEP) } else { 1 };
    let (mut states, mut recoveries) = (0, 0);
    let base = prepared(scenario);
    for call in 1.. {
        let disk = base.after_kill();
        let engine = open(&disk, 3).unwrap();
        let opened = disk.calls();
        disk.crash_at(opened + call);
        let acknowledged = (scenario.act)(&engine).is_ok();
        let reached = disk.has_crashed();
        disk.crash();
        drop(engine);
        for draw in 0..draws {
            let context = format!(
                "{}: crash at call {call}, draw {draw}: {}",
                scenario.name,
                disk.describe(opened + call)
            );
            let random = SeededRandom::new(draw * 1_000_003 + call);
            let after =
                disk.after_crash(&mut |of| usize::try_from(random.next_u64() % of as u64).unwrap());
            let allowed: &[&Model] = match acknowledged {
                true => &[&scenario.after],
                false => &[&scenario.before, &scenario.after],
            };
            states += 1;
            check(&after.after_kill(), allowed, &context);
            if draw < recovered {
                recoveries +=
                    crash_recovery(&after, allowed, draw % u64::from(RECOVERY_STEP), &context);
            }
        }
        if !reached {
            break;
        }
    }
    (states, recoveries)
}

/// A crash of recovery at each of its calls, for each state, would take hours: each state has one call in so many, and
/// the deep sweep has as many of them, so that every call comes in.
const RECOVERY_STEP: u8 = 5;

/// Crashes what cleans up after a crash, at the calls from the `first` on that [`RECOVERY_STEP`] leaves: the next put,
/// which takes over abandoned segments, and a collection.
fn crash_recovery(crashed: &SimDisk, allowed: &[&Model], first: u64, context: &str) -> u64 {
    let mut states = 0;
    for call in (first + 1..).step_by(usize::from(RECOVERY_STEP)) {
        let disk = crashed.after_kill();
        let Ok(engine) = open(&disk, 5) else {
            panic!("{context}: the store does not open")
        };
        disk.crash_at(disk.calls() + call);
        let done =
            put(&engine, "later", &image(&[50, 3]), None, false).and_then(|()| collect(&engine));
        let reached = disk.has_crashed();
        disk.crash();
        drop(engine);
        let random = SeededRandom::new(call);
        let after =
            disk.after_crash(&mut |of| usize::try_from(random.next_u64() % of as u64).unwrap());
        let later: Vec<Model> = allowed.iter().map(|model| with_later(model)).collect();
        let mut states_allowed: Vec<&Model> = later.iter().collect();
        if done.is_err() {
            states_allowed.extend(allowed);
        }
        check(
            &after,
            &states_allowed,
            &format!("{context}; then crash at call {call} of recovery"),
        );
        states += 1;
        if !reached {
            break;
        }
    }
    states
}

fn with_later(model: &Model) -> Model {
    let mut model = model.clone();
    model.insert("later".to_owned(), image(&[50, 3]));
    model
}

#[test]
fn nothing_is_left_open_or_locked_after_an_error() {
    for scenario in scenarios() {
        let base = prepared(&scenario);
        for call in 1.. {
            let disk = base.after_kill();
            let engine = open(&disk, 3).unwrap();
            let opened = disk.calls();
            disk.fail_at(opened + call, Fault::Io, Repeat::Once);
            drop((scenario.act)(&engine));
            let reached = disk.calls() >= opened + call;
            drop(engine);
            let handles = disk.handles();
            assert_eq!(
                handles,
                Default::default(),
                "{}: EIO at call {call}",
                scenario.name
            );
            if !reached {
                break;
            }
        }
    }
}

#[test]
fn a_lying_disk_is_found_out() {
    // Writes reported done that never happened cannot be survived, but nothing wrong may ever be served.
    for scenario in scenarios() {
        let base = prepared(&scenario);
        for call in 1.. {
            let disk = base.after_kill();
            let engine = open(&disk, 3).unwrap();
            let opened = disk.calls();
            disk.fail_at(opened + call, Fault::LostWrite, Repeat::Once);
            drop((scenario.act)(&engine));
            let reached = disk.calls() >= opened + call;
            disk.disarm();
            for model in [&scenario.before, &scenario.after] {
                for (image, bytes) in model {
                    let mut found = Vec::new();
                    let got = engine.get(
                        &name(image),
                        Destination::Stream(&mut found),
                        Task::unattended(),
                    );
                    let known = scenario.before.get(image) == Some(&found)
                        || scenario.after.get(image) == Some(&found);
                    assert!(
                        got.is_err() || known || found == *bytes,
                        "{}: lost write at {call}: wrong bytes",
                        scenario.name
                    );
                }
            }
            if !reached {
                break;
            }
        }
    }
}

#[test]
fn opening_one_image_reads_no_record_but_its_own() {
    let disk = SimDisk::new();
    let store = Store::init(environment(&disk, 1), InitOptions::default()).unwrap();
    let engine = Engine::new(store, Workers::Inline);
    for number in 0..20 {
        put(&engine, &format!("image-{number}"), &[7], None, false).unwrap();
    }
    engine
        .store()
        .rename(&name("image-0"), &name("renamed"))
        .unwrap();
    let session = engine.store().begin().unwrap();
    for image in ["image-7", "renamed"] {
        let before = disk.opens_of("images/");
        session.image(&name(image)).unwrap();
        // One more may be as long as the record of a newer name would be.
        let opened = disk.opens_of("images/") - before;
        assert!(opened <= 2, "{image:?} took {opened} records to open");
    }
}

#[test]
fn a_replacement_that_fails_leaves_the_old_image_or_says_that_it_may_not() {
    let scenarios = scenarios();
    let scenario = scenarios
        .iter()
        .find(|scenario| scenario.name == "replace")
        .unwrap();
    let base = prepared(scenario);
    let mut doubtful = 0;
    // From some call on nothing works any more: not even what takes the replacement back.
    for call in 1.. {
        let disk = base.after_kill();
        let engine = open(&disk, 3).unwrap();
        let opened = disk.calls();
        disk.fail_at(opened + call, Fault::Io, Repeat::FromThenOn);
        let result = (scenario.act)(&engine);
        let reached = disk.calls() >= opened + call;
        disk.disarm();
        let context = disk.describe(opened + call);
        let in_doubt = matches!(
            &result,
            Err(EngineError::Store(StoreError::PublishedInDoubt { .. }))
        );
        doubtful += u32::from(in_doubt);
        let found = contents(&open(&disk, 9).unwrap()).unwrap();
        match result {
            Ok(()) => assert!(found == scenario.after, "{context}"),
            Err(_) if in_doubt => assert!(
                found == scenario.before || found == scenario.after,
                "{context}: neither of the two"
            ),
            Err(error) => assert!(found == scenario.before, "{context}: {error}"),
        }
        if !reached {
            break;
        }
    }
    assert!(doubtful > 0, "the test does not reach what it is about");
}

#[test]
fn a_failed_replacement_followed_by_a_crash_leaves_one_of_the_two_whole() {
    let scenarios = scenarios();
    let scenario = scenarios
        .iter()
        .find(|scenario| scenario.name == "replace")
        .unwrap();
    let base = prepared(scenario);
    for call in 1.. {
        let disk = base.after_kill();
        let engine = open(&disk, 3).unwrap();
        let opened = disk.calls();
        disk.fail_at(opened + call, Fault::Io, Repeat::Once);
        let result = (scenario.act)(&engine);
        let reached = disk.calls() >= opened + call;
        disk.crash();
        drop(engine);
        for draw in 0..8 {
            let random = SeededRandom::new(draw * 7919 + call);
            let after =
                disk.after_crash(&mut |of| usize::try_from(random.next_u64() % of as u64).unwrap());
            let context = format!("draw {draw}: {}", disk.describe(opened + call));
            match result {
                Ok(()) => check(&after, &[&scenario.after], &context),
                Err(_) => check(&after, &[&scenario.before, &scenario.after], &context),
            }
        }
        if !reached {
            break;
        }
    }
}
