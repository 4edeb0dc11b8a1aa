//! A result matrix that several threads fill, each its own cells.
use crate::memory::Region;
use std::ops::Range;

/// The cells of a row-major matrix of `f32`, written from any thread.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a> {
    memory: Region<'a>,
    at: usize,
    rows: usize,
    width: usize,
}

impl<'a> Cells<'a> {
    /// Borrows `out` as rows of `width` elements.
    pub(crate) fn new(out: &'a mut [f32], width: usize) -> Cells<'a> {
        assert!(out.len().is_multiple_of(width), "{} elements in rows of {width}", out.len());
        let rows = out.len() / width;
        Cells { memory: Region::of(out), at: 0, rows, width }
    }

    /// `rows` rows of `width` elements from byte `at` of `memory` on.
    ///
    /// # Safety
    /// While they live, these bytes are written through the cells only, and read by no one who has not
    /// waited for the writers.
    pub(crate) unsafe fn shared(memory: Region<'a>, at: usize, rows: usize, width: usize) -> Cells<'a> {
        assert!(at.is_multiple_of(4) && at + rows * width * 4 <= memory.len(), "cells outside their memory");
        Cells { memory, at, rows, width }
    }

    /// Writes cells of one row, from `column` on.
    ///
    /// # Safety
    /// No other thread writes the same cells while the matrix is borrowed.
    pub(crate) unsafe fn write(&self, row: usize, column: usize, x: &[f32]) {
        // SAFETY: as the caller says.
        unsafe { self.part(row, column..column + x.len()) }.copy_from_slice(x);
    }

    /// Writes one cell.
    ///
    /// # Safety
    /// No other thread reads or writes the same cell while the matrix is borrowed.
    pub(crate) unsafe fn set(&self, row: usize, column: usize, x: f32) {
        // SAFETY: as the caller says.
        unsafe { self.part(row, column..column + 1)[0] = x }
    }

    /// Cells `columns` of row `row`.
    ///
    /// # Safety
    /// No one else reads or writes these cells while the slice lives.
    pub(crate) unsafe fn part(&self, row: usize, columns: Range<usize>) -> &'a mut [f32] {
        assert!(row < self.rows && columns.end <= self.width, "cells {columns:?} of row {row}");
        // SAFETY: the cells lie inside the memory; the rest is as the caller says.
        unsafe { self.memory.slice_mut(self.at + (row * self.width + columns.start) * 4, columns.len()) }
    }
}
