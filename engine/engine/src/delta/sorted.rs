//! A table of chunk ids that can be searched: four bytes of memory for each id, besides the table itself.

use rayon::prelude::*;
use std::cmp::Ordering;
use tegula_format::ChunkId;

/// The positions of a table of ids, in the order of the ids; positions of the same id ascend.
#[derive(Debug)]
pub(super) struct SortedIds<'a> {
    ids: &'a [u8],
    order: Vec<u32>,
}

impl<'a> SortedIds<'a> {
    /// Sorts a table of at most 2^32 ids of 32 bytes.
    pub(super) fn new(ids: &'a [u8]) -> Self {
        let count = u64::try_from(ids.len() / 32).expect("because usize has at most 64 bits");
        let mut order: Vec<u32> = (0..count)
            .map(|position| u32::try_from(position).expect("because a table has at most 2^32 ids"))
            .collect();
        order.par_sort_unstable_by(|a, b| id_at(ids, *a).cmp(id_at(ids, *b)).then(a.cmp(b)));
        Self { ids, order }
    }

    /// Returns the positions at which an id stands, ascending.
    pub(super) fn positions(&self, id: &ChunkId) -> &[u32] {
        let wanted = id.as_bytes().as_slice();
        let compare = |position: &u32| id_at(self.ids, *position).cmp(wanted);
        let start = self
            .order
            .partition_point(|position| compare(position) == Ordering::Less);
        let rest = self.order.get(start..).unwrap_or_default();
        let length = rest.partition_point(|position| compare(position) == Ordering::Equal);
        rest.get(..length).unwrap_or_default()
    }

    /// Returns the id at a position of the table.
    pub(super) fn id(&self, position: u32) -> ChunkId {
        let id = id_at(self.ids, position).first_chunk();
        ChunkId::from_bytes(*id.expect("because an id has 32 bytes"))
    }

    /// Returns the first position of each distinct id.
    pub(super) fn first_positions(&self) -> impl Iterator<Item = u32> + '_ {
        self.order
            .chunk_by(|a, b| id_at(self.ids, *a) == id_at(self.ids, *b))
            .filter_map(|same| same.first().copied())
    }
}

fn id_at(ids: &[u8], position: u32) -> &[u8] {
    let start = position as usize * 32;
    ids.get(start..start + 32)
        .expect("because only positions of the table are asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_of_an_id_is_found_in_order() {
        let id = |n: u8| ChunkId::from_bytes([n; 32]);
        let table: Vec<u8> = [5, 3, 5, 9, 3, 5]
            .into_iter()
            .flat_map(|n| *id(n).as_bytes())
            .collect();
        let sorted = SortedIds::new(&table);
        assert_eq!(sorted.positions(&id(5)), [0, 2, 5]);
        assert_eq!(sorted.positions(&id(3)), [1, 4]);
        assert_eq!(sorted.positions(&id(9)), [3]);
        for absent in [0, 4, 10] {
            assert_eq!(sorted.positions(&id(absent)), [0; 0]);
        }
        let mut first: Vec<_> = sorted.first_positions().collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 3]);
    }
}
