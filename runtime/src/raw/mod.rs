//! The raw read: the weight bytes that a decoded token reads, read and added up, nothing else.
//!
//! It is what a decoded token cannot be faster than on the machine at hand, measured with the
//! engine's threads in the order of its launches: over the mapped files, and over anonymous memory
//! in huge pages.
mod sum;

use crate::{Engine, process};
use ds4_ir::view::WeightView;
use ds4_ir::{Arg, Func, Node, Scalar};
use memmap2::MmapMut;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
pub(crate) use sum::sum;

/// Bytes that a thread takes at once.
const PIECE: usize = 256 << 10;
/// Most bytes of the anonymous copy; many times the caches of any processor.
const COPY_MAX: u64 = 2 << 30;

/// Reads what a token reads.
pub struct RawRead<'a> {
    engine: &'a Engine,
    random: Pcg64Mcg,
    copy: Option<MmapMut>,
}

/// How long one pass over the bytes of a token took, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pass {
    /// Over the mapped files.
    pub mapped: f64,
    /// Over anonymous huge pages; `None` where there was no memory for a copy.
    pub huge: Option<f64>,
}

impl Pass {
    /// The faster of both.
    pub fn best(&self) -> f64 {
        self.huge.map_or(self.mapped, |huge| huge.min(self.mapped))
    }
}

impl<'a> RawRead<'a> {
    /// Prepares passes for an engine: copies up to 2 GiB of what a token reads into huge pages, and at
    /// most a quarter of the memory that is free.
    pub fn new(engine: &'a Engine) -> RawRead<'a> {
        let mut raw = RawRead { engine, random: Pcg64Mcg::seed_from_u64(1), copy: None };
        let free = process::available_bytes().unwrap_or(0) / 4;
        let ranges = raw.ranges();
        let bytes = total(&ranges).min(COPY_MAX).min(free) as usize / PIECE * PIECE;
        raw.copy = copied(&ranges, bytes);
        raw
    }

    /// The matrices that one token reads, in the order of the launches: weight, matrix, and whether
    /// only a row of it. Of an expert table as many experts as a token is routed to, drawn anew for
    /// each pass and alike for the tables of a layer.
    fn reads(&mut self) -> Vec<(usize, usize, bool)> {
        let (module, weights) = (self.engine.module(), self.engine.weights());
        let main = module.graph("main").expect("an engine has it");
        let mut reads = Vec::new();
        for call in &main.calls {
            let (func, seed) = (&module.funcs[call.func], self.random.next_u64());
            for name in &self.engine.plan().launches[call.func].launches {
                let node = func.find(name).and_then(|v| func.node(v)).expect("the plan has passed its check");
                let tables = crate::engine::tables(func, node).expect("checked when the engine was made");
                for arg in &node.args {
                    let Arg::Weight(w) = arg else { continue };
                    let weight = call.weights[w.index()];
                    let is_table = tables.iter().any(|(table, _)| table == w);
                    let matrices = weights.weight(weight).items.len();
                    let chosen = if matrices == 1 { 1 } else { routes(func, node) };
                    reads.extend(distinct(seed, chosen, matrices).into_iter().map(|i| (weight, i, is_table)));
                }
            }
        }
        reads
    }

    /// The bytes of [`RawRead::reads`], in the layouts that kernels read.
    fn ranges(&mut self) -> Vec<&'a [u8]> {
        let weights = &self.engine.shared.weights;
        let bytes = |read| range(read, weights.packed(read.0));
        self.reads().into_iter().flat_map(bytes).filter(|r| !r.is_empty()).collect()
    }

    /// Bytes that one pass reads.
    pub fn bytes(&mut self) -> u64 {
        total(&self.ranges())
    }

    /// Bytes of the same weights as they are published.
    pub fn source_bytes(&mut self) -> u64 {
        let weights = self.engine.weights();
        self.reads()
            .into_iter()
            .flat_map(|read| range(read, weights.weight(read.0)))
            .map(|r| r.len() as u64)
            .sum()
    }

    /// Looks at every page of the weights once if all of them fit into free memory, so that passes and
    /// tokens find them mapped as they do in a process that has run for a while.
    pub fn touch_all(&self) {
        let weights = &self.engine.shared.weights;
        let views = (0..self.engine.module().weights.len()).map(|i| weights.packed(i));
        let slices = views.flat_map(|v| v.items.iter()).flat_map(|(codes, scales)| [*codes, *scales]);
        // What weights share counts once.
        let unique: BTreeMap<(usize, usize), &[u8]> =
            slices.map(|s| ((s.as_ptr() as usize, s.len()), s)).collect();
        let bytes: u64 = unique.values().map(|s| s.len() as u64).sum();
        if process::available_bytes().is_some_and(|free| bytes <= free) {
            let page = |s: &&[u8]| s.iter().step_by(4096).fold(0u8, |all, b| all ^ b);
            black_box(unique.values().map(page).fold(0, |all, b| all ^ b));
        }
    }

