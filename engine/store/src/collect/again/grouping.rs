//! Which chunks become the bases of which: those that most others resemble stand by themselves, the rest on them.

use std::collections::{HashMap, HashSet};
use tegula_format::{Feature, RunRow, Sketch};

/// How many chunks are remembered for one feature: one that many chunks have tells little.
const CHUNKS_PER_FEATURE: usize = 8;

/// How many candidates are kept for one chunk.
const CANDIDATES_MAX: usize = 12;

/// Chunks that share fewer features do not resemble each other: one can be chance.
const SHARED_MIN: u32 = 2;

/// A chunk is framed over bases that have this share of its features, in percent; else it becomes a base itself.
const COVERED_PERCENT: u32 = 30;

/// A chunk that is to be stored again.
#[derive(Debug)]
pub(super) struct Member {
    /// Where it stands now.
    pub(super) row: RunRow,
    pub(super) sketch: Sketch,
}

/// A chunk that shares features with another: its ordinal, and a bit for each feature it shares.
type Candidate = (usize, u64);

/// What each member is to be framed over, by ordinals: one level deep, so that the bases themselves stand on nothing.
#[derive(Debug)]
pub(super) struct Grouping {
    bases: Vec<Vec<usize>>,
    /// Whether anything, here or elsewhere, is to stand on it.
    stood_on: Vec<bool>,
}

impl Grouping {
    /// Frames nothing over anything.
    pub(super) fn none() -> Self {
        Self {
            bases: Vec::new(),
            stood_on: Vec::new(),
        }
    }

    /// Groups chunks; those in `fixed` stand by themselves whatever they resemble.
    pub(super) fn of(members: &[Member], fixed: &HashSet<usize>) -> Self {
        let candidates = candidates(members);
        let mut score = vec![0u64; members.len()];
        for (other, shared) in candidates.iter().flatten() {
            if let Some(score) = score.get_mut(*other) {
                *score += u64::from(shared.count_ones());
            }
        }
        let mut order: Vec<usize> = (0..members.len()).collect();
        let score_of = |ordinal: &usize| score.get(*ordinal).copied().unwrap_or_default();
        order.sort_unstable_by_key(|ordinal| {
            (
                !fixed.contains(ordinal),
                std::cmp::Reverse(score_of(ordinal)),
                *ordinal,
            )
        });
        let mut plain = vec![false; members.len()];
        let is = |flags: &[bool], ordinal: usize| flags.get(ordinal).copied().unwrap_or(false);
        let mut framed = Vec::new();
        for ordinal in order {
            let own = candidates
                .get(ordinal)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let features = members
                .get(ordinal)
                .map_or(0, |member| member.sketch.features().len());
            let bases = own.iter().filter(|(other, _)| is(&plain, *other));
            let best = bases.map(|(_, shared)| shared.count_ones()).max();
            let needed = u32::try_from(features).unwrap_or(u32::MAX) * COVERED_PERCENT / 100;
            match best.is_some_and(|best| best >= needed.max(1)) && !fixed.contains(&ordinal) {
                true => framed.push(ordinal),
                false => plain
                    .iter_mut()
                    .skip(ordinal)
                    .take(1)
                    .for_each(|flag| *flag = true),
            }
        }
        let mut bases = vec![Vec::new(); members.len()];
        let mut used: Vec<bool> = (0..members.len())
            .map(|ordinal| fixed.contains(&ordinal))
            .collect();
        let mut frame = |ordinal: usize, chosen: Vec<usize>, used: &mut Vec<bool>| {
            for base in &chosen {
                used.iter_mut()
                    .skip(*base)
                    .take(1)
                    .for_each(|flag| *flag = true);
            }
            bases
                .iter_mut()
                .skip(ordinal)
                .take(1)
                .for_each(|slot| *slot = chosen.clone());
        };
        let pick = |ordinal: usize, plain: &[bool]| {
            let own = candidates
                .get(ordinal)
                .map(Vec::as_slice)
                .unwrap_or_default();
            choose(own.iter().filter(|(other, _)| is(plain, *other)).copied())
        };
        for ordinal in framed {
            let chosen = pick(ordinal, &plain);
            frame(ordinal, chosen, &mut used);
        }
        // What nobody stands on can stand on others itself, though they resemble it less.
        for ordinal in 0..members.len() {
            if is(&plain, ordinal) && !is(&used, ordinal) {
                let chosen = pick(ordinal, &plain);
                if !chosen.is_empty() {
                    plain
                        .iter_mut()
                        .skip(ordinal)
                        .take(1)
                        .for_each(|flag| *flag = false);
                    frame(ordinal, chosen, &mut used);
                }
            }
        }
        Self {
            bases,
            stood_on: used,
        }
    }

    /// Returns what a member is to be framed over; empty if it stands by itself.
    pub(super) fn bases_of(&self, ordinal: usize) -> &[usize] {
        let bases = self.bases.get(ordinal);
        bases.map(Vec::as_slice).unwrap_or_default()
    }

