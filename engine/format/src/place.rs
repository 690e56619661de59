//! Where a chunk stands: a segment and a slot in it.

use std::fmt;

/// A segment's number. Numbers are given out once and never again, so a place never changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(u32);

impl SegmentNumber {
    /// Names a segment.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentNumber({self})")
    }
}

/// A chunk's position in its segment's table of contents, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Names a slot.
    pub const fn new(slot: u16) -> Self {
        Self(slot)
    }

    /// Returns the position.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A chunk's place in the store (SPEC 2.5). Places sort by segment, then by slot: stream order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment.
    pub segment: SegmentNumber,
    /// The slot in it.
    pub slot: Slot,
}

impl Place {
    /// Returns the place as one number, segment high and slot low, so that the places of a segment are the 2^16
    /// values of one roaring container.
    pub const fn ordinal(self) -> u64 {
        (self.segment.0 as u64) << 16 | self.slot.0 as u64
    }

    /// Inverts [`Self::ordinal`]; `None` past the last segment there can be.
    pub fn from_ordinal(ordinal: u64) -> Option<Self> {
        let segment = u32::try_from(ordinal >> 16).ok()?;
        let slot = u16::try_from(ordinal & 0xffff).ok()?;
        Some(Self {
            segment: SegmentNumber(segment),
            slot: Slot(slot),
        })
    }
}