    /// One pass over the mapped files, one over huge pages, each repeated until it took 10 ms at least.
    pub fn pass(&mut self) -> Pass {
        let threads = self.engine.threads();
        let mapped = timed(&self.ranges(), threads);
        let bytes = self.bytes();
        let huge = self.copy.as_ref().map(|copy| timed(&cycled(copy, bytes), threads));
        Pass { mapped, huge }
    }
}

/// Codes and scales of a matrix, or one of its rows.
fn range<'a>((_, matrix, is_table): (usize, usize, bool), view: WeightView<'a>) -> [&'a [u8]; 2] {
    let (codes, scales) = view.items[matrix];
    if is_table { [view.matrix(matrix).row(0), &[]] } else { [codes, scales] }
}

/// Experts that a launch needs for one token: the routes of its operand.
fn routes(func: &Func, node: &Node) -> usize {
    let routes = node.values().filter_map(|v| func.ty(v).tensor()).find(|t| t.scalar == Scalar::Route);
    let count = routes.and_then(|t| t.dims.last()?.constant());
    count.map_or(1, |n| n as usize)
}

/// `count` different numbers below `n`, or all of them.
fn distinct(seed: u64, count: usize, n: usize) -> BTreeSet<usize> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut chosen = BTreeSet::new();
    while chosen.len() < count.min(n) {
        chosen.insert((random.next_u64() % n as u64) as usize);
    }
    chosen
}

fn total(ranges: &[&[u8]]) -> u64 {
    ranges.iter().map(|r| r.len() as u64).sum()
}

/// The first `bytes` bytes of the ranges in anonymous memory, in huge pages where the system has them.
fn copied(ranges: &[&[u8]], bytes: usize) -> Option<MmapMut> {
    let mut copy = MmapMut::map_anon(bytes).ok().filter(|_| bytes > 0)?;
    #[cfg(target_os = "linux")]
    // Without huge pages the pass is as fast as over the mapped files, and the faster one counts.
    let _ = copy.advise(memmap2::Advice::HugePage);
    let mut rest = &mut copy[..];
    for range in ranges {
        let n = range.len().min(rest.len());
        let (to, next) = std::mem::take(&mut rest).split_at_mut(n);
        to.copy_from_slice(&range[..n]);
        rest = next;
    }
    Some(copy)
}

/// `copy` again and again until `bytes` bytes.
fn cycled(copy: &[u8], bytes: u64) -> Vec<&[u8]> {
    let whole = bytes / copy.len() as u64;
    let rest = (bytes % copy.len() as u64) as usize;
    (0..whole).map(|_| copy).chain([&copy[..rest]]).collect()
}

/// Seconds of a pass over the ranges.
fn timed(ranges: &[&[u8]], threads: usize) -> f64 {
    let pieces: Vec<&[u8]> = ranges.iter().flat_map(|r| r.chunks(PIECE)).collect();
    let (start, mut runs) = (Instant::now(), 0u32);
    loop {
        run(&pieces, threads);
        runs += 1;
        let seconds = start.elapsed().as_secs_f64();
        if seconds > 0.01 {
            return seconds / f64::from(runs);
        }
    }
}

/// Reads every piece once; the threads take them in order.
fn run(pieces: &[&[u8]], threads: usize) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut all = 0u64;
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            all = all.wrapping_add(sum(piece));
        }
        black_box(all);
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| {
            scope.spawn(work);
        });
        work();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_are_different_and_as_many_as_asked_for() {
        assert_eq!(distinct(7, 6, 256).len(), 6);
        assert_eq!(distinct(7, 6, 256), distinct(7, 6, 256));
        assert_eq!(distinct(7, 6, 4).len(), 4);
    }

    #[test]
    fn a_copy_is_read_until_the_bytes_are_full() {
        let ranges: [&[u8]; 2] = [&[1; 100], &[2; 100]];
        let copy = copied(&ranges, 150).unwrap();
        assert_eq!((copy[99], copy[100], copy.len()), (1, 2, 150));
        assert_eq!(total(&cycled(&copy, 400)), 400);
    }
}
