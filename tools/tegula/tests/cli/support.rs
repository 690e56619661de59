//! What the tests share: the program, a fresh store, disks with known content.

use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

pub(crate) const BLOCK: u64 = 65_536;

/// A directory of its own with a store in it, and the program to run on it.
pub(crate) struct World {
    directory: tempfile::TempDir,
}

impl World {
    /// Makes a directory with an empty store of default blocks.
    pub(crate) fn new() -> Self {
        let world = Self::without_store();
        world.ok(["init"]);
        world
    }

    pub(crate) fn without_store() -> Self {
        let directory = tempfile::Builder::new().prefix("tegula-cli-").tempdir();
        Self {
            directory: directory.expect("a temporary directory"),
        }
    }

    /// Names a file of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Prepares a run of the program on the store.
    pub(crate) fn command<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = program();
        command.arg("--store").arg(self.store()).args(arguments);
        command
    }

    /// Runs the program on the store.
    pub(crate) fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Runs the program, which must do what it is asked.
    pub(crate) fn ok<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Ran {
        self.run(arguments).expect_code(0)
    }

    /// Runs the program, which must do what it is asked, and parses the document it prints.
    pub(crate) fn json<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Value {
        let ran = Ran::of(self.command(arguments).arg("--json")).expect_code(0);
        ran.json()
    }

    /// Makes a disk of blocks: 0 is zeros (a hole), any other number a content of its own. Returns its path.
    pub(crate) fn disk(&self, name: &str, blocks: &[u32]) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).unwrap();
        file.set_len(blocks.len() as u64 * BLOCK).unwrap();
        for (at, kind) in blocks.iter().enumerate().filter(|(_, kind)| **kind != 0) {
            file.write_all_at(&block(*kind), at as u64 * BLOCK).unwrap();
        }
        path
    }
}

/// Returns 64 KiB that no compressor makes much smaller, the same for the same number.
pub(crate) fn block(kind: u32) -> Vec<u8> {
    let mut state = u64::from(kind).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(BLOCK as usize / 8).flatten().collect()
}

/// Prepares a run of the program, untouched by the environment of the tests.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tegula"));
    command
        .env_remove("TEGULA_STORE")
        .env_remove("TEGULA_IO")
        .stdin(Stdio::null());
    command
}

/// A run of the program that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program runs");
        Self::ended(format!("{command:?}"), output)
    }

    pub(crate) fn ended(command: String, output: Output) -> Self {
        Self {
            command,
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Checks that it failed with this code, and that the error names these things.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, named: &[&str]) -> Self {
        let ran = self.expect_code(code);
        assert!(ran.err.contains("error: "), "{ran:#?}");
        for text in named {
            assert!(ran.err.contains(text), "{text:?} is not named: {ran:#?}");
        }
        assert_eq!(ran.out, "", "a failure prints nothing to standard output");
        ran
    }
}

/// Lists every file below a directory with its length, sorted.
pub(crate) fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut list = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata())).unwrap();
            let metadata = metadata.unwrap();
            if metadata.is_dir() {
                open.push(path.clone());
            }
            list.push((path, if metadata.is_dir() { 0 } else { metadata.len() }));
        }
    }
    list.sort();
    list
}
