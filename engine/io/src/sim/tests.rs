//! The rules of the simulated disk, each as the smallest history that shows it.

use super::*;
use crate::{Buffer, Existing, LockMode, NewFile, Random, SeededRandom, Storage};
use std::collections::BTreeSet;
use std::io::ErrorKind;

fn path(path: &str) -> StorePath {
    StorePath::new(path)
}

fn create(disk: &SimDisk, name: &str, bytes: &[u8]) -> Box<dyn NewFile> {
    let mut file = disk.create(&path(name)).unwrap();
    file.append(Buffer::copied(bytes)).unwrap();
    file
}

fn create_synced(disk: &SimDisk, name: &str, bytes: &[u8]) {
    create(disk, name, bytes).sync().unwrap();
}

/// A disk with a durable file `a` that holds "old".
fn disk_with_old() -> SimDisk {
    let disk = SimDisk::new();
    create_synced(&disk, "a", b"old");
    disk.sync_directory(&StorePath::root()).unwrap();
    disk
}

/// What a name holds: its text, or nothing.
fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name)).ok()?;
    let length = usize::try_from(file.bytes()).unwrap();
    Some(file.read_at(0, length).wait().unwrap().to_vec())
}

fn text(disk: &SimDisk, name: &str) -> Option<String> {
    content(disk, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What `look` sees on all disks that a crash may leave.
fn all_crashes<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    let mut choices = Choices::new();
    loop {
        seen.insert(look(&disk.after_crash(&mut |of| choices.choose(of))));
        if !choices.advance() {
            return seen;
        }
    }
}

fn seen<T: Ord, const N: usize>(expected: [T; N]) -> BTreeSet<T> {
    BTreeSet::from(expected)
}

#[test]
fn what_was_synced_with_its_name_survives_every_crash() {
    let disk = disk_with_old();
    let found = all_crashes(&disk, |disk| text(disk, "a"));
    assert_eq!(found, seen([Some("old".into())]));
}

#[test]
fn a_name_that_was_not_synced_may_be_lost_and_bytes_without_it_too() {
    let disk = SimDisk::new();
    create_synced(&disk, "a", b"old");
    let found = all_crashes(&disk, |disk| text(disk, "a"));
    assert_eq!(found, seen([None, Some("old".into())]));
}

#[test]
fn bytes_that_were_not_synced_may_be_lost_although_the_name_is_there() {
    let disk = SimDisk::new();
    drop(create(&disk, "a", b"new"));
    disk.sync_directory(&StorePath::root()).unwrap();
    let found = all_crashes(&disk, |disk| content(disk, "a").unwrap());
    let garbage: Vec<u8> = (0..3).map(platter::garbage_at).collect();
    let expected = [&b""[..], b"new", &[0; 3], &garbage];
    assert_eq!(found, expected.map(<[u8]>::to_vec).into());
}

#[test]
fn each_append_survives_for_itself_and_synced_bytes_always() {
    let disk = SimDisk::new();
    let mut file = create(&disk, "a", b"AA");
    file.sync().unwrap();
    disk.sync_directory(&StorePath::root()).unwrap();
    for bytes in [b"BB", b"CC"] {
        file.append(Buffer::copied(bytes)).unwrap();
    }
    let found = all_crashes(&disk, |disk| text(disk, "a").unwrap());
    for expected in ["AA", "AABB", "AABBCC", "AA\0\0CC", "AA\0\0\0\0", "AABB\0\0"] {
        assert!(found.contains(expected), "{expected:?} not in {found:?}");
    }
    assert!(found.iter().all(|found| found.starts_with("AA")));
}

#[test]
fn an_append_is_torn_between_sectors_only() {
    let disk = SimDisk::new();
    let mut file = disk.create(&path("a")).unwrap();
    file.append(Buffer::copied(&[1; 100])).unwrap();
    file.sync().unwrap();
    disk.sync_directory(&StorePath::root()).unwrap();
    file.append(Buffer::copied(&[7; 8992])).unwrap();

    let mut edges = BTreeSet::new();
    for found in all_crashes(&disk, |disk| content(disk, "a").unwrap()) {
        let survived = |at: usize| found.get(at) == Some(&7);
        // Garbage may look like what was written; zeros do not.
        let is_garbage = found.iter().skip(100).any(|byte| !matches!(byte, 0 | 7));
        if !is_garbage {
            edges.extend((101..9092).filter(|at| survived(*at) != survived(at - 1)));
        }
    }
    let sectors: BTreeSet<usize> = (1..18).map(|sector| sector * 512).collect();
    assert_eq!(edges, sectors);
}

#[test]
fn a_rename_is_seen_whole_or_not_at_all() {
    let disk = disk_with_old();
    create_synced(&disk, "b", b"new");
    disk.sync_directory(&StorePath::root()).unwrap();
    disk.rename(&path("b"), &path("a"), Existing::Replace)
        .unwrap();
    let look = |disk: &SimDisk| (text(disk, "a").unwrap(), text(disk, "b"));
    let before = ("old".to_owned(), Some("new".to_owned()));
    let after = ("new".to_owned(), None);
    assert_eq!(all_crashes(&disk, look), seen([before, after.clone()]));
    disk.sync_directory(&StorePath::root()).unwrap();
    assert_eq!(all_crashes(&disk, look), seen([after]));
}

#[test]
fn a_rename_of_unsynced_bytes_may_show_the_new_name_without_them() {
    let disk = disk_with_old();
    drop(create(&disk, "b", b"new"));
    disk.rename(&path("b"), &path("a"), Existing::Replace)
        .unwrap();
    disk.sync_directory(&StorePath::root()).unwrap();
    let found = all_crashes(&disk, |disk| text(disk, "a").unwrap());
    assert!(found.contains("") && found.contains("new") && !found.contains("old"));
}

#[test]
fn a_rename_across_directories_waits_for_the_new_names_directory() {
    let disk = SimDisk::new();
    for directory in ["tmp", "segments"] {
        disk.create_directory(&path(directory)).unwrap();
    }
    create_synced(&disk, "tmp/1", b"x");
    for directory in [StorePath::root(), path("tmp")] {
        disk.sync_directory(&directory).unwrap();
    }
    disk.rename(&path("tmp/1"), &path("segments/1"), Existing::Refuse)
        .unwrap();
    let look = |disk: &SimDisk| [text(disk, "tmp/1"), text(disk, "segments/1")];
    let (old, new) = ([Some("x".into()), None], [None, Some("x".into())]);
    disk.sync_directory(&path("tmp")).unwrap();
    assert_eq!(all_crashes(&disk, look), seen([old, new.clone()]));
    disk.sync_directory(&path("segments")).unwrap();
    assert_eq!(all_crashes(&disk, look), seen([new]));
}

#[test]
fn the_old_name_of_a_durable_rename_does_not_come_back() {
    let disk = SimDisk::new();
    disk.create_directory(&path("tmp")).unwrap();
    create_synced(&disk, "tmp/1", b"x");
    disk.rename(&path("tmp/1"), &path("1"), Existing::Refuse)
        .unwrap();
    disk.sync_directory(&StorePath::root()).unwrap();
    let found = all_crashes(&disk, |disk| ["tmp/1", "1"].map(|name| text(disk, name)));
    assert_eq!(found, seen([[None, Some("x".into())]]));
}

#[test]
fn a_removed_file_may_come_back_until_its_directory_is_synced() {
    let disk = disk_with_old();
    disk.remove(&path("a")).unwrap();
    assert_eq!(text(&disk, "a"), None);
    let found = all_crashes(&disk, |disk| text(disk, "a"));
    assert_eq!(found, seen([None, Some("old".into())]));
    disk.sync_directory(&StorePath::root()).unwrap();
    assert_eq!(all_crashes(&disk, |disk| text(disk, "a")), seen([None]));
}

#[test]
fn changes_to_one_name_keep_their_order() {
    let disk = disk_with_old();
    disk.remove(&path("a")).unwrap();
    create_synced(&disk, "a", b"second");
    let found = all_crashes(&disk, |disk| text(disk, "a"));
    let expected = [None, Some("old".to_owned()), Some("second".to_owned())];
    assert_eq!(found, seen(expected));

    let disk = disk_with_old();
    disk.rename(&path("a"), &path("b"), Existing::Refuse)
        .unwrap();
    create_synced(&disk, "a", b"new");
    let found = all_crashes(&disk, |disk| ["a", "b"].map(|name| text(disk, name)));
    let old_is_somewhere = |found: &[Option<String>; 2]| found.contains(&Some("old".into()));
    assert!(found.iter().all(old_is_somewhere), "{found:?}");
}

#[test]
fn a_directory_that_is_lost_takes_along_what_was_synced_in_it() {
    let disk = SimDisk::new();
    disk.create_directory(&path("d")).unwrap();
    create_synced(&disk, "d/a", b"x");
    disk.sync_directory(&path("d")).unwrap();
    let look = |disk: &SimDisk| (disk.list(&path("d")).is_ok(), text(disk, "d/a"));
    let found = all_crashes(&disk, look);
    assert_eq!(found, seen([(false, None), (true, Some("x".into()))]));
}

#[test]
fn a_failed_sync_drops_the_bytes_and_no_later_sync_saves_them() {
    let disk = SimDisk::new();
    let mut file = create(&disk, "a", b"new");
    disk.fail_at(disk.calls() + 1, Fault::Io, Repeat::Once);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    assert!(
        file.sync()
            .unwrap_err()
            .to_string()
            .contains("an earlier write")
    );
    disk.rename(&path("a"), &path("b"), Existing::Refuse)
        .unwrap();
    disk.sync_directory(&StorePath::root()).unwrap();
    assert_eq!(
        text(&disk, "b").unwrap(),
        "new",
        "the cache shows it until the crash"
    );
    let found = all_crashes(&disk, |disk| text(disk, "b").unwrap());
    assert!(!found.contains("new"), "{found:?}");
}

#[test]
fn a_failed_sync_of_a_directory_is_not_made_good_by_a_later_one() {
    let disk = SimDisk::new();
    create_synced(&disk, "a", b"x");
    disk.fail_at(disk.calls() + 1, Fault::Io, Repeat::Once);
    disk.sync_directory(&StorePath::root()).unwrap_err();
    create_synced(&disk, "b", b"y");
    disk.sync_directory(&StorePath::root()).unwrap();
    let found = all_crashes(&disk, |disk| [text(disk, "a"), text(disk, "b")]);
    let b = Some("y".to_owned());
    assert_eq!(found, seen([[None, b.clone()], [Some("x".into()), b]]));
}

#[test]
fn after_a_crash_nothing_works_and_nothing_changes() {
    let disk = disk_with_old();
    let mut file = create(&disk, "b", b"new");
    let reader = disk.open(&path("a")).unwrap();
    disk.crash_at(disk.calls() + 1);
    let errors = [
        file.append(Buffer::copied(b"x")).unwrap_err(),
        disk.remove(&path("a")).unwrap_err(),
        disk.rename(&path("a"), &path("c"), Existing::Replace)
            .unwrap_err(),
        disk.sync_directory(&StorePath::root()).unwrap_err(),
        disk.try_lock(&path("a"), LockMode::Shared).unwrap_err(),
        reader.read_at(0, 1).wait().unwrap_err(),
        reader.map().unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("crashed"), "{error}");
    }
    assert!(disk.has_crashed());
    let rebooted = disk.after_crash(&mut |of| of - 1);
    assert_eq!(text(&rebooted, "a").unwrap(), "old");
    assert_eq!(text(&rebooted, "b").unwrap(), "new");
    assert_eq!(text(&rebooted, "c"), None);
}

