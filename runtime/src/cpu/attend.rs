//! Attention: tokens go to the threads, and for a single token its heads.
use ds4_ir::ops::attend::{Window, attend};
use ds4_ir::view::Frame;
use rayon::prelude::*;

/// Runs every head of every token. `more(t, p)` lists the keys after the window's; `sinks` is the
/// index of that operand.
fn run<'k>(
    f: &mut Frame<'_, f32>,
    window: &'k Window<f32>,
    sinks: usize,
    more: impl Fn(usize, usize) -> Vec<&'k [f32]> + Sync,
) {
    let (q, pos) = (f.tensor(0), f.tensor(sinks + 1).int());
    let (heads, width, q) = (q.dims[1], q.dims[2], q.real());
    let sinks = f.weight(sinks).to_real::<f32>();
    // A lone token's heads are spread over the threads, otherwise whole tokens are.
    let together = if pos.len() == 1 { heads.div_ceil(rayon::current_num_threads()) } else { heads };
    let parts_per_token = heads.div_ceil(together);
    let token = |out: &mut [f32], t: usize, part: usize| {
        let p = pos[t] as usize;
        let mut keys: Vec<&[f32]> = window.keys(p).collect();
        keys.extend(more(t, p));
        let from = part * together;
        let to = (from + together).min(heads);
        attend(&q[(t * heads + from) * width..(t * heads + to) * width], &keys, &sinks[from..to], out);
    };
    f.out_real().par_chunks_mut(heads * width).enumerate().for_each(|(t, out)| {
        if parts_per_token == 1 {
            return token(out, t, 0);
        }
        out.par_chunks_mut(together * width).enumerate().for_each(|(part, out)| token(out, t, part));
    });
}

pub(super) fn attend_window(f: &mut Frame<'_, f32>) {
    let window = Window::new(&f.state(1), &f.tensor(2), f.tensor(4).int());
    run(f, &window, 3, |_, _| Vec::new());
}

pub(super) fn attend_selected(f: &mut Frame<'_, f32>) {
    let window = Window::new(&f.state(1), &f.tensor(2), f.tensor(6).int());
    let (sel, idx) = (f.tensor(3), f.tensor(4));
    let (k, width, idx) = (idx.width(), sel.width(), idx.int());
    let sel = sel.to_real();
    run(f, &window, 5, |t, _| {
        let chosen = (t * k..(t + 1) * k).filter(|i| idx[*i] >= 0);
        chosen.map(|i| &sel[i * width..][..width]).collect()
    });
}

pub(super) fn attend_entries(f: &mut Frame<'_, f32>) {
    let pos = f.tensor(5).int();
    let window = Window::new(&f.state(1), &f.tensor(2), pos);
    let entries = f.state(3);
    let (ratio, width) = (entries.ty.kind.span() as usize, entries.ty.width as usize);
    let n = pos.last().map_or(0, |p| (*p as usize + 1) / ratio);
    let mut keys = vec![0.0; n * width];
    keys.chunks_exact_mut(width).enumerate().for_each(|(j, key)| entries.read_row(j, key));
    run(f, &window, 4, |_, p| keys.chunks_exact(width).take((p + 1) / ratio).collect());
}
