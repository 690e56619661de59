//! From a byte of the disk to a place in the file: the L1 table, the L2 tables, and what their entries mean.

use super::Qcow2Error;
use super::file::File;
use super::header::{Geometry, Table, check_apart};
use std::ops::Range;

/// Entries of an L1 table and of an L2 table hold an offset in bits 9 to 55.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
pub(super) const COPIED: u64 = 1 << 63;
pub(super) const COMPRESSED: u64 = 1 << 62;
pub(super) const ZERO: u64 = 1;

/// Subclusters of a cluster, if there are any.
const SUBCLUSTERS: u32 = 32;

/// What a stretch of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The backing file's bytes, or zeros if there is none.
    Unallocated,
    /// Zeros.
    Zero,
    /// Bytes that stand in the file as they are.
    Data {
        /// Where the first of them stands.
        host: u64,
    },
    /// A compressed cluster.
    Compressed {
        /// Where it stands.
        host: u64,
        /// Bytes that it has at most: it ends somewhere in the last sector.
        bytes: u64,
        /// The disk's offset of the cluster's first byte.
        guest: u64,
    },
}

/// A stretch of the disk that is of one kind, within one cluster unless it is unallocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) end: u64,
    pub(super) kind: Kind,
    /// Where the L2 table stands that says so.
    pub(super) l2: Option<u64>,
}

/// The map of a disk: of the active one, or of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub(super) geometry: Geometry,
    pub(super) virtual_size: u64,
    pub(super) l1: Table,
    /// Where nothing of the disk can stand.
    pub(super) metadata: Vec<(Range<u64>, &'static str)>,
}

impl Map {
    /// Returns what the disk is from `at` on, which must lie in the disk.
    pub(super) fn piece(&self, file: &File<'_>, at: u64) -> Result<Piece, Qcow2Error> {
        let geometry = &self.geometry;
        let l1_index = at / geometry.l2_reach();
        let l2_start = l1_index * geometry.l2_reach();
        let l1 = file.entries("the L1 table", self.l1, l1_index)?;
        let l1_entry = l1
            .get(l1_index)
            .expect("because the table was checked to reach so far");
        let Some(table) = self.l2_table(file, l1_entry, l2_start)? else {
            let end = (l2_start.saturating_add(geometry.l2_reach())).min(self.virtual_size);
            return Ok(Piece {
                end,
                kind: Kind::Unallocated,
                l2: None,
            });
        };
        let l2_index = (at - l2_start) >> geometry.cluster_bits;
        let guest = l2_start + (l2_index << geometry.cluster_bits);
        let (entry, subclusters) = self.l2_entry(file, table, l2_index)?;
        let cluster = Cluster {
            map: self,
            file,
            guest,
            entry,
        };
        let (end, kind) = cluster.kind(subclusters, at)?;
        let end = end.min(self.virtual_size);
        Ok(Piece {
            end,
            kind,
            l2: Some(table.offset),
        })
    }

    fn l2_table(
        &self,
        file: &File<'_>,
        entry: u64,
        guest: u64,
    ) -> Result<Option<Table>, Qcow2Error> {
        let what = "the L1 entry";
        if entry & L1_RESERVED != 0 {
            let fault = "reserved bits are set";
            return Err(Qcow2Error::Entry {
                what,
                guest,
                entry,
                fault,
            });
        }
        let offset = entry & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        let what = "an L2 table";
        if !self.geometry.is_aligned(offset) {
            return Err(Qcow2Error::Unaligned { what, offset });
        }
        let entries = self.geometry.cluster_bytes() / 8;
        let range = file.check(what, offset, entries * 8)?;
        check_apart(&self.metadata, what, &range)?;
        Ok(Some(Table { offset, entries }))
    }

    fn l2_entry(
        &self,
        file: &File<'_>,
        table: Table,
        index: u64,
    ) -> Result<(u64, u64), Qcow2Error> {
        const WHAT: &str = "an L2 table";
        let because = "because an index is below the number of entries";
        if !self.geometry.extended_l2 {
            let entries = file.entries(WHAT, table, index)?;
            return Ok((entries.get(index).expect(because), 0));
        }
        // Pages have an even number of entries: both halves are in the same one.
        let entries = file.entries(WHAT, table, index * 2)?;
        let entry = entries.get(index * 2).expect(because);
        let subclusters = entries.get(index * 2 + 1).expect(because);
        Ok((entry, subclusters))
    }
}

/// An L2 entry, about to be understood.
struct Cluster<'a> {
    map: &'a Map,
    file: &'a File<'a>,
    guest: u64,
    entry: u64,
}

