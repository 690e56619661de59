//! Getting an image out as a qcow2 file, whole or as what differs from another image.

use crate::diff::diff;
use crate::disk_formats::qcow2::{
    Appender, Compressing, Compression, Head, Layout, NewMap, Qcow2Options, Qcow2WriteError,
};
use crate::get::{
    InOrder, check_destination, in_order, is_block_device, output_error, publish, write_blocks,
    write_error,
};
use crate::{Destination, EngineError, GetReport, OpenImage, Task, Workers};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;
use tegula_format::{BlockIndex, BlockSet, BlockSize, Blocks};
use tegula_io::{Buffer, TargetFile};

/// Bytes of zeros written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An L2 entry that names a compressed cluster, and one whose cluster may be written where it stands.
const COMPRESSED: u64 = 1 << 62;
const COPIED: u64 = 1 << 63;
const ZERO: u64 = 1;

/// Gets an image out as qcow2; over `base`, only what differs from it.
pub(crate) fn get(
    image: &OpenImage<'_>,
    base: Option<&OpenImage<'_>>,
    workers: Workers,
    destination: Destination<'_>,
    options: &Qcow2Options<'_>,
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    let file = File {
        image,
        map: new_map(image, base, options)?,
        workers,
        options,
        task,
    };
    match destination {
        Destination::InPlace { .. } => Err(Qcow2WriteError::NotInPlace {
            what: "what is there",
        }
        .into()),
        Destination::File { path, force } => file.write_to_file(path, force),
        Destination::Stream(_) if options.compression.is_some() => {
            Err(Qcow2WriteError::NotInOrder.into())
        }
        Destination::Stream(out) => file.write_in_order(out),
    }
}

fn new_map(
    image: &OpenImage<'_>,
    base: Option<&OpenImage<'_>>,
    options: &Qcow2Options<'_>,
) -> Result<NewMap, EngineError> {
    let record = image.record();
    let data = image.stack().data();
    let map = NewMap::whole(
        options.cluster_size,
        record.virtual_size,
        record.block_size,
        &data,
    );
    let Some(base) = base else { return Ok(map) };
    let mut touched = BlockSet::new();
    for extent in diff(base, image)?.extents {
        let end = (extent.offset + extent.length).div_ceil(u64::from(record.block_size.bytes()));
        touched.insert_range(extent.offset >> record.block_size.log2()..end);
    }
    Ok(map.overlay(record.block_size, &touched))
}

/// A qcow2 file to be written.
struct File<'a> {
    image: &'a OpenImage<'a>,
    map: NewMap,
    workers: Workers,
    options: &'a Qcow2Options<'a>,
    task: Task<'a>,
}

