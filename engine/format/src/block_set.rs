//! A set of blocks: what a layer sets, what it zeroes, what a delta changes.

use crate::{BlockIndex, Corruption, Structure};
use roaring::RoaringBitmap;
use std::ops::Range;

/// A set of block indices, kept as a roaring bitmap.
///
/// Its bytes are the portable roaring serialization (SPEC 2.4).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockSet(RoaringBitmap);

/// A run of consecutive blocks.
pub type Blocks = Range<u64>;

impl BlockSet {
    /// Returns the empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one block.
    pub fn insert(&mut self, block: BlockIndex) {
        self.0.insert(block.get());
    }

    /// Adds a block that is past all others. Faster than [`Self::insert`] for building in order.
    ///
    /// # Panics
    /// If it is not past all others.
    pub fn push(&mut self, block: BlockIndex) {
        assert!(
            self.0.try_push(block.get()).is_ok(),
            "blocks are pushed in ascending order"
        );
    }

    /// Adds a run of blocks; the part past 2^32 is ignored.
    pub fn insert_range(&mut self, blocks: Blocks) {
        if let Some(range) = clipped(&blocks) {
            self.0.insert_range(range);
        }
    }

    /// Removes a run of blocks.
    pub fn remove_range(&mut self, blocks: Blocks) {
        if let Some(range) = clipped(&blocks) {
            self.0.remove_range(range);
        }
    }

    /// Removes every block from `first` on.
    pub fn truncate(&mut self, first: u64) {
        self.remove_range(first..1 << 32);
    }

    /// Tells whether the block is in the set.
    pub fn contains(&self, block: BlockIndex) -> bool {
        self.0.contains(block.get())
    }

    /// Returns how many blocks of the set lie before `block`.
    pub fn rank_before(&self, block: BlockIndex) -> u64 {
        block
            .get()
            .checked_sub(1)
            .map_or(0, |last| self.0.rank(last))
    }

    /// Returns the block that has so many before it, or `None` past the last.
    pub fn nth(&self, position: u32) -> Option<BlockIndex> {
        self.0.select(position).map(BlockIndex::new)
    }

    /// Returns how many blocks of the set lie in a run.
    pub fn count_in(&self, blocks: Blocks) -> u64 {
        clipped(&blocks).map_or(0, |range| self.0.range_cardinality(range))
    }

    /// Returns how many blocks there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the last block, if any.
    pub fn last(&self) -> Option<BlockIndex> {
        self.0.max().map(BlockIndex::new)
    }

    /// Returns the blocks in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = BlockIndex> + '_ {
        self.0.iter().map(BlockIndex::new)
    }

    /// Returns the blocks within a run, in ascending order.
    pub fn iter_in(&self, blocks: Blocks) -> impl Iterator<Item = BlockIndex> + '_ {
        clipped(&blocks)
            .into_iter()
            .flat_map(|range| self.0.range(range))
            .map(BlockIndex::new)
    }

    /// Returns the maximal runs of consecutive blocks, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = Blocks> + '_ {
        runs_of(self.0.iter())
    }

    /// Returns the maximal runs of consecutive blocks within a run, in ascending order.
    pub fn runs_in(&self, blocks: Blocks) -> impl Iterator<Item = Blocks> + '_ {
        clipped(&blocks)
            .into_iter()
            .flat_map(|range| runs_of(self.0.range(range)))
    }

    /// Returns where the blocks of a subset stand among those of this set, as runs of positions, ascending. What is not in
    /// this set must not be in the other.
    ///
    /// # Panics
    /// If the other has a block past all of this set's runs.
    pub fn positions_of<'a>(&'a self, subset: &'a Self) -> impl Iterator<Item = Range<u64>> + 'a {
        let mut runs = self.runs();
        let mut run = Blocks::default();
        let mut before = 0;
        subset.runs().map(move |wanted| {
            // Each run of a subset lies within one run of the set.
            while run.end <= wanted.start {
                before += run.end - run.start;
                run = runs.next().expect("because it is a subset");
            }
            let first = before + wanted.start - run.start;
            first..first + wanted.end - wanted.start
        })
    }

    /// Adds all blocks of another set.
    pub fn union_with(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// Removes all blocks of another set.
    pub fn subtract(&mut self, other: &Self) {
        self.0 -= &other.0;
    }

    /// Keeps only the blocks that are also in another set.
    pub fn intersect_with(&mut self, other: &Self) {
        self.0 &= &other.0;
    }

    /// Tells whether no block is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.0.is_disjoint(&other.0)
    }

    /// Returns the serialized set. Equal sets give equal bytes, however they were built.
    pub fn encode(&self) -> Vec<u8> {
        encode_numbers(self.0.clone())
    }

    /// Reads a serialized set that fills `bytes` exactly and holds only blocks before `block_count`.
    ///
    /// # Errors
    /// [`Corruption::Body`] if the bytes are no such set, [`Corruption::Field`] if a block lies too far.
    pub fn decode(bytes: &[u8], block_count: u64, what: Structure) -> Result<Self, Corruption> {
        let set = decode_numbers(bytes, what)?;
        match set.max() {
            Some(last) if u64::from(last) >= block_count => Err(Corruption::Field {
                what,
                field: "last block of a bitmap",
                found: u64::from(last),
                expected: "a block of the image",
            }),
            _ => Ok(Self(set)),
        }
    }
}

