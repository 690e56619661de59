//! A file whose data are not compressed: everything has its place before anything is written.
//!
//! The header, the refcount table and its blocks, the L1 table, the L2 tables, then the data in the order of the disk.

use super::super::map::{COPIED, ZERO};
use super::super::numbers::{push_u16s, push_u64s};
use super::{Head, NewMap, Qcow2Options, Qcow2WriteError};
use tegula_format::BlockIndex;
use tegula_format::BlockSet;

#[derive(Debug)]
pub(crate) struct Layout {
    map: NewMap,
    head: Head,
    tables: BlockSet,
    refcount_table_clusters: u64,
    refcount_blocks: u64,
    l1_clusters: u64,
    /// The first cluster of data.
    data: u64,
    clusters: u64,
}

impl Layout {
    /// Gives everything its place.
    ///
    /// # Errors
    /// [`Qcow2WriteError`] if it cannot be.
    pub(crate) fn new(map: NewMap, options: &Qcow2Options<'_>) -> Result<Self, Qcow2WriteError> {
        let mut head = Head::new(&map, options)?;
        let cluster = map.cluster_size.bytes();
        let tables = map.tables();
        let l1_clusters = (map.l1_entries() * 8).div_ceil(cluster);
        let counted = 1 + l1_clusters + tables.len() + map.data.len();
        let (mut table, mut blocks) = (1, 1);
        // Refcounts are counted too. Each round adds what the one before made necessary, ever less.
        loop {
            let needed_blocks = (counted + table + blocks).div_ceil(cluster / 2);
            let needed_table = (needed_blocks * 8).div_ceil(cluster);
            if (needed_table, needed_blocks) == (table, blocks) {
                break;
            }
            (table, blocks) = (needed_table, needed_blocks);
        }
        head.set_refcounts(&map, cluster, table)?;
        head.set_l1((1 + table + blocks) * cluster, map.l1_entries());
        let data = 1 + table + blocks + l1_clusters + tables.len();
        Ok(Self {
            clusters: counted + table + blocks,
            refcount_table_clusters: table,
            refcount_blocks: blocks,
            l1_clusters,
            data,
            head,
            tables,
            map,
        })
    }

    pub(crate) fn map(&self) -> &NewMap {
        &self.map
    }

    /// Returns the file's length.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.clusters << self.map.cluster_size.bits()
    }

    /// Returns where the data begin: the length of all that comes before them.
    pub(crate) fn data_offset(&self) -> u64 {
        self.data << self.map.cluster_size.bits()
    }

    /// Returns where a byte of the disk stands, which must lie in a data cluster.
    pub(crate) fn place(&self, offset: u64) -> u64 {
        let bits = self.map.cluster_size.bits();
        let cluster = u32::try_from(offset >> bits).expect("because the disk's length has a limit");
        let rank = self.map.data.rank_before(BlockIndex::new(cluster));
        ((self.data + rank) << bits) + (offset & (self.map.cluster_size.bytes() - 1))
    }

    /// Hands over all that comes before the data, in order, a cluster or less at a time.
    ///
    /// # Errors
    /// What `write` says.
    pub(crate) fn write_head<E>(
        &self,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let bits = self.map.cluster_size.bits();
        let entries = self.map.l2_entries();
        write(self.head.bytes())?;
        let mut bytes = Vec::with_capacity(self.map.cluster_size.as_usize());
        let first_block = 1 + self.refcount_table_clusters;
        for cluster in 0..self.refcount_table_clusters {
            let blocks = cluster * entries..(cluster + 1) * entries;
            let entry = |block| {
                if block < self.refcount_blocks {
                    (first_block + block) << bits
                } else {
                    0
                }
            };
            self.write_cluster(&mut bytes, &mut write, |bytes| {
                push_u64s(bytes, blocks.map(entry))
            })?;
        }
        let counts = self.map.cluster_size.bytes() / 2;
        for block in 0..self.refcount_blocks {
            let used = (self.clusters - block * counts).min(counts);
            self.write_cluster(&mut bytes, &mut write, |bytes| {
                push_u16s(bytes, (0..used).map(|_| 1))
            })?;
        }
        self.write_l1(&mut bytes, &mut write)?;
        for table in self.tables.iter() {
            let clusters = self.map.clusters_in(table);
            let first = clusters.start;
            let mut place = self.place(first << bits);
            self.write_cluster(&mut bytes, &mut write, |bytes| {
                bytes.resize(1 << bits, 0);
                let mut set = |cluster: BlockIndex, entry| {
                    let at = usize::try_from(u64::from(cluster.get()) - first)
                        .expect("because tables are short");
                    super::super::numbers::set_u64(bytes, at * 8, entry);
                };
                for cluster in self.map.data.iter_in(clusters.clone()) {
                    set(cluster, COPIED | place);
                    place += 1 << bits;
                }
                self.map
                    .zero
                    .iter_in(clusters)
                    .for_each(|cluster| set(cluster, ZERO));
            })?;
        }
        Ok(())
    }

    fn write_l1<E>(
        &self,
        bytes: &mut Vec<u8>,
        write: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let bits = self.map.cluster_size.bits();
        let entries = self.map.l2_entries();
        let first_table = self.data - self.tables.len();
        let mut rank = 0;
        for cluster in 0..self.l1_clusters {
            let range = cluster * entries..((cluster + 1) * entries).min(self.map.l1_entries());
            self.write_cluster(bytes, write, |bytes| {
                push_u64s(
                    bytes,
                    range.map(|index| {
                        let index = u32::try_from(index)
                            .expect("because the L1 table's length has a limit");
                        if !self.tables.contains(BlockIndex::new(index)) {
                            return 0;
                        }
                        rank += 1;
                        COPIED | (first_table + rank - 1) << bits
                    }),
                );
            })?;
        }
        Ok(())
    }

    /// Writes one cluster, filled with zeros at its end.
    fn write_cluster<E>(
        &self,
        bytes: &mut Vec<u8>,
        write: &mut impl FnMut(&[u8]) -> Result<(), E>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), E> {
        bytes.clear();
        fill(bytes);
        bytes.resize(self.map.cluster_size.as_usize(), 0);
        write(bytes)
    }
}