#[test]
fn a_reboot_finds_everything_durable_and_nothing_locked() {
    let disk = disk_with_old();
    let _lock = disk.lock(&path("a"), LockMode::Exclusive).unwrap();
    let _writer = create(&disk, "b", b"new");
    let rebooted = disk.after_crash(&mut |of| of - 1);
    assert_eq!(
        (rebooted.calls(), rebooted.handles()),
        (0, Handles::default())
    );
    for name in ["a", "b"] {
        let lock = rebooted.try_lock(&path(name), LockMode::Exclusive).unwrap();
        assert!(lock.is_some());
    }
    let found = all_crashes(&rebooted, |disk| text(disk, "b"));
    assert_eq!(found, seen([Some("new".into())]));
    // New files are not taken for old ones.
    create_synced(&rebooted, "c", b"third");
    assert_eq!(text(&rebooted, "a").unwrap(), "old");
}

#[test]
fn a_killed_process_leaves_what_it_wrote_but_not_durably() {
    let disk = SimDisk::new();
    let _writer = create(&disk, "a", b"new");
    let next = disk.after_kill();
    assert_eq!(text(&next, "a").unwrap(), "new");
    assert!(
        next.try_lock(&path("a"), LockMode::Exclusive)
            .unwrap()
            .is_some()
    );
    assert!(
        disk.try_lock(&path("a"), LockMode::Exclusive)
            .unwrap()
            .is_none()
    );
    assert_eq!(text(&next.after_crash(&mut |_| 0), "a"), None);
}

