//! The storages that live in memory, in the hands of shuttle's scheduler.

use std::sync::Arc;
use tegula_io::{LockMode, MemoryStorage, SimDisk, Storage, StorePath, conformance};

type Make = fn() -> Arc<dyn Storage>;

/// Every storage that shuttle can schedule.
const STORAGES: [Make; 2] = [
    || Arc::new(MemoryStorage::new()),
    || Arc::new(SimDisk::new()),
];

#[test]
fn the_promises_are_kept_inside_shuttle() {
    for make in STORAGES {
        shuttle::check_random(move || conformance::run(&make), 3);
    }
}

#[test]
fn shuttle_schedules_who_waits_for_a_lock() {
    use shuttle::sync::atomic::{AtomicUsize, Ordering};

    for make in STORAGES {
        let check = move || {
            let storage = make();
            let inside = Arc::new(AtomicUsize::new(0));
            let enter = |storage: Arc<dyn Storage>, inside: Arc<AtomicUsize>| {
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
                let (storage, inside) = (Arc::clone(&storage), Arc::clone(&inside));
                shuttle::thread::spawn(move || enter(storage, inside))
            });
            for thread in threads {
                thread.join().expect("nobody waits for ever");
            }
        };
        shuttle::check_pct(check, 500, 3);
    }
}
