//! qcow2 files, valid, hostile and broken: read as they are, or refused by name; in bounded memory and time.

mod allocations;

use allocations::Allocations;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tegula_engine::disk_formats::qcow2::Qcow2;
use tegula_fuzz::qcow2::{Bytes, Image, hostile, read_everything, valid};
use tegula_io::{Clock, SystemClock};

/// The most memory that any of these files may make us hold, and the longest that it may take.
const ALLOCATED_MAX: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// Memory is counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_hostile_file_is_refused_by_name_in_bounded_memory_and_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let all = hostile();
    assert!(all.len() > 100, "{} files", all.len());
    let mut wrong = Vec::new();
    for hostile in all {
        let file = Bytes(hostile.bytes);
        let start = SystemClock.elapsed();
        let before = Allocations::begin();
        let outcome = read_everything(&file);
        let counted = before.end();
        let time = SystemClock.elapsed() - start;
        match outcome {
            Ok(_) => wrong.push(format!("{}: was read", hostile.name)),
            Err(error) if !error.to_string().contains(hostile.says) => {
                wrong.push(format!("{}: {error}, not {:?}", hostile.name, hostile.says));
            }
            Err(_) => {}
        }
        assert!(
            counted.peak <= ALLOCATED_MAX && counted.largest <= ALLOCATED_MAX,
            "{}: {counted:?}",
            hostile.name
        );
        assert!(time < PATIENCE, "{}: {time:?}", hostile.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn valid_files_are_read_as_they_were_made() {
    let data = |name: &str| {
        let files = valid();
        let (_, bytes) = files.iter().find(|(other, _)| *other == name).unwrap();
        let seen = read_everything(&Bytes(bytes.clone())).unwrap();
        let data = seen.data.iter();
        let bytes: Vec<(u64, u8, usize)> = data
            .map(|(at, bytes)| {
                assert!(
                    bytes
                        .iter()
                        .all(|byte| *byte == bytes[0] || bytes.len() > 512)
                );
                (*at, bytes[0], bytes.len())
            })
            .collect();
        (bytes, seen.inherited)
    };
    let plain = vec![(0, 1, 1024), (63 * 512, 3, 512)];
    for name in ["plain", "version 2", "snapshot", "bitmap"] {
        assert_eq!(data(name), (plain.clone(), vec![]), "{name}");
    }
    assert_eq!(data("compressed").0, [(0, 7, 1024)]);
    assert_eq!(data("zstd").0, [(5 * 512, 7, 1024)]);
    assert_eq!(data("subclusters").0, [(0, 6, 512)]);
    let inherited = vec![0..4 * 512, 6 * 512..64 * 512];
    assert_eq!(data("overlay"), (vec![(4 * 512, 5, 512)], inherited));
}

#[test]
fn a_bitmap_is_read_by_its_bits() {
    let mut image = Image::new(9);
    image.add_bitmap("since", 2, &[0x0f, 0xff, 0, 1]);
    let file = Bytes(image.bytes.clone());
    let changed = Qcow2::open(&file).unwrap().changed_blocks("since").unwrap();
    let extents: Vec<_> = changed.extents().collect();
    let bits = |from: u64, to: u64| from * 512..to * 512;
    assert_eq!(extents, [bits(0, 4), bits(8, 16), bits(24, 25)]);
    for (flags, why) in [(0, "disabled"), (1, "in use"), (3, "in use")] {
        let mut image = Image::new(9);
        image.add_bitmap("since", flags, &[1]);
        let file = Bytes(image.bytes);
        let opened = Qcow2::open(&file).unwrap();
        let error = opened.changed_blocks("since").unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let error = opened.changed_blocks("other").unwrap_err().to_string();
        assert!(error.contains("no bitmap"), "{error}");
    }
    // Not marked as up to date: as if there were none.
    image.set_u64(88, 0);
    let file = Bytes(image.bytes);
    assert_eq!(Qcow2::open(&file).unwrap().bitmaps(), []);
}

/// Reads a broken file, which may be refused or read, but not make us panic or hold too much.
fn survives(bytes: Vec<u8>, what: &dyn std::fmt::Debug) {
    let before = Allocations::begin();
    let outcome = read_everything(&Bytes(bytes));
    let counted = before.end();
    assert!(
        counted.peak <= ALLOCATED_MAX,
        "{what:?}: {counted:?} {outcome:?}"
    );
}

#[test]
fn a_file_cut_anywhere_is_survived_and_not_read_as_whole() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, bytes) in valid() {
        let whole = read_everything(&Bytes(bytes.clone())).unwrap();
        // What a file needs is at its end in some, not in all: a bitmap's cluster has unused bytes.
        let step = if bytes.len() > 20_000 { 64 } else { 1 };
        for end in (0..bytes.len()).step_by(step) {
            let before = Allocations::begin();
            let outcome = read_everything(&Bytes(bytes[..end].to_vec()));
            assert!(before.end().peak <= ALLOCATED_MAX);
            match outcome {
                Ok(seen) => assert_eq!(seen, whole, "{name} cut at {end} is read as another disk"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn every_byte_of_the_header_and_the_tables_set_to_anything_is_survived() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, bytes) in valid() {
        let head = bytes.len().min(3000);
        for at in (0..head).filter(|at| *at < 512 || at % 7 == 0) {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bent = bytes.clone();
                bent[at] = value;
                survives(bent, &(name, at, value));
            }
        }
    }
}