impl File<'_> {
    fn block_size(&self) -> BlockSize {
        self.image.record().block_size
    }

    /// Returns the blocks that are read.
    fn wanted(&self) -> BlockSet {
        let mut wanted = self.image.stack().data();
        wanted.intersect_with(&self.map.blocks(self.block_size()));
        wanted
    }

    fn write_to_file(self, path: &Path, force: bool) -> Result<GetReport, EngineError> {
        if std::fs::metadata(path).is_ok_and(|metadata| is_block_device(&metadata)) {
            return Err(Qcow2WriteError::NotInPlace {
                what: "a block device",
            }
            .into());
        }
        check_destination(path, force)?;
        let (target, task) = (TargetFile::create_beside(path)?, self.task);
        let report = match self.options.compression {
            None => self.write_plain(&target, path)?,
            Some(compression) => self.write_compressed(&target, path, compression)?,
        };
        publish(target, path, force, task)?;
        Ok(report)
    }

    fn write_plain(self, target: &TargetFile, path: &Path) -> Result<GetReport, EngineError> {
        let wanted = self.wanted();
        let block_size = self.block_size();
        let layout = Layout::new(self.map, self.options)?;
        target
            .set_len(layout.file_bytes())
            .map_err(write_error(path))?;
        let mut at = 0;
        layout.write_head(|bytes| {
            let written = target.write_at(bytes, at);
            at += bytes.len() as u64;
            written.map_err(write_error(path))
        })?;
        let write = |block: BlockIndex, bytes: &[u8]| {
            let (place, bytes) = place(&layout, block, block_size, bytes);
            target.write_at(bytes, place).map_err(write_error(path))?;
            Ok(bytes.len() as u64)
        };
        write_blocks(self.image, self.workers, &wanted, write, self.task)
    }

    /// Writes from the first byte to the last.
    fn write_in_order(self, out: &mut (dyn Write + Send)) -> Result<GetReport, EngineError> {
        let wanted = self.wanted();
        let block_size = self.block_size();
        let layout = Layout::new(self.map, self.options)?;
        layout.write_head(|bytes| out.write_all(bytes).map_err(output_error))?;
        let (mut at, mut written) = (layout.data_offset(), 0);
        let plan = InOrder::of_all(self.image, &wanted, 1);
        let take = |decoded: Vec<(BlockIndex, Buffer)>| {
            for (block, bytes) in &decoded {
                let (place, bytes) = place(&layout, *block, block_size, bytes);
                write_zeros(out, place - at)?;
                out.write_all(bytes).map_err(output_error)?;
                at = place + bytes.len() as u64;
                written += bytes.len() as u64;
            }
            Ok(())
        };
        let report = in_order(
            self.image,
            self.workers,
            plan,
            |_, decoded| decoded,
            take,
            self.task,
        )?;
        write_zeros(out, layout.file_bytes() - at)?;
        out.flush().map_err(output_error)?;
        Ok(GetReport {
            written_bytes: written,
            ..report
        })
    }

    fn write_compressed(
        self,
        target: &TargetFile,
        path: &Path,
        compression: Compression,
    ) -> Result<GetReport, EngineError> {
        let wanted = self.wanted();
        let failed = |source: io::Error| write_error(path)(source);
        let cluster = self.options.cluster_size.bytes();
        let mut head = Head::new(&self.map, self.options)?;
        let mut appender = Appender::new(target, self.options.cluster_size);
        appender.reserve(1).map_err(failed)?;
        let l1_entries = self.map.l1_entries();
        let l1 = appender
            .reserve((l1_entries * 8).div_ceil(cluster))
            .map_err(failed)?;
        let tables = self.map.tables();
        let l2 = appender.reserve(tables.len()).map_err(failed)?;
        let group = (cluster >> self.block_size().log2()).max(1);
        let plan = InOrder::of_all(self.image, &wanted, group);
        let clusters = |_: Blocks, decoded| {
            compressed_clusters(compression, &self.map, self.block_size(), decoded)
        };
        let mut writer = TableWriter {
            target,
            map: &self.map,
            pending: tables
                .iter()
                .zip((l2..).step_by(self.options.cluster_size.as_usize()))
                .collect(),
            entries: Vec::new(),
            has_backing: self.options.backing.is_some(),
        };
        let mut written = 0;
        let take = |clusters: Vec<(u64, Compressing)>| {
            for (number, cluster) in clusters {
                written += writer
                    .add(&mut appender, number, &cluster)
                    .map_err(failed)?;
            }
            Ok(())
        };
        let report = in_order(self.image, self.workers, plan, clusters, take, self.task)?;
        writer.finish().map_err(failed)?;
        let l1_table = l1_table(&tables, l1_entries, l2, cluster);
        target.write_at(&l1_table, l1).map_err(failed)?;
        let (offset, count) = appender.finish().map_err(failed)?;
        head.set_l1(l1, l1_entries);
        head.set_refcounts(&self.map, offset, count)?;
        target.write_at(head.bytes(), 0).map_err(failed)?;
        Ok(GetReport {
            written_bytes: written,
            ..report
        })
    }
}

fn l1_table(tables: &BlockSet, entries: u64, l2: u64, cluster: u64) -> Vec<u8> {
    let mut table =
        vec![0; usize::try_from(entries * 8).expect("because the disk's length has a limit")];
    for (index, offset) in tables
        .iter()
        .zip((0..).map(|rank: u64| l2 + rank * cluster))
    {
        crate::disk_formats::qcow2::set_entry(&mut table, u64::from(index.get()), COPIED | offset);
    }
    table
}

/// Returns where a block goes, and as much of it as the disk has.
fn place<'b>(
    layout: &Layout,
    block: BlockIndex,
    block_size: BlockSize,
    bytes: &'b [u8],
) -> (u64, &'b [u8]) {
    let offset = block.byte_offset(block_size);
    let rest =
        usize::try_from(layout.map().virtual_size.saturating_sub(offset)).unwrap_or(usize::MAX);
    (
        layout.place(offset),
        bytes.get(..rest.min(bytes.len())).unwrap_or_default(),
    )
}

