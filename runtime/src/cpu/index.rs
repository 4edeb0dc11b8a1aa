//! The indexer: tokens go to the threads; the scores of a token live while it selects.
use ds4_ir::ops::{dot, largest};
use ds4_ir::view::Frame;
use rayon::prelude::*;

/// `index_scores` and `topk` of one token after the other, in the interpreter's order of summation.
pub(super) fn index_select(f: &mut Frame<'_, f32>) {
    let (q, weights, entries, pos) = (f.tensor(0), f.tensor(1).real(), f.state(2), f.tensor(3).int());
    let k = f.int(4);
    let (heads, width) = (q.dims[1], q.dims[2]);
    let ratio = entries.ty.kind.span() as usize;
    let scale = 1.0 / ((width * heads) as f32).sqrt();
    let q = q.to_real();
    let n = pos.last().map_or(0, |p| (*p as usize + 1) / ratio);
    let mut keys = vec![0.0; n * width];
    keys.par_chunks_exact_mut(width).enumerate().for_each(|(j, key)| entries.read_row(j, key));
    let score = |t: usize, key: &[f32]| {
        let head = |h: usize| {
            let s = dot(&q[(t * heads + h) * width..][..width], key);
            s.max(0.0) * weights[t * heads + h]
        };
        (0..heads).map(head).sum::<f32>() * scale
    };
    f.out_int().par_chunks_exact_mut(k).enumerate().for_each(|(t, out)| {
        let seen = (pos[t] as usize + 1) / ratio;
        let scores: Vec<f32> = keys.par_chunks_exact(width).take(seen).map(|key| score(t, key)).collect();
        let mut ids = largest(&scores, k);
        ids.sort_unstable();
        out.fill(-1);
        for (o, i) in out.iter_mut().zip(ids) {
            *o = i32::try_from(i).expect("entries fit an i32");
        }
    });
}
