//! One node on random operands, for the tests and benches of its kernel.
use super::op::{OpKernel, Site};
use super::{Place, Products, SharedFrame};
use crate::memory::{Memory, Region, rows_of};
use crate::tune::Choices;
use ds4_ir::ops::SigArg;
use ds4_ir::plan::Maxima;
use ds4_ir::view::{Data, Operand, State, Tensor, WeightView};
use ds4_ir::{Arg, Bind, Buffer, Func, Node, Scalar, Type, formats, parse_funcs};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A function of one node, and the step on which it runs.
pub struct Case {
    pub(super) func: Func,
    pub(super) bind: Bind,
    maxima: Maxima,
    given: BTreeMap<String, Vec<i32>>,
    scale: BTreeMap<String, f32>,
    raw: Vec<String>,
    spread: Vec<String>,
    seed: u64,
}

/// What stands behind one operand.
enum Held {
    Tensor(Buffer<f32>, Vec<usize>),
    State(Buffer<f32>, usize),
    Weight(Vec<u8>, Vec<usize>),
    Other,
}

/// Numbers in -1 … 1, from a linear congruence.
pub(super) fn noise(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*seed >> 40) as f32 / 8_388_608.0) - 1.0
}

/// A case of the node `line` in a function with this header, for a step of `tokens` at `start`.
pub fn case(header: &str, line: &str, start: usize, tokens: usize) -> Case {
    let text = format!("func @case({header}) {{\n{line}\nreturn\n}}\n");
    let func = parse_funcs(&text).unwrap_or_else(|e| panic!("{line}: {e}")).remove(0);
    let bind = Bind { start, tokens, wanted: tokens };
    let buckets = [1, 8, 64, 512];
    let bucket = buckets.into_iter().find(|b| *b as usize >= tokens).expect("a bucket");
    let ctx = (start + tokens).next_multiple_of(128) as u32;
    let maxima = Maxima { tokens: bucket, wanted: bucket, ctx };
    Case {
        func,
        bind,
        maxima,
        given: BTreeMap::new(),
        scale: BTreeMap::new(),
        raw: Vec::new(),
        spread: Vec::new(),
        seed: 1,
    }
}

impl Case {
    /// The elements of the `i32` operand of that name; positions are given already.
    pub fn ints(mut self, name: &str, x: impl IntoIterator<Item = i32>) -> Case {
        self.given.insert(name.to_string(), x.into_iter().collect());
        self
    }

    /// The size of the numbers of the operand of that name.
    pub fn scaled(mut self, name: &str, by: f32) -> Case {
        self.scale.insert(name.to_string(), by);
        self
    }

    /// Arbitrary bytes in the operand of that name.
    pub fn raw(mut self, name: &str) -> Case {
        self.raw.push(name.to_string());
        self
    }

    /// Numbers of very different size in each group of 32 of the operand of that name, some groups zero.
    pub fn spread(mut self, name: &str) -> Case {
        self.spread.push(name.to_string());
        self
    }

    /// As the other case, of other random numbers.
    pub fn seeded(self, seed: u64) -> Case {
        Case { seed, ..self }
    }

    fn node(&self) -> &Node {
        self.func.nodes().last().expect("a node").1
    }

    fn name(&self, arg: &Arg) -> String {
        match arg {
            Arg::Value(v) => self.func.name(*v).to_string(),
            Arg::Weight(w) => self.func.weight_name(*w).to_string(),
            Arg::Lit(lit) => lit.to_string(),
        }
    }

