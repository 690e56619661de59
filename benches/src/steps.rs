//! The steps: what is measured, each in a process of its own.

use crate::measure::{Measured, measure};
use crate::scale;
use anyhow::Context;
use clap::Subcommand;
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::{
    BackendPreference, CollectOptions, DeltaDestination, Depth, Destination, Engine, ImageName,
    InitOptions, OptimizeOptions, PutFile, Recompress, Task,
};
use tegula_format::{BlockSize, ChunkId};
use tegula_io::RawSource;
use tegula_store::{compress, decode_record};

/// One step.
#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// The limit of a first ingest: zstd over every distinct chunk of an image, all cores, from memory.
    Zstd { image: PathBuf, level: i32 },
    /// The limit of a repeated ingest: every data block read from the page cache and hashed, all cores.
    Blake3 { image: PathBuf },
    /// The limit of a restore: every distinct chunk decompressed and hashed, all cores, from memory.
    Decode { image: PathBuf, level: i32 },
    /// Another limit of a restore: the image copied, holes kept.
    Copy { image: PathBuf, to: PathBuf },
    /// Memory copied.
    Memcpy,
    /// A file written and synced.
    Write { to: PathBuf },
    /// Collections one after the other, until the input ends.
    Collect { store: PathBuf },
    /// A new store.
    Init {
        store: PathBuf,
        level: i32,
        /// Without prefix frames.
        #[arg(long)]
        plain: bool,
    },
    /// A store recompressed.
    Optimize { store: PathBuf },
    /// What the delta stream from one image to another has in bytes.
    Delta {
        store: PathBuf,
        base: String,
        image: String,
    },
    /// An image put.
    Put {
        store: PathBuf,
        name: String,
        image: PathBuf,
        parent: Option<String>,
        #[arg(long, default_value = "auto")]
        io: String,
    },
    /// An image restored to a file.
    Get {
        store: PathBuf,
        name: String,
        to: PathBuf,
        #[arg(long, default_value = "auto")]
        io: String,
    },
    /// An image streamed to nowhere.
    Stream { store: PathBuf, name: String },
    /// A store verified in full.
    Verify { store: PathBuf },
    /// An index of many chunks: opened, asked.
    Index { store: PathBuf, chunks: u64 },
    /// A large image and many children: opened, compared, deleted.
    Layers {
        store: PathBuf,
        blocks: u64,
        children: u64,
    },
    /// Everything marked.
    Mark { store: PathBuf },
}

impl Step {
    pub(crate) fn run(self) -> anyhow::Result<Measured> {
        match self {
            Self::Zstd { image, level } => zstd_limit(&image, level),
            Self::Blake3 { image } => blake3_limit(&image),
            Self::Decode { image, level } => decode_limit(&image, level),
            Self::Copy { image, to } => copy_limit(&image, &to),
            Self::Memcpy => memcpy_limit(),
            Self::Write { to } => write_limit(&to),
            Self::Collect { store } => collect_until_end_of_input(&store),
            Self::Init {
                store,
                level,
                plain,
            } => {
                let options = InitOptions {
                    zstd_level: level,
                    prefix_frames: !plain,
                    ..InitOptions::default()
                };
                Ok(measure(|| Ok(Engine::init(&store, BackendPreference::Auto, options)?))?.1)
            }
            Self::Put {
                store,
                name,
                image,
                parent,
                io,
            } => put(&store, &name, &image, parent.as_deref(), &io),
            Self::Optimize { store } => optimize(&store),
            Self::Delta { store, base, image } => delta(&store, &base, &image),
            Self::Get {
                store,
                name,
                to,
                io,
            } => get(&store, &name, &to, &io),
            Self::Stream { store, name } => stream(&store, &name),
            Self::Verify { store } => verify(&store),
            Self::Index { store, chunks } => scale::index(&store, chunks),
            Self::Layers {
                store,
                blocks,
                children,
            } => scale::layers(&store, blocks, children),
            Self::Mark { store } => scale::mark(&store),
        }
    }
}

const BLOCK: BlockSize = BlockSize::DEFAULT;

