//! Attention: tokens go to the threads, and for a single token its heads.
use ds4_ir::ops::attend::{Window, attend};
use ds4_ir::view::{Frame, State};
use rayon::prelude::*;

/// Runs every head of every token. `more(t, p)` lists the keys after the window's; `sinks` is the
/// index of that operand.
fn run<'k>(
    f: &mut Frame<'_, f32>,
    window: &'k Window<f32>,
    sinks: usize,
    more: impl Fn(usize, usize) -> Vec<&'k [f32]> + Sync,
) {
    run_decoding(f, window, sinks, None, more, |_, _| 0);
}

/// The rotary table by which results are rotated back.
fn table<'a>(f: &Frame<'a, f32>, i: usize) -> Option<(&'a [f32], usize)> {
    Some((f.tensor(i).real(), f.tensor(i).width()))
}

/// Rotates rows of one token back, as `unrope` does.
fn unrope(rows: &mut [f32], width: usize, angles: &[f32]) {
    for row in rows.chunks_exact_mut(width) {
        for (pair, angle) in row[width - angles.len()..].chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
            let (a, b, cos, sin) = (pair[0], pair[1], angle[0], -angle[1]);
            pair[0] = a * cos - b * sin;
            pair[1] = a * sin + b * cos;
        }
    }
}

/// As [`run`]; `decode(t, buffer)` fills rows that are keys of token `t` only and says how many,
/// and `table` rotates the results back.
fn run_decoding<'k>(
    f: &mut Frame<'_, f32>,
    window: &'k Window<f32>,
    sinks: usize,
    table: Option<(&[f32], usize)>,
    more: impl Fn(usize, usize) -> Vec<&'k [f32]> + Sync,
    decode: impl Fn(usize, &mut Vec<f32>) -> usize + Sync,
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
        let mut buffer = Vec::new();
        keys.extend(more(t, p));
        let rows = decode(t, &mut buffer);
        keys.extend(buffer.chunks_exact(width).take(rows));
        let from = part * together;
        let to = (from + together).min(heads);
        attend(&q[(t * heads + from) * width..(t * heads + to) * width], &keys, &sinks[from..to], out);
        if let Some((angles, dims)) = table {
            unrope(out, width, &angles[t * dims..][..dims]);
        }
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

/// Every entry up to the last that a token of the step may see, decoded.
fn entry_keys(entries: &State<'_, f32>, pos: &[i32]) -> Vec<f32> {
    let (ratio, width) = (entries.ty.kind.span() as usize, entries.ty.width as usize);
    let n = pos.last().map_or(0, |p| (*p as usize + 1) / ratio);
    let mut keys = vec![0.0; n * width];
    keys.par_chunks_exact_mut(width).enumerate().for_each(|(j, key)| entries.read_row(j, key));
    keys
}

pub(super) fn attend_entries(f: &mut Frame<'_, f32>) {
    let pos = f.tensor(5).int();
    let window = Window::new(&f.state(1), &f.tensor(2), pos);
    let (ratio, width) = (f.state(3).ty.kind.span() as usize, f.state(3).ty.width as usize);
    let keys = entry_keys(&f.state(3), pos);
    run(f, &window, 4, |_, p| keys.chunks_exact(width).take((p + 1) / ratio).collect());
}

/// `attend_window` rotated back in place.
pub(super) fn swa_attend(f: &mut Frame<'_, f32>) {
    let window = Window::new(&f.state(1), &f.tensor(2), f.tensor(4).int());
    let table = table(f, 5);
    run_decoding(f, &window, 3, table, |_, _| Vec::new(), |_, _| 0);
}

/// `attend_entries` rotated back in place.
pub(super) fn hca_attend(f: &mut Frame<'_, f32>) {
    let pos = f.tensor(5).int();
    let window = Window::new(&f.state(1), &f.tensor(2), pos);
    let (ratio, width) = (f.state(3).ty.kind.span() as usize, f.state(3).ty.width as usize);
    let keys = entry_keys(&f.state(3), pos);
    let seen = |_, p: usize| keys.chunks_exact(width).take((p + 1) / ratio).collect();
    let table = table(f, 6);
    run_decoding(f, &window, 4, table, seen, |_, _| 0);
}

/// `attend_selected` of entries decoded token by token, rotated back in place.
pub(super) fn csa_attend(f: &mut Frame<'_, f32>) {
    let window = Window::new(&f.state(1), &f.tensor(2), f.tensor(6).int());
    let (entries, idx) = (f.state(3), f.tensor(4));
    let (k, width, idx) = (idx.width(), entries.ty.width as usize, idx.int());
    let table = table(f, 7);
    let decode = |t: usize, buffer: &mut Vec<f32>| {
        let chosen = idx[t * k..][..k].iter().filter_map(|j| usize::try_from(*j).ok());
        buffer.resize(k * width, 0.0);
        chosen.zip(buffer.chunks_exact_mut(width)).map(|(j, row)| entries.read_row(j, row)).count()
    };
    run_decoding(f, &window, 5, table, |_, _| Vec::new(), decode);
}
