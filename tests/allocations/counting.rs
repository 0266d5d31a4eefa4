//! An allocator that counts: how often a piece of work asks for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The system's allocator, with a count of allocations and growths beside it. What is freed is not counted: it was allocated.
pub(crate) struct CountingAllocator;

thread_local! {
    static HERE: Cell<u64> = const { Cell::new(0) };
}
static IS_COUNTED_EVERYWHERE: AtomicBool = AtomicBool::new(false);
static EVERYWHERE: AtomicU64 = AtomicU64::new(0);

/// How often `work` allocates on this thread. Other threads, of other tests too, do not count.
pub(crate) fn on_this_thread(work: impl FnOnce()) -> u64 {
    let before = HERE.get();
    work();
    HERE.get() - before
}

/// How often all threads of the process allocate while `work` runs: for what is done by threads of its own. Other
/// tests count, too, unless each has a process of its own (cargo nextest).
pub(crate) fn on_all_threads(work: impl FnOnce()) -> u64 {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    EVERYWHERE.store(0, Ordering::SeqCst);
    IS_COUNTED_EVERYWHERE.store(true, Ordering::SeqCst);
    work();
    IS_COUNTED_EVERYWHERE.store(false, Ordering::SeqCst);
    EVERYWHERE.load(Ordering::SeqCst)
}

fn count() {
    // Neither of them allocates; a thread that ends has no count of its own any more.
    let _ = HERE.try_with(|here| here.set(here.get() + 1));
    if IS_COUNTED_EVERYWHERE.load(Ordering::Relaxed) {
        EVERYWHERE.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one passes everything on")]
// SAFETY: each call goes to the system's allocator as it came, and its answer back as it is.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(at, layout, new_size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}
