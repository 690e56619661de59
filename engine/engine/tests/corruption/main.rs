//! Damage of every kind, thousands of cases: found, located, never served as data, mended from a good copy.
//!
//! A store of three images is kept as plain bytes; each case damages a copy of them. What may go unnoticed stands in
//! [`exceptions`], case by case. `TEGULA_SEED` replays the random choices of a run.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod change;
mod check;
mod exceptions;
mod stories;
mod world;

use change::Change;
use check::Complaints;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use tegula_io::SeededRandom;
use world::World;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// Complaints shown of each kind; the count is of all.
const SHOWN: usize = 3;

fn seed() -> u64 {
    let seed = std::env::var("TEGULA_SEED").ok();
    let seed = seed.map_or(20_261_122, |text| text.parse().expect("a seed is a number"));
    println!("TEGULA_SEED={seed}");
    seed
}

/// Runs a check on every change and fails with what went wrong, a few cases of each kind.
fn run(changes: &[Change], check: impl Fn(&World, &Change) -> Complaints + Sync) {
    let world = &*WORLD;
    let outcomes: Vec<(String, String)> = changes
        .par_iter()
        .flat_map_iter(|change| {
            let complaints = check::guarded(|| check(world, change));
            complaints
                .into_iter()
                .map(|complaint| (change.to_string(), complaint))
        })
        .collect();
    let mut kinds: BTreeMap<String, Vec<&(String, String)>> = BTreeMap::new();
    for outcome in &outcomes {
        // Cases that differ in files, numbers and hashes alone are of one kind.
        let words = outcome.1.split_whitespace();
        let plain: Vec<_> = words
            .filter(|word| !word.contains(['/', '0', '1', '[']))
            .take(9)
            .collect();
        let kind = plain.join(" ");
        kinds.entry(kind).or_default().push(outcome);
    }
    let mut report = String::new();
    for (kind, outcomes) in &kinds {
        report += &format!("\n{} cases of: {kind}", outcomes.len());
        for (change, complaint) in outcomes.iter().take(SHOWN) {
            report += &format!("\n    {change}\n        {complaint}");
        }
    }
    println!("{} cases", changes.len());
    assert!(kinds.is_empty(), "of {} cases{report}", changes.len());
}

/// Every `step`th change: for checks that are too slow for all.
fn sample(changes: Vec<Change>, step: usize) -> Vec<Change> {
    changes.into_iter().step_by(step).collect()
}

#[test]
fn the_undamaged_store_is_sound() {
    assert_eq!(check::sound(&WORLD), Complaints::new());
}

#[test]
fn every_flipped_bit_of_metadata_is_found() {
    run(&change::metadata_bits(&WORLD), check::reads_and_findings);
}

#[test]
fn flipped_bits_of_payload_are_found() {
    let random = SeededRandom::new(seed());
    run(
        &change::payload_bits(&WORLD, &random),
        check::reads_and_findings,
    );
}

#[test]
fn files_cut_short_are_found() {
    run(&change::truncations(&WORLD), check::reads_and_findings);
}

#[test]
fn longer_files_and_zeroed_pages_are_found() {
    run(
        &change::extensions_and_zero_pages(&WORLD),
        check::reads_and_findings,
    );
}

#[test]
fn swapped_records_are_found() {
    run(&change::swapped_records(&WORLD), check::reads_and_findings);
}

#[test]
fn misplaced_files_are_found_or_harmless() {
    run(&change::misplaced_files(&WORLD), check::reads_and_findings);
}

/// A sample of all changes: few bits, every change of whole files.
fn sampled_changes() -> Vec<Change> {
    let random = SeededRandom::new(seed());
    let mut changes = sample(change::metadata_bits(&WORLD), 61);
    changes.extend(sample(change::payload_bits(&WORLD, &random), 23));
    changes.extend(sample(change::truncations(&WORLD), 29));
    changes.extend(sample(change::extensions_and_zero_pages(&WORLD), 3));
    changes.extend(sample(change::swapped_records(&WORLD), 3));
    changes.extend(change::misplaced_files(&WORLD));
    changes
}

#[test]
fn repair_from_a_sound_copy_brings_every_image_back() {
    run(&sampled_changes(), check::repair_from_a_copy);
}

#[test]
fn repair_and_putting_again_bring_every_image_back() {
    run(&sampled_changes(), check::repair_by_putting_again);
}
