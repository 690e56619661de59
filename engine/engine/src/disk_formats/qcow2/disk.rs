//! The disk in a qcow2 file, as a source of blocks.

use super::compressed::decompress;
use super::file::File;
use super::map::{Kind, Map, Piece};
use super::{Backing, Qcow2Error};
use crate::{BlockSource, Content, EngineError, SourceExtent};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use tegula_format::{BlockIndex, BlockSet};
use tegula_io::Buffer;

/// An extent ends here at the latest, so that looking for one takes bounded time.
const EXTENT_BYTES_MAX: u64 = 1 << 30;

/// A walk may pass over so much without asking: more than a block, whose extents are read together.
const PASSED_OVER_MAX: u64 = 8 << 20;

/// Decompressed clusters kept for reads of parts of them: at most 16 MiB.
const CLUSTERS_KEPT: usize = 8;

/// A disk in a qcow2 file: the active one or a snapshot's.
///
/// Walked in order with [`BlockSource::next_extent`], it makes sure that no cluster of the file is used twice: a small
/// file cannot pretend to hold a large disk.
#[derive(Debug)]
pub struct Qcow2Disk<'a> {
    file: File<'a>,
    map: Map,
    backing: Option<Backing>,
    used: Mutex<Used>,
    kept: [Mutex<Option<(u64, Buffer)>>; CLUSTERS_KEPT],
}

impl<'a> Qcow2Disk<'a> {
    pub(super) fn new(source: &'a dyn BlockSource, map: Map, backing: Option<Backing>) -> Self {
        Self {
            file: File::new(source),
            map,
            backing,
            used: Mutex::default(),
            kept: std::array::from_fn(|_| Mutex::new(None)),
        }
    }

    fn read(&self, mut rest: &mut [u8], mut at: u64) -> Result<(), Qcow2Error> {
        while !rest.is_empty() {
            let piece = self.map.piece(&self.file, at)?;
            let length = self.length_of_run(piece, at, rest.len())?;
            let (wanted, after) = rest.split_at_mut(length);
            match piece.kind {
                Kind::Unallocated if self.backing.is_some() => {
                    return Err(Qcow2Error::Inherited { guest: at });
                }
                Kind::Unallocated | Kind::Zero => wanted.fill(0),
                Kind::Data { host } => self.file.read_into(wanted, host)?,
                Kind::Compressed { host, bytes, guest } => {
                    self.read_compressed(wanted, at, (host, bytes, guest))?;
                }
            }
            (rest, at) = (after, at + length as u64);
        }
        Ok(())
    }

    /// Returns how far a piece goes, with pieces after it that stand behind it in the file: they are read as one.
    fn length_of_run(&self, piece: Piece, at: u64, limit: usize) -> Result<usize, Qcow2Error> {
        let limit_at = at.saturating_add(limit as u64);
        let mut end = piece.end;
        if let Kind::Data { host } = piece.kind {
            while end < limit_at {
                let next = self.map.piece(&self.file, end)?;
                match next.kind {
                    Kind::Data { host: next_host }
                        if next_host.checked_sub(host) == Some(end - at) =>
                    {
                        end = next.end
                    }
                    _ => break,
                }
            }
        }
        Ok(usize::try_from(end.min(limit_at) - at).expect("because it is no longer than a buffer"))
    }

