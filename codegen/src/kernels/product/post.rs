//! What leaves a sublayer, mixed into the streams.
use cubecl::prelude::*;

/// `post_j · y + Σ_i combine_ij · h_i` for element `column` of stream `j` of a token, where the token's
/// gates are the n of `pre`, the n of `post` and the n² of `combine` (spec 2.1).
#[cube]
pub(crate) fn hc_post(
    h: &[f32],
    y: f32,
    gates: &[f32],
    token: usize,
    j: usize,
    column: usize,
    #[comptime] streams: u32,
    #[comptime] width: u32,
) -> f32 {
    let (n, width) = comptime!((streams as usize, width as usize));
    let gate = token * comptime!(n * n + 2 * n);
    let mut sum = gates[gate + n + j] * y;
    #[unroll]
    for i in 0..n {
        sum = fma(gates[gate + comptime!(2 * n + i * n) + j], h[(token * n + i) * width + column], sum);
    }
    sum
}