/// Returns where the data blocks of an image stand.
fn data_blocks(image: &Path) -> anyhow::Result<Vec<u64>> {
    let source = RawSource::open(image)?;
    let block = u64::from(BLOCK.bytes());
    let mut offsets: Vec<u64> = Vec::new();
    let mut next = 0;
    while let Some(data) = source.next_data(next)? {
        let first = (data.start / block * block).max(offsets.last().map_or(0, |last| last + block));
        offsets.extend((first..data.end).step_by(BLOCK.as_usize()));
        next = data.end;
    }
    Ok(offsets)
}

/// Reads the distinct non-zero blocks of an image into memory.
fn distinct_blocks(image: &Path) -> anyhow::Result<Vec<(ChunkId, Vec<u8>)>> {
    let file = File::open(image)?;
    let length = file.metadata()?.len();
    let mut seen = std::collections::HashSet::new();
    let mut blocks = Vec::new();
    for offset in data_blocks(image)? {
        let mut block = vec![0; BLOCK.as_usize()];
        let have = usize::try_from((length - offset).min(u64::from(BLOCK.bytes())))?;
        file.read_exact_at(block.get_mut(..have).context("a block")?, offset)?;
        let id = ChunkId::of(&block);
        if block.iter().any(|byte| *byte != 0) && seen.insert(id) {
            blocks.push((id, block));
        }
    }
    Ok(blocks)
}

fn zstd_limit(image: &Path, level: i32) -> anyhow::Result<Measured> {
    let blocks = distinct_blocks(image)?;
    let bytes = (blocks.len() * BLOCK.as_usize()) as u64;
    let (stored, measured) = measure(|| {
        Ok(blocks
            .par_iter()
            .map(|(id, block)| compress(*id, block, level).record.len() as u64)
            .sum())
    })?;
    Ok(measured.with("bytes", bytes).with("stored_bytes", stored))
}

fn blake3_limit(image: &Path) -> anyhow::Result<Measured> {
    let offsets = data_blocks(image)?;
    let file = File::open(image)?;
    let hash = |buffer: &mut Vec<u8>, offset: &u64| {
        buffer.resize(BLOCK.as_usize(), 0);
        file.read_at(buffer, *offset).map(|_| ChunkId::of(buffer))
    };
    let (hashed, measured) = measure(|| {
        Ok(offsets
            .par_iter()
            .map_init(Vec::new, hash)
            .filter(|id| id.is_ok())
            .count() as u64)
    })?;
    Ok(measured.with("bytes", hashed * u64::from(BLOCK.bytes())))
}

fn decode_limit(image: &Path, level: i32) -> anyhow::Result<Measured> {
    let chunks: Vec<_> = distinct_blocks(image)?
        .into_par_iter()
        .map(|(id, block)| (id, compress(id, &block, level).record))
        .collect();
    let decode = |block: &mut Vec<u8>, (id, record): &(ChunkId, tegula_io::Buffer)| {
        block.resize(BLOCK.as_usize(), 0);
        decode_record(record, id, block).is_ok()
    };
    let (sound, measured) = measure(|| {
        Ok(chunks
            .par_iter()
            .map_init(Vec::new, decode)
            .filter(|sound| *sound)
            .count() as u64)
    })?;
    anyhow::ensure!(sound == chunks.len() as u64, "a chunk did not decode");
    Ok(measured.with("bytes", sound * u64::from(BLOCK.bytes())))
}

fn copy_limit(image: &Path, to: &Path) -> anyhow::Result<Measured> {
    let bytes = (data_blocks(image)?.len() * BLOCK.as_usize()) as u64;
    let (status, measured) = measure(|| {
        let copied = std::process::Command::new("cp")
            .args(["--sparse=auto", "--reflink=never"])
            .arg(image)
            .arg(to)
            .status()?;
        File::open(to)?.sync_all()?;
        Ok(copied)
    })?;
    anyhow::ensure!(status.success(), "cp failed");
    fs::remove_file(to)?;
    Ok(measured.with("bytes", bytes))
}

fn memcpy_limit() -> anyhow::Result<Measured> {
    let from = vec![7u8; 256 << 20];
    let mut to = vec![1u8; from.len()];
    let (_, measured) = measure(|| {
        to.par_chunks_mut(1 << 20)
            .zip(from.par_chunks(1 << 20))
            .for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    })?;
    Ok(measured.with("bytes", to.len() as u64))
}