    /// Tells whether something is to stand on a member, which then must stand by itself.
    pub(super) fn is_stood_on(&self, ordinal: usize) -> bool {
        self.stood_on.get(ordinal).copied().unwrap_or(false)
    }
}

/// Chooses the candidate that shares the most, and the one that shares the most of what is left. The better one comes
/// last, so that it is nearest to what is compressed.
fn choose(candidates: impl Iterator<Item = Candidate>) -> Vec<usize> {
    let candidates: Vec<Candidate> = candidates.collect();
    let most = |(ordinal, shared): &Candidate| (shared.count_ones(), std::cmp::Reverse(*ordinal));
    let Some((best, covered)) = candidates.iter().copied().max_by_key(most) else {
        return Vec::new();
    };
    let rest = candidates
        .iter()
        .map(|(ordinal, shared)| (*ordinal, shared & !covered))
        .filter(|(ordinal, more)| *ordinal != best && more.count_ones() >= SHARED_MIN);
    let second = rest.max_by_key(most).map(|(ordinal, _)| ordinal);
    second.into_iter().chain([best]).collect()
}

/// Returns for each member those that share the most features with it.
fn candidates(members: &[Member]) -> Vec<Vec<Candidate>> {
    let mut postings: Vec<(Feature, u32)> = Vec::new();
    for (ordinal, member) in members.iter().enumerate() {
        let ordinal = u32::try_from(ordinal).expect("because a batch is limited");
        postings.extend(member.sketch.features().iter().map(|f| (*f, ordinal)));
    }
    postings.sort_unstable();
    let with = |feature: Feature| {
        let first = postings.partition_point(|(other, _)| *other < feature);
        let rest = postings.get(first..).unwrap_or_default();
        let same = rest.iter().take_while(move |(other, _)| *other == feature);
        same.take(CHUNKS_PER_FEATURE).map(|(_, ordinal)| *ordinal)
    };
    let mut all = Vec::with_capacity(members.len());
    for (own, member) in members.iter().enumerate() {
        let mut shared: HashMap<usize, u64> = HashMap::new();
        for (position, feature) in member.sketch.features().iter().enumerate() {
            for other in with(*feature) {
                let other = usize::try_from(other).expect("because it counts what is in memory");
                if other != own {
                    *shared.entry(other).or_default() |= 1 << position;
                }
            }
        }
        let mut found: Vec<Candidate> = shared
            .into_iter()
            .filter(|(_, shared)| shared.count_ones() >= SHARED_MIN)
            .collect();
        found.sort_unstable_by_key(|(other, shared)| (!shared.count_ones(), *other));
        found.truncate(CANDIDATES_MAX);
        all.push(found);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use tegula_format::{BlockSize, ChunkId, Place, SegmentNumber, Slot};

    fn member(seed: u8, changed: u8) -> Member {
        let size = BlockSize::DEFAULT;
        let mut block = vec![0; size.as_usize()];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]).finalize_xof().fill(&mut block);
        block[..512].fill(changed);
        let place = Place {
            segment: SegmentNumber::new(1),
            slot: Slot::new(0),
        };
        let row = RunRow {
            id: ChunkId::of(&block),
            place,
            offset: 0,
            stored_length: 1,
            bases: 0,
        };
        let sketch = Sketch::of(&block, size);
        Member { row, sketch }
    }

    fn framed(grouping: &Grouping, count: usize) -> Vec<usize> {
        (0..count)
            .filter(|ordinal| !grouping.bases_of(*ordinal).is_empty())
            .collect()
    }

    #[test]
    fn of_chunks_that_resemble_each_other_one_stands_by_itself_and_the_rest_on_it() {
        let members: Vec<_> = (0..12).map(|n| member(n % 3, n)).collect();
        let grouping = Grouping::of(&members, &HashSet::new());
        let on_others = framed(&grouping, 12);
        assert_eq!(on_others.len(), 9);
        for ordinal in on_others {
            for base in grouping.bases_of(ordinal) {
                assert!(
                    grouping.bases_of(*base).is_empty(),
                    "{base} stands on others"
                );
                assert_eq!(base % 3, ordinal % 3, "{base} does not resemble {ordinal}");
            }
        }
    }

    #[test]
    fn what_others_stand_on_elsewhere_stays_by_itself() {
        let members: Vec<_> = (0..6).map(|n| member(1, n)).collect();
        let fixed = HashSet::from([2, 4]);
        let grouping = Grouping::of(&members, &fixed);
        assert_eq!(framed(&grouping, 6), [0, 1, 3, 5]);
        assert!(grouping.is_stood_on(2) && grouping.is_stood_on(4));
    }

    #[test]
    fn chunks_that_resemble_nothing_stand_by_themselves() {
        let members: Vec<_> = (0..6).map(|n| member(n, 0)).collect();
        let grouping = Grouping::of(&members, &HashSet::new());
        assert!(framed(&grouping, 6).is_empty());
    }
}
