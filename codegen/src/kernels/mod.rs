//! The kernels, one file per op or family of ops; what they share is in [`common`], [`formats`] and
//! [`product`].
#![cfg_attr(
    feature = "gpu",
    allow(
        clippy::approx_constant,
        clippy::collapsible_if,
        clippy::manual_div_ceil,
        clippy::manual_is_multiple_of,
        clippy::needless_range_loop,
        clippy::unnecessary_cast,
        reason = "kernels are written in the part of Rust that cubecl translates"
    )
)]
mod common;
mod formats;
mod product;

pub(crate) mod attend;
pub(crate) mod closed_pos;
pub(crate) mod compress_pool;
pub(crate) mod compress_push;
pub(crate) mod embed_rows;
pub(crate) mod gated;
pub(crate) mod hc_enter;
pub(crate) mod hc_gates;
pub(crate) mod hc_post;
pub(crate) mod hc_pre;
pub(crate) mod index;
pub(crate) mod matmul;
pub(crate) mod matrix;
pub(crate) mod moe_down;
pub(crate) mod moe_route;
pub(crate) mod out_post;
pub(crate) mod push;
pub(crate) mod rms_norm;
pub(crate) mod rope_table;
pub(crate) mod row;
pub(crate) mod stream_add;
pub(crate) mod streams;
pub(crate) mod take_rows;
