//! What must hold for any bytes: the targets that a fuzzer, and every test run, throws bytes at.
//!
//! A target is a function of a byte slice that returns if all is well and panics if not. [`TARGETS`] lists them with
//! the seeds they start from. `tests/replay.rs` runs the committed corpus and some thousand seeded mutations of it with
//! every test run; `fuzz/libfuzzer` hands the same functions to cargo-fuzz.
//!
//! Nearly every structure has a checksum, which random changes never meet. So each target also takes its bytes with the
//! checksums made to fit ([`reseal`]): then the fields behind them are what is tried.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a target ends at the first surprise: that is its finding"
)]

mod decoders;
mod deltas;
mod hint;
mod inspect;
mod model;
mod mutate;
pub mod qcow2;
mod raw_journal;
mod rbd;
mod records;
mod recovery;
pub mod reseal;
mod rules;
pub mod seeds;
mod seeds_images;
mod stores;
mod world;

pub use decoders::{
    block_set, envelope, gc_state, image_name, image_record, layer, quarantine, run,
    segment_header, segment_table, sketch_run, store_config,
};
pub use deltas::delta;
pub use hint::hint;
pub use inspect::inspect;
pub use model::model;
pub use mutate::mutated;
pub use qcow2::qcow2;
pub use raw_journal::raw_journal;
pub use rbd::rbd;
pub use records::record;
pub use recovery::abandoned_segment;
pub use rules::{policy, protection};
pub use stores::store_file;

/// A function to throw bytes at.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and its corpus's.
    pub name: &'static str,
    /// Returns if all is well.
    pub run: fn(&[u8]),
    /// Returns valid inputs, and some that nearly are.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many mutations of its seeds an ordinary test run tries: fewer where one takes long.
    pub mutations: u64,
}

/// Every target there is.
pub const TARGETS: [Target; 24] = [
    cheap("store_config", store_config, seeds::store_config),
    cheap("gc_state", gc_state, seeds::gc_state),
    cheap("quarantine", quarantine, seeds::quarantine),
    cheap("image_record", image_record, seeds::image_record),
    cheap("image_name", image_name, seeds::image_name),
    cheap("envelope", envelope, seeds::envelope),
    cheap("block_set", block_set, seeds::block_set),
    cheap("segment_header", segment_header, seeds::segment_header),
    cheap("segment_table", segment_table, seeds::segment_table),
    cheap("record", record, seeds::record),
    cheap("run", run, seeds::run),
    cheap("sketch_run", sketch_run, seeds::sketch_run),
    cheap("layer", layer, seeds::layer),
    cheap("qcow2", qcow2, seeds::qcow2),
    cheap("hint", hint, seeds::hint),
    cheap("inspect", inspect, seeds_images::inspect),
    cheap("policy", policy, seeds::policy),
    Target {
        name: "protection",
        run: protection,
        seeds: seeds::protection,
        mutations: 2000,
    },
    Target {
        name: "abandoned_segment",
        run: abandoned_segment,
        seeds: seeds::abandoned_segment,
        mutations: 1000,
    },
    Target {
        name: "store_file",
        run: store_file,
        seeds: seeds::store_file,
        mutations: 2000,
    },
    Target {
        name: "delta",
        run: delta,
        seeds: seeds::delta,
        mutations: 1000,
    },
    Target {
        name: "rbd",
        run: rbd,
        seeds: seeds::rbd,
        mutations: 1000,
    },
    Target {
        name: "raw_journal",
        run: raw_journal,
        seeds: seeds::raw_journal,
        mutations: 300,
    },
    Target {
        name: "model",
        run: model,
        seeds: seeds::model,
        mutations: 300,
    },
];

const fn cheap(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target {
        name,
        run,
        seeds,
        mutations: 5000,
    }
}
