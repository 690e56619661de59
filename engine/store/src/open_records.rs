//! The records of the segment being written that new chunks may be framed on, before anybody can read them there.

use std::collections::HashMap;
use tegula_format::{ChunkId, IdPrefix};

/// Bytes of a piece of memory that records are copied into. A piece is used again for the next segment: thousands of
/// small allocations among others of the same size would leave holes that are never given back.
const PIECE_BYTES: usize = 1 << 20;

/// Records by the heads of their chunks' ids: at most a segment's bytes.
#[derive(Debug, Default)]
pub(crate) struct OpenRecords {
    pieces: Vec<Vec<u8>>,
    /// How many of the pieces hold something.
    used: usize,
    places: HashMap<IdPrefix, OpenPlace>,
}

#[derive(Debug, Clone, Copy)]
struct OpenPlace {
    id: ChunkId,
    piece: usize,
    start: usize,
    end: usize,
}

impl OpenRecords {
    /// Takes in a record.
    pub(crate) fn push(&mut self, id: ChunkId, record: &[u8]) {
        let fits = |piece: &Vec<u8>| piece.len() + record.len() <= PIECE_BYTES;
        let last = self.used.checked_sub(1);
        let piece = match last.filter(|last| self.pieces.get(*last).is_some_and(fits)) {
            Some(last) => last,
            None => self.next_piece(),
        };
        if let Some(bytes) = self.pieces.get_mut(piece) {
            let start = bytes.len();
            bytes.extend_from_slice(record);
            let end = bytes.len();
            let place = OpenPlace {
                id,
                piece,
                start,
                end,
            };
            self.places.insert(IdPrefix::of(&id), place);
        }
    }

    fn next_piece(&mut self) -> usize {
        if self.used == self.pieces.len() {
            self.pieces.push(Vec::with_capacity(PIECE_BYTES));
        }
        self.used += 1;
        self.used - 1
    }

    /// Returns a chunk's id and its record.
    pub(crate) fn get(&self, prefix: IdPrefix) -> Option<(ChunkId, &[u8])> {
        let place = self.places.get(&prefix)?;
        let record = self.pieces.get(place.piece)?.get(place.start..place.end)?;
        Some((place.id, record))
    }

    /// Forgets all of them. A piece that had to be longer than others is given back.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.used = 0;
        self.pieces.retain(|piece| piece.capacity() <= PIECE_BYTES);
        self.pieces.iter_mut().for_each(Vec::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u32, bytes: usize) -> (ChunkId, Vec<u8>) {
        let record = number.to_le_bytes().repeat(bytes / 4);
        (ChunkId::of(&record), record)
    }

    #[test]
    fn every_record_is_found_until_all_are_forgotten_and_their_memory_is_used_again() {
        let mut open = OpenRecords::default();
        for round in 0..3 {
            // Some longer than a piece.
            let records: Vec<_> = (0..40)
                .map(|number| record(round * 100 + number, 4096 << (number % 10)))
                .collect();
            for (id, record) in &records {
                open.push(*id, record);
            }
            for (id, record) in &records {
                assert_eq!(open.get(IdPrefix::of(id)), Some((*id, &**record)));
            }
            let bytes: usize = records.iter().map(|(_, record)| record.len()).sum();
            let held: usize = open.pieces.iter().map(Vec::capacity).sum();
            assert!(held <= 2 * bytes, "{held} bytes held for {bytes}");
            open.clear();
            let gone = records
                .iter()
                .all(|(id, _)| open.get(IdPrefix::of(id)).is_none());
            assert!(gone, "a forgotten record is found");
            let held: usize = open.pieces.iter().map(Vec::capacity).sum();
            assert!(held <= bytes);
        }
    }
}
