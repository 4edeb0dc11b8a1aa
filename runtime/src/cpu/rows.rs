//! Rows that are normed and rotated where they lie: rows go to the threads.
use ds4_ir::ops::dot;
use ds4_ir::view::Frame;
use rayon::prelude::*;

/// Rows that one task takes.
const BLOCK: usize = 16;

/// `split`, `head_norm` and `rope` of each head, in the interpreter's order of summation.
pub(super) fn head_rope(f: &mut Frame<'_, f32>) {
    let (x, table, eps) = (f.tensor(0).real(), f.tensor(1), f.lit(3));
    let &[_, heads, width] = f.out_dims() else { panic!("a head is a row of three axes") };
    let (dims, angles) = (table.width(), table.real());
    f.out_real().par_chunks_mut(BLOCK * width).enumerate().for_each(|(block, out)| {
        for (i, out) in out.chunks_exact_mut(width).enumerate() {
            let row = block * BLOCK + i;
            let x = &x[row * width..][..width];
            let scale = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
            out.iter_mut().zip(x).for_each(|(o, x)| *o = *x * scale);
            let angles = &angles[row / heads * dims..][..dims];
            for (pair, angle) in out[width - dims..].chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
                let (a, b, cos, sin) = (pair[0], pair[1], angle[0], angle[1]);
                pair[0] = a * cos - b * sin;
                pair[1] = a * sin + b * cos;
            }
        }
    });
}

/// Rotates pairs back, as `unrope` does.
pub(super) fn rotate_back(x: &mut [f32], angles: &[f32]) {
    for (pair, angle) in x.chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
        let (a, b, cos, sin) = (pair[0], pair[1], angle[0], -angle[1]);
        pair[0] = a * cos - b * sin;
        pair[1] = a * sin + b * cos;
    }
}
