//! Large synthetic stores: many chunks that are in no segment, large images, many layers.

use crate::measure::{Measured, measure};
use anyhow::Context;
use rayon::prelude::*;
use std::fs;
use std::path::Path;
use tegula_engine::{BackendPreference, CollectOptions, Engine, ImageName};
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, Hex, Place, RunBuilder, RunRow, SegmentNumber, Slot,
};
use tegula_store::{Ingest, LayerStack, NewImage, Session};

/// Chunks in one synthetic segment, as many as 64 KiB chunks of ordinary images make.
const CHUNKS_PER_SEGMENT: u64 = 1500;

/// Lookups that are timed.
const LOOKUPS: u64 = 2_000_000;

/// The id of synthetic chunk `n`.
fn id(n: u64) -> ChunkId {
    ChunkId::of(&n.to_le_bytes())
}

fn row(n: u64) -> anyhow::Result<RunRow> {
    let segment = SegmentNumber::new(u32::try_from(n / CHUNKS_PER_SEGMENT + 1)?);
    let slot = Slot::new(u16::try_from(n % CHUNKS_PER_SEGMENT)?);
    let offset = u32::try_from(n % CHUNKS_PER_SEGMENT * 40_000 + 73)?;
    Ok(RunRow {
        id: id(n),
        place: Place { segment, slot },
        offset,
        stored_length: 39_000,
        bases: 0,
    })
}

/// Makes an index of that many chunks, then measures opening it and asking it.
pub(crate) fn index(store: &Path, chunks: u64) -> anyhow::Result<Measured> {
    if fs::read_dir(store.join("index"))?.next().is_none() {
        make_index(store, chunks)?;
    }
    let before = measure(|| Ok(()))?.1.anonymous_mib;
    let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
    let (session, opened) = measure(|| {
        let session = engine.store().begin()?;
        session.index()?;
        Ok(session)
    })?;
    let index = session.index()?;
    let wanted: Vec<ChunkId> = (0..LOOKUPS)
        .into_par_iter()
        .map(|n| id(n.wrapping_mul(0x9e37_79b9) % chunks))
        .collect();
    let absent: Vec<ChunkId> = (0..LOOKUPS)
        .into_par_iter()
        .map(|n| id(n + (1 << 40)))
        .collect();
    let held = measure(|| Ok(()))?.1.anonymous_mib;
    let (found, present) = measure(|| {
        Ok(wanted
            .iter()
            .filter(|id| index.lookup(id).is_some())
            .count())
    })?;
    anyhow::ensure!(found == wanted.len(), "{found} of {} found", wanted.len());
    let (found, missing) = measure(|| {
        Ok(absent
            .iter()
            .filter(|id| index.lookup(id).is_some())
            .count())
    })?;
    anyhow::ensure!(found == 0, "{found} found that are not there");
    let mut measured = opened.with("chunks", chunks);
    let own = (LOOKUPS * 64) as f64 / f64::from(1 << 20);
    measured
        .counts
        .insert("open_ms".to_owned(), measured.wall_s * 1000.0);
    measured.counts.insert(
        "hits_per_s".to_owned(),
        LOOKUPS as f64 / present.cpu_s.max(0.01),
    );
    measured.counts.insert(
        "misses_per_s".to_owned(),
        LOOKUPS as f64 / missing.cpu_s.max(0.01),
    );
    measured.counts.insert(
        "bytes_per_chunk".to_owned(),
        (held - before - own).max(0.0) * f64::from(1 << 20) / chunks as f64,
    );
    Ok(measured)
}

fn make_index(store: &Path, chunks: u64) -> anyhow::Result<()> {
    let mut rows: Vec<RunRow> = (0..chunks)
        .into_par_iter()
        .map(row)
        .collect::<anyhow::Result<_>>()?;
    rows.par_sort_unstable();
    let segments = 1..=u32::try_from(chunks.div_ceil(CHUNKS_PER_SEGMENT))?;
    for number in segments.clone() {
        fs::File::create(
            store
                .join("segments")
                .join(format!("{}.seg", SegmentNumber::new(number))),
        )?;
    }
    let mut builder = RunBuilder::new(chunks, segments.map(SegmentNumber::new));
    rows.iter().for_each(|row| builder.push(row));
    let mut file = fs::File::create(store.join("index").join(format!("{}.run", Hex(&[7; 16]))))?;
    std::io::Write::write_all(&mut file, &builder.head())?;
    for batch in rows.chunks(1 << 14) {
        let bytes: Vec<u8> = batch.iter().flat_map(|row| row.encode()).collect();
        std::io::Write::write_all(&mut file, &bytes)?;
    }
    Ok(())
}

