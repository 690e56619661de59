//! What every [`Storage`] promises, as checks that any of them can be put through.
//!
//! Durability is not checked here: only a crash shows it, and only the simulated disk can crash.

use crate::{Buffer, Existing, LockMode, NewFile, Storage, StorePath, StoredFile};
use std::io;
use std::sync::Arc;

/// Makes an empty storage.
type Make<'a> = &'a dyn Fn() -> Arc<dyn Storage>;

/// Puts a storage through all checks, each with an empty one of its own.
///
/// # Panics
/// If a promise is not kept; the message names it.
pub fn run(make: Make<'_>) {
    for (promise, check) in CHECKS {
        // The panic of the check itself says where; this says what was promised.
        let kept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(make())));
        assert!(
            kept.is_ok(),
            "the storage does not keep a promise: {promise}"
        );
    }
}

macro_rules! checks {
    ($($check:ident,)*) => { &[$((stringify!($check), $check),)*] };
}

type Check = fn(Arc<dyn Storage>);

/// The checks by name.
const CHECKS: &[(&str, Check)] = checks![
    what_was_appended_is_read_back_in_order,
    an_empty_file_is_a_file,
    many_appends_of_all_sizes_are_whole,
    a_head_is_filled_in_after_what_it_is_about,
    a_head_is_as_long_as_the_room_for_it,
    many_reads_may_be_under_way_at_once,
    a_read_past_the_end_is_an_error_and_not_short,
    a_file_has_the_length_it_had_when_it_was_opened,
    a_map_shows_the_bytes_and_outlives_name_and_handle,
    an_open_file_outlives_its_name,
    creating_a_taken_name_is_refused,
    what_is_absent_is_not_found,
    renaming_refuses_or_replaces_as_asked,
    a_reader_keeps_the_file_that_was_replaced,
    renaming_moves_between_directories,
    a_directory_lists_its_own_entries_sorted,
    a_directory_is_no_file_and_a_file_no_directory,
    shared_locks_exclude_exclusive_ones_only,
    a_lock_creates_the_file_it_needs,
    a_file_being_written_counts_as_locked,
    a_lock_follows_the_file_and_not_the_name,
    a_dropped_file_stays_with_what_was_appended,
];

fn path(path: &str) -> StorePath {
    StorePath::new(path)
}

fn create(storage: &dyn Storage, name: &str, bytes: &[u8]) -> Box<dyn NewFile> {
    let mut file = storage.create(&path(name)).expect("a free name is created");
    file.append(Buffer::copied(bytes))
        .expect("bytes are appended");
    file.sync().expect("appended bytes are synced");
    file
}

fn open(storage: &dyn Storage, name: &str) -> Arc<dyn StoredFile> {
    storage
        .open(&path(name))
        .expect("a file that exists is opened")
}

fn content(storage: &dyn Storage, name: &str) -> Vec<u8> {
    let file = open(storage, name);
    let length = usize::try_from(file.bytes()).expect("test files are small");
    file.read_at(0, length)
        .wait()
        .expect("a whole file is read")
        .to_vec()
}

fn names(storage: &dyn Storage, directory: &StorePath) -> Vec<String> {
    let entries = storage.list(directory).expect("a directory is listed");
    entries.into_iter().map(|entry| entry.name).collect()
}

#[track_caller]
fn assert_refused<T>(result: io::Result<T>, kind: io::ErrorKind) {
    assert_eq!(result.err().map(|error| error.kind()), Some(kind));
}

fn what_was_appended_is_read_back_in_order(storage: Arc<dyn Storage>) {
    let mut file = create(&*storage, "a", b"first ");
    file.append(Buffer::copied(b"second"))
        .expect("bytes are appended");
    assert_eq!(file.bytes(), 12);
    file.sync().expect("appended bytes are synced");
    drop(file);
    assert_eq!(content(&*storage, "a"), b"first second");
    let middle = open(&*storage, "a").read_at(4, 4).wait();
    assert_eq!(&*middle.expect("a range is read"), b"t se");
}

