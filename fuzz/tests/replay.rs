//! Every target on its committed corpus, and on some thousand seeded mutations of it.
//!
//! `TEGULA_FUZZ_SEED` (or `TEGULA_SEED`) replays the mutations of a run; its value is printed. With
//! `TEGULA_SWEEP=deep` there are twenty times as many. An input that fails is written to `target/fuzz-failures` and
//! named: put it into the target's corpus once its cause is mended.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod allocations;

use allocations::Allocations;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use tegula_fuzz::{TARGETS, Target, mutated, reseal, seeds};
use tegula_io::{Random, SeededRandom};

/// The largest piece of memory that any input may make a target ask for.
const ONE_ALLOCATION_MAX: usize = 64 << 20;

/// The most memory that any input may make a target hold at once.
const ALLOCATED_MAX: usize = 256 << 20;

/// The longest that any input may take, with much to spare for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One target at a time: memory is counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seed() -> u64 {
    let from = |name| std::env::var(name).ok();
    let seed = from("TEGULA_FUZZ_SEED").or_else(|| from("TEGULA_SEED"));
    seed.map_or(20_261_122, |text| text.parse().expect("a seed is a number"))
}

fn is_deep() -> bool {
    std::env::var("TEGULA_SWEEP").is_ok_and(|sweep| sweep == "deep")
}

/// Runs one input within its limits; names it if it fails.
fn try_input(target: &Target, bytes: &[u8], what: &str) {
    let (done, waiting) = mpsc::channel::<()>();
    let outcome = std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let before = Allocations::begin();
            let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
            let counted = before.end();
            drop(done);
            (outcome, counted)
        });
        if waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!(
                "{}: {what} takes too long: {}",
                target.name,
                kept(target, bytes).display()
            );
            // The thread cannot be ended, so the process is.
            std::process::abort();
        }
        watched.join().unwrap()
    });
    let (outcome, counted) = outcome;
    let within = counted.largest <= ONE_ALLOCATION_MAX && counted.peak <= ALLOCATED_MAX;
    if outcome.is_err() || !within {
        eprintln!(
            "{}: {what} fails: {}",
            target.name,
            kept(target, bytes).display()
        );
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    assert!(within, "{what} takes too much memory: {counted:?}");
}

/// Keeps an input that failed, and returns where.
fn kept(target: &Target, bytes: &[u8]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-failures");
    std::fs::create_dir_all(&directory).unwrap();
    let random = u128::from_le_bytes(tegula_io::OsRandom.id().unwrap());
    let path = directory.join(format!("{}-{random:032x}", target.name));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut inputs: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    // Shorter names first: the hundredth seed comes behind the tenth.
    inputs.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
    inputs
}

/// Replays a target's corpus, then mutations of it.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let _alone = alone();
    let inputs = corpus(target);
    assert!(!inputs.is_empty());
    for (file, bytes) in &inputs {
        try_input(target, bytes, file);
    }
    let seed = seed();
    let count = target.mutations * if is_deep() { 20 } else { 1 };
    println!("TEGULA_FUZZ_SEED={seed}");
    let random = SeededRandom::new(seed);
    let choose = || &inputs[usize::try_from(random.next_u64() % inputs.len() as u64).unwrap()];
    for number in 0..count {
        let ((_, one), (_, other)) = (choose(), choose());
        try_input(
            target,
            &mutated(one, other, &random),
            &format!("mutation {number} of TEGULA_FUZZ_SEED={seed}"),
        );
    }
    println!(
        "soak: replay-{name} seed={seed} count={}",
        inputs.len() as u64 + count
    );
}

macro_rules! replays {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays!(
    store_config,
    gc_state,
    quarantine,
    image_record,
    image_name,
    envelope,
    block_set,
    segment_header,
    segment_table,
    record,
    run,
    sketch_run,
    layer,
    qcow2,
    hint,
    inspect,
    policy,
    protection,
    abandoned_segment,
    store_file,
    delta,
    rbd,
    raw_journal,
    model,
);

#[test]
fn every_target_is_replayed_and_has_a_binary_for_the_fuzzer() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
    let fuzzer = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer");
    let manifest = std::fs::read_to_string(fuzzer.join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(fuzzer.join(format!("fuzz_targets/{name}.rs")).exists());
    }
}

#[test]
fn the_committed_seeds_are_those_that_the_encoders_make() {
    for target in &TARGETS {
        let made = (target.seeds)();
        let committed = corpus(target);
        let committed = committed
            .iter()
            .filter(|(file, _)| file.starts_with("seed-"));
        let committed: Vec<_> = committed.map(|(_, bytes)| bytes).collect();
        assert!(
            made.iter().eq(committed),
            "cargo run -p tegula-fuzz --bin seeds makes other seeds for {}",
            target.name
        );
    }
}

#[test]
fn what_is_valid_is_resealed_to_the_same_bytes() {
    let check = |seeds: Vec<Vec<u8>>, reseal: fn(&[u8]) -> Vec<u8>| {
        for seed in &seeds {
            assert!(reseal(seed) == *seed);
        }
    };
    check(seeds::quarantine(), reseal::whole_envelope);
    check(seeds::run(), reseal::run);
    check(seeds::sketch_run(), reseal::sketch_run);
    check(seeds::layer(), reseal::layer);
    check(seeds::delta()[..4].to_vec(), reseal::delta);
    check(seeds::segment_table(), reseal::segment);
    check(seeds::record()[..2].to_vec(), reseal::record);
}
