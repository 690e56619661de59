//! The machine under the tests: file systems mounted and loop devices attached for one test, and always given back.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a system program, which must do what it is asked, and returns what it prints.
#[track_caller]
pub(crate) fn system(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run {program} ({error}): these tests need util-linux and e2fsprogs")
    });
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[track_caller]
fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a file system or attaches a device: run it as root"
    );
}

/// A file system mounted on a directory of its own; unmounted when dropped.
pub(crate) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts a new ext4 file system of so many MiB, kept in `image`.
    pub(crate) fn ext4(image: &Path, mebibytes: u64) -> Self {
        need_root();
        assert!(mebibytes <= 256, "a small file system");
        std::fs::File::create(image)
            .unwrap()
            .set_len(mebibytes << 20)
            .unwrap();
        let image = image.to_str().unwrap();
        system("mkfs.ext4", &["-q", "-F", "-m", "0", image]);
        Self::mounted(&["-o", "loop", image])
    }

    /// Mounts a file system in memory of so many MiB.
    pub(crate) fn tmpfs(mebibytes: u64) -> Self {
        need_root();
        let size = format!("size={mebibytes}m");
        Self::mounted(&["-t", "tmpfs", "-o", &size, "tegula-test"])
    }

    /// Shows a directory where nothing can be written.
    pub(crate) fn read_only(directory: &Path) -> Self {
        need_root();
        let mount = Self::mounted(&["--bind", directory.to_str().unwrap()]);
        let at = mount.at.to_str().unwrap();
        system("mount", &["-o", "remount,bind,ro", at]);
        let refused = std::fs::File::create(mount.at.join("probe"));
        assert!(refused.is_err(), "{at} can be written");
        mount
    }

    fn mounted(arguments: &[&str]) -> Self {
        let at = tempfile::Builder::new().prefix("tegula-mount-").tempdir();
        // Removed only when it is empty again, never with what is mounted there.
        let mount = Self {
            at: at.unwrap().keep(),
        };
        let path = mount.at.to_str().unwrap();
        system("mount", &[arguments, &[path]].concat());
        // Before anything is written: what follows must not land beside the mount.
        system("mountpoint", &["-q", path]);
        mount
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Names a file of it, as an argument.
    pub(crate) fn file(&self, name: &str) -> String {
        self.at.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        }
        let _ = std::fs::remove_dir(&self.at);
    }
}

/// A block device that is a file; detached when dropped.
pub(crate) struct LoopDevice {
    path: String,
}

impl LoopDevice {
    /// Attaches a file.
    pub(crate) fn of(file: &str) -> Self {
        need_root();
        Self {
            path: system("losetup", &["--find", "--show", file]),
        }
    }

    /// Attaches a new file of so many bytes, each of them `fill`.
    pub(crate) fn filled(file: &str, bytes: u64, fill: u8) -> Self {
        std::fs::write(file, vec![fill; bytes as usize]).unwrap();
        Self::of(file)
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Reads what the device holds.
    pub(crate) fn content(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}
