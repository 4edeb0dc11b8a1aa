//! Bytes as numbers: prepared rows and scratch.
use crate::memory::Plain;

/// Alignment of prepared rows and of what [`carve`] takes.
pub(super) const ALIGN: usize = 64;

/// Aligned bytes as elements; a rest that is too short for one is left out.
pub(super) fn view<T: Plain>(bytes: &[u8]) -> &[T] {
    assert!(bytes.as_ptr().cast::<T>().is_aligned(), "elements are aligned");
    // SAFETY: any bytes are a value of `T`.
    let (_, elements, _) = unsafe { bytes.align_to::<T>() };
    elements
}

/// As [`view`], for writing.
pub(super) fn view_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    assert!(bytes.as_ptr().cast::<T>().is_aligned(), "elements are aligned");
    // SAFETY: any bytes are a value of `T`, and any `T` is bytes.
    let (_, elements, _) = unsafe { bytes.align_to_mut::<T>() };
    elements
}

/// Takes `len` elements off the front of `scratch`, at a multiple of [`ALIGN`] bytes.
pub(super) fn carve<'a, T: Plain>(scratch: &mut &'a mut [u8], len: usize) -> &'a mut [T] {
    let bytes = std::mem::take(scratch);
    let pad = bytes.as_ptr().align_offset(ALIGN);
    let (head, rest) = bytes[pad..].split_at_mut(len * size_of::<T>());
    *scratch = rest;
    view_mut(head)
}

/// Bytes that [`carve`] takes at most for `len` elements of `T`.
pub(super) const fn carved<T: Plain>(len: usize) -> usize {
    len * size_of::<T>() + ALIGN - 1
}
