//! Aligned memory for arenas and states, and typed views into it.
use crate::cpu::product::Column;
use ds4_ir::Scalar;
use ds4_ir::plan::ALIGN;
use ds4_ir::view::{Data, DataMut, Route};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Zeroed bytes at an address that is a multiple of [`ALIGN`]. Pages are taken when first touched.
pub(crate) struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned, plain bytes; access follows the borrow of `Memory`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Allocates at least `bytes` bytes, `None` if the system has not as many.
    pub(crate) fn new(bytes: u64) -> Option<Memory> {
        let size = usize::try_from(bytes.max(1)).ok()?.checked_next_multiple_of(ALIGN as usize)?;
        let layout = Layout::from_size_align(size, ALIGN as usize).ok()?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Memory { start, layout })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation is this long, zeroed at first, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and the borrow of `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }

    /// The bytes, to be shared by the tasks of a step.
    ///
    /// # Safety
    /// While the region lives, who holds `self` reads none of the bytes that others write through it.
    pub(crate) unsafe fn shared(&self) -> Region<'_> {
        Region { start: self.start, len: self.layout.size(), _borrow: PhantomData }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Types of which any bytes of the right number and alignment are values.
///
/// # Safety
/// True of every implementor.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: numbers without invalid bytes.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for i16 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: two numbers without padding.
unsafe impl Plain for Route<f32> {}
// SAFETY: as above.
unsafe impl Plain for Column {}

/// Memory that the tasks of a launch share. It may be read and written by whoever holds the region, so
/// every access states which bytes are whose.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    start: NonNull<u8>,
    len: usize,
    _borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: access is unsafe, and its callers say who uses which bytes.
unsafe impl Send for Region<'_> {}
// SAFETY: as above.
unsafe impl Sync for Region<'_> {}

impl<'a> Region<'a> {
    /// Borrows elements as shared memory.
    pub(crate) fn of<T: Plain>(elements: &'a mut [T]) -> Region<'a> {
        let len = size_of_val(elements);
        Region { start: NonNull::from(elements).cast(), len, _borrow: PhantomData }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes `at..at + len` as a region of their own.
    pub(crate) fn part(&self, at: usize, len: usize) -> Region<'a> {
        assert!(at <= self.len && len <= self.len - at, "{len} bytes at {at} of {}", self.len);
        // SAFETY: inside the region.
        Region { start: unsafe { self.start.add(at) }, len, _borrow: PhantomData }
    }

    fn pointer<T: Plain>(&self, at: usize, count: usize) -> NonNull<T> {
        let bytes = count.checked_mul(size_of::<T>()).expect("a size in memory");
        let start = self.part(at, bytes).start.cast::<T>();
        assert!(start.is_aligned(), "elements of {} bytes at {at}", size_of::<T>());
        start
    }

    /// `count` elements from byte `at` on.
    ///
    /// # Safety
    /// No one writes them while the slice lives.
    pub(crate) unsafe fn slice<T: Plain>(&self, at: usize, count: usize) -> &'a [T] {
        // SAFETY: inside the region, aligned, and any bytes are values; not written, says the caller.
        unsafe { std::slice::from_raw_parts(self.pointer::<T>(at, count).as_ptr(), count) }
    }

    /// `count` elements from byte `at` on, to write.
    ///
    /// # Safety
    /// No one else reads or writes them while the slice lives.
    pub(crate) unsafe fn slice_mut<T: Plain>(&self, at: usize, count: usize) -> &'a mut [T] {
        // SAFETY: as for `slice`; the caller is the only user.
        unsafe { std::slice::from_raw_parts_mut(self.pointer::<T>(at, count).as_ptr(), count) }
    }
}

const _: () = assert!(size_of::<Route<f32>>() == 8);
#[cfg(target_endian = "big")]
compile_error!("states and files are little-endian; so must the machine be");

/// Views `bytes` as `count` elements of `T`.
pub(crate) fn cast<T: Plain>(bytes: &[u8], count: usize) -> &[T] {
    assert!(bytes.len() >= count * size_of::<T>(), "{} bytes for {count} elements", bytes.len());
    assert!(bytes.as_ptr().cast::<T>().is_aligned(), "elements are aligned");
    // SAFETY: length and alignment are checked; any bytes are values.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), count) }
}

/// Views `bytes` as `count` elements of `T`, to write.
pub(crate) fn cast_mut<T: Plain>(bytes: &mut [u8], count: usize) -> &mut [T] {
    assert!(bytes.len() >= count * size_of::<T>(), "{} bytes for {count} elements", bytes.len());
    assert!(bytes.as_ptr().cast::<T>().is_aligned(), "elements are aligned");
    // SAFETY: as for `cast`, and the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), count) }
}

/// `rows` rows of `width` elements at the start of `bytes`.
pub(crate) fn data(scalar: Scalar, bytes: &[u8], rows: usize, width: usize) -> Data<'_, f32> {
    match scalar {
        Scalar::F32 => Data::Real(cast(bytes, rows * width)),
        Scalar::I32 => Data::Int(cast(bytes, rows * width)),
        Scalar::Route => Data::Route(cast::<Route<f32>>(bytes, rows * width)),
        scalar => Data::Packed(&bytes[..rows * scalar.row_bytes(width)]),
    }
}

/// As [`data`], for writing.
pub(crate) fn data_mut(scalar: Scalar, bytes: &mut [u8], rows: usize, width: usize) -> DataMut<'_, f32> {
    match scalar {
        Scalar::F32 => DataMut::Real(cast_mut(bytes, rows * width)),
        Scalar::I32 => DataMut::Int(cast_mut(bytes, rows * width)),
        Scalar::Route => DataMut::Route(cast_mut::<Route<f32>>(bytes, rows * width)),
        scalar => DataMut::Packed(&mut bytes[..rows * scalar.row_bytes(width)]),
    }
}

/// Rows and width of a tensor with these extents.
pub(crate) fn rows_of(dims: &[usize]) -> (usize, usize) {
    let (width, outer) = dims.split_last().expect("a tensor has an axis");
    (outer.iter().product(), *width)
}
