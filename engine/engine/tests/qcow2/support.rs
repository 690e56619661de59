//! What the tests share: a store in memory, disks with known content, and qemu-img.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::disk_formats::qcow2::Qcow2;
use tegula_engine::{
    BlockSize, BlockSource, Content, Engine, EngineError, Environment, ImageDigest, ImageName,
    InitOptions, PutFile, PutFileReport, RawDisk, Store, Task, Workers,
};
use tegula_io::MemoryStorage;

/// A directory for files, and a store.
pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) engine: Engine,
}

pub(crate) fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_blocks(BlockSize::DEFAULT)
    }

    pub(crate) fn with_blocks(block_size: BlockSize) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let environment = Environment::of_system(storage);
        let store = Store::init(
            environment,
            InitOptions {
                block_size,
                ..InitOptions::default()
            },
        )
        .unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            engine: Engine::new(store, Workers::Pool),
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Puts a file as image `image`, which may be there already.
    pub(crate) fn try_put(
        &self,
        image: &str,
        file: &str,
        parent: Option<&str>,
        snapshot: Option<&str>,
    ) -> Result<PutFileReport, EngineError> {
        let request = PutFile {
            name: name(image),
            path: &self.path(file),
            parent: parent.map(name),
            replace: true,
            format: None,
            snapshot,
        };
        self.engine.put_file(request, Task::unattended())
    }

    /// Puts a qcow2 file; returns the digest.
    #[track_caller]
    pub(crate) fn put(&self, file: &str, parent: Option<&str>) -> ImageDigest {
        let put = self.try_put(file, file, parent, None).unwrap();
        assert_eq!(put.format, DiskFormat::Qcow2);
        put.report.record.digest
    }

    /// Puts a raw file; returns the digest.
    #[track_caller]
    pub(crate) fn put_raw(&self, file: &str) -> ImageDigest {
        let put = self.try_put(file, file, None, None).unwrap();
        assert_eq!(put.format, DiskFormat::Raw);
        put.report.record.digest
    }

    /// Has qemu-img make a raw file of what it reads, and puts it; returns the digest.
    #[track_caller]
    pub(crate) fn put_as_qemu_reads(&self, file: &str, more: &[&str]) -> ImageDigest {
        let raw = format!("{file}.as-qemu-reads.raw");
        let mut arguments = vec!["convert", "-O", "raw"];
        arguments.extend(more);
        arguments.extend([file, &raw]);
        self.qemu_img(&arguments);
        let digest = self.put_raw(&raw);
        std::fs::remove_file(self.path(&raw)).unwrap();
        digest
    }

    /// Runs qemu-img in the directory; returns what it prints.
    #[track_caller]
    pub(crate) fn qemu_img(&self, arguments: &[&str]) -> String {
        self.run("qemu-img", arguments)
    }

    /// Runs commands of qemu-io on a file.
    #[track_caller]
    pub(crate) fn qemu_io(&self, file: &str, commands: &[&str]) {
        let mut arguments: Vec<_> = commands.iter().flat_map(|one| ["-c", one]).collect();
        arguments.extend(["-f", "qcow2", file]);
        let out = self.run("qemu-io", &arguments);
        assert!(!out.contains("failed"), "{out}");
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path());
        let output = command.output();
        let output = output.expect("qemu-img and qemu-io run: they are in Debian's qemu-utils");
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a raw disk.
    pub(crate) fn disk(&self, file: &str, bytes: u64, pieces: &[(u64, Vec<u8>)]) {
        let disk = File::create(self.path(file)).unwrap();
        disk.set_len(bytes).unwrap();
        for (offset, piece) in pieces {
            let room = usize::try_from(bytes.saturating_sub(*offset)).unwrap();
            let piece = &piece[..piece.len().min(room)];
            disk.write_all_at(piece, *offset).unwrap();
        }
    }

    /// Makes sure that the extents of a qcow2 file are those that qemu-img maps.
    #[track_caller]
    pub(crate) fn extents_are_as_qemu_maps(&self, file: &str) {
        let source = RawDisk::open(&self.path(file)).unwrap();
        let ours = data_of(&Qcow2::open(&source).unwrap().disk());
        let map = self.qemu_img(&["map", "--output=json", "-f", "qcow2", file]);
        let map: serde_json::Value = serde_json::from_str(&map).unwrap();
        let mut theirs: Vec<Range<u64>> = Vec::new();
        for extent in map.as_array().unwrap() {
            if extent["depth"] == 0 && extent["data"] == true {
                let start = extent["start"].as_u64().unwrap();
                push(
                    &mut theirs,
                    start..start + extent["length"].as_u64().unwrap(),
                );
            }
        }
        assert_eq!(ours, theirs, "{file}");
    }
}

fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Returns where a disk says that it has data.
pub(crate) fn data_of(disk: &dyn BlockSource) -> Vec<Range<u64>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Some(extent) = disk.next_extent(at).unwrap() {
        at = extent.range.end;
        if extent.content == Content::Data {
            push(&mut ranges, extent.range);
        }
    }
    ranges
}

/// Bytes that no compressor makes smaller, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Bytes that compress well.
pub(crate) fn text(seed: u64, length: usize) -> Vec<u8> {
    let line = format!("line {seed} of a file that says the same again and again\n");
    line.bytes().cycle().take(length).collect()
}

/// Checks that a path is there: for messages of tests.
pub(crate) fn length_of(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}
