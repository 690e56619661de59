//! Every storage keeps the same promises.

use std::path::Path;
use std::sync::Arc;
use tegula_io::{FileStorage, MemoryStorage, SimDisk, Storage, conformance};

/// Puts storages in directories of their own through the suite.
fn keep_the_promises(open: impl Fn(&Path) -> Arc<dyn Storage>) {
    let place = tempfile::tempdir().expect("a directory is created");
    let made = std::cell::Cell::new(0);
    let make = || {
        made.set(made.get() + 1);
        let root = place.path().join(made.get().to_string());
        std::fs::create_dir(&root).expect("a directory is created");
        open(&root)
    };
    conformance::run(&make);
    conformance::run_with_threads(&make);
}

#[test]
fn blocking_files_keep_the_promises() {
    keep_the_promises(|root| Arc::new(FileStorage::open(root).expect("a directory is opened")));
}

#[test]
#[cfg(feature = "io-uring")]
fn the_ring_keeps_the_promises() {
    match tegula_io::uring::probe() {
        Ok(()) => keep_the_promises(|root| {
            Arc::new(tegula_io::UringStorage::open(root).expect("a directory is opened"))
        }),
        Err(reason) => eprintln!("io_uring is not available ({reason}): not tested"),
    }
}

#[test]
fn the_simulated_disk_keeps_the_promises() {
    let make = || -> Arc<dyn Storage> { Arc::new(SimDisk::new()) };
    conformance::run(&make);
    conformance::run_with_threads(&make);
}

#[test]
fn memory_keeps_the_promises() {
    let make = || -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) };
    conformance::run(&make);
    conformance::run_with_threads(&make);
}
