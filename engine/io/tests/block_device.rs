//! Disks on a real block device: a loop device, so this takes the superuser and is asked for by name.

use std::path::PathBuf;
use std::process::Command;
use tegula_io::{Existing, RawSource, SourceError, TargetError, TargetFile};

/// A loop device over a temporary file; gone with this.
struct Loop {
    device: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl Loop {
    fn of(bytes: u64) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file is created");
        file.as_file().set_len(bytes).expect("a hole is made");
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file.path())
            .output();
        let made = made.expect("losetup is there");
        assert!(made.status.success(), "{made:?}");
        let device = String::from_utf8(made.stdout).expect("a device has a plain name");
        Self {
            device: PathBuf::from(device.trim_end()),
            _file: file,
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let gone = Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .status();
        assert!(
            gone.is_ok_and(|status| status.success()),
            "{}",
            self.device.display()
        );
    }
}

#[test]
#[ignore = "takes a loop device"]
fn a_block_device_is_written_in_place_and_read_back() {
    const BYTES: u64 = 4 << 20;
    let device = Loop::of(BYTES);
    let target = TargetFile::open_in_place(&device.device).expect("a device is opened");
    assert!(target.is_block_device());
    assert_eq!(target.bytes().expect("a device has a length"), BYTES);
    assert!(target.set_len(1).is_err());
    target
        .write_at(&[7; 100_000], 0)
        .expect("a device is written");
    // Aligned to sectors, and not.
    target.zero_range(4096, 8192).expect("a range is zeroed");
    target.zero_range(50_001, 3).expect("a range is zeroed");
    assert!(target.zero_range(BYTES - 1, 2).is_err());
    assert!(target.write_at(&[1; 2], BYTES - 1).is_err());

    let taken = TargetFile::open_in_place(&device.device);
    assert!(matches!(taken, Err(TargetError::InUse { .. })), "{taken:?}");
    let beside = TargetFile::create_beside(&device.device);
    assert!(
        matches!(beside, Err(TargetError::NotADisk { .. })),
        "{beside:?}"
    );
    target
        .publish(Existing::Replace)
        .expect("a device is synced");

    let source = RawSource::open(&device.device).expect("a device is opened");
    assert!(source.is_block_device());
    assert_eq!(source.bytes(), BYTES);
    assert_eq!(
        source.next_data(5).expect("holes are asked for"),
        Some(5..BYTES)
    );
    assert_eq!(source.next_data(BYTES).expect("holes are asked for"), None);
    let stamp = source.stamp().expect("a device has a length");
    assert_eq!(stamp, source.stamp().expect("a device has a length"));
    let mut found = vec![1; 100_001];
    source.read_at(&mut found, 0).expect("a device is read");
    let expected = |at| match at {
        4096..12_288 | 50_001..50_004 | 100_000 => 0,
        _ => 7,
    };
    assert!((0..).zip(found).all(|(at, byte)| byte == expected(at)));
}

#[test]
fn a_character_device_is_not_a_disk() {
    let error = RawSource::open("/dev/zero".as_ref());
    assert!(
        matches!(error, Err(SourceError::NotADisk { .. })),
        "{error:?}"
    );
}
