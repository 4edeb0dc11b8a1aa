//! The kernels, one file per op or family of ops; what they share is in [`common`], [`formats`] and
//! [`product`].
mod common;
mod formats;
mod product;

pub(crate) mod matmul;
pub(crate) mod rms_norm;
pub(crate) mod streams;
