//! A result matrix that several threads fill, each its own columns.
use std::marker::PhantomData;

/// The cells of a row-major matrix, written one by one from any thread.
pub(crate) struct Cells<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is `set`, whose callers write disjoint cells.
unsafe impl Sync for Cells<'_> {}

impl<'a> Cells<'a> {
    /// Borrows `out` as rows of `width` elements.
    pub(crate) fn new(out: &'a mut [f32], width: usize) -> Cells<'a> {
        assert!(out.len().is_multiple_of(width), "{} elements in rows of {width}", out.len());
        Cells { start: out.as_mut_ptr(), rows: out.len() / width, width, _borrow: PhantomData }
    }

    /// Writes cells of one row, from `column` on.
    ///
    /// # Safety
    /// No other thread writes the same cells while the matrix is borrowed.
    pub(super) unsafe fn write(&self, row: usize, column: usize, x: &[f32]) {
        assert!(row < self.rows && column + x.len() <= self.width, "cells {row}, {column} + {}", x.len());
        // SAFETY: the cells lie inside the borrowed slice, and the caller is their only writer.
        unsafe { self.start.add(row * self.width + column).copy_from_nonoverlapping(x.as_ptr(), x.len()) }
    }

    /// Writes one cell.
    ///
    /// # Safety
    /// No other thread writes the same cell while the matrix is borrowed.
    pub(super) unsafe fn set(&self, row: usize, column: usize, x: f32) {
        assert!(row < self.rows && column < self.width, "cell {row}, {column}");
        // SAFETY: the cell lies inside the borrowed slice, and the caller is its only writer.
        unsafe { *self.start.add(row * self.width + column) = x }
    }
}
