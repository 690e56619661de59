//! The same work for many things, on all cores.

use tegula_format::ChunkId;

/// Returns what `work` makes of each item, in order. A core is given at least `least` items.
#[cfg(not(feature = "shuttle"))]
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    least: usize,
    work: impl Fn(&T) -> R + Sync + Send,
) -> Vec<R> {
    use rayon::prelude::*;
    items.par_iter().with_min_len(least).map(work).collect()
}

/// As above, on the calling thread: shuttle's scheduler knows no threads but its own.
#[cfg(feature = "shuttle")]
pub(crate) fn map<T, R>(items: &[T], _least: usize, work: impl Fn(&T) -> R) -> Vec<R> {
    items.iter().map(work).collect()
}

/// Does two things at once.
#[cfg(not(feature = "shuttle"))]
pub(crate) fn both<A: Send, B: Send>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    rayon::join(first, second)
}

/// As above, one after the other.
#[cfg(feature = "shuttle")]
pub(crate) fn both<A, B>(first: impl FnOnce() -> A, second: impl FnOnce() -> B) -> (A, B) {
    (first(), second())
}

/// Sorts ids.
pub(crate) fn sort(ids: &mut [ChunkId]) {
    #[cfg(not(feature = "shuttle"))]
    rayon::slice::ParallelSliceMut::par_sort_unstable(ids);
    #[cfg(feature = "shuttle")]
    ids.sort_unstable();
}