    fn fill(&self, name: &str, scalar: Scalar, rows: usize, width: usize, seed: &mut u64) -> Buffer<f32> {
        let mut buffer = Buffer::zeros(scalar, rows, width);
        let by = self.scale.get(name).copied().unwrap_or(1.0);
        if let (true, Buffer::Packed(x)) = (self.raw.iter().any(|n| n == name), &mut buffer) {
            x.iter_mut().for_each(|x| *x = (noise(seed) * 128.0) as i8 as u8);
            return buffer;
        }
        let mut row = || -> Vec<f32> {
            let mut row: Vec<f32> = (0..width).map(|_| noise(seed) * by).collect();
            if self.spread.iter().any(|n| n == name) {
                for group in row.chunks_mut(32) {
                    let exponent = (noise(seed) * 9.0) as i32;
                    let factor = if exponent == 5 { 0.0 } else { 2.0_f32.powi(exponent) };
                    group.iter_mut().for_each(|x| *x *= factor);
                }
            }
            row
        };
        match &mut buffer {
            Buffer::Real(x) => {
                x.chunks_exact_mut(width).for_each(|x| x.copy_from_slice(&row()));
            }
            Buffer::Int(x) => match self.given.get(name) {
                Some(given) => x.copy_from_slice(given),
                None => x.iter_mut().enumerate().for_each(|(i, x)| *x = (self.bind.start + i) as i32),
            },
            Buffer::Packed(x) => {
                let size = scalar.row_bytes(width);
                x.chunks_exact_mut(size).for_each(|x| formats::encode_row(scalar, &row(), x));
            }
            Buffer::Route(_) => panic!("no case has routes"),
        }
        buffer
    }

    fn held(&self) -> Vec<Held> {
        let mut seed = self.seed;
        let mut hold = |arg: &Arg| match arg {
            Arg::Lit(_) => Held::Other,
            Arg::Weight(w) => {
                let ty = self.func.weight_type(*w);
                let dims = self.bind.dims(ty);
                let (rows, width) = rows_of(&dims);
                match self.given.get(&self.name(arg)) {
                    Some(x) => Held::Weight(x.iter().flat_map(|x| x.to_le_bytes()).collect(), dims),
                    None => {
                        let mut bytes = vec![0; rows * ty.scalar.row_bytes(width)];
                        let by = self.scale.get(&self.name(arg)).copied().unwrap_or(1.0);
                        for row in bytes.chunks_exact_mut(ty.scalar.row_bytes(width)) {
                            let x: Vec<f32> = (0..width).map(|_| noise(&mut seed) * by).collect();
                            formats::encode_row(ty.scalar, &x, row);
                        }
                        Held::Weight(bytes, dims)
                    }
                }
            }
            Arg::Value(v) => match self.func.ty(*v) {
                Type::Tensor(ty) => {
                    let dims = self.bind.dims(ty);
                    let (rows, width) = rows_of(&dims);
                    Held::Tensor(self.fill(self.func.name(*v), ty.scalar, rows, width, &mut seed), dims)
                }
                Type::State(ty) => {
                    let rows = ty.kind.rows(u64::from(self.maxima.ctx)) as usize;
                    let width = ty.width as usize;
                    Held::State(self.fill(self.func.name(*v), ty.scalar, rows, width, &mut seed), rows)
                }
                Type::Param(_) => panic!("no case has parameters"),
            },
        };
        self.node().args.iter().map(&mut hold).collect()
    }