/// Serializes a set of numbers in its one form (SPEC 2.4).
pub(crate) fn encode_numbers(mut set: RoaringBitmap) -> Vec<u8> {
    // `optimize` leaves a container as it is where run and array are equally short, so that the bytes would tell how
    // the set was built. Without runs to begin with, it chooses by content alone.
    set.remove_run_compression();
    set.optimize();
    let mut bytes = Vec::with_capacity(set.serialized_size());
    set.serialize_into(&mut bytes)
        .expect("because writing to a Vec does not fail");
    bytes
}

/// Reads a set of numbers that fills `bytes` exactly (SPEC 2.4).
pub(crate) fn decode_numbers(bytes: &[u8], what: Structure) -> Result<RoaringBitmap, Corruption> {
    let mut rest = bytes;
    let set = RoaringBitmap::deserialize_from(&mut rest).map_err(|error| Corruption::Body {
        what,
        reason: error.to_string(),
    })?;
    match rest.len() {
        0 => Ok(set),
        extra => Err(Corruption::Body {
            what,
            reason: format!("{extra} bytes follow the bitmap"),
        }),
    }
}

impl FromIterator<BlockIndex> for BlockSet {
    fn from_iter<I: IntoIterator<Item = BlockIndex>>(blocks: I) -> Self {
        Self(blocks.into_iter().map(BlockIndex::get).collect())
    }
}

