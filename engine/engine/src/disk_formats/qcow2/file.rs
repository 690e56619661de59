//! The file that holds a disk, read with care for its end, and its tables, of which only pages are kept.

use super::Qcow2Error;
use super::header::Table;
use super::numbers::u64s;
use crate::BlockSource;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tegula_io::Buffer;

/// Entries of a table that are read together.
const PAGE_ENTRIES: u64 = 8192;

/// Pages that are kept: 4 MiB at most, whatever the tables' sizes. A page of an L2 table maps 512 MiB of a disk with
/// clusters of 64 KiB.
const PAGES_KEPT: usize = 64;

#[derive(Debug)]
pub(super) struct File<'a> {
    source: &'a dyn BlockSource,
    bytes: u64,
    /// Each page has one place to be kept in, by where it stands.
    pages: [Mutex<Option<Page>>; PAGES_KEPT],
}

#[derive(Debug, Clone)]
struct Page {
    offset: u64,
    entries: Arc<[u64]>,
}

impl<'a> File<'a> {
    pub(super) fn new(source: &'a dyn BlockSource) -> Self {
        Self {
            source,
            bytes: source.bytes(),
            pages: std::array::from_fn(|_| Mutex::new(None)),
        }
    }

    pub(super) fn source(&self) -> &'a dyn BlockSource {
        self.source
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes sure that something lies in the file; returns where.
    pub(super) fn check(
        &self,
        what: &'static str,
        offset: u64,
        bytes: u64,
    ) -> Result<Range<u64>, Qcow2Error> {
        let end = offset.saturating_add(bytes);
        match end <= self.bytes && offset.checked_add(bytes).is_some() {
            true => Ok(offset..end),
            false => Err(Qcow2Error::PastEnd {
                what,
                offset,
                end,
                file_bytes: self.bytes,
            }),
        }
    }

    pub(super) fn read_into(&self, buffer: &mut [u8], offset: u64) -> Result<(), Qcow2Error> {
        let read = self.source.read_at(buffer, offset);
        read.map_err(|source| Qcow2Error::Read { offset, source })
    }

    /// Reads what was checked to be there, and to be short enough to be held.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Buffer, Qcow2Error> {
        let length =
            usize::try_from(range.end - range.start).expect("because limits keep it short");
        let mut buffer = Buffer::stale(length);
        self.read_into(&mut buffer, range.start)?;
        Ok(buffer)
    }

    /// Reads as many bytes as there are.
    pub(super) fn read_up_to(&self, offset: u64, bytes: u64) -> Result<Buffer, Qcow2Error> {
        let end = offset.saturating_add(bytes).min(self.bytes);
        self.read(offset.min(end)..end)
    }

    /// Returns the entries of a table from `index` on, some of them: at least one.
    pub(super) fn entries(
        &self,
        what: &'static str,
        table: Table,
        index: u64,
    ) -> Result<Entries, Qcow2Error> {
        let first = index / PAGE_ENTRIES * PAGE_ENTRIES;
        let last = (first + PAGE_ENTRIES).min(table.entries);
        let range = table.offset + first * 8..table.offset + last * 8;
        let slot = self.slot(range.start);
        let mut kept = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = match &*kept {
            // The same place may be part of a longer table by another entry.
            Some(page)
                if page.offset == range.start && page.entries.len() as u64 == last - first =>
            {
                Arc::clone(&page.entries)
            }
            _ => {
                let range = self.check(what, range.start, range.end - range.start)?;
                let offset = range.start;
                let entries: Arc<[u64]> = u64s(&self.read(range)?).collect();
                let page = Page {
                    offset,
                    entries: Arc::clone(&entries),
                };
                *kept = Some(page);
                entries
            }
        };
        Ok(Entries { entries, first })
    }

    fn slot(&self, offset: u64) -> &Mutex<Option<Page>> {
        // A multiplicative hash: neighbours go to different places.
        let hash = (offset >> 9).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let at = usize::try_from(hash).unwrap_or(0) % PAGES_KEPT;
        self.pages.get(at).expect("because it is a remainder")
    }
}

/// A page of a table.
#[derive(Debug)]
pub(super) struct Entries {
    entries: Arc<[u64]>,
    first: u64,
}

impl Entries {
    /// Returns the entry at an index of the table, if this page has it.
    pub(super) fn get(&self, index: u64) -> Option<u64> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at).copied()
    }
}