fn a_head_is_filled_in_after_what_it_is_about(storage: Arc<dyn Storage>) {
    let mut file = storage
        .create(&path("headed"))
        .expect("a free name is created");
    file.reserve(5);
    assert_eq!(file.bytes(), 5);
    file.append(Buffer::copied(b" body"))
        .expect("bytes are appended");
    file.flush().expect("the appends are waited for");
    assert_eq!(content(&*storage, "headed"), b"\0\0\0\0\0 body");
    file.fill(Buffer::copied(b"head:"))
        .expect("the room is filled");
    file.append(Buffer::copied(b", end"))
        .expect("bytes are appended after it");
    assert_eq!(file.bytes(), 15);
    file.sync().expect("all is synced");
    drop(file);
    assert_eq!(content(&*storage, "headed"), b"head: body, end");
}

fn a_head_is_as_long_as_the_room_for_it(storage: Arc<dyn Storage>) {
    for length in [0, 4, 6] {
        let name = format!("headed-{length}");
        let mut file = storage
            .create(&path(&name))
            .expect("a free name is created");
        file.reserve(5);
        assert_refused(
            file.fill(Buffer::copied(&vec![1; length])),
            io::ErrorKind::InvalidInput,
        );
    }
    let mut file = storage
        .create(&path("twice"))
        .expect("a free name is created");
    file.reserve(5);
    file.fill(Buffer::copied(b"first"))
        .expect("the room is filled");
    assert_refused(
        file.fill(Buffer::copied(b"again")),
        io::ErrorKind::InvalidInput,
    );
}

fn an_empty_file_is_a_file(storage: Arc<dyn Storage>) {
    let mut file = storage
        .create(&path("empty"))
        .expect("a free name is created");
    file.append(Buffer::default()).expect("nothing is appended");
    file.sync().expect("nothing is synced");
    drop(file);
    let file = open(&*storage, "empty");
    assert_eq!(file.bytes(), 0);
    assert_eq!(file.read_at(0, 0).wait().expect("nothing is read").len(), 0);
    assert_eq!(file.map().expect("nothing is mapped").as_slice(), b"");
    assert_refused(file.read_at(0, 1).wait(), io::ErrorKind::UnexpectedEof);
}

/// Bytes that tell where they stand.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(4)).flat_map(step).collect();
    bytes.truncate(length);
    bytes
}

const SIZES: [usize; 12] = [
    1,
    511,
    512,
    4096,
    65_536,
    65_537,
    0,
    3,
    1 << 20,
    7,
    300_000,
    12_345,
];

fn write_pattern(storage: &dyn Storage, name: &str) -> Vec<u8> {
    let bytes = pattern(SIZES.iter().sum());
    let mut file = storage.create(&path(name)).expect("a free name is created");
    let mut rest = bytes.as_slice();
    for size in SIZES {
        let (next, after) = rest.split_at(size);
        file.append(Buffer::copied(next))
            .expect("bytes are appended");
        rest = after;
    }
    assert_eq!(file.bytes(), bytes.len() as u64);
    file.sync().expect("appended bytes are synced");
    bytes
}

fn many_appends_of_all_sizes_are_whole(storage: Arc<dyn Storage>) {
    let bytes = write_pattern(&*storage, "a");
    assert!(
        content(&*storage, "a") == bytes,
        "bytes changed on their way"
    );
}

fn many_reads_may_be_under_way_at_once(storage: Arc<dyn Storage>) {
    let bytes = write_pattern(&*storage, "a");
    let file = open(&*storage, "a");
    let ranges = (0..600).map(|i| (i * 2000, 1 + i * 7));
    let reads: Vec<_> = ranges
        .map(|(start, length)| (start, length, file.read_at(start as u64, length)))
        .collect();
    // The handle need not outlive its reads.
    drop(file);
    for (start, length, read) in reads {
        let read = read.wait().expect("a range is read");
        assert_eq!(Some(&*read), bytes.get(start..start + length));
    }
}

