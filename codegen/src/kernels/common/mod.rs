//! What kernels share: how many rows a step has, sums over a block, plain numbers, views of buffers.
#[cfg(feature = "gpu")]
mod code;
mod extent;
mod numbers;
#[cfg(feature = "gpu")]
mod reduce;
#[cfg(feature = "gpu")]
mod words;

pub(crate) use extent::Rows;
pub(crate) use numbers::Number;
#[cfg(feature = "gpu")]
pub(crate) use {
    code::{e2m1_code, e4m3_code, pow2_ceil},
    extent::rows,
    numbers::{bf16_value, e2m1_value, e4m3_value, e8m0_value, f16_value, nearest, number, signed_byte},
    reduce::block_sum,
    words::{bytes, halves, pairs, quads},
};
