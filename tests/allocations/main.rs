//! What allocates, and what must not: each request pays for it.

#![expect(clippy::expect_used, reason = "tests fail by panicking")]

mod counting;
mod deciding;
mod express;
mod request;
#[path = "../../bench/micro/world.rs"]
mod world;

use counting::{CountingAllocator, on_all_threads, on_this_thread};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn allocations_are_counted() {
    let one = || drop(std::hint::black_box(Box::new(7)));
    assert_eq!(on_this_thread(|| (0..10).for_each(|_| one())), 10);
    assert_eq!(on_this_thread(|| ()), 0);
    let grown = on_this_thread(|| {
        let mut bytes = std::hint::black_box(Vec::<u8>::with_capacity(1));
        bytes.reserve_exact(100);
    });
    assert_eq!(grown, 2);
    let elsewhere = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            elsewhere.wait();
            (0..1000).for_each(|_| one());
            elsewhere.wait();
        });
        let mut mine = 0;
        let all = on_all_threads(|| {
            mine = on_this_thread(|| {
                elsewhere.wait();
                elsewhere.wait();
            });
        });
        assert!(all >= 1000 && mine < 1000, "{all} everywhere, {mine} of them here");
    });
}