    fn read_compressed(
        &self,
        wanted: &mut [u8],
        at: u64,
        (host, bytes, guest): (u64, u64, u64),
    ) -> Result<(), Qcow2Error> {
        let cluster_bytes = usize::try_from(self.map.geometry.cluster_bytes());
        let cluster_bytes = cluster_bytes.expect("because clusters have at most 2 MiB");
        if wanted.len() == cluster_bytes {
            return self.decompress(wanted, (host, bytes, guest));
        }
        // Others wait here who want another part of the same cluster.
        let slot =
            usize::try_from(guest >> self.map.geometry.cluster_bits).unwrap_or(0) % CLUSTERS_KEPT;
        let slot = self.kept.get(slot).expect("because it is a remainder");
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*kept, Some((of, _)) if *of == guest) {
            *kept = None;
            let mut cluster = Buffer::stale(cluster_bytes);
            self.decompress(&mut cluster, (host, bytes, guest))?;
            *kept = Some((guest, cluster));
        }
        let skip = usize::try_from(at - guest).expect("because clusters have at most 2 MiB");
        let part = kept
            .as_ref()
            .and_then(|(_, cluster)| cluster.get(skip..skip + wanted.len()));
        wanted.copy_from_slice(part.expect("because a piece ends with its cluster"));
        Ok(())
    }

    fn decompress(
        &self,
        cluster: &mut [u8],
        (host, bytes, guest): (u64, u64, u64),
    ) -> Result<(), Qcow2Error> {
        let compressed = self.file.read(host..host + bytes)?;
        decompress(self.map.geometry.compression, &compressed, cluster).map_err(|fault| {
            Qcow2Error::Compressed {
                guest,
                offset: host,
                fault,
            }
        })
    }

    /// Counts what a walk passed over, because it was read together with what it asked for.
    fn count_up_to(&self, end: u64) -> Result<(), Qcow2Error> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_over = end.saturating_sub(used.next);
        while passed_over <= PASSED_OVER_MAX && used.next < end.min(self.map.virtual_size) {
            let at = used.next;
            let piece = self.map.piece(&self.file, at)?;
            used.add(&self.map, self.file.bytes(), at, &piece)?;
        }
        Ok(())
    }

    fn extent(&self, from: u64) -> Result<Option<SourceExtent>, Qcow2Error> {
        self.count_up_to(from)?;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut extent: Option<SourceExtent> = None;
        let mut at = from;
        while at < self.map.virtual_size {
            let piece = self.map.piece(&self.file, at)?;
            used.add(&self.map, self.file.bytes(), at, &piece)?;
            let content = match piece.kind {
                Kind::Zero => None,
                Kind::Unallocated => self.backing.as_ref().map(|_| Content::Inherited),
                Kind::Data { .. } | Kind::Compressed { .. } => Some(Content::Data),
            };
            match (&mut extent, content) {
                (None, Some(content)) => {
                    let range = at..piece.end;
                    extent = Some(SourceExtent { range, content });
                }
                (Some(extent), Some(content)) if extent.content == content => {
                    extent.range.end = piece.end;
                }
                (None, None) => {}
                (Some(_), _) => break,
            }
            if extent
                .as_ref()
                .is_some_and(|extent| extent.range.end - extent.range.start >= EXTENT_BYTES_MAX)
            {
                break;
            }
            at = piece.end;
        }
        Ok(extent)
    }
}

impl BlockSource for Qcow2Disk<'_> {
    fn name(&self) -> &str {
        self.file.source().name()
    }

    fn bytes(&self) -> u64 {
        self.map.virtual_size
    }

    fn overlay_of(&self) -> Option<&str> {
        self.backing.as_ref().map(|backing| backing.name.as_str())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.map.virtual_size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.read(buffer, offset)?)
    }

    fn next_extent(&self, from: u64) -> io::Result<Option<SourceExtent>> {
        Ok(self.extent(from)?)
    }

    fn check_unchanged(&self) -> Result<(), EngineError> {
        let counted = self.count_up_to(self.map.virtual_size);
        counted.map_err(|source| EngineError::Qcow2 {
            name: self.name().to_owned(),
            source,
        })?;
        self.file.source().check_unchanged()
    }
}

/// Which clusters of the file are used by the disk up to some byte of it.
#[derive(Debug, Default)]
struct Used {
    /// Everything before was counted.
    next: u64,
    /// The L2 table counted last.
    l2: Option<u64>,
    /// Clusters by number, the upper half as the key.
    clusters: BTreeMap<u64, BlockSet>,
    /// The data cluster counted last: its subclusters come in several pieces.
    last: Option<(u64, u64)>,
    /// Bytes that the compressed clusters have at least.
    compressed_bytes: u64,
}

impl Used {
    /// Counts a piece that begins at `at`, unless it was counted.
    fn add(
        &mut self,
        map: &Map,
        file_bytes: u64,
        at: u64,
        piece: &Piece,
    ) -> Result<(), Qcow2Error> {
        if at < self.next {
            return Ok(());
        }
        self.next = piece.end;
        let bits = map.geometry.cluster_bits;
        if let Some(l2) = piece
            .l2
            .filter(|l2| self.l2 != Some(*l2) || at.is_multiple_of(map.geometry.l2_reach()))
        {
            self.l2 = Some(l2);
            self.insert(l2 >> bits, bits, at)?;
        }
        match piece.kind {
            Kind::Unallocated | Kind::Zero => {}
            Kind::Data { host } => {
                let cluster = (host >> bits, at >> bits);
                if self.last != Some(cluster) {
                    self.last = Some(cluster);
                    self.insert(cluster.0, bits, at)?;
                }
            }
            Kind::Compressed { bytes, .. } => {
                // It ends somewhere in its last sector; nothing decompresses to a cluster that is shorter than this.
                self.compressed_bytes += bytes.saturating_sub(511).max(8);
                if self.compressed_bytes > file_bytes {
                    return Err(Qcow2Error::OverlappingCompressed { guest: at });
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, cluster: u64, bits: u32, guest: u64) -> Result<(), Qcow2Error> {
        let low = u32::try_from(cluster & 0xffff_ffff).expect("because it was cut to 32 bits");
        let block = BlockIndex::new(low);
        let clusters = self.clusters.entry(cluster >> 32).or_default();
        if clusters.contains(block) {
            return Err(Qcow2Error::UsedTwice {
                offset: cluster << bits,
                guest,
            });
        }
        clusters.insert(block);
        Ok(())
    }
}
