//! Times kernels against each other: in turn, again and again, so that what else the machine does hits
//! all of them; the least of many samples counts.
use super::{Site, trial};
use crate::cpu::cells::Cells;
use crate::cpu::product::{Column, Job, ProductKernel};
use crate::memory::Memory;
use crate::weights::Weights;
use ds4_ir::view::Matrix;
use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes of weights that a decoding sample reads: more than caches hold, where the model has as many.
const DECODE_BYTES: usize = 96 << 20;
/// Bytes of weights of a sample of many columns.
const PROMPT_BYTES: usize = 2 << 20;
/// Bytes of weights that a task reads.
const TASK_BYTES: usize = 128 << 10;
/// Fewest samples of each kernel, however little time there is.
const SAMPLES_MIN: usize = 3;
/// Most samples of each kernel.
const SAMPLES_MAX: usize = 200;

/// Matrices of a site as kernels read them.
pub(super) fn pool<'a>(weights: &'a Weights, site: &Site) -> Vec<Matrix<'a>> {
    let most = if site.columns == 1 { DECODE_BYTES } else { PROMPT_BYTES };
    let (mut pool, mut bytes) = (Vec::new(), 0);
    for view in site.weights.iter().map(|i| weights.packed(*i)) {
        for matrix in 0..view.items.len() {
            if bytes >= most {
                return pool;
            }
            let m = view.matrix(matrix);
            bytes += m.codes.len();
            pool.push(m);
        }
    }
    pool
}

/// What a kernel reads beside weights.
struct Runner<'a> {
    kernel: &'a ProductKernel,
    inputs: Memory,
    stride: usize,
    columns: Vec<Column>,
}

/// Samples of each kernel in femtoseconds per weight and column.
pub(super) fn measure(
    kernels: &[&ProductKernel],
    columns: usize,
    pool: &[Matrix<'_>],
    threads: usize,
    budget: Duration,
) -> Vec<Vec<u64>> {
    let Some(width) = pool.first().map(|m| m.width) else { return vec![Vec::new(); kernels.len()] };
    let mut random = Pcg64Mcg::seed_from_u64(5);
    let runner = |kernel: &&'_ ProductKernel| {
        let rows: Vec<Vec<u8>> = (0..columns).map(|_| trial::input(kernel, width, &mut random)).collect();
        let (inputs, stride) = trial::prepared(kernel, width, &rows);
        let at = |i: usize| u32::try_from(i).expect("few columns");
        let columns = (0..columns).map(|i| Column { input: at(i), result: at(i) }).collect();
        (inputs, stride, columns)
    };
    let parts: Vec<_> = kernels.iter().map(runner).collect();
    let runners: Vec<Runner<'_>> = kernels
        .iter()
        .zip(parts)
        .map(|(kernel, (inputs, stride, columns))| Runner { kernel, inputs, stride, columns })
        .collect();
    let products: usize = pool.iter().map(|m| m.rows * m.width * columns).sum();
    let start = Instant::now();
    let mut samples = vec![Vec::new(); runners.len()];
    for round in 0..SAMPLES_MAX {
        if round >= SAMPLES_MIN && start.elapsed() >= budget {
            break;
        }
        // Another one is first each time: the first finds caches as another site left them.
        for i in (0..runners.len()).map(|i| (i + round) % runners.len()) {
            let seconds = pass(&runners[i], pool, threads);
            samples[i].push((seconds * 1e15 / products as f64) as u64);
        }
    }
    samples
}

/// Seconds of all products once.
fn pass(runner: &Runner<'_>, pool: &[Matrix<'_>], threads: usize) -> f64 {
    let Runner { kernel: k, inputs, stride, columns } = runner;
    let block = |m: &Matrix<'_>| {
        let row = (m.codes.len() / m.rows).max(1);
        (TASK_BYTES / row).max(1).next_multiple_of(k.granule)
    };
    let tasks: Vec<(usize, usize)> = (0..pool.len())
        .flat_map(|i| (0..pool[i].rows).step_by(block(&pool[i])).map(move |from| (i, from)))
        .collect();
    let next = AtomicUsize::new(0);
    let rows_max = pool.iter().map(|m| m.rows).max().unwrap_or(0);
    let work = || {
        let mut out = vec![0f32; columns.len() * rows_max];
        let scratch = (k.scratch_bytes)(pool[0].width, columns.len());
        let mut scratch = Memory::new(scratch as u64).expect("memory for scratch");
        while let Some((i, from)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let m = &pool[*i];
            let cells = Cells::new(&mut out[..columns.len() * m.rows], m.rows);
            let rows = *from..(from + block(m)).min(m.rows);
            let job = Job { m: *m, rows, inputs: inputs.bytes(), stride: *stride, columns, out: &cells };
            (k.run)(&job, scratch.bytes_mut());
        }
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        (1..threads.max(1)).for_each(|_| {
            scope.spawn(work);
        });
        work();
    });
    start.elapsed().as_secs_f64()
}
