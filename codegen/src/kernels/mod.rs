//! The kernels, one file per op or family of ops; what they share is in [`common`], [`formats`] and
//! [`product`].
mod common;
mod formats;
#[cfg(feature = "gpu")]
mod hc_post;
mod product;

pub(crate) mod gated;
pub(crate) mod hc_enter;
pub(crate) mod matmul;
pub(crate) mod moe_down;
pub(crate) mod moe_route;
pub(crate) mod out_post;
pub(crate) mod rms_norm;
pub(crate) mod streams;