fn write_limit(to: &Path) -> anyhow::Result<Measured> {
    let piece = vec![7u8; 1 << 20];
    const PIECES: u64 = 512;
    let (_, measured) = measure(|| {
        let mut file = File::create(to)?;
        (0..PIECES).try_for_each(|_| file.write_all(&piece))?;
        Ok(file.sync_all()?)
    })?;
    fs::remove_file(to)?;
    Ok(measured.with("bytes", PIECES << 20))
}

fn collect_until_end_of_input(store: &Path) -> anyhow::Result<Measured> {
    // As `tegula gc` does.
    rustix::process::nice(10)?;
    let ended = AtomicBool::new(false);
    let (collections, measured) = measure(|| {
        let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What it says does not matter, nor whether it fails: there is no more to come.
                drop(std::io::stdin().read_to_end(&mut Vec::new()));
                ended.store(true, Ordering::Relaxed);
            });
            let mut collections = 0u64;
            while !ended.load(Ordering::Relaxed) {
                engine.collect(&CollectOptions {
                    patience: Duration::ZERO,
                    ..CollectOptions::default()
                })?;
                collections += 1;
            }
            Ok(collections)
        })
    })?;
    Ok(measured.with("collections", collections))
}

fn backend(io: &str) -> BackendPreference {
    match io {
        "blocking" => BackendPreference::Blocking,
        "uring" => BackendPreference::IoUring,
        _ => BackendPreference::Auto,
    }
}

fn name(text: &str) -> anyhow::Result<ImageName> {
    Ok(ImageName::parse(text)?)
}

fn put(
    store: &Path,
    image: &str,
    source: &Path,
    parent: Option<&str>,
    io: &str,
) -> anyhow::Result<Measured> {
    let parent = parent.map(name).transpose()?;
    let image = name(image)?;
    let (report, measured) = measure(|| {
        let (engine, _) = Engine::open(store, backend(io))?;
        let request = PutFile {
            name: image,
            path: source,
            parent,
            replace: false,
            format: Some(DiskFormat::Raw),
            snapshot: None,
        };
        Ok(engine.put_file(request, Task::unattended())?.report)
    })?;
    Ok(measured
        .with("read_bytes", report.read_bytes)
        .with("new_bytes", report.new_bytes)
        .with("stored_new_bytes", report.stored_new_bytes))
}

fn get(store: &Path, image: &str, to: &Path, io: &str) -> anyhow::Result<Measured> {
    let image = name(image)?;
    let (report, measured) = measure(|| {
        let (engine, _) = Engine::open(store, backend(io))?;
        Ok(engine.get(
            &image,
            Destination::File {
                path: to,
                force: true,
            },
            Task::unattended(),
        )?)
    })?;
    fs::remove_file(to)?;
    Ok(measured.with("bytes", report.written_bytes))
}

fn optimize(store: &Path) -> anyhow::Result<Measured> {
    let (_, measured) = measure(|| {
        let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
        Ok(engine.optimize(&OptimizeOptions::default(), Task::unattended())?)
    })?;
    Ok(measured.with("store_bytes", tree_bytes(store)?))
}

fn delta(store: &Path, base: &str, image: &str) -> anyhow::Result<Measured> {
    let (base, image) = (name(base)?, name(image)?);
    let mut counted = Counted(0);
    let (_, measured) = measure(|| {
        let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
        Ok(engine.create_delta(
            Some(&base),
            &image,
            Recompress::SameBlock,
            DeltaDestination::Stream(&mut counted),
            Task::unattended(),
        )?)
    })?;
    Ok(measured.with("bytes", counted.0))
}

/// Counts what is written to it.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the bytes of all files below a directory.
pub(crate) fn tree_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => tree_bytes(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

fn stream(store: &Path, image: &str) -> anyhow::Result<Measured> {
    let image = name(image)?;
    let (report, measured) = measure(|| {
        let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
        Ok(engine.get(
            &image,
            Destination::Stream(&mut std::io::sink()),
            Task::unattended(),
        )?)
    })?;
    Ok(measured.with("bytes", report.written_bytes))
}

fn verify(store: &Path) -> anyhow::Result<Measured> {
    let (verification, measured) = measure(|| {
        let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
        Ok(engine.verify(Depth::Full, &[], Task::unattended())?)
    })?;
    anyhow::ensure!(
        verification.findings.is_empty(),
        "the store is damaged: {:?}",
        verification.findings.first()
    );
    Ok(measured
        .with("chunks", verification.chunks)
        .with("bytes", verification.bytes))
}