#[test]
fn faults_strike_the_call_they_were_armed_for() {
    let disk = disk_with_old();
    let calls = disk.calls();
    disk.fail_at(calls + 2, Fault::TooManyFiles, Repeat::Once);
    disk.fail_at(calls + 4, Fault::Io, Repeat::FromThenOn);
    let opened: Vec<_> = (0..6)
        .map(|_| {
            disk.open(&path("a"))
                .err()
                .and_then(|error| error.raw_os_error())
        })
        .collect();
    assert_eq!(opened, [None, Some(24), None, Some(5), Some(5), Some(5)]);
    assert_eq!(
        disk.describe(calls + 2),
        format!("call {}: Open of a", calls + 2)
    );
    disk.disarm();
    disk.open(&path("a")).unwrap();
    assert_eq!(disk.handles(), Handles::default());
}

#[test]
fn what_was_done_but_reported_failed_is_done() {
    let disk = disk_with_old();
    let fail_next = || disk.fail_at(disk.calls() + 1, Fault::DoneButFailed, Repeat::Once);
    fail_next();
    disk.rename(&path("a"), &path("b"), Existing::Refuse)
        .unwrap_err();
    assert_eq!(text(&disk, "b").unwrap(), "old");
    fail_next();
    disk.create(&path("c")).unwrap_err();
    assert_eq!(text(&disk, "c").unwrap(), "");
    assert_eq!(disk.handles(), Handles::default());
}

