//! A result matrix that several threads fill, each its own cells.
use crate::memory::Region;
use std::ops::Range;

/// The cells of a row-major matrix of `f32`, written from any thread.
#[derive(Clone)]
pub(crate) struct Cells<'a> {
    memory: Region<'a>,
    at: usize,
    rows: usize,
    /// Columns that there is memory for.
    columns: Range<usize>,
}

impl<'a> Cells<'a> {
    /// Borrows `out` as rows of `width` elements.
    pub(crate) fn new(out: &'a mut [f32], width: usize) -> Cells<'a> {
        assert!(out.len().is_multiple_of(width), "{} elements in rows of {width}", out.len());
        let rows = out.len() / width;
        Cells { memory: Region::of(out), at: 0, rows, columns: 0..width }
    }

    /// `rows` rows of `width` elements from byte `at` of `memory` on.
    ///
    /// # Safety
    /// While they live, these bytes are written through the cells only, and read by no one who has not
    /// waited for the writers.
    pub(crate) unsafe fn shared(memory: Region<'a>, at: usize, rows: usize, width: usize) -> Cells<'a> {
        // SAFETY: as the caller says.
        unsafe { Cells::block(memory, at, rows, 0..width) }
    }

    /// As [`Cells::shared`], but there is memory for these columns of a wider matrix only.
    ///
    /// # Safety
    /// As for [`Cells::shared`].
    pub(crate) unsafe fn block(
        memory: Region<'a>,
        at: usize,
        rows: usize,
        columns: Range<usize>,
    ) -> Cells<'a> {
        let fits = at.is_multiple_of(4) && at + rows * columns.len() * 4 <= memory.len();
        assert!(fits, "cells outside their memory");
        Cells { memory, at, rows, columns }
    }

    /// Writes cells of one row, from `column` on.
    ///
    /// # Safety
    /// No other thread writes the same cells while the matrix is borrowed.
    pub(crate) unsafe fn write(&self, row: usize, column: usize, x: &[f32]) {
        // SAFETY: as the caller says.
        unsafe { self.part(row, column..column + x.len()) }.copy_from_slice(x);
    }

    /// Cells `columns` of row `row`.
    ///
    /// # Safety
    /// No one else reads or writes these cells while the slice lives.
    pub(crate) unsafe fn part(&self, row: usize, columns: Range<usize>) -> &'a mut [f32] {
        let own = self.columns.start <= columns.start && columns.end <= self.columns.end;
        assert!(row < self.rows && own, "cells {columns:?} of row {row}");
        let cell = row * self.columns.len() + columns.start - self.columns.start;
        // SAFETY: the cells lie inside the memory; the rest is as the caller says.
        unsafe { self.memory.slice_mut(self.at + cell * 4, columns.len()) }
    }
}