fn write_zeros(out: &mut (dyn Write + Send), mut bytes: u64) -> Result<(), EngineError> {
    while bytes > 0 {
        let length = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(ZEROS.len());
        out.write_all(ZEROS.get(..length).unwrap_or(&ZEROS))
            .map_err(output_error)?;
        bytes -= length as u64;
    }
    Ok(())
}

/// Makes compressed clusters of consecutive blocks; what lies between them reads as zeros.
fn compressed_clusters(
    compression: Compression,
    map: &NewMap,
    block_size: BlockSize,
    decoded: Vec<(BlockIndex, Buffer)>,
) -> Vec<(u64, Compressing)> {
    let size = map.cluster_size;
    let mut clusters: Vec<(u64, Buffer)> = Vec::new();
    for (block, bytes) in decoded {
        let offset = block.byte_offset(block_size);
        let step = bytes.len().min(size.as_usize());
        for (piece, at) in bytes.chunks(step).zip((offset..).step_by(step)) {
            if at >= map.virtual_size {
                break;
            }
            let number = at >> size.bits();
            if !matches!(clusters.last(), Some((last, _)) if *last == number) {
                clusters.push((number, Buffer::zeroed(size.as_usize())));
            }
            let (_, cluster) = clusters.last_mut().expect("because it was just added");
            let skip =
                usize::try_from(at - (number << size.bits())).expect("because clusters are short");
            let place = cluster.get_mut(skip..skip + piece.len());
            place
                .expect("because blocks and clusters are powers of two")
                .copy_from_slice(piece);
        }
    }
    clusters
        .into_iter()
        .map(|(number, cluster)| (number, Compressing::of(compression, cluster, size)))
        .collect()
}

/// Writes L2 tables as the clusters that they map come by, in order.
struct TableWriter<'a> {
    target: &'a TargetFile,
    map: &'a NewMap,
    /// The tables that are still to be written, and where.
    pending: VecDeque<(BlockIndex, u64)>,
    /// The first one's entries, if any was set.
    entries: Vec<u8>,
    has_backing: bool,
}

impl TableWriter<'_> {
    /// Stores a cluster. Returns how many bytes it took.
    fn add(
        &mut self,
        appender: &mut Appender<'_>,
        number: u64,
        cluster: &Compressing,
    ) -> io::Result<u64> {
        let is_past = |(table, _): &(BlockIndex, u64)| number >= self.map.clusters_in(*table).end;
        while self.pending.front().is_some_and(is_past) {
            self.write_table()?;
        }
        let (entry, length) = match cluster {
            // Without anything below, what is not there reads as zeros too.
            Compressing::Zero => (if self.has_backing { ZERO } else { 0 }, 0),
            Compressing::Plain(bytes) => {
                (COPIED | appender.store_cluster(bytes)?, bytes.len() as u64)
            }
            Compressing::Compressed(bytes) => {
                let length = bytes.len() as u64;
                (
                    self.compressed_entry(appender.store_bytes(bytes)?, length)?,
                    length,
                )
            }
        };
        self.set(number, entry);
        Ok(length)
    }

    fn compressed_entry(&self, offset: u64, length: u64) -> io::Result<u64> {
        let shift = 62 - (self.map.cluster_size.bits() - 8);
        if offset >> shift.min(56) != 0 {
            let message =
                "a compressed cluster would stand further back than its place can be told";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let more_sectors = ((offset + length - 1) >> 9) - (offset >> 9);
        Ok(COMPRESSED | more_sectors << shift | offset)
    }

    fn set(&mut self, number: u64, entry: u64) {
        let (table, _) = self
            .pending
            .front()
            .expect("because every data cluster has a table");
        let first = self.map.clusters_in(*table).start;
        self.entries.resize(self.map.cluster_size.as_usize(), 0);
        crate::disk_formats::qcow2::set_entry(&mut self.entries, number - first, entry);
    }

    fn write_table(&mut self) -> io::Result<()> {
        let Some((table, offset)) = self.pending.front().copied() else {
            return Ok(());
        };
        self.entries.resize(self.map.cluster_size.as_usize(), 0);
        for cluster in self.map.zero.iter_in(self.map.clusters_in(table)) {
            self.set(u64::from(cluster.get()), ZERO);
        }
        self.target.write_at(&self.entries, offset)?;
        self.entries.clear();
        self.pending.pop_front();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            self.write_table()?;
        }
        Ok(())
    }
}
