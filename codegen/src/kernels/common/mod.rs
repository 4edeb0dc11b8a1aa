//! What kernels share: how many rows a step has, sums over a block, plain numbers, views of buffers.
#[cfg(feature = "gpu")]
mod code;
mod extent;
mod numbers;
#[cfg(feature = "gpu")]
mod reduce;
mod stretch;
#[cfg(feature = "gpu")]
mod words;

/// Threads of a block of products, rows and copies, which may so be launched side by side.
pub(crate) const THREADS: u32 = 128;

pub(crate) use extent::Rows;
pub(crate) use numbers::Number;
pub(crate) use stretch::groups_of;
#[cfg(feature = "gpu")]
pub(crate) use {
    code::{e2m1_code, e4m3_code, pow2_ceil},
    extent::rows,
    numbers::{bf16_value, e2m1_value, e4m3_value, e8m0_value, f16_value, nearest, number, signed_byte},
    reduce::block_sum,
    stretch::{SECTOR, Stretch},
    words::{byte_at, bytes, half_at, halves, pairs, quads, singles, view, view_mut, words_at},
};
