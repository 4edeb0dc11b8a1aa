//! Products behind a table of experts: `expert_matmul`, `moe_up`, `moe_down`.
//!
//! Routes are grouped by expert, so that each weight is decoded once for all tokens that chose it. Sums
//! over the experts of a token are in the order of its routes.
use super::cells::Cells;
use super::frame::SharedFrame;
use super::grouping::Grouping;
use super::input::{
    Columns, Factor, Input, Layout, block_rows, extents, format, rows_max, value, weight, whole_blocks,
};
use super::linear::{GateUp, identity, pair_bytes};
use super::op::{OpKernel, Site};
use super::product::{Column, Job};
use crate::memory::{Region, cast, cast_mut};
use std::ops::Range;

/// The input rows of routes: a row for each token, or one for each route.
struct Routed {
    input: Input,
    grouping: Grouping,
    routes: usize,
    /// Routes of a token that share a row.
    shared: u32,
    /// Rows that an expert gets of the largest step, if all get as many.
    columns: usize,
}

impl Routed {
    /// Operand `x` rounded as operand `fmt` says (or not at all), behind the routes of operand `routes`.
    fn new(
        site: &Site<'_>,
        x: usize,
        fmt: Option<usize>,
        (w, routes): (usize, usize),
        scratch: &mut Layout,
    ) -> Routed {
        let (ty, of) = (value(site.args, x), value(site.args, routes));
        let dims = extents(weight(site.args, w));
        let (experts, width) = (dims[0], dims[2]);
        let fmt = fmt.map_or(ty.scalar, |i| format(site.args, i));
        let input = Input::new(x, ty, fmt, width, rows_max(ty, width, site.maxima));
        let k = of.dims[1].constant().expect("routes of a token are a constant");
        let shared = if ty.dims.len() == 2 { k } else { 1 };
        let all = rows_max(of, 1, site.maxima);
        let grouping = Grouping::new(experts, all, scratch);
        Routed { input, grouping, routes, shared, columns: all.div_ceil(experts.max(1)) }
    }

    fn tasks(&self, f: &SharedFrame<'_>) -> usize {
        self.input.tasks(f) + 1
    }

    fn prepare(&self, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        if let Some(task) = task.checked_sub(1) {
            return self.input.prepare(task, f, worker);
        }
        // SAFETY: this task alone groups the routes.
        unsafe { self.grouping.fill(f.tensor(self.routes).route(), |i| i / self.shared, f) };
    }
}

/// `expert_matmul`.
pub(super) struct ExpertMatmul {
    routed: Routed,
    factor: Factor,
    scratch: Layout,
    worker_bytes: usize,
    /// Weight rows, and the bytes of each.
    rows: (usize, usize),
}

impl ExpertMatmul {
    pub(super) fn new(site: &Site<'_>) -> ExpertMatmul {
        let mut scratch = Layout::default();
        let mut routed = Routed::new(site, 0, None, (1, 2), &mut scratch);
        let factor = routed.input.factor(site, 1, routed.columns, &mut scratch);
        let ty = weight(site.args, 1);
        let dims = extents(ty);
        let bytes = ty.scalar.row_bytes(dims[2]);
        let columns = rows_max(value(site.args, 2), 1, site.maxima);
        let cells = columns * super::input::block_max(bytes, factor.kernel.granule) * 4;
        let worker_bytes = cells + (factor.kernel.scratch_bytes)(dims[2], columns);
        let worker_bytes = worker_bytes.max(routed.input.worker_bytes());
        ExpertMatmul { routed, factor, scratch, worker_bytes, rows: (dims[1], bytes) }
    }

    fn block(&self, f: &SharedFrame<'_>) -> usize {
        block_rows(self.rows.0, self.rows.1, self.factor.kernel.granule, f.threads)
    }
}

impl OpKernel for ExpertMatmul {
    fn scratch_bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    fn worker_bytes(&self) -> usize {
        self.worker_bytes
    }

    fn phases(&self) -> usize {
        2
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        if phase == 0 {
            return self.routed.tasks(f);
        }
        self.routed.grouping.len(f) * self.rows.0.div_ceil(self.block(f))
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        if phase == 0 {
            return self.routed.prepare(task, f, worker);
        }
        let block = self.block(f);
        let blocks = self.rows.0.div_ceil(block);
        let group = self.routed.grouping.get(task / blocks, f);
        let from = task % blocks * block;
        let rows = from..(from + block).min(self.rows.0);
        let size = rows.len();
        let (cells, scratch) = worker.split_at_mut(group.columns.len() * size * 4);
        multiply(
            f,
            &self.routed.input,
            &self.factor,
            (group.expert, rows.clone()),
            group.columns,
            cells,
            scratch,
        );
        for (route, x) in
            group.routes.iter().zip(cast::<f32>(cells, group.columns.len() * size).chunks_exact(size))
        {
            // SAFETY: each task writes its own elements of its routes' rows.
            unsafe { f.out_part::<f32>(*route as usize, rows.clone()) }.copy_from_slice(x);
        }
    }
}

