//! Which interleavings a history is run through.

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler,
    UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, Runner};

/// Runs a history through `count` interleavings drawn step by step, and as many of each depth of PCT.
pub(crate) fn explore(history: &str, count: usize, run: fn()) {
    if let Ok(schedule) = std::env::var("TEGULA_SHUTTLE_SCHEDULE") {
        run_under(ReplayScheduler::new_from_encoded(&schedule), run);
        return;
    }
    let count = if deep() { count * 40 } else { count };
    let seed = seed();
    let mut ran = run_under(RandomScheduler::new_from_seed(seed, count), run);
    for depth in 3..=5 {
        ran += run_under(PctScheduler::new_from_seed(seed, depth, count), run);
    }
    println!("{history}: {ran} interleavings from TEGULA_SEED={seed}");
}

/// Makes sure that a history is decided by its schedule alone: each is run twice, and must go the same way.
pub(crate) fn replays(count: usize, run: fn()) {
    let random = RandomScheduler::new_from_seed(seed(), count);
    run_under(UncontrolledNondeterminismCheckScheduler::new(random), run);
}

fn run_under(scheduler: impl Scheduler + 'static, run: fn()) -> usize {
    let mut config = Config::new();
    // Compression and the deep calls of the engine take more than shuttle's threads have.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(run)
}

fn deep() -> bool {
    std::env::var("TEGULA_SWEEP").is_ok_and(|sweep| sweep == "deep")
}

fn seed() -> u64 {
    let seed = std::env::var("TEGULA_SEED").ok();
    seed.map_or(20_261_124, |text| text.parse().expect("a seed is a number"))
}
