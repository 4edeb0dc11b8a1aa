//! Inputs as matrix units take them: normed, rounded, one after the other in scratch.
//!
//! A block per input. Rows of scratch are the whole tiles of each piece; what lies behind the columns is zero. Where
//! inputs are staged from rows of f32, scratch has such rows, and without a norm they are the operand itself.
use super::{Element, Matrix, TILE_BYTES};
use crate::kernels::common::Rows;
use crate::kernels::product::{Norm, Product};
use crate::{Binding, Launch, Target, Text};
use ds4_ir::Scalar;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::range::{block_max, both, input_exponent, magnitude, power},
    crate::emit,
    crate::kernels::common::rows,
    crate::kernels::product::{Tile, norm_factors, stage},
    cubecl::prelude::*,
    half::f16,
};

#[derive(Debug)]
struct Inputs {
    inputs: Rows,
    product: Product,
    /// Elements that each element of an input is the sum of.
    pieces: u32,
    /// Words of a piece of an input in scratch, and from one input to the next.
    words: u32,
    pitch: u32,
    element: Element,
}

/// Inputs as an op has them.
pub(crate) struct Given {
    /// Their number.
    pub(crate) inputs: Rows,
    /// Which operand they are.
    pub(crate) operand: usize,
    /// Elements of a row of the operand.
    pub(crate) width: u32,
    /// What they are rounded to.
    pub(crate) format: Scalar,
    /// Norm before that, and its weight.
    pub(crate) norm: (Norm, Binding),
}

/// The launch, if there must be one, that writes the inputs of `matrix` from byte `offset` of scratch on, `most` of
/// them, and where they then are. `None` if they cannot be rounded so.
pub(super) fn launch(
    given: &Given,
    matrix: &Matrix,
    most: u32,
    offset: u64,
    target: &Target,
) -> Option<(Option<Launch>, Binding)> {
    if matrix.in_place() && given.norm.0 == Norm::None {
        return Some((None, Binding::Value(given.operand)));
    }
    let width = matrix.weight.width;
    let product = Product::new(Scalar::F32, matrix.rows, Scalar::F32, width, 1, target)?;
    let product = product.normed(given.norm.0, target).rounded(given.format, given.width)?;
    let product = Product { parts: matrix.parts, ..product };
    let bytes = u64::from(most) * u64::from(matrix.parts) * u64::from(matrix.input_bytes());
    let scratch = Binding::Scratch { offset, bytes };
    let launch = Launch {
        block: [product.threads(), 1, 1],
        grid: [most, matrix.parts, 1],
        bindings: vec![Binding::Step, Binding::Value(given.operand), given.norm.1.clone(), scratch.clone()],
        text: Arc::new(Inputs {
            inputs: given.inputs,
            product,
            pieces: if matrix.in_place() { 1 } else { matrix.pieces() },
            words: if matrix.in_place() { width } else { matrix.tiles() * TILE_BYTES / 4 },
            pitch: matrix.input_bytes() / 4,
            element: if matrix.in_place() { Element::F32 } else { matrix.element },
        }),
    };
    Some((Some(launch), scratch))
}

impl Text for Inputs {
    fn name(&self) -> &'static str {
        "matrix_inputs"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3] = emit::buffers();
        let (set, dev, lang) = at.parts();
        let (inputs, p) = (self.inputs, self.product);
        let (pieces, words, pitch, element) = (self.pieces, self.words, self.pitch, self.element);
        CubeKernel::define(&matrix_inputs::MatrixInputs::new(
            set, dev, lang, b0, b1, b2, b3, inputs, p, pieces, words, pitch, element,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn matrix_inputs(
    step: &[i32],
    x: &[u32],
    norm: &[u32],
    out: &mut [u32],
    #[comptime] inputs: Rows,
    #[comptime] p: Product,
    #[comptime] pieces: u32,
    #[comptime] words: u32,
    #[comptime] pitch: u32,
    #[comptime] element: Element,
) {
    let end = rows(step, inputs);
    let (first, part) = (CUBE_POS_X as usize, CUBE_POS_Y as usize);
    if first >= end {
        terminate!();
    }
    let mut held = Tile::new(p);
    norm_factors(x, first, end, &mut held, p);
    let each = comptime!(if element == Element::F32 { 1usize } else { 2usize });
    let words = comptime!(words as usize);
    let (of_tile, threads) = comptime!((p.tile as usize / each, p.threads() as usize));
    let row = (first * comptime!(p.parts as usize) + part) * comptime!(pitch as usize);
    let mut factor = 1.0f32;
    if comptime!(element == Element::F16) {
        let mut top = 0u32;
        for tile in 0..comptime!(p.tiles() as usize) {
            sync_cube();
            stage(x, norm, first, end, part, tile, &mut held, p);
            sync_cube();
            for i in range_stepped(UNIT_POS as usize, comptime!(p.tile as usize), threads) {
                top = max(top, magnitude(held.number(0usize, i, p)));
            }
        }
        let mut partial = Shared::<[u32]>::new_slice(comptime!(p.subgroups as usize));
        let exponent = input_exponent(block_max(top, &mut partial, p.subgroups));
        factor = power(exponent);
        if UNIT_POS == 0 {
            out[row + comptime!(pieces as usize * words)] = u32::reinterpret(power(254u32 - exponent));
        }
    }
    for tile in 0..comptime!(p.tiles() as usize) {
        // A single tile is there already.
        if comptime!(element != Element::F16 || p.tiles() > 1) {
            sync_cube();
            stage(x, norm, first, end, part, tile, &mut held, p);
            sync_cube();
        }
        for i in range_stepped(UNIT_POS as usize, of_tile, threads) {
            let at = tile * of_tile + i;
            if at < words {
                let low = held.number(0usize, i * each, p);
                if comptime!(element == Element::F32) {
                    out[row + at] = u32::reinterpret(low);
                } else {
                    let high = held.number(0usize, i * each + 1, p);
                    let mut left = (low * factor, high * factor);
                    #[unroll]
                    for piece in 0..comptime!(pieces as usize) {
                        out[row + at + comptime!(piece * words)] = both(left.0, left.1, element);
                        if comptime!(pieces > 1) {
                            left = (
                                left.0 - f32::cast_from(f16::cast_from(left.0)),
                                left.1 - f32::cast_from(f16::cast_from(left.1)),
                            );
                        }
                    }
                }
            }
        }
    }
}
