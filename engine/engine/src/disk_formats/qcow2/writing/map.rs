//! What each cluster of a new file's disk is to be.

use super::ClusterSize;
use tegula_format::{BlockIndex, BlockSet, BlockSize, Blocks};

/// Disks in QEMU are of whole sectors.
const SECTOR_BYTES: u64 = 512;

/// Which clusters of a disk hold data, and which read as zeros though the disk below may hold data there. All others are
/// unallocated.
#[derive(Debug)]
pub(crate) struct NewMap {
    pub(crate) cluster_size: ClusterSize,
    /// The disk's length in bytes, whole sectors.
    pub(crate) virtual_size: u64,
    /// Clusters by number.
    pub(crate) data: BlockSet,
    /// Clusters by number; none that holds data.
    pub(crate) zero: BlockSet,
}

impl NewMap {
    /// Returns the map of a whole disk.
    pub(crate) fn whole(
        cluster_size: ClusterSize,
        image_bytes: u64,
        block_size: BlockSize,
        data: &BlockSet,
    ) -> Self {
        let mut map = Self {
            cluster_size,
            virtual_size: image_bytes.next_multiple_of(SECTOR_BYTES),
            data: BlockSet::new(),
            zero: BlockSet::new(),
        };
        map.data = map.clusters_of(block_size, data.runs());
        map
    }

    /// Returns the map of a disk that holds only clusters in which some block is touched. Such a cluster is written
    /// whole, or as zeros if no block in it has data.
    pub(crate) fn overlay(self, block_size: BlockSize, touched: &BlockSet) -> Self {
        let touched = self.clusters_of(block_size, touched.runs());
        let Self { mut data, .. } = self;
        let mut zero = touched.clone();
        zero.subtract(&data);
        data.intersect_with(&touched);
        Self { data, zero, ..self }
    }

    fn clusters_of(&self, block_size: BlockSize, runs: impl Iterator<Item = Blocks>) -> BlockSet {
        let mut clusters = BlockSet::new();
        let bits = self.cluster_size.bits();
        for run in runs {
            let bytes = run.start << block_size.log2()
                ..(run.end << block_size.log2()).min(self.virtual_size);
            clusters
                .insert_range(bytes.start >> bits..bytes.end.div_ceil(self.cluster_size.bytes()));
        }
        clusters
    }

    /// Returns the blocks of the image that the file's data clusters are made of, if they have data.
    pub(crate) fn blocks(&self, block_size: BlockSize) -> BlockSet {
        let mut blocks = BlockSet::new();
        let bits = self.cluster_size.bits();
        for run in self.data.runs() {
            let bytes = run.start << bits..run.end << bits;
            let end = bytes.end.div_ceil(u64::from(block_size.bytes()));
            blocks.insert_range(bytes.start >> block_size.log2()..end);
        }
        blocks
    }

    /// Returns how many entries an L2 table has.
    pub(crate) const fn l2_entries(&self) -> u64 {
        self.cluster_size.bytes() / 8
    }

    /// Returns how many entries the L1 table has.
    pub(crate) const fn l1_entries(&self) -> u64 {
        self.virtual_size
            .div_ceil(self.cluster_size.bytes())
            .div_ceil(self.l2_entries())
    }

    /// Returns the entries of the L1 table that have an L2 table, by number.
    pub(crate) fn tables(&self) -> BlockSet {
        let mut tables = BlockSet::new();
        for run in self.data.runs().chain(self.zero.runs()) {
            tables.insert_range(run.start / self.l2_entries()..run.end.div_ceil(self.l2_entries()));
        }
        tables
    }

    /// Returns the clusters that the L2 table of an entry of the L1 table maps.
    pub(crate) fn clusters_in(&self, table: BlockIndex) -> Blocks {
        let first = u64::from(table.get()) * self.l2_entries();
        first..first + self.l2_entries()
    }
}
