//! The programs that make and change file systems.

use super::DemoError;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where system programs are, in case PATH does not say so.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The label, UUID and hash seed of the demonstration's file system: the same every time, as its time is.
const LABEL: &str = "tegula-demo";
const UUID: &str = "74656775-6c61-4000-8000-000000000001";
const OPTIONS: &str = "root_owner=0:0,hash_seed=74656775-6c61-4000-8000-000000000002";
const FAKE_TIME: &str = "1700000000";

/// The programs, by path.
#[derive(Debug)]
pub(crate) struct Tools {
    mke2fs: PathBuf,
    debugfs: PathBuf,
    /// Gives the blocks of removed files back; the demonstration does without if it must.
    e2fsck: Option<PathBuf>,
}

impl Tools {
    /// Looks for the programs.
    ///
    /// # Errors
    /// [`DemoError::ToolsMissing`], naming those that are not there.
    pub(crate) fn find() -> Result<Self, DemoError> {
        match (find("mke2fs"), find("debugfs")) {
            (Some(mke2fs), Some(debugfs)) => Ok(Self {
                mke2fs,
                debugfs,
                e2fsck: find("e2fsck"),
            }),
            (mke2fs, debugfs) => {
                let found = [("mke2fs", mke2fs), ("debugfs", debugfs)];
                let missing = found.into_iter().filter(|(_, path)| path.is_none());
                Err(DemoError::ToolsMissing {
                    names: missing.map(|(name, _)| name).collect(),
                })
            }
        }
    }

    /// Makes a disk with an ext4 file system that holds what is in a directory.
    pub(crate) fn make_disk(
        &self,
        disk: &Path,
        content: &Path,
        mebibytes: u64,
    ) -> Result<(), DemoError> {
        let mut command = Command::new(&self.mke2fs);
        command
            .args(["-q", "-F", "-t", "ext4", "-L", LABEL])
            .args(["-U", UUID, "-E", OPTIONS])
            .env("E2FSPROGS_FAKE_TIME", FAKE_TIME)
            .arg("-d")
            .arg(content)
            .arg(disk)
            .arg(format!("{mebibytes}M"));
        run("mke2fs", &mut command, &[0]).map(drop)
    }

    /// Runs a script of debugfs on a disk.
    pub(crate) fn change_disk(&self, disk: &Path, script: &Path) -> Result<(), DemoError> {
        let mut command = Command::new(&self.debugfs);
        command.arg("-w").arg("-f").arg(script).arg(disk);
        let said = run("debugfs", &mut command, &[0])?;
        // It ends with 0 whatever happens; but it says only its version where nothing is wrong.
        match said.lines().find(|line| !line.starts_with("debugfs ")) {
            None => Ok(()),
            Some(complaint) => Err(DemoError::Tool {
                name: "debugfs",
                status: "exit status: 0".to_owned(),
                said: complaint.to_owned(),
            }),
        }
    }

    /// Checks the file system and makes holes of the blocks it does not use. Returns whether the program was there.
    pub(crate) fn trim_disk(&self, disk: &Path) -> Result<bool, DemoError> {
        let Some(e2fsck) = &self.e2fsck else {
            return Ok(false);
        };
        let mut command = Command::new(e2fsck);
        command.args(["-f", "-y", "-E", "discard"]).arg(disk);
        // 1: corrected something, such as a count that debugfs leaves to it.
        run("e2fsck", &mut command, &[0, 1]).map(|_| true)
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// Runs a program to its end and returns what it said on standard error.
fn run(name: &'static str, command: &mut Command, good: &[i32]) -> Result<String, DemoError> {
    let output = command
        .output()
        .map_err(DemoError::at("run", Path::new(name)))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(code) if good.contains(&code) => Ok(said),
        _ => Err(DemoError::Tool {
            name,
            status: output.status.to_string(),
            said,
        }),
    }
}