impl Cluster<'_> {
    fn fault<T>(&self, fault: &'static str) -> Result<T, Qcow2Error> {
        let (what, guest, entry) = ("the L2 entry", self.guest, self.entry);
        Err(Qcow2Error::Entry {
            what,
            guest,
            entry,
            fault,
        })
    }

    /// Returns what the cluster is from `at` on, and how far.
    fn kind(&self, subclusters: u64, at: u64) -> Result<(u64, Kind), Qcow2Error> {
        let geometry = &self.map.geometry;
        let end = self.guest + geometry.cluster_bytes();
        if self.entry & COMPRESSED != 0 {
            if subclusters != 0 {
                return self.fault("it is compressed, and has subclusters");
            }
            return Ok((end, self.compressed()?));
        }
        if self.entry & L2_RESERVED != 0 {
            return self.fault("reserved bits are set");
        }
        if geometry.extended_l2 {
            return self.subcluster(subclusters, at);
        }
        let host = self.host()?;
        if self.entry & ZERO != 0 {
            return match geometry.version {
                2 => self.fault("a zero cluster, which version 2 does not have"),
                _ => Ok((end, Kind::Zero)),
            };
        }
        let Some(host) = host else {
            return Ok((end, Kind::Unallocated));
        };
        self.data(host, at, end)
    }

    /// Returns where the cluster stands, if it stands anywhere.
    fn host(&self) -> Result<Option<u64>, Qcow2Error> {
        let offset = self.entry & OFFSET;
        if offset == 0 {
            return match self.entry & COPIED {
                0 => Ok(None),
                _ => self.fault("it stands at the beginning of the file"),
            };
        }
        match self.map.geometry.is_aligned(offset) {
            true => Ok(Some(offset)),
            false => Err(Qcow2Error::Unaligned {
                what: "a data cluster",
                offset,
            }),
        }
    }

    /// Data from `at` to `end`, of a cluster at `host`. As much of it as the disk has must be in the file.
    fn data(&self, host: u64, at: u64, end: u64) -> Result<(u64, Kind), Qcow2Error> {
        let what = "a data cluster";
        let here = host.saturating_add(at - self.guest);
        let range = self
            .file
            .check(what, here, end.min(self.map.virtual_size) - at)?;
        check_apart(&self.map.metadata, what, &range)?;
        Ok((end, Kind::Data { host: here }))
    }

    /// Returns what the subcluster at `at` is, with those after it that are the same.
    fn subcluster(&self, bitmap: u64, at: u64) -> Result<(u64, Kind), Qcow2Error> {
        if self.entry & ZERO != 0 {
            return self.fault("a zero cluster where there are subclusters");
        }
        let (allocated, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
        if allocated & zero != 0 {
            return self.fault("a subcluster is allocated and zero at once");
        }
        let host = self.host()?;
        if host.is_none() && allocated != 0 {
            return self.fault("a subcluster is allocated in a cluster that is not");
        }
        let bits = self.map.geometry.cluster_bits - SUBCLUSTERS.ilog2();
        let state = |index: u64| (allocated >> index & 1, zero >> index & 1);
        let first = (at - self.guest) >> bits;
        let last = (first..u64::from(SUBCLUSTERS))
            .take_while(|index| state(*index) == state(first))
            .last()
            .unwrap_or(first);
        let end = self.guest + ((last + 1) << bits);
        match (state(first), host) {
            ((1, _), Some(host)) => self.data(host, at, end),
            ((_, 1), _) => Ok((end, Kind::Zero)),
            _ => Ok((end, Kind::Unallocated)),
        }
    }

    fn compressed(&self) -> Result<Kind, Qcow2Error> {
        if self.entry & COPIED != 0 {
            return self.fault("it is compressed, and not to be copied");
        }
        let offset_bits = 62 - (self.map.geometry.cluster_bits - 8);
        let descriptor = self.entry & (COMPRESSED - 1);
        let host = descriptor & ((1 << offset_bits) - 1);
        if host >> 56 != 0 {
            return self.fault("reserved bits are set");
        }
        let sectors = (descriptor >> offset_bits) + 1;
        let end = ((host >> 9) + sectors) << 9;
        let what = "a compressed cluster";
        // The last sector may be cut off where the file ends.
        let range = self.file.check(what, host, 1)?.start..end.min(self.file.bytes());
        check_apart(&self.map.metadata, what, &range)?;
        Ok(Kind::Compressed {
            host,
            bytes: range.end - range.start,
            guest: self.guest,
        })
    }
}
