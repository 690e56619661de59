//! An allocator that counts, to see that hostile lengths do not become memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
    LARGEST.fetch_max(bytes, Ordering::Relaxed);
}

// SAFETY: all is handed to the system's allocator as it comes; counting touches nothing else and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps alloc's promises, which are System's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the pointer came from System, as every one here does.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What was asked for since [`Self::begin`], by all threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocations {
    /// The most bytes held at once, beyond those held at the beginning.
    pub(crate) peak: usize,
    /// The largest piece.
    pub(crate) largest: usize,
}

/// What was held when counting began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted(usize);

impl Allocations {
    pub(crate) fn begin() -> Counted {
        let live = LIVE.load(Ordering::Relaxed);
        PEAK.store(live, Ordering::Relaxed);
        LARGEST.store(0, Ordering::Relaxed);
        Counted(live)
    }
}

impl Counted {
    pub(crate) fn end(self) -> Allocations {
        Allocations {
            peak: PEAK.load(Ordering::Relaxed).saturating_sub(self.0),
            largest: LARGEST.load(Ordering::Relaxed),
        }
    }
}