#[test]
fn a_short_append_leaves_half_and_a_lost_one_zeros() {
    let disk = SimDisk::new();
    let mut file = disk.create(&path("a")).unwrap();
    disk.fail_at(disk.calls() + 1, Fault::ShortWrite, Repeat::Once);
    let error = file.append(Buffer::copied(b"abcd")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(
        (text(&disk, "a").unwrap().as_str(), file.bytes()),
        ("ab", 0)
    );

    let mut file = disk.create(&path("b")).unwrap();
    disk.fail_at(disk.calls() + 1, Fault::LostWrite, Repeat::FromThenOn);
    file.append(Buffer::copied(b"abcd")).unwrap();
    file.sync().unwrap();
    assert_eq!(text(&disk, "b").unwrap(), "\0\0\0\0");
}

#[test]
fn everything_is_counted() {
    let disk = SimDisk::new();
    disk.create_directory(&path("segments")).unwrap();
    create_synced(&disk, "segments/1", b"abcdef");
    create_synced(&disk, "other", b"x");
    disk.sync_directory(&StorePath::root()).unwrap();
    let file = disk.open(&path("segments/1")).unwrap();
    drop(file.read_at(1, 2).wait().unwrap());
    let map = file.map().unwrap();
    let lock = disk.lock(&path("other"), LockMode::Shared).unwrap();
    let stats = Stats {
        opens: 1,
        reads: 1,
        bytes_read: 2,
        maps: 1,
        creates: 2,
        appends: 2,
        bytes_appended: 7,
        syncs: 2,
        directory_syncs: 1,
        others: 2,
    };
    assert_eq!(disk.stats(), stats);
    assert_eq!(disk.calls(), 12);
    assert_eq!(
        (disk.opens_of("segments/"), disk.reads_of("segments/")),
        (1, 2)
    );
    assert_eq!((disk.opens_of("other"), disk.reads_of("other")), (0, 0));
    let held = Handles {
        readers: 1,
        writers: 0,
        maps: 1,
        locks: 1,
    };
    assert_eq!(disk.handles(), held);
    drop((file, map, lock));
    assert_eq!(disk.handles(), Handles::default());
}

#[test]
fn altered_bytes_stay_altered() {
    let disk = disk_with_old();
    let before = disk.open(&path("a")).unwrap();
    let change = |bytes: &mut Vec<u8>| {
        bytes[1] ^= 1;
        bytes.push(b'!');
    };
    disk.alter(&path("a"), change).unwrap();
    assert_eq!(&*before.read_at(0, 3).wait().unwrap(), b"old");
    let found = all_crashes(&disk, |disk| text(disk, "a").unwrap());
    assert_eq!(found, seen(["omd!".into()]));
}

#[test]
fn whoever_waits_for_a_lock_learns_of_the_crash() {
    let disk = disk_with_old();
    let lock = disk.lock(&path("a"), LockMode::Exclusive).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| disk.lock(&path("a"), LockMode::Shared).map(drop));
        while disk.handles().locks == 0 {}
        std::thread::sleep(std::time::Duration::from_millis(20));
        disk.crash();
        assert!(
            waiting
                .join()
                .unwrap()
                .unwrap_err()
                .to_string()
                .contains("crashed")
        );
    });
    drop(lock);
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let disk = SimDisk::new();
    for name in ["a", "b", "c", "d"] {
        let mut file = create(&disk, name, &[1; 3000]);
        file.append(Buffer::copied(&[2; 3000])).unwrap();
    }
    let look = |seed| {
        let random = SeededRandom::new(seed);
        let mut choice = |of: usize| usize::try_from(random.next_u64() % of as u64).unwrap();
        let disk = disk.after_crash(&mut choice);
        ["a", "b", "c", "d"].map(|name| content(&disk, name))
    };
    assert!((0..20).all(|seed| look(seed) == look(seed)));
    let different: BTreeSet<_> = (0..20).map(look).collect();
    assert!(different.len() > 10);
    assert_ne!(
        SeededRandom::new(1).id().unwrap(),
        SeededRandom::new(2).id().unwrap()
    );
}

#[test]
fn what_nobody_can_reach_takes_no_memory() {
    let disk = SimDisk::new();
    for round in 0..10 {
        create_synced(&disk, "a", &[round; 1000]);
        disk.remove(&path("a")).unwrap();
        disk.sync_directory(&StorePath::root()).unwrap();
    }
    assert_eq!(disk.state().tree.file_count(), 0);
}