fn a_read_past_the_end_is_an_error_and_not_short(storage: Arc<dyn Storage>) {
    drop(create(&*storage, "a", b"abcdef"));
    let file = open(&*storage, "a");
    for (offset, length) in [
        (0, 7),
        (5, 2),
        (6, 1),
        (7, 0),
        (u64::MAX, 1),
        (0, usize::MAX),
    ] {
        let read = file.read_at(offset, length).wait();
        assert_refused(read, io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(&*file.read_at(6, 0).wait().expect("nothing is read"), b"");
}

fn a_file_has_the_length_it_had_when_it_was_opened(storage: Arc<dyn Storage>) {
    let mut writer = create(&*storage, "a", b"abc");
    let before = open(&*storage, "a");
    writer
        .append(Buffer::copied(b"def"))
        .expect("bytes are appended");
    writer.sync().expect("appended bytes are synced");
    assert_eq!(before.bytes(), 3);
    assert_refused(before.read_at(0, 4).wait(), io::ErrorKind::UnexpectedEof);
    assert_eq!(open(&*storage, "a").bytes(), 6);
}

fn a_map_shows_the_bytes_and_outlives_name_and_handle(storage: Arc<dyn Storage>) {
    drop(create(&*storage, "a", b"mapped"));
    let map = open(&*storage, "a").map().expect("a file is mapped");
    let other = map.clone();
    storage.remove(&path("a")).expect("a file is removed");
    drop(map);
    assert_eq!(other.as_slice(), b"mapped");
}

fn an_open_file_outlives_its_name(storage: Arc<dyn Storage>) {
    drop(create(&*storage, "a", b"kept"));
    let file = open(&*storage, "a");
    storage.remove(&path("a")).expect("a file is removed");
    assert_refused(storage.open(&path("a")), io::ErrorKind::NotFound);
    drop(create(&*storage, "a", b"new!"));
    assert_eq!(
        &*file.read_at(0, 4).wait().expect("a range is read"),
        b"kept"
    );
}

fn creating_a_taken_name_is_refused(storage: Arc<dyn Storage>) {
    drop(create(&*storage, "a", b"first"));
    storage
        .create_directory(&path("d"))
        .expect("a directory is created");
    for name in ["a", "d"] {
        let kind = io::ErrorKind::AlreadyExists;
        assert_refused(storage.create(&path(name)), kind);
        assert_refused(storage.create_directory(&path(name)), kind);
    }
    assert_eq!(content(&*storage, "a"), b"first");
}

fn what_is_absent_is_not_found(storage: Arc<dyn Storage>) {
    drop(create(&*storage, "a", b"a"));
    for absent in ["x", "x/y"] {
        let kind = io::ErrorKind::NotFound;
        let absent = path(absent);
        assert_refused(storage.open(&absent), kind);
        assert_refused(storage.remove(&absent), kind);
        assert_refused(storage.list(&absent), kind);
        assert_refused(storage.sync_directory(&absent), kind);
        for existing in [Existing::Refuse, Existing::Replace] {
            assert_refused(storage.rename(&absent, &path("b"), existing), kind);
        }
        let inside = absent.join("z");
        assert_refused(storage.create(&inside), kind);
        assert_refused(storage.create_directory(&inside), kind);
        assert_refused(storage.try_lock(&inside, LockMode::Shared), kind);
        assert_refused(storage.rename(&path("a"), &inside, Existing::Replace), kind);
    }
    assert_eq!(names(&*storage, &StorePath::root()), ["a"]);
}

fn renaming_refuses_or_replaces_as_asked(storage: Arc<dyn Storage>) {
    drop(create(&*storage, "a", b"old"));
    drop(create(&*storage, "b", b"new"));
    let refused = storage.rename(&path("b"), &path("a"), Existing::Refuse);
    assert_refused(refused, io::ErrorKind::AlreadyExists);
    assert_eq!(content(&*storage, "a"), b"old");
    assert_eq!(content(&*storage, "b"), b"new");
    let rename = |from, to, existing| storage.rename(&path(from), &path(to), existing);
    rename("b", "a", Existing::Replace).expect("a file is replaced");
    assert_eq!(content(&*storage, "a"), b"new");
    rename("a", "c", Existing::Refuse).expect("a free name is taken");
    rename("c", "d", Existing::Replace).expect("a free name is taken");
    assert_eq!(names(&*storage, &StorePath::root()), ["d"]);
}

fn a_reader_keeps_the_file_that_was_replaced(storage: Arc<dyn Storage>) {
    drop(create(&*storage, "a", b"old"));
    drop(create(&*storage, "b", b"new"));
    let (reader, map) = (open(&*storage, "a"), open(&*storage, "a").map());
    let replaced = storage.rename(&path("b"), &path("a"), Existing::Replace);
    replaced.expect("a file is replaced");
    assert_eq!(
        &*reader.read_at(0, 3).wait().expect("a range is read"),
        b"old"
    );
    assert_eq!(map.expect("a file is mapped").as_slice(), b"old");
}

fn renaming_moves_between_directories(storage: Arc<dyn Storage>) {
    for directory in ["tmp", "segments"] {
        storage
            .create_directory(&path(directory))
            .expect("a directory is created");
    }
    let writer = create(&*storage, "tmp/a", b"moved");
    let renamed = storage.rename(&path("tmp/a"), &path("segments/1"), Existing::Refuse);
    renamed.expect("a file that is being written is renamed");
    drop(writer);
    for directory in ["tmp", "segments"] {
        storage
            .sync_directory(&path(directory))
            .expect("a directory is synced");
    }
    storage
        .sync_directory(&StorePath::root())
        .expect("the root is synced");
    assert_eq!(content(&*storage, "segments/1"), b"moved");
    assert_eq!(names(&*storage, &path("tmp")), [""; 0]);
}

fn a_directory_lists_its_own_entries_sorted(storage: Arc<dyn Storage>) {
    storage
        .create_directory(&path("d"))
        .expect("a directory is created");
    storage
        .create_directory(&path("d/e"))
        .expect("a directory is created");
    for (name, bytes) in [("d/c", 3), ("d/a", 1), ("d/e/x", 5), ("d/b", 0), ("d2", 2)] {
        drop(create(&*storage, name, &pattern(bytes)));
    }
    let listed = storage.list(&path("d")).expect("a directory is listed");
    let listed: Vec<_> = listed
        .iter()
        .map(|entry| (entry.name.as_str(), entry.bytes))
        .collect();
    assert_eq!(listed, [("a", 1), ("b", 0), ("c", 3), ("e", 0)]);
    assert_eq!(names(&*storage, &StorePath::root()), ["d", "d2"]);
}

fn a_directory_is_no_file_and_a_file_no_directory(storage: Arc<dyn Storage>) {
    storage
        .create_directory(&path("d"))
        .expect("a directory is created");
    drop(create(&*storage, "f", b"f"));
    assert_refused(storage.open(&path("d")), io::ErrorKind::IsADirectory);
    assert_refused(storage.remove(&path("d")), io::ErrorKind::IsADirectory);
    let lock = storage.try_lock(&path("d"), LockMode::Exclusive);
    assert_refused(lock, io::ErrorKind::IsADirectory);
    let kind = io::ErrorKind::NotADirectory;
    assert_refused(storage.list(&path("f")), kind);
    assert_refused(storage.sync_directory(&path("f")), kind);
    assert_refused(storage.create(&path("f/x")), kind);
    let renamed = storage.rename(&path("f"), &path("d"), Existing::Replace);
    assert!(renamed.is_err(), "a directory was replaced by a file");
}

/// Tells whether a lock is to be had.
fn lockable(storage: &dyn Storage, name: &str, mode: LockMode) -> bool {
    let lock = storage.try_lock(&path(name), mode);
    lock.expect("asking for a lock does not fail").is_some()
}

fn shared_locks_exclude_exclusive_ones_only(storage: Arc<dyn Storage>) {
    let take = |mode| {
        let lock = storage.try_lock(&path("l"), mode);
        lock.expect("asking for a lock does not fail")
            .expect("the lock is free")
    };
    let first = take(LockMode::Shared);
    let second = take(LockMode::Shared);
    assert!(!lockable(&*storage, "l", LockMode::Exclusive));
    drop(first);
    assert!(!lockable(&*storage, "l", LockMode::Exclusive));
    drop(second);
    let alone = take(LockMode::Exclusive);
    assert!(!lockable(&*storage, "l", LockMode::Exclusive));
    assert!(!lockable(&*storage, "l", LockMode::Shared));
    drop(alone);
    let waited = storage.lock(&path("l"), LockMode::Exclusive);
    let waited = waited.expect("a free lock is taken");
    assert!(!lockable(&*storage, "l", LockMode::Shared));
    drop(waited);
    assert!(lockable(&*storage, "l", LockMode::Shared));
}

fn a_lock_creates_the_file_it_needs(storage: Arc<dyn Storage>) {
    assert!(lockable(&*storage, "l", LockMode::Shared));
    assert_eq!(names(&*storage, &StorePath::root()), ["l"]);
    drop(
        storage
            .lock(&path("m"), LockMode::Exclusive)
            .expect("a free lock is taken"),
    );
    assert_eq!(names(&*storage, &StorePath::root()), ["l", "m"]);
    assert_eq!(content(&*storage, "m"), b"");
}

fn a_file_being_written_counts_as_locked(storage: Arc<dyn Storage>) {
    let writer = create(&*storage, "a", b"a");
    assert!(!lockable(&*storage, "a", LockMode::Exclusive));
    assert!(!lockable(&*storage, "a", LockMode::Shared));
    drop(writer);
    assert!(lockable(&*storage, "a", LockMode::Exclusive));
}

fn a_lock_follows_the_file_and_not_the_name(storage: Arc<dyn Storage>) {
    let writer = create(&*storage, "a", b"a");
    storage
        .rename(&path("a"), &path("b"), Existing::Refuse)
        .expect("a file is renamed");
    assert!(!lockable(&*storage, "b", LockMode::Shared));
    assert!(
        lockable(&*storage, "a", LockMode::Exclusive),
        "another file by now"
    );
    drop(writer);

    let old = storage
        .lock(&path("b"), LockMode::Exclusive)
        .expect("a free lock is taken");
    storage
        .remove(&path("b"))
        .expect("a locked file is removed");
    let new = storage.try_lock(&path("b"), LockMode::Exclusive);
    let new = new.expect("asking for a lock does not fail");
    assert!(
        new.is_some(),
        "the lock of a removed file stood in the way of a new one's"
    );
    drop(old);
    assert!(
        !lockable(&*storage, "b", LockMode::Shared),
        "letting go of one took the other"
    );
}

fn a_dropped_file_stays_with_what_was_appended(storage: Arc<dyn Storage>) {
    let mut file = storage.create(&path("a")).expect("a free name is created");
    file.append(Buffer::copied(b"abandoned"))
        .expect("bytes are appended");
    drop(file);
    // Once its lock is free no write of it is under way any more.
    assert!(lockable(&*storage, "a", LockMode::Exclusive));
    assert_eq!(content(&*storage, "a"), b"abandoned");
}

/// Puts a storage through the checks that take threads of the system, and so cannot run inside shuttle.
///
/// # Panics
/// If a promise is not kept.
pub fn run_with_threads(make: Make<'_>) {
    a_waiting_lock_is_granted_when_the_other_is_let_go(&*make());
    a_lock_excludes_though_its_file_is_removed_again_and_again(&*make());
}

fn a_waiting_lock_is_granted_when_the_other_is_let_go(storage: &dyn Storage) {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    for held_as_writer in [false, true] {
        let name = path(if held_as_writer { "written" } else { "locked" });
        let held: Box<dyn Send> = if held_as_writer {
            let file = storage.create(&name);
            Box::new(file.expect("a free name is created"))
        } else {
            let lock = storage.lock(&name, LockMode::Exclusive);
            Box::new(lock.expect("a free lock is taken"))
        };
        let let_go = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let lock = storage
                    .lock(&name, LockMode::Shared)
                    .expect("a lock is waited for");
                assert!(
                    let_go.load(Ordering::SeqCst),
                    "granted while another held it"
                );
                drop(lock);
            });
            std::thread::sleep(Duration::from_millis(50));
            let_go.store(true, Ordering::SeqCst);
            drop(held);
            waiting.join().expect("the waiting thread ends well");
        });
    }
}

fn a_lock_excludes_though_its_file_is_removed_again_and_again(storage: &dyn Storage) {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let name = path("l");
    let inside = AtomicUsize::new(0);
    let enter = |lock: crate::Lock| {
        assert_eq!(
            inside.fetch_add(1, Ordering::SeqCst),
            0,
            "two held the lock"
        );
        std::thread::yield_now();
        inside.fetch_sub(1, Ordering::SeqCst);
        // Who opened the file before this must not believe to have the lock by it.
        storage
            .remove(&name)
            .expect("a locked file is removed by nobody else");
        drop(lock);
    };
    let try_to_enter = || {
        let lock = storage.try_lock(&name, LockMode::Exclusive);
        lock.expect("asking for a lock does not fail").map(enter);
    };
    let wait_to_enter = || {
        let lock = storage.lock(&name, LockMode::Exclusive);
        enter(lock.expect("a lock is waited for"));
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..300).for_each(|_| try_to_enter()));
            scope.spawn(|| (0..300).for_each(|_| wait_to_enter()));
        }
    });
}