/// Makes an image of that many blocks and a chain of children with 1 % random changes each, then measures what people
/// do with such images.
pub(crate) fn layers(store: &Path, blocks: u64, children: u64) -> anyhow::Result<Measured> {
    let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
    if engine.list()?.is_empty() {
        make_layers(&engine, blocks, children)?;
    }
    let newest = name(children)?;
    let before = name(children - 1)?;
    let (rows, opened) = measure(|| {
        let session = engine.store().begin()?;
        Ok(LayerStack::open(&session, &session.image(&newest)?.layer)?
            .parts()
            .rows)
    })?;
    let (diff, diffed) = measure(|| Ok(engine.diff(&before, &newest)?))?;
    let (_, renamed) = measure(|| {
        Ok(engine
            .store()
            .rename(&newest, &ImageName::parse("renamed")?)?)
    })?;
    engine
        .store()
        .rename(&ImageName::parse("renamed")?, &newest)?;
    let (_, coalesced) = measure(|| Ok(engine.store().flatten(&before, false)?))?;
    let (_, removed) = measure(|| Ok(engine.store().remove(&before)?))?;
    let mut measured = opened
        .clone()
        .with("rows", rows)
        .with("extents", diff.extents.len() as u64);
    for (label, part) in [
        ("open_ms", opened),
        ("diff_ms", diffed),
        ("rename_ms", renamed),
        ("coalesce_ms", coalesced),
        ("delete_ms", removed),
    ] {
        measured
            .counts
            .insert(label.to_owned(), part.wall_s * 1000.0);
        measured.peak_mib = measured.peak_mib.max(part.peak_mib);
    }
    Ok(measured)
}

pub(crate) fn name(n: u64) -> anyhow::Result<ImageName> {
    Ok(ImageName::parse(&format!("image-{n:04}"))?)
}

fn make_layers(engine: &Engine, blocks: u64, children: u64) -> anyhow::Result<()> {
    (0..=children).try_for_each(|child| make_child(engine, blocks, child))
}

/// Publishes image number `child` of a chain: the first one sets all its blocks, each other a hundredth of them, at
/// random, over the one before.
pub(crate) fn make_child(engine: &Engine, blocks: u64, child: u64) -> anyhow::Result<()> {
    let session: Session = engine.store().begin()?;
    let ingest = Ingest::begin(&session)?;
    let mut ids = ingest.id_table();
    let mut data = BlockSet::new();
    let base = match child {
        0 => {
            data.insert_range(0..blocks);
            (0..blocks).try_for_each(|n| ids.push(&id(n)))?;
            None
        }
        _ => {
            let mut state = child;
            data = (0..blocks / 100)
                .map(|_| Ok(BlockIndex::new(u32::try_from(random(&mut state) % blocks)?)))
                .collect::<anyhow::Result<_>>()?;
            (0..data.len()).try_for_each(|n| ids.push(&id(n + (child << 32))))?;
            let parent = session.image(&name(child - 1)?)?;
            Some(LayerStack::open(&session, &parent.layer)?)
        }
    };
    let image = NewImage {
        name: name(child)?,
        replace: false,
        virtual_size: blocks << BlockSize::DEFAULT.log2(),
        parent: None,
        base: base.as_ref(),
        data,
        zero: BlockSet::new(),
    };
    ingest
        .finish(image, ids)
        .context("publishing a synthetic image")?;
    Ok(())
}

/// SplitMix64: the same numbers for the same seed.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Measures marking everything that images need, by a collection that only tells.
pub(crate) fn mark(store: &Path) -> anyhow::Result<Measured> {
    let (engine, _) = Engine::open(store, BackendPreference::Auto)?;
    let options = CollectOptions {
        dry_run: true,
        ..CollectOptions::default()
    };
    Ok(measure(|| Ok(engine.collect(&options)?))?.1)
}
