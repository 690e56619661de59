//! Stores that the engine wrote, read by the second implementation: `format-spec/reader`, in Python, from SPEC.md
//! alone. What it lists, verifies and extracts must be what the engine says, byte by byte; and it must find damage.
//!
//! The Python is `TEGULA_TEST_PYTHON`, else that of `.venv` at the workspace's root, else `python3`. It must have the
//! packages of `format-spec/reader/requirements.txt`; these tests fail without, as they are no use if they are skipped.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tegula_engine::{
    BackendPreference, BlockSize, CollectOptions, Depth, Engine, ImageName, InitOptions,
    OptimizeOptions, PutRequest, Source, Task,
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python to use, which has all it needs.
fn python() -> Command {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    let program = FOUND.get_or_init(|| {
        let own = workspace().join(".venv/bin/python");
        let program = match std::env::var_os("TEGULA_TEST_PYTHON") {
            Some(asked) => PathBuf::from(asked),
            None if own.exists() => own,
            None => PathBuf::from("python3"),
        };
        let tried = Command::new(&program)
            .args(["-c", "import blake3, zstandard"])
            .output();
        let complaint = match tried {
            Ok(output) if output.status.success() => return program,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        panic!(
            "{} cannot run the second reader: ./tools/test sets up a Python that can.\n{complaint}",
            program.display()
        );
    });
    let mut command = Command::new(program);
    // Without -B it would leave its bytecode in the source tree.
    command.arg("-B");
    command
}

fn script(name: &str) -> Command {
    let mut command = python();
    command.arg(workspace().join("format-spec/reader").join(name));
    command
}

fn shown(output: &Output) -> String {
    let (out, errors) = (&output.stdout, &output.stderr);
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(errors)
    )
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

/// A block's bytes: zeros for 0, noise up to 99, and from there on something that compresses.
fn block(kind: u8, size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64.wrapping_mul(u64::from(kind) + 1);
    let mut noise = move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    match kind {
        0 => vec![0; size],
        1..=99 => (0..size).map(&mut noise).collect(),
        _ => {
            let line: Vec<u8> = (0..64).map(&mut noise).collect();
            line.iter().copied().cycle().take(size).collect()
        }
    }
}

/// A store as the engine writes it, and the images that should be in it.
struct Stored {
    directory: tempfile::TempDir,
    engine: Engine,
    block_size: usize,
    images: BTreeMap<String, Vec<u8>>,
}

impl Stored {
    fn new(block_size: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = InitOptions {
            block_size: BlockSize::from_bytes(block_size.into()).unwrap(),
            ..InitOptions::default()
        };
        let path = directory.path().join("store");
        let (engine, _) = Engine::init(&path, BackendPreference::Auto, options).unwrap();
        Self {
            directory,
            engine,
            block_size: block_size as usize,
            images: BTreeMap::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn bytes(&self, kinds: &[u8]) -> Vec<u8> {
        let blocks = kinds.iter().flat_map(|kind| block(*kind, self.block_size));
        blocks.collect()
    }

    /// Puts these blocks, less some bytes at the end.
    fn put(&mut self, image: &str, parent: Option<&str>, kinds: &[u8], less: usize) {
        let mut bytes = self.bytes(kinds);
        bytes.truncate(bytes.len() - less);
        self.put_bytes(image, parent, bytes);
    }

    /// Puts an image; returns how many chunks were stored over others.
    fn put_bytes(&mut self, image: &str, parent: Option<&str>, bytes: Vec<u8>) -> u64 {
        let mut stream = bytes.as_slice();
        let request = PutRequest {
            name: name(image),
            source: Source::Stream(&mut stream),
            parent: parent.map(name),
            replace: self.images.contains_key(image),
        };
        let report = self.engine.put(request, Task::unattended()).unwrap();
        self.images.insert(image.to_owned(), bytes);
        report.framed_chunks
    }

    fn remove(&mut self, image: &str) {
        self.engine.store().remove(&name(image)).unwrap();
        self.images.remove(image).unwrap();
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.engine.store().rename(&name(from), &name(to)).unwrap();
        let bytes = self.images.remove(from).unwrap();
        self.images.insert(to.to_owned(), bytes);
    }

    fn coalesce(&self, image: &str, onto: Option<&str>) {
        let onto = onto.map(name);
        self.engine
            .store()
            .coalesce(&name(image), onto.as_ref())
            .unwrap();
    }

    fn flatten(&self, image: &str) {
        self.engine.store().flatten(&name(image), true).unwrap();
    }

    fn clone_image(&mut self, from: &str, to: &str) {
        let store = self.engine.store();
        store.clone_image(&name(from), &name(to), false).unwrap();
        let bytes = self.images[from].clone();
        self.images.insert(to.to_owned(), bytes);
    }

    /// Frees what it can, to the last byte.
    fn collect(&self) -> tegula_engine::Collection {
        let options = CollectOptions {
            min_live: 1.0,
            ..CollectOptions::default()
        };
        self.engine.collect(&options).unwrap()
    }

    fn reader(&self, command: &str, arguments: &[&str]) -> Output {
        let mut reader = script("tegula_reader.py");
        reader.arg(command).arg(self.path()).args(arguments);
        reader.output().unwrap()
    }

    fn read_json(&self, command: &str) -> Value {
        let output = self.reader(command, &["--json"]);
        assert!(output.status.success(), "{command}: {}", shown(&output));
        assert_eq!(output.stderr, b"", "{command}: {}", shown(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn extract(&self, image: &str) -> Result<Vec<u8>, String> {
        let out = self.directory.path().join("out");
        let output = self.reader("extract", &[image, out.to_str().unwrap()]);
        match output.status.success() {
            true => Ok(std::fs::read(out).unwrap()),
            false => Err(shown(&output)),
        }
    }

    /// Makes sure that both implementations read the same out of the store, and that it is what was put in.
    fn agree(&self, when: &str) {
        let config = self.engine.store().config();
        let listed = self.read_json("list");
        assert_eq!(listed["store"], config.id.to_string(), "{when}");
        let records = self.engine.list().unwrap();
        let images = listed["images"].as_array().unwrap();
        assert_eq!(images.len(), records.len(), "{when}: {listed:#}");
        assert_eq!(images.len(), self.images.len(), "{when}: {listed:#}");
        for (image, record) in images.iter().zip(&records) {
            let name = record.name.as_str();
            assert_eq!(image["name"], name, "{when}");
            assert_eq!(image["digest"], record.digest.to_string(), "{when}: {name}");
            assert_eq!(image["layer"], record.layer.to_string(), "{when}: {name}");
            assert_eq!(image["record"], record.id.to_string(), "{when}: {name}");
            assert_eq!(image["virtual_size"], record.virtual_size, "{when}: {name}");
            assert_eq!(image["data_blocks"], record.data_blocks, "{when}: {name}");
            assert_eq!(
                image["created_at_us"], record.created_at_us,
                "{when}: {name}"
            );
            let parent = record.parent.as_ref();
            let parent = parent.map(|parent| (parent.name.as_str(), parent.digest.to_string()));
            assert_eq!(
                image["parent"].is_null(),
                parent.is_none(),
                "{when}: {name}"
            );
            if let Some((parent, digest)) = parent {
                assert_eq!(image["parent"]["name"], parent, "{when}: {name}");
                assert_eq!(image["parent"]["digest"], digest, "{when}: {name}");
            }
        }
        let report = self.read_json("verify");
        assert_eq!(
            report["findings"],
            Value::Array(Vec::new()),
            "{when}: {report:#}"
        );
        let whole = report["images"].as_array().unwrap();
        assert!(
            whole.iter().all(|image| image["whole"] == true),
            "{when}: {report:#}"
        );
        let names: Vec<_> = whole.iter().map(|image| &image["name"]).collect();
        assert_eq!(names, self.images.keys().collect::<Vec<_>>(), "{when}");
        let own = self.engine.verify(Depth::Full, &[], Task::unattended());
        let own = own.unwrap();
        assert_eq!(own.findings, [], "{when}");
        assert_eq!(report["segments"], own.segments, "{when}");
        assert_eq!(report["layers"], own.layers, "{when}");
        for (name, bytes) in &self.images {
            let extracted = self.extract(name).unwrap();
            assert!(extracted == *bytes, "{when}: {name} has other bytes");
        }
    }

    /// The files of one of the store's directories, sorted.
    fn files(&self, directory: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join(directory)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

/// Flips a bit, and flips it back when dropped.
struct Flipped {
    file: File,
    at: u64,
}

impl Flipped {
    fn new(path: &Path, at: u64) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let flipped = Self { file, at };
        flipped.flip();
        flipped
    }

    fn flip(&self) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, self.at).unwrap();
        byte[0] ^= 0x10;
        self.file.write_all_at(&byte, self.at).unwrap();
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        self.flip();
    }
}

/// 40 blocks: noise, text, zeros, and some that are there twice.
const BASE: [u8; 40] = [
    1, 2, 0, 100, 3, 3, 0, 0, 101, 102, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 13, 14, 15, 16, 17, 18,
    19, 103, 104, 105, 100, 20, 21, 22, 23, 24, 25, 26, 27, 28,
];

fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut kinds = BASE.to_vec();
    for (at, kind) in changes {
        kinds[*at] = *kind;
    }
    kinds
}

fn with_every_kind_of_image(block_size: u32) -> Stored {
    let mut store = Stored::new(block_size);
    let half = store.block_size / 2;
    store.put("empty", None, &[], 0);
    store.put("one byte", None, &[30], store.block_size - 1);
    store.put("zeros", None, &[0, 0, 0], 17);
    store.put("base", None, &BASE, 0);
    let child = changed(&[(0, 40), (3, 0), (6, 106), (39, 0)]);
    store.put("child", Some("base"), &child, 0);
    // Cut within a block that its parent holds in full, then longer than ever.
    store.put("cut", Some("base"), &BASE[..30], half);
    let mut grown = changed(&[(29, 41)]);
    grown.extend([0, 0, 42, 0]);
    store.put("grown", Some("cut"), &grown, 1000);
    store.put(
        "grandchild",
        Some("child"),
        &changed(&[(0, 40), (1, 43)]),
        1,
    );
    store
}

/// Every way a store changes, with both implementations asked after each.
fn lives_through_it_all(block_size: u32) {
    let mut store = with_every_kind_of_image(block_size);
    store.agree("after the puts");

    // Of what this brings, one image keeps a part, so that its segment is rewritten; of the next, nothing stays.
    store.put("mixed", None, &[50, 51, 52, 107, 108], 0);
    store.put("kept", None, &[51, 0, 107], 5);
    store.put("doomed", None, &[60, 61, 62], 0);
    store.remove("mixed");
    store.remove("doomed");
    let collected = store.collect();
    let counts = (
        collected.segments_rewritten,
        collected.segments_removed,
        collected.layers_removed,
    );
    assert_eq!(counts, (1, 1, 2), "{collected:?}");
    store.agree("after the first collection");

    store.rename("child", "Kind (größer)");
    store.remove("base");
    store.clone_image("grandchild", "twin");
    store.clone_image("grandchild", "flat");
    store.coalesce("grandchild", None);
    store.coalesce("twin", Some("kept"));
    store.flatten("flat");
    store.put("kept", None, &[51, 52, 53], 0);
    store.agree("after renaming, removing, coalescing and replacing");
    store.collect();
    store.agree("after the second collection");
    store.remove("cut");
    store.remove("Kind (größer)");
    store.collect();
    store.agree("after the third collection");
}

#[test]
fn both_read_the_same_at_every_step_of_a_store_of_4_kib_blocks() {
    lives_through_it_all(4 << 10);
}

#[test]
fn both_read_the_same_at_every_step_of_a_store_of_64_kib_blocks() {
    lives_through_it_all(64 << 10);
}

/// Layers of several pages and of every kind of container, and a run whose filter has several blocks.
#[test]
fn both_read_large_maps_the_same() {
    let mut store = Stored::new(4 << 10);
    let comb: Vec<u8> = (0..10_000u32)
        .map(|block| match block % 2 {
            0 => u8::try_from(1 + block % 150).unwrap(),
            _ => 0,
        })
        .collect();
    store.put("comb", None, &comb, 0);
    // Past the first 65,536 blocks, so that the sets have a second container.
    let mut far = vec![0; 66_000];
    far[65_000] = 109;
    far[65_600..].fill(110);
    store.put("far", None, &far, 99);
    // Zeroes runs of blocks and single ones.
    let mut holed = comb;
    holed[1000..3000].fill(0);
    holed[5000] = 0;
    holed[5002] = 0;
    store.put("holed", Some("comb"), &holed, 0);
    store.agree("with large maps");
}

#[test]
fn both_read_chunks_that_stand_on_others_wherever_these_go() {
    let mut store = Stored::new(64 << 10);
    let mut bytes = store.bytes(&[1, 2, 3, 4, 100, 5]);
    store.put_bytes("v0", None, bytes.clone());
    // Every version differs by a few bytes in each block: frames over frames.
    for version in 1..=5u8 {
        let at = usize::from(version) * 1000;
        for block in bytes.chunks_mut(store.block_size) {
            block[at..at + 5].fill(version);
        }
        let parent = format!("v{}", version - 1);
        let framed = store.put_bytes(&format!("v{version}"), Some(&parent), bytes.clone());
        assert!(
            framed > 0,
            "no chunk of version {version} stands on another"
        );
    }
    store.agree("after the puts");
    for gone in ["v0", "v3"] {
        store.remove(gone);
    }
    store.collect();
    store.agree("after a collection that keeps what others stand on");
    let options = OptimizeOptions::default();
    let optimized = store.engine.optimize(&options, Task::unattended());
    let optimized = optimized.unwrap();
    assert!(optimized.framed_chunks > 0, "{optimized:?}");
    store.agree("after everything was compressed again");
    store.remove("v1");
    store.collect();
    store.agree("after the last collection");
}

#[test]
fn the_reader_finds_a_flipped_bit_in_every_kind_of_file() {
    let store = with_every_kind_of_image(4 << 10);
    let segment = &store.files("segments")[0];
    let layer = &store.files("layers")[0];
    // Sketches stand there too: advice, whose damage is a note alone.
    let index = store.files("index");
    let is_run = |file: &&PathBuf| file.extension().is_some_and(|suffix| suffix == "run");
    let run = index.iter().find(is_run).unwrap();
    let record = store.path().join("images/base.image");
    let (config, state) = (
        store.path().join("tegula.store"),
        store.path().join("gc.state"),
    );
    let files = [segment, layer, run, &record, &config, &state];
    for file in files {
        let length = file.metadata().unwrap().len();
        // In the head, in the middle, and in the last byte.
        for at in [36, length / 2, length - 1] {
            let _flipped = Flipped::new(file, at);
            let output = store.reader("verify", &[]);
            let told = shown(&output);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{} at {at}: {told}",
                file.display()
            );
        }
    }
    store.agree("after every bit was flipped back");
}

#[test]
fn the_reader_names_the_images_that_are_hurt_and_extracts_the_others() {
    let mut store = Stored::new(4 << 10);
    store.put("sound", None, &[1, 2, 3], 0);
    store.put("hurt", None, &[4, 5, 6], 0);
    let payload = 73 + 52 + 100;
    let flipped = Flipped::new(&store.files("segments")[1], payload);
    let output = store.reader("verify", &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["sound"], false);
    let whole = |name: &str| {
        let images = report["images"].as_array().unwrap();
        let image = images.iter().find(|image| image["name"] == name);
        image.unwrap()["whole"].as_bool().unwrap()
    };
    assert!(whole("sound") && !whole("hurt"), "{report:#}");
    assert!(store.extract("sound").unwrap() == store.images["sound"]);
    let refused = store.extract("hurt").unwrap_err();
    assert!(refused.contains("Checksum"), "{refused}");
    drop(flipped);
    assert!(store.extract("hurt").unwrap() == store.images["hurt"]);
}

#[test]
fn the_reader_passes_its_own_tests() {
    let output = script("test_reader.py").output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn the_golden_files_are_what_the_second_encoder_makes() {
    let output = script("make_vectors.py").arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
}