/// Weight rows of an expert times columns, into `cells` as `[column][row]`.
fn multiply(
    f: &SharedFrame<'_>,
    input: &Input,
    factor: &Factor,
    (expert, rows): (usize, Range<usize>),
    columns: &[Column],
    cells: &mut [u8],
    scratch: &mut [u8],
) {
    // SAFETY: the cells are borrowed for this product alone.
    let out = unsafe { Cells::block(Region::of(cells), 0, columns.len(), rows.clone()) };
    let (inputs, stride) = input.prepared(factor, f);
    let m = f.weight(factor.operand).matrix(expert);
    (factor.kernel.run)(&Job { m, rows, inputs, stride, columns, out: &out }, scratch);
}

/// `moe_up`.
pub(super) struct MoeUp {
    routed: Routed,
    pair: GateUp,
    scratch: Layout,
    worker_bytes: usize,
    /// Weight rows, and the bytes of both weights for each.
    rows: (usize, usize),
}

impl MoeUp {
    pub(super) fn new(site: &Site<'_>) -> MoeUp {
        let mut scratch = Layout::default();
        let mut routed = Routed::new(site, 0, Some(4), (1, 3), &mut scratch);
        let pair = GateUp::new(site, (1, 2), &mut routed.input, &mut scratch, routed.columns, site.real(5));
        let dims = extents(weight(site.args, 1));
        let bytes = pair_bytes(site, 1, 2);
        // No token chooses an expert twice; a file's table of experts may.
        let columns = rows_max(value(site.args, 3), 1, site.maxima);
        let worker_bytes = pair.worker_bytes(dims[2], bytes, columns).max(routed.input.worker_bytes());
        MoeUp { routed, pair, scratch, worker_bytes, rows: (dims[1], bytes) }
    }

    fn block(&self, f: &SharedFrame<'_>) -> usize {
        self.pair.block(self.rows.0, self.rows.1, f.threads)
    }
}

impl OpKernel for MoeUp {
    fn scratch_bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    fn worker_bytes(&self) -> usize {
        self.worker_bytes
    }

    fn phases(&self) -> usize {
        2
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        if phase == 0 {
            return self.routed.tasks(f);
        }
        self.routed.grouping.len(f) * self.rows.0.div_ceil(self.block(f))
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        if phase == 0 {
            return self.routed.prepare(task, f, worker);
        }
        let block = self.block(f);
        let blocks = self.rows.0.div_ceil(block);
        let group = self.routed.grouping.get(task / blocks, f);
        let from = task % blocks * block;
        let rows = from..(from + block).min(self.rows.0);
        let routes = f.tensor(self.routed.routes).route();
        let part = (group.expert, rows.clone());
        self.pair.run(f, &self.routed.input, part, group.columns, worker, |i, x| {
            let route = group.routes[i] as usize;
            // SAFETY: each task writes its own elements of its routes' rows.
            let out = unsafe { f.out_part::<f32>(route, rows.clone()) };
            out.iter_mut().zip(x).for_each(|(o, x)| *o = *x * routes[route].weight);
        });
    }
}

/// Bytes of a thread's buffer in which `moe_down` gathers products.
const GATHER_BYTES: usize = 512 << 10;

/// Experts of a token in the models known.
const EXPERTS_TYPICAL: usize = 8;

/// `moe_down`: a task has a block of rows of every expert in use and of the shared one, and sums them.
pub(super) struct MoeDown {
    routed: Routed,
    factor: Factor,
    shared: Input,
    shared_factor: Factor,
    columns: Columns,
    scratch: Layout,
    worker_bytes: usize,
    /// Weight rows, and the bytes of an expert's and of the shared one's.
    rows: (usize, [usize; 2]),
    granule: usize,
}

