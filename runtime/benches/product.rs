//! Speed of the product kernels on one core, at the shapes of Flash: one column, which streams weights from
//! memory, beside a plain read of as many bytes in the same run; and many columns.
//!
//! `cargo bench -p ds4-runtime --bench product [-- WEIGHT]`
//!
//! With one column a figure is the median of pairs, each a short stretch of products and one of reading as
//! many bytes: a cache of hundreds of megabytes makes the best stretch one that never came from memory. With
//! many columns it is the best of many jobs. criterion measures one function after the other, seconds apart,
//! in which the rate of memory changes by more than kernels differ; hence a program of its own.
use ds4_ir::Scalar;
use ds4_runtime::product::{Shape, Trial};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// More than the caches hold.
const POOL_BYTES: usize = 1 << 30;
/// Weights of a kernel with many columns.
const COLUMNS_BYTES: usize = 48 << 20;
/// Time for one kernel and shape.
const BUDGET: Duration = Duration::from_millis(400);
/// Bytes of weights of a job with one column.
const JOB_BYTES: usize = 1 << 20;
/// Jobs that are timed together.
const STRETCH: usize = 8;
/// Weight rows of a job with many columns.
const JOB_ROWS: usize = 64;

/// Weight, input, rows and width.
const SHAPES: [(Scalar, Scalar, usize, usize); 14] = [
    (Scalar::Q8_0, Scalar::Q8_0, 32768, 1024),
    (Scalar::Q8_0, Scalar::Q8_0, 2048, 4096),
    (Scalar::Q8_0, Scalar::Q8_0, 4096, 8192),
    (Scalar::F16, Scalar::F32, 24, 16384),
    (Scalar::F16, Scalar::F32, 1024, 4096),
    (Scalar::F16, Scalar::F32, 8192, 1024),
    (Scalar::Bf16, Scalar::F32, 1024, 4096),
    (Scalar::F32, Scalar::F32, 1024, 4096),
    (Scalar::Iq2Xxs, Scalar::Q8K, 2048, 4096),
    (Scalar::Q2K, Scalar::Q8K, 4096, 2048),
    (Scalar::Q4K, Scalar::Q8K, 2048, 4096),
    (Scalar::Mxfp4, Scalar::Q8_0, 2048, 4096),
    (Scalar::Fp4, Scalar::Q8_0, 2048, 4096),
    (Scalar::Fp8, Scalar::F32, 2048, 4096),
];

fn main() {
    let only = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    for (weight, input, rows, width) in SHAPES {
        if only.as_ref().is_some_and(|o| *o != weight.to_string()) {
            continue;
        }
        println!("{weight} [{rows}, {width}] times {input}");
        let shape = |columns| Shape { weight, input, rows, width, columns };
        for mut trial in Trial::all(shape(1), POOL_BYTES) {
            let rows = trial.job_rows((JOB_BYTES / trial.bytes(1)).min(rows));
            let pairs = stream(&mut trial, rows);
            let (bytes, weights) = (trial.bytes(rows) as f64 / 1e9, (rows * width) as f64 / 1e9);
            let share = 100.0 * median(pairs.iter().map(|(job, read)| read / job));
            let (job, read) = (median(pairs.iter().map(|p| p.0)), median(pairs.iter().map(|p| p.1)));
            let (job, read, weights) = (bytes / job, bytes / read, weights / job);
            println!(
                "  {:<32} {job:5.1} GB/s, {share:3.0} % of a read ({read:.1}), {weights:5.1} G weights/s",
                trial.name()
            );
        }
        for columns in [2, 3, 4, 6, 12, 128] {
            for mut trial in Trial::all(shape(columns), COLUMNS_BYTES) {
                let rows = trial.job_rows(JOB_ROWS);
                let products = (rows * width * columns) as f64 / 1e9;
                let speed = products / best(|| trial.run(rows));
                println!("  {:<32} {columns:>3} columns: {speed:5.1} G products/s", trial.name());
            }
        }
    }
}

/// Seconds of the fastest of many calls.
fn best(mut f: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < BUDGET {
        let call = Instant::now();
        f();
        best = best.min(call.elapsed().as_secs_f64());
    }
    best
}

/// Seconds of a job, and of reading as many bytes, in stretches that no cache can hold for the next one.
fn stream(trial: &mut Trial, rows: usize) -> Vec<(f64, f64)> {
    let (start, mut pairs) = (Instant::now(), Vec::new());
    while start.elapsed() < BUDGET {
        let call = Instant::now();
        (0..STRETCH).for_each(|_| trial.run(rows));
        let job = call.elapsed().as_secs_f64();
        let memory = trial.elsewhere(STRETCH * trial.bytes(rows));
        let call = Instant::now();
        black_box(sum(memory));
        pairs.push((job / STRETCH as f64, call.elapsed().as_secs_f64() / STRETCH as f64));
    }
    pairs
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut of: Vec<f64> = of.collect();
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Reads everything, in as many independent chains as a core can follow.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    let (words, _) = bytes.as_chunks::<128>();
    for words in words {
        for (sum, word) in sums.iter_mut().zip(words.as_chunks::<8>().0) {
            *sum ^= u64::from_le_bytes(*word);
        }
    }
    sums.into_iter().fold(0, |a, b| a ^ b)
}
