//! A thread's own buffer, cut into pieces.
use crate::memory::{Plain, Region};

/// Starts of pieces are multiples of this.
const ALIGN: usize = 64;

/// Bytes that a piece of `count` elements takes.
pub(super) const fn room<T>(count: usize) -> usize {
    (count * size_of::<T>()).next_multiple_of(ALIGN)
}

/// Cuts a piece of `count` elements off the front of `rest`; it holds anything.
pub(super) fn take<'a, T: Plain>(rest: &mut &'a mut [u8], count: usize) -> &'a mut [T] {
    let (piece, left) = std::mem::take(rest).split_at_mut(room::<T>(count));
    *rest = left;
    // SAFETY: the piece is borrowed exclusively for as long as the slice lives.
    unsafe { Region::of(piece).slice_mut(0, count) }
}
