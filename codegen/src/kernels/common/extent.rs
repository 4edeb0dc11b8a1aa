//! How many rows a step has.
#[cfg(feature = "gpu")]
use crate::step;
#[cfg(feature = "gpu")]
use cubecl::prelude::*;
use ds4_ir::plan::Maxima;
use ds4_ir::{Dim, Sym};

/// A number of rows: a symbol, if any, times a constant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Rows {
    /// What varies from step to step.
    pub(crate) sym: Option<Sym>,
    /// Rows per unit of it.
    pub(crate) each: u32,
}

impl Rows {
    /// The product of extents, of which at most the first is a symbol.
    pub(crate) fn of(dims: &[Dim]) -> Rows {
        let sym = dims.iter().find_map(|d| if let Dim::Sym(s) = d { Some(*s) } else { None });
        Rows { sym, each: dims.iter().filter_map(|d| d.constant()).product() }
    }

    /// The most there are in a bucket.
    pub(crate) fn max(self, maxima: &Maxima) -> u32 {
        let units = self.sym.map_or(1, |s| maxima.sym(s));
        u32::try_from(units * u64::from(self.each)).expect("rows fit 32 bits")
    }
}

/// The rows there are in this step.
#[cfg(feature = "gpu")]
#[cube]
pub(crate) fn rows(step: &[i32], #[comptime] rows: Rows) -> usize {
    units(step, comptime!(rows.sym)) * comptime!(rows.each as usize)
}

/// The value of a symbol in this step, 1 for none.
#[cfg(feature = "gpu")]
#[cube]
fn units(step: &[i32], #[comptime] sym: Option<Sym>) -> usize {
    let tokens = step[step::TOKENS] as usize;
    if comptime!(sym.is_none()) {
        1usize.runtime()
    } else if comptime!(sym == Some(Sym::Tokens)) {
        tokens
    } else if comptime!(sym == Some(Sym::Wanted)) {
        step[step::WANTED] as usize
    } else {
        let ratio = comptime!(ratio(sym));
        let start = step[step::START] as usize;
        let entries = (start + tokens) / ratio;
        if comptime!(matches!(sym, Some(Sym::Closed(_)))) { entries - start / ratio } else { entries }
    }
}

#[cfg(feature = "gpu")]
fn ratio(sym: Option<Sym>) -> usize {
    match sym {
        Some(Sym::Entries(r) | Sym::Closed(r)) => r as usize,
        _ => 1,
    }
}
