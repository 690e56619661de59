//! A file that grows at its end: clusters are given out one after the other, and their refcounts written when they will
//! not change any more.

use super::super::numbers::{push_u16s, push_u64s};
use super::ClusterSize;
use std::collections::VecDeque;
use std::io;
use tegula_io::TargetFile;

#[derive(Debug)]
pub(crate) struct Appender<'a> {
    target: &'a TargetFile,
    cluster_size: ClusterSize,
    /// The first cluster that nobody has.
    next: u64,
    /// Where compressed bytes go on, in a cluster that is not full.
    partial: Option<u64>,
    /// The first cluster whose refcount is not written.
    first_counted: u64,
    /// Refcounts from there on. A little more than a block has, whatever the file's length.
    counts: VecDeque<u16>,
    /// Where the refcount blocks stand.
    blocks: Vec<u64>,
}

impl<'a> Appender<'a> {
    /// Begins an empty file.
    pub(crate) fn new(target: &'a TargetFile, cluster_size: ClusterSize) -> Self {
        Self {
            target,
            cluster_size,
            next: 0,
            partial: None,
            first_counted: 0,
            counts: VecDeque::new(),
            blocks: Vec::new(),
        }
    }

    /// Gives out clusters in a row; returns where they begin.
    ///
    /// # Errors
    /// What writing refcounts says.
    pub(crate) fn reserve(&mut self, clusters: u64) -> io::Result<u64> {
        let offset = self.next << self.cluster_size.bits();
        self.next += clusters;
        self.counts.extend((0..clusters).map(|_| 1));
        self.write_settled_counts()?;
        Ok(offset)
    }

    /// Stores a cluster as it is; returns where it stands.
    ///
    /// # Errors
    /// What writing says.
    pub(crate) fn store_cluster(&mut self, cluster: &[u8]) -> io::Result<u64> {
        let offset = self.reserve(1)?;
        self.target.write_at(cluster, offset)?;
        Ok(offset)
    }

    /// Stores less than a cluster of bytes, right after those stored last if that can be; returns where they stand.
    ///
    /// # Errors
    /// What writing says.
    pub(crate) fn store_bytes(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let (bits, length) = (self.cluster_size.bits(), bytes.len() as u64);
        let offset = match self.partial.filter(|at| self.goes_on(*at, length)) {
            Some(at) => {
                *self.count_of(at >> bits) += 1;
                if at + length > self.next << bits {
                    self.next += 1;
                    self.counts.push_back(1);
                }
                at
            }
            None => {
                let at = self.next << bits;
                self.next += 1;
                self.counts.push_back(1);
                at
            }
        };
        let end = offset + length;
        self.partial = (!end.is_multiple_of(self.cluster_size.bytes())).then_some(end);
        self.target.write_at(bytes, offset)?;
        self.write_settled_counts()?;
        Ok(offset)
    }

    /// Tells whether bytes can be stored in the rest of a cluster, and in the one after it if that is free.
    fn goes_on(&mut self, at: u64, length: u64) -> bool {
        let bits = self.cluster_size.bits();
        let end = ((at >> bits) + 1) << bits;
        let fits = at + length <= end || self.next << bits == end;
        fits && *self.count_of(at >> bits) < u16::MAX
    }

    fn count_of(&mut self, cluster: u64) -> &mut u16 {
        let at = usize::try_from(cluster - self.first_counted).ok();
        let count = at.and_then(|at| self.counts.get_mut(at));
        count.expect("because refcounts that may change are kept")
    }

    /// Refcounts in a block.
    const fn counts_in_block(&self) -> u64 {
        self.cluster_size.bytes() / 2
    }

    fn write_settled_counts(&mut self) -> io::Result<()> {
        while self.counts.len() as u64 >= 2 * self.counts_in_block() {
            // A cluster that has been waiting for more for so long stays as full as it is.
            let block_end = self.first_counted + self.counts_in_block();
            let is_settled = |at: &u64| at >> self.cluster_size.bits() >= block_end;
            self.partial = self.partial.filter(is_settled);
            let offset = self.next << self.cluster_size.bits();
            self.next += 1;
            self.counts.push_back(1);
            self.write_block(offset)?;
        }
        Ok(())
    }

    /// Writes the first refcounts that are not written.
    fn write_block(&mut self, offset: u64) -> io::Result<()> {
        let count = self.counts_in_block().min(self.counts.len() as u64);
        let count = usize::try_from(count).expect("because blocks are short");
        let mut bytes = Vec::with_capacity(self.cluster_size.as_usize());
        push_u16s(&mut bytes, self.counts.drain(..count));
        bytes.resize(self.cluster_size.as_usize(), 0);
        self.first_counted += self.counts_in_block();
        self.blocks.push(offset);
        self.target.write_at(&bytes, offset)
    }

    /// Writes the refcounts that are left, and their table. Returns where the table stands and how many clusters it has.
    ///
    /// # Errors
    /// What writing says.
    pub(crate) fn finish(mut self) -> io::Result<(u64, u64)> {
        let bits = self.cluster_size.bits();
        let (mut blocks, mut table) = (0, 0);
        // What is written here is counted too.
        loop {
            let counted = self.counts.len() as u64 + blocks + table;
            let needed_blocks = counted.div_ceil(self.counts_in_block());
            let needed_table = ((self.blocks.len() as u64 + needed_blocks) * 8)
                .div_ceil(self.cluster_size.bytes());
            if (needed_blocks, needed_table) == (blocks, table) {
                break;
            }
            (blocks, table) = (needed_blocks, needed_table);
        }
        let first_block = self.next;
        let table_offset = (first_block + blocks) << bits;
        self.next += blocks + table;
        self.counts.extend((0..blocks + table).map(|_| 1));
        for block in 0..blocks {
            self.write_block((first_block + block) << bits)?;
        }
        let mut bytes = Vec::new();
        push_u64s(&mut bytes, self.blocks.iter().copied());
        bytes.resize(
            usize::try_from(table << bits).expect("because a table is short"),
            0,
        );
        self.target.write_at(&bytes, table_offset)?;
        self.target.set_len(self.next << bits)?;
        Ok((table_offset, table))
    }
}
