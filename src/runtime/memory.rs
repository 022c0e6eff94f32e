//! Freed memory on its way back to the kernel.

use std::hint::black_box;

/// More than mimalloc puts beside others: a block of this size is a page of its own.
const BLOCK: usize = 1024 * 1024;

/// Lets the allocator give back what has been free for a second. It looks for that only when it takes a page or frees one,
/// which a thread that has just become idle never does. Nothing is written to the block, so none of it becomes resident.
pub(crate) fn give_back() {
    drop(black_box(Vec::<u8>::with_capacity(BLOCK)));
}