/// Returns the maximal runs of what an iterator has left. Where runs are of one block, as where a disk was changed here and
/// there, a step is all that one costs: to ask for each run's end is a search.
fn runs_of(mut iter: roaring::bitmap::Iter<'_>) -> impl Iterator<Item = Blocks> + '_ {
    let mut ahead: Option<Blocks> = None;
    std::iter::from_fn(move || {
        let mut step = |whole: bool| {
            let (first, last) = match whole {
                false => iter.next().map(|block| (block, block)),
                true => iter.next_range().map(|run| (*run.start(), *run.end())),
            }?;
            Some(u64::from(first)..u64::from(last) + 1)
        };
        let mut run = ahead.take().or_else(|| step(false))?;
        while let Some(next) = step(run.end - run.start > 1) {
            if next.start != run.end {
                ahead = Some(next);
                break;
            }
            run.end = next.end;
        }
        Some(run)
    })
}

/// Returns a run as the inclusive range of `u32` that roaring takes, or `None` if it is empty.
fn clipped(blocks: &Blocks) -> Option<std::ops::RangeInclusive<u32>> {
    let last = blocks.end.min(1 << 32).checked_sub(1)?;
    let (first, last) = (u32::try_from(blocks.start).ok()?, u32::try_from(last).ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(blocks: &[u32]) -> BlockSet {
        blocks.iter().copied().map(BlockIndex::new).collect()
    }

    #[test]
    fn runs_join_neighbours_and_reach_the_last_block_there_can_be() {
        let mut blocks = set(&[0, 1, 2, 7, u32::MAX]);
        blocks.insert_range(100..200);
        let runs: Vec<_> = blocks.runs().collect();
        assert_eq!(runs, [0..3, 7..8, 100..200, (1 << 32) - 1..1 << 32]);
    }

    #[test]
    fn positions_of_a_subset_are_the_ranks_of_its_blocks() {
        let mut all = set(&[3, 5, u32::MAX]);
        all.insert_range(10..20);
        all.insert_range(70_000..200_000);
        for keep in [1, 2, 3, 7, 1000, 65_536] {
            let subset: BlockSet = all
                .iter()
                .filter(|block| block.get() / 4 % keep == 0 || block.get() == u32::MAX)
                .collect();
            let positions: Vec<u64> = all.positions_of(&subset).flatten().collect();
            let ranks: Vec<u64> = subset.iter().map(|block| all.rank_before(block)).collect();
            assert_eq!(positions, ranks, "one group of blocks in {keep}");
        }
        assert_eq!(all.positions_of(&set(&[])).count(), 0);
        let whole: Vec<_> = all.positions_of(&all).collect();
        assert_eq!(whole, [0..1, 1..2, 2..12, 12..130_012, 130_012..130_013]);
    }

    #[test]
    fn runs_within_a_run_end_where_it_ends() {
        let mut blocks = set(&[0, 1, 2, 7, u32::MAX]);
        blocks.insert_range(100..70_000);
        let runs = |within| blocks.runs_in(within).collect::<Vec<_>>();
        assert_eq!(runs(2..101), [2..3, 7..8, 100..101]);
        assert_eq!(runs(69_000..70_100), vec![69_000..70_000; 1]);
        assert_eq!(runs(2..201), [2..3, 7..8, 100..201]);
        assert_eq!(
            runs(69_999..1 << 32),
            [69_999..70_000, (1 << 32) - 1..1 << 32]
        );
        assert_eq!(runs(3..7), [0..0; 0]);
        assert_eq!(runs(7..7), [0..0; 0]);
    }

    #[test]
    fn encoding_reads_back_and_refuses_strangers() {
        let mut blocks = set(&[3, 70_000]);
        blocks.insert_range(10..5000);
        let bytes = blocks.encode();
        assert_eq!(
            BlockSet::decode(&bytes, 70_001, Structure::Layer).unwrap(),
            blocks
        );
        assert!(
            BlockSet::decode(&bytes, 70_000, Structure::Layer).is_err(),
            "block past the image"
        );
        assert!(BlockSet::decode(&bytes[..bytes.len() - 1], 70_001, Structure::Layer).is_err());
        let longer = [bytes, vec![0]].concat();
        assert!(
            BlockSet::decode(&longer, 70_001, Structure::Layer).is_err(),
            "trailing byte"
        );
    }

    #[test]
    fn equal_sets_have_equal_bytes_however_they_were_built() {
        // Three numbers in a row take six bytes as an array and as a run.
        let listed = set(&[0, 1, 2]);
        let mut ranged = BlockSet::new();
        ranged.insert_range(0..3);
        let mut cut = BlockSet::new();
        cut.insert_range(0..100_000);
        cut.truncate(3);
        assert_eq!(listed.encode(), ranged.encode());
        assert_eq!(listed.encode(), cut.encode());
    }

    #[test]
    fn rank_counts_what_lies_before() {
        let blocks = set(&[2, 4, 9]);
        let ranks: Vec<_> = [0, 2, 3, 4, 9, 10]
            .map(|b| blocks.rank_before(BlockIndex::new(b)))
            .into();
        assert_eq!(ranks, [0, 0, 1, 1, 2, 3]);
        let blocks: Vec<_> = (0..4).map(|n| blocks.nth(n)).collect();
        let expected = [Some(2), Some(4), Some(9), None];
        assert_eq!(blocks, expected.map(|block| block.map(BlockIndex::new)));
    }
}
