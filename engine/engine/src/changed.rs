//! Hints of what was changed, from whoever watched the writes.

use std::ops::Range;
use tegula_format::{BlockIndex, BlockSet};

/// The parts of a disk that may have been written since some earlier state of it. All else is as it was.
///
/// Kept as numbers of *granules*, ranges of equal size, so that it is small whatever the pattern is.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedBlocks {
    bytes: u64,
    granularity: u64,
    granules: BlockSet,
}

impl ChangedBlocks {
    /// Returns that nothing was changed of a disk of `bytes`. Granules of `granularity` bytes, a power of two, are made
    /// larger if there would be more than 2^32 of them.
    pub fn new(bytes: u64, granularity: u64) -> Self {
        let mut granularity = granularity.next_power_of_two();
        while bytes.div_ceil(granularity) > 1 << 32 {
            granularity *= 2;
        }
        Self {
            bytes,
            granularity,
            granules: BlockSet::new(),
        }
    }

    /// Returns the length of the disk in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the size of a granule in bytes.
    pub fn granularity(&self) -> u64 {
        self.granularity
    }

    /// Adds a range of bytes: every granule that it touches. What lies past the end is left out.
    pub fn add(&mut self, range: Range<u64>) {
        let end = range.end.min(self.bytes);
        if range.start < end {
            let granules = range.start / self.granularity..end.div_ceil(self.granularity);
            self.granules.insert_range(granules);
        }
    }

    /// Returns how many bytes may have been changed.
    pub fn changed_bytes(&self) -> u64 {
        self.extents().map(|extent| extent.end - extent.start).sum()
    }

    /// Tells whether a byte may have been changed.
    pub fn contains(&self, offset: u64) -> bool {
        u32::try_from(offset / self.granularity)
            .is_ok_and(|granule| self.granules.contains(BlockIndex::new(granule)))
    }

    /// Returns the first range at or after `from` that may have been changed, from there on.
    pub fn next_extent(&self, from: u64) -> Option<Range<u64>> {
        let run = self
            .granules
            .runs_in(from / self.granularity..1 << 32)
            .next()?;
        let end = run.end.saturating_mul(self.granularity).min(self.bytes);
        Some((run.start * self.granularity).max(from)..end)
            .filter(|extent| extent.start < extent.end)
    }

    /// Tells whether some byte of a range may have been changed.
    pub fn touches(&self, range: Range<u64>) -> bool {
        self.next_extent(range.start)
            .is_some_and(|extent| extent.start < range.end)
    }

    /// Tells whether every byte of a range is named as changed.
    pub fn covers(&self, range: Range<u64>) -> bool {
        range.is_empty()
            || self
                .next_extent(range.start)
                .is_some_and(|extent| extent.start == range.start && extent.end >= range.end)
    }

    /// Returns the ranges that may have been changed, in bytes, ascending, none touching another.
    pub fn extents(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.granules.runs().map(|run| {
            let end = run.end.saturating_mul(self.granularity).min(self.bytes);
            run.start * self.granularity..end
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_changes_every_granule_that_it_touches_and_none_past_the_end() {
        let mut changed = ChangedBlocks::new(10_000, 1000);
        assert_eq!(changed.granularity(), 1024);
        changed.add(1023..1025);
        changed.add(5000..5000);
        changed.add(9_999..u64::MAX);
        changed.add(20_000..30_000);
        let extents: Vec<_> = changed.extents().collect();
        assert_eq!(extents, [0..2048, 9216..10_000]);
        assert_eq!(changed.changed_bytes(), 2048 + 784);
        assert!(changed.contains(0) && changed.contains(9999) && !changed.contains(2048));
        let next: Vec<_> = [0, 100, 2047, 2048, 9999, 10_000]
            .map(|from| changed.next_extent(from))
            .into();
        let expected = [
            Some(0..2048),
            Some(100..2048),
            Some(2047..2048),
            Some(9216..10_000),
            Some(9999..10_000),
            None,
        ];
        assert_eq!(next, expected);
        assert!(changed.touches(0..1) && changed.touches(2047..9000));
        assert!(!changed.touches(2048..9216) && changed.touches(2048..9217));
        assert!(changed.covers(5..2048) && changed.covers(7..7) && !changed.covers(5..2049));
    }

    #[test]
    fn granules_grow_until_their_numbers_fit() {
        let mut changed = ChangedBlocks::new(1 << 60, 512);
        assert_eq!(changed.granularity(), 1 << 28);
        changed.add((1 << 60) - 1..1 << 60);
        assert_eq!(changed.changed_bytes(), 1 << 28);
    }
}
