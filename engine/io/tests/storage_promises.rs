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
    #[cfg(not(feature = "shuttle"))]
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
    #[cfg(not(feature = "shuttle"))]
    conformance::run_with_threads(&make);
}

#[test]
#[cfg(not(feature = "shuttle"))]
fn memory_keeps_the_promises() {
    let make = || -> Arc<dyn Storage> { Arc::new(MemoryStorage::new()) };
    conformance::run(&make);
    conformance::run_with_threads(&make);
}

#[test]
#[cfg(feature = "shuttle")]
fn memory_keeps_the_promises_inside_shuttle() {
    let check = || conformance::run(&|| Arc::new(MemoryStorage::new()));
    shuttle::check_random(check, 3);
}

#[test]
#[cfg(feature = "shuttle")]
fn shuttle_schedules_who_waits_for_a_lock_of_memory() {
    use shuttle::sync::atomic::{AtomicUsize, Ordering};
    use tegula_io::{LockMode, StorePath};

    let check = || {
        let storage = MemoryStorage::new();
        let inside = Arc::new(AtomicUsize::new(0));
        let enter = |storage: MemoryStorage, inside: Arc<AtomicUsize>| {
            let name = StorePath::new("lock");
            let lock = storage.lock(&name, LockMode::Exclusive);
            assert_eq!(
                inside.fetch_add(1, Ordering::SeqCst),
                0,
                "two hold the lock"
            );
            // Anything that takes storage time: others get their chance.
            storage
                .list(&StorePath::root())
                .expect("a directory is listed");
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(lock.expect("a lock is waited for"));
        };
        let threads = [(); 3].map(|()| {
            let (storage, inside) = (storage.clone(), Arc::clone(&inside));
            shuttle::thread::spawn(move || enter(storage, inside))
        });
        for thread in threads {
            thread.join().expect("nobody waits for ever");
        }
    };
    shuttle::check_pct(check, 500, 3);
}