impl MoeDown {
    pub(super) fn new(site: &Site<'_>) -> MoeDown {
        let mut scratch = Layout::default();
        let mut routed = Routed::new(site, 0, Some(5), (1, 2), &mut scratch);
        let factor = routed.input.factor(site, 1, routed.columns, &mut scratch);
        let (y, v) = (value(site.args, 3), weight(site.args, 4));
        let (dims, width) = (extents(weight(site.args, 1)), extents(v)[1]);
        let tokens = rows_max(y, width, site.maxima);
        let mut shared = Input::new(3, y, format(site.args, 6), width, tokens);
        let shared_factor = shared.factor(site, 4, tokens, &mut scratch);
        let columns = Columns::new(tokens, &mut scratch);
        let bytes = [weight(site.args, 1).scalar.row_bytes(dims[2]), v.scalar.row_bytes(width)];
        let routes = rows_max(value(site.args, 2), 1, site.maxima);
        let granule = factor.kernel.granule.max(shared_factor.kernel.granule);
        let gather = GATHER_BYTES + granule * (routes + tokens) * 4;
        let kernels =
            (factor.kernel.scratch_bytes)(dims[2], routes)
                .max((shared_factor.kernel.scratch_bytes)(width, tokens));
        let prepare = routed.input.worker_bytes().max(shared.worker_bytes());
        let worker_bytes = (gather + kernels).max(prepare);
        let rows = (dims[1], bytes);
        MoeDown { routed, factor, shared, shared_factor, columns, scratch, worker_bytes, rows, granule }
    }

    /// Rows of a block in this step.
    fn block(&self, f: &SharedFrame<'_>) -> usize {
        let (tokens, routes) = (f.out_shape().0, f.tensor(self.routed.routes).route().len());
        let (rows, [expert, shared]) = self.rows;
        let groups = self.routed.grouping.len(f);
        // With few, four times what a task reads otherwise: it begins in as many matrices as there are experts.
        // With many experts the block is as long as the gathered products allow: in each expert the first
        // rows of a block are ones that no one has asked for ahead, and each block reads all inputs again.
        let bytes = if groups > EXPERTS_TYPICAL { 1 } else { (groups * expert + shared) / 4 };
        block_rows(rows, bytes, self.granule, f.threads).min(block_max_of(routes + tokens, self.granule))
    }
}

/// The most rows of a block for so many columns.
fn block_max_of(columns: usize, granule: usize) -> usize {
    whole_blocks((GATHER_BYTES / 4 / columns.max(1)).clamp(1, 1 << 10)).next_multiple_of(granule)
}

impl OpKernel for MoeDown {
    fn scratch_bytes(&self) -> u64 {
        self.scratch.bytes()
    }

    fn worker_bytes(&self) -> usize {
        self.worker_bytes
    }

    fn phases(&self) -> usize {
        2
    }

    fn tasks(&self, phase: usize, f: &SharedFrame<'_>) -> usize {
        if phase == 0 {
            self.routed.tasks(f) + self.shared.tasks(f)
        } else {
            self.rows.0.div_ceil(self.block(f))
        }
    }

    fn run(&self, phase: usize, task: usize, f: &SharedFrame<'_>, worker: &mut [u8]) {
        let tokens = f.out_shape().0;
        if phase == 0 {
            if task == 0 {
                // SAFETY: the list is written by this task alone.
                identity(unsafe { self.columns.fill(0..tokens, f) });
            }
            let first = self.routed.tasks(f);
            return match task.checked_sub(first) {
                Some(task) => self.shared.prepare(task, f, worker),
                None => self.routed.prepare(task, f, worker),
            };
        }
        let block = self.block(f);
        let rows = task * block..((task + 1) * block).min(self.rows.0);
        let size = rows.len();
        let routes = f.tensor(self.routed.routes).route().len();
        let (cells, scratch) = worker.split_at_mut((routes + tokens) * size * 4);
        let mut place = &mut cells[..];
        // Groups lie one after the other; where the products of a route lie follows from them.
        for i in 0..self.routed.grouping.len(f) {
            let group = self.routed.grouping.get(i, f);
            let (own, rest) = place.split_at_mut(group.columns.len() * size * 4);
            let part = (group.expert, rows.clone());
            multiply(f, &self.routed.input, &self.factor, part, group.columns, own, scratch);
            place = rest;
        }
        let columns = self.columns.get(0..tokens, f);
        multiply(f, &self.shared, &self.shared_factor, (0, rows.clone()), columns, place, scratch);
        let cells = cast_mut::<f32>(cells, (routes + tokens) * size);
        self.sum(f, &rows, cells);
    }
}

impl MoeDown {
    /// Sums the products of each token in the order of its routes, then the shared expert's.
    fn sum(&self, f: &SharedFrame<'_>, rows: &Range<usize>, cells: &[f32]) {
        let (tokens, routes) = (f.out_shape().0, f.tensor(self.routed.routes));
        let (k, size) = (routes.width(), rows.len());
        let places = self.routed.grouping.places(tokens * k, f);
        for token in 0..tokens {
            // SAFETY: each task writes its own elements of every row.
            let out = unsafe { f.out_part::<f32>(token, rows.clone()) };
            out.fill(0.0);
            let shared = tokens * k + token;
            let own = places[token * k..(token + 1) * k].iter().map(|at| *at as usize);
            for at in own.chain([shared]) {
                out.iter_mut().zip(&cells[at * size..][..size]).for_each(|(o, x)| *o += *x);
            }
        }
    }
}