    /// Calls `run` with the site, the operands and the state that the node consumes.
    pub(super) fn with<R>(
        &self,
        run: impl FnOnce(&Site<'_>, &[Operand<'_, f32>], Option<(&Buffer<f32>, usize)>) -> R,
    ) -> R {
        let (node, held) = (self.node(), self.held());
        let sig = |arg| match arg {
            &Arg::Value(v) => SigArg::Value(self.func.ty(v)),
            &Arg::Weight(w) => SigArg::Weight(self.func.weight_type(w)),
            Arg::Lit(lit) => SigArg::Lit(lit),
        };
        let args: Vec<SigArg<'_>> = node.args.iter().map(sig).collect();
        let (v, _) = self.func.nodes().last().expect("a node");
        let (choices, ty) = (Choices::of(None), self.func.ty(v));
        let products = Products::new(&choices, &[]);
        let site = Site { op: node.op, args: &args, ty, maxima: &self.maxima, products: &products };
        let items: Vec<_> = held
            .iter()
            .map(|h| if let Held::Weight(bytes, _) = h { (&bytes[..], &[][..]) } else { (&[][..], &[][..]) })
            .collect();
        let mut consumed = None;
        let mut operands: Vec<Operand<'_, f32>> = Vec::new();
        for (i, arg) in node.args.iter().enumerate() {
            operands.push(match (&held[i], arg, &args[i]) {
                (Held::State(buffer, rows), ..) if node.op.writes() == Some(i) => {
                    consumed = Some((buffer, *rows));
                    Operand::Consumed
                }
                (Held::Tensor(buffer, dims), _, SigArg::Value(Type::Tensor(ty))) => {
                    Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims, data: buffer.data() })
                }
                (Held::State(buffer, rows), _, SigArg::Value(Type::State(ty))) => {
                    Operand::State(State { ty: *ty, capacity: *rows, data: buffer.data() })
                }
                (Held::Weight(_, dims), _, SigArg::Weight(ty)) => {
                    Operand::Weight(WeightView { scalar: ty.scalar, dims, items: &items[i..=i] })
                }
                (_, Arg::Lit(lit), _) => Operand::Lit(lit),
                _ => panic!("operand {i}"),
            });
        }
        run(&site, &operands, consumed)
    }

    /// Scalar, extents (those of the state if it is one) of the result.
    pub(super) fn out(&self, ty: &Type) -> (Scalar, Vec<usize>) {
        match ty {
            Type::Tensor(ty) => (ty.scalar, self.bind.dims(ty)),
            Type::State(ty) => {
                let rows = ty.kind.rows(u64::from(self.maxima.ctx)) as usize;
                (ty.scalar, vec![rows, ty.width as usize])
            }
            Type::Param(_) => panic!("no op gives a parameter"),
        }
    }

    /// The bytes that a kernel gives when `run` runs its phases on dirty memory.
    pub(super) fn got(
        &self,
        make: &dyn Fn(&Site<'_>) -> Box<dyn OpKernel>,
        threads: usize,
        run: &dyn Fn(&dyn OpKernel, &SharedFrame<'_>),
    ) -> Vec<u8> {
        self.with(|site, operands, consumed| {
            let kernel = make(site);
            let (scalar, dims) = self.out(site.ty);
            let (rows, width) = rows_of(&dims);
            let size = rows * scalar.row_bytes(width);
            let (mut out, mut scratch) =
                (aligned(size, 0xff), aligned(kernel.scratch_bytes() as usize, 0xff));
            if let Some((buffer, _)) = consumed {
                out.bytes_mut()[..size].copy_from_slice(&bytes_of(buffer));
            }
            let memory = Region::of(&mut out.bytes_mut()[..size]);
            let place = match site.ty {
                Type::Tensor(_) => Place::Tensor { scalar, dims: &dims, memory },
                Type::State(ty) => Place::State { ty: *ty, capacity: rows, memory },
                Type::Param(_) => unreachable!("refused above"),
            };
            let scratch = Region::of(&mut scratch.bytes_mut()[..kernel.scratch_bytes() as usize]);
            run(&*kernel, &SharedFrame { operands, place, scratch, bind: &self.bind, threads });
            out.bytes()[..size].to_vec()
        })
    }

    /// Seconds of the fastest of the launches that one thread makes in `budget`, at least ten.
    pub fn seconds(&self, budget: Duration) -> f64 {
        let best = Cell::new(f64::INFINITY);
        self.got(&|site| super::kernel(site), 1, &|kernel, f| {
            let mut worker = aligned(kernel.worker_bytes(), 0);
            let start = Instant::now();
            let mut launches = 0;
            while start.elapsed() < budget || launches < 10 {
                launches += 1;
                let launch = Instant::now();
                run_alone(kernel, f, &mut worker, false);
                best.set(best.get().min(launch.elapsed().as_secs_f64()));
            }
        });
        best.get()
    }
}

/// Runs the phases of a kernel, the tasks of each in order or backwards.
pub(super) fn run_alone(kernel: &dyn OpKernel, f: &SharedFrame<'_>, worker: &mut Memory, backwards: bool) {
    let worker = &mut worker.bytes_mut()[..kernel.worker_bytes()];
    for phase in 0..kernel.phases() {
        let n = kernel.tasks(phase, f);
        for i in 0..n {
            kernel.run(phase, if backwards { n - 1 - i } else { i }, f, worker);
        }
    }
}

pub(super) fn aligned(bytes: usize, fill: u8) -> Memory {
    let mut memory = Memory::new(bytes as u64).expect("memory");
    memory.bytes_mut().fill(fill);
    memory
}

pub(super) fn bytes_of(buffer: &Buffer<f32>) -> Vec<u8> {
    match buffer.data() {
        Data::Real(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::Int(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::Packed(x) => x.to_vec(),
        Data::Route(_) => panic!("no state holds routes"),
    }
}
