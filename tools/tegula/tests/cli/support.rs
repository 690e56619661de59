//! What the tests share: the program, a fresh store, disks with known content.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const BLOCK: u64 = 65_536;

/// How long anything may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory of its own with a store in it, and the program to run on it.
pub(crate) struct World {
    directory: tempfile::TempDir,
    store: PathBuf,
}

impl World {
    /// Makes a directory with an empty store of default blocks.
    pub(crate) fn new() -> Self {
        let world = Self::without_store();
        world.ok(["init"]);
        world
    }

    /// Makes a directory; its store is still to be made.
    pub(crate) fn without_store() -> Self {
        let directory = tempfile::Builder::new().prefix("tegula-cli-").tempdir();
        let directory = directory.expect("a temporary directory");
        let store = directory.path().join("store");
        Self { directory, store }
    }

    /// Makes a directory; its store is still to be made, somewhere else.
    pub(crate) fn with_store_at(store: &Path) -> Self {
        Self {
            store: store.to_owned(),
            ..Self::without_store()
        }
    }

    /// Names a file of this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Names a file of this world, as an argument.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn store(&self) -> &Path {
        &self.store
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
    #[track_caller]
    pub(crate) fn ok<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Ran {
        self.run(arguments).expect_code(0)
    }

    /// Runs the program, which must do what it is asked, and parses the document it prints.
    #[track_caller]
    pub(crate) fn json<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Value {
        let ran = Ran::of(self.command(arguments).arg("--json"));
        ran.expect_code(0).json()
    }

    /// Runs the program, which must refuse with this code, name these things, and leave the store as it was.
    #[track_caller]
    pub(crate) fn refuses<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
        code: i32,
        named: &[&str],
    ) -> Ran {
        let before = self.content();
        let ran = self.run(arguments).refused(code, named);
        assert_eq!(self.content(), before, "a trace is left: {ran:#?}");
        ran
    }

    /// Lists the store's files, without the locks that are made when they are first needed and then stay.
    pub(crate) fn content(&self) -> Vec<(PathBuf, u64)> {
        let mut list = listing(self.store());
        let locks = ["commit", "gc", "index"].map(|lock| self.store().join("locks").join(lock));
        list.retain(|(path, _)| !locks.contains(path));
        list
    }

    /// Makes a disk of blocks: 0 is zeros (a hole), any other number a content of its own. Returns its path.
    pub(crate) fn disk(&self, name: &str, blocks: &[u32]) -> String {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(blocks.len() as u64 * BLOCK).unwrap();
        for (at, kind) in blocks.iter().enumerate().filter(|(_, kind)| **kind != 0) {
            file.write_all_at(&block(*kind), at as u64 * BLOCK).unwrap();
        }
        self.file(name)
    }

    /// Makes a disk and puts it. Returns its path.
    #[track_caller]
    pub(crate) fn put(&self, image: &str, blocks: &[u32]) -> String {
        let disk = self.disk(&format!("{image}.disk"), blocks);
        self.ok(["put", image, &disk]);
        disk
    }

    /// Gets an image and makes sure that it is the disk.
    #[track_caller]
    pub(crate) fn get_is(&self, image: &str, disk: &str) {
        let out = self.file("got");
        self.ok(["get", image, &out, "--force"]);
        assert_same(&out, disk);
    }

    /// Names the images that are there.
    #[track_caller]
    pub(crate) fn names(&self) -> Vec<String> {
        let list = self.json(["ls"]);
        let images = list["images"].as_array().unwrap().iter();
        images
            .map(|image| image["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Lists the segments' files.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let list = listing(&self.store().join("segments")).into_iter();
        list.map(|(path, _)| path).collect()
    }

    /// Makes sure that garbage collection takes all that is left when there is no image.
    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.names(), [""; 0]);
        self.ok(["gc", "--min-live", "1"]);
        for directory in ["segments", "layers", "images", "tmp", "quarantine"] {
            let left = listing(&self.store().join(directory));
            assert_eq!(left, [], "garbage collection left files in {directory}");
        }
        let locks = listing(&self.store().join("locks"));
        let ingest = |(path, _): &(PathBuf, u64)| path.to_string_lossy().contains("ingest-");
        assert!(!locks.iter().any(ingest), "{locks:?}");
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

/// Makes sure that two files hold the same bytes.
#[track_caller]
pub(crate) fn assert_same(left: impl AsRef<Path>, right: impl AsRef<Path>) {
    let (left, right) = (left.as_ref(), right.as_ref());
    let (a, b) = (std::fs::read(left).unwrap(), std::fs::read(right).unwrap());
    let at = a.iter().zip(&b).position(|(a, b)| a != b);
    assert!(
        a == b,
        "{} ({} bytes) is not {} ({} bytes): byte {at:?}",
        left.display(),
        a.len(),
        right.display(),
        b.len()
    );
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
    #[expect(dead_code, reason = "shown when a check fails")]
    command: String,
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program runs");
        Self::ended(format!("{command:?}"), output)
    }

    /// Runs a command whose standard output the caller has set.
    pub(crate) fn of_streams(command: &mut Command) -> Self {
        let child = command.stderr(Stdio::piped()).spawn();
        Self::wait(child.expect("the program runs"))
    }

    /// Waits for a run that was begun.
    pub(crate) fn wait(child: Child) -> Self {
        let process = Pid::from_child(&child);
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let output = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let _ = kill_process(process, Signal::KILL);
            panic!("the program does not end");
        });
        Self::ended("(begun before)".to_owned(), output.unwrap())
    }

    #[track_caller]
    fn ended(command: String, output: Output) -> Self {
        let ran = Self {
            command,
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(!ran.err.contains("panicked"), "{ran:#?}");
        ran
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

    /// Checks that it failed with this code, said so in one error that names these things, and printed no result.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, named: &[&str]) -> Self {
        let ran = self.expect_code(code);
        let errors = ran.err.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{ran:#?}");
        for text in named {
            assert!(ran.err.contains(text), "{text:?} is not named: {ran:#?}");
        }
        assert_eq!(ran.out, "", "a failure prints nothing to standard output");
        ran
    }

    /// Checks that the error comes with a hint that says this.
    #[track_caller]
    pub(crate) fn hints(self, text: &str) -> Self {
        let mut hints = self.err.lines().filter(|line| line.starts_with("hint: "));
        assert!(hints.any(|hint| hint.contains(text)), "{self:#?}");
        self
    }
}

/// Lists every file below a directory with its length, sorted; nothing if there is no such directory.
pub(crate) fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut list = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                open.push(path.clone());
            }
            list.push((path, if metadata.is_dir() { 0 } else { metadata.len() }));
        }
    }
    list.sort();
    list
}

/// Waits until something is so; panics with `what` if it does not come about.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what}: never");
        std::thread::sleep(Duration::from_millis(2));
    }
}
