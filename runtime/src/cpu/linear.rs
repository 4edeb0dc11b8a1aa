//! Matrix products: blocks of weight rows go to the threads; a row is decoded once for all inputs.
use super::cells::Cells;
use ds4_ir::view::{Frame, Matrix};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Weight rows that one task takes.
const BLOCK: usize = 32;
/// Weight rows that are multiplied side by side.
const TILE: usize = 4;
/// Multiplications below which a product stays on the calling thread: handing out tasks costs
/// microseconds.
const SERIAL_MAX: usize = 1 << 15;

thread_local! {
    /// Decoded weight rows.
    static ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// One input row and the result row that its products go to.
type Input<'a> = (&'a [f32], usize);

/// Rows `rows` of `m` times each input, to column `column` + row of the input's result row.
struct Product<'a> {
    m: Matrix<'a>,
    rows: Range<usize>,
    inputs: &'a [Input<'a>],
}

/// Runs products that write disjoint cells.
fn run(products: &[Product<'_>], out: &Cells<'_>) {
    let work: usize = products.iter().map(|p| p.rows.len() * p.m.width * p.inputs.len()).sum();
    let tasks: Vec<(usize, Range<usize>)> = products
        .iter()
        .enumerate()
        .flat_map(|(i, p)| {
            let end = p.rows.end;
            p.rows.clone().step_by(BLOCK).map(move |from| (i, from..(from + BLOCK).min(end)))
        })
        .collect();
    let task = |(i, rows): &(usize, Range<usize>)| {
        let product = &products[*i];
        ROWS.with_borrow_mut(|buffer| block(&product.m, rows.clone(), product.inputs, buffer, out));
    };
    if work <= SERIAL_MAX { tasks.iter().for_each(task) } else { tasks.par_iter().for_each(task) }
}

/// One task: decodes a tile of rows, then multiplies it with every input.
fn block(m: &Matrix<'_>, rows: Range<usize>, inputs: &[Input<'_>], buffer: &mut Vec<f32>, out: &Cells<'_>) {
    buffer.resize(TILE * m.width, 0.0);
    for from in rows.clone().step_by(TILE) {
        let tile = from..(from + TILE).min(rows.end);
        for (row, decoded) in tile.clone().zip(buffer.chunks_exact_mut(m.width)) {
            m.read_row(row, decoded);
        }
        for (x, to) in inputs {
            let sums = dots(x, buffer);
            for (row, sum) in tile.clone().zip(sums) {
                // SAFETY: each pair of weight row and result row belongs to one task.
                unsafe { out.set(*to, row, sum) };
            }
        }
    }
}

/// The input times each of `TILE` rows, in the interpreter's order of summation.
fn dots(x: &[f32], rows: &[f32]) -> [f32; TILE] {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        return unsafe { dots_avx2(x, rows) };
    }
    dots_any(x, rows)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dots_avx2(x: &[f32], rows: &[f32]) -> [f32; TILE] {
    dots_any(x, rows)
}

#[inline(always)]
fn dots_any(x: &[f32], rows: &[f32]) -> [f32; TILE] {
    let row = |i: usize| &rows[i * x.len()..][..x.len()];
    let mut sums = [[0.0f32; 8]; TILE];
    let whole = x.len() / 8 * 8;
    for at in (0..whole).step_by(8) {
        let x: &[f32; 8] = x[at..at + 8].try_into().expect("8 elements");
        for (i, sums) in sums.iter_mut().enumerate() {
            let w: &[f32; 8] = row(i)[at..at + 8].try_into().expect("8 elements");
            for lane in 0..8 {
                sums[lane] += x[lane] * w[lane];
            }
        }
    }
    for at in whole..x.len() {
        for (i, sums) in sums.iter_mut().enumerate() {
            sums[at - whole] += x[at] * row(i)[at];
        }
    }
    sums.map(|[a, b, c, d, e, f, g, h]| ((a + b) + (c + d)) + ((e + f) + (g + h)))
}

pub(super) fn matmul(f: &mut Frame<'_, f32>) {
    let (x, m) = (f.tensor(0).to_real(), f.weight(1).matrix(0));
    let inputs: Vec<Input<'_>> = x.chunks_exact(m.width).enumerate().map(|(i, x)| (x, i)).collect();
    let out = Cells::new(f.out_real(), m.rows);
    run(&[Product { m, rows: 0..m.rows, inputs: &inputs }], &out);
}

pub(super) fn grouped_matmul(f: &mut Frame<'_, f32>) {
    let (x, m, groups) = (f.tensor(0).to_real(), f.weight(1).matrix(0), f.int(2));
    let rank = m.rows / groups;
    let of_group = |g: usize| -> Vec<Input<'_>> {
        let mine = x.chunks_exact(m.width).skip(g).step_by(groups);
        mine.enumerate().map(|(i, x)| (x, i)).collect()
    };
    let inputs: Vec<Vec<Input<'_>>> = (0..groups).map(of_group).collect();
    let product = |(g, inputs)| Product { m, rows: g * rank..(g + 1) * rank, inputs };
    let products: Vec<_> = inputs.iter().map(|i| &i[..]).enumerate().map(product).collect();
    run(&products, &Cells::new(f.out_real(), m.rows));
}

pub(super) fn expert_matmul(f: &mut Frame<'_, f32>) {
    let (x, w, routes) = (f.tensor(0), f.weight(1), f.tensor(2));
    let (k, width, shared) = (routes.width(), x.width(), x.dims.len() == 2);
    let x = x.to_real();
    let mut inputs: Vec<Vec<Input<'_>>> = vec![Vec::new(); w.items.len()];
    for (i, route) in routes.route().iter().enumerate() {
        let row = if shared { i / k } else { i };
        inputs[route.expert as usize].push((&x[row * width..][..width], i));
    }
    let chosen = inputs.iter().enumerate().filter(|(_, i)| !i.is_empty());
    let products: Vec<Product<'_>> =
        chosen.map(|(e, inputs)| Product { m: w.matrix(e), rows: 0..w.dims[1], inputs }).collect();
    run(&products, &Cells::new(f.out_real(), w.dims[1]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_sum_in_the_interpreters_order() {
        for width in [1, 7, 8, 9, 40, 129] {
            let noise = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
            let x: Vec<f32> = (0..width).map(noise).collect();
            let rows: Vec<f32> = (0..TILE * width).map(|i| noise(i + 77)).collect();
            for (i, sum) in dots(&x, &rows).into_iter().enumerate() {
                let expected = ds4_ir::ops::dot(&x, &rows[i * width..][..width]);
                assert_eq!(sum.to_bits(), expected.to_bits(), "width {width}, row {i}");
            }
        }
    }
}
