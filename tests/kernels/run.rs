//! Runs one case on the emulated device and in the interpreter, and compares.
use crate::inputs::{Bytes, Random, Setting};
use ds4_codegen::emit::{KernelText, emit_joint};
use ds4_codegen::{Binding, Case, Joint, Kernel, Target, block, member_scratch_bytes, step};
use ds4_ir::plan::Maxima;
use ds4_ir::view::{Data, DataMut, Frame, Operand, Out, Route, State, StateMut, Tensor, WeightView};
use ds4_ir::{
    Arg, Bind, Dim, Func, Node, Real, Role, Scalar, StateType, Sym, TensorType, Type, Value, Weight, formats,
};
use ds4_runtime::device::emulator::{Emulator, Options, Order};
use ds4_runtime::device::{self, Api, Code, Device, DeviceMemory, Launch, Place, Wanted};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Tokens of the buckets, as a plan has them.
const BUCKETS: [u32; 5] = [1, 8, 64, 512, 2048];

/// One emulated device.
pub(crate) struct Bench {
    target: Target,
    device: Arc<dyn Device>,
    pub(crate) controls: Emulator,
    /// Kernels by text.
    loaded: Mutex<BTreeMap<String, device::Kernel>>,
}

/// Is told of a launch that has run.
type Seen<'a> = dyn FnMut(&Joint, &[(usize, DeviceMemory)]) + 'a;

/// A node with the operands of one step.
pub(crate) struct Step<'a> {
    pub(crate) func: &'a Func,
    pub(crate) node: &'a Node,
    out: Value,
    pub(crate) bind: Bind,
    maxima: Maxima,
    /// Bytes of each value operand, by operand; states whole.
    pub(crate) values: Vec<Option<Bytes>>,
    /// Codes and scales per matrix, by operand.
    pub(crate) weights: Vec<Option<Vec<(Bytes, Bytes)>>>,
}

/// Where the emulated drivers are built: once per machine, not once per test.
fn cache() -> PathBuf {
    std::env::temp_dir().join("ds4-test-emulator")
}

impl Bench {
    pub(crate) fn new(target: Target) -> Bench {
        let api = Api::parse(&target.api.to_string()).expect("the same names");
        let wanted = Wanted { api, number: None, subgroup: Some(target.subgroup), emulator: Some(cache()) };
        let device = device::open(&wanted).unwrap_or_else(|e| panic!("{e}"));
        let controls = Emulator::new(api, &cache()).unwrap_or_else(|e| panic!("{e}"));
        Bench { target, device, controls, loaded: Mutex::default() }
    }

    /// Runs all steps of a case; answers the largest difference, as a share of the largest magnitude
    /// of its row.
    ///
    /// # Errors
    /// What differs by more than the kernel's tolerance, or what the device reports.
    pub(crate) fn case(&self, kernel: &Kernel, case: &Case, seed: u64) -> Result<f64, String> {
        let func = ds4_ir::parse_funcs(&case.func()).map_err(|e| e.to_string())?.remove(0);
        let mut random = Random::new(seed);
        let ctx = case.steps.iter().map(|s| s.end).max().expect("a step").max(64);
        let mut worst = 0.0f64;
        for range in case.steps {
            let step = Step::new(&func, range.clone(), ctx, &mut random);
            let place = format!("step {range:?}");
            let texts = self.joints(std::slice::from_ref(&step))?.into_iter().flat_map(|joint| joint.parts);
            let tolerance = texts.map(|part| part.launch.text.tolerance()).fold(kernel.tolerance, f64::max);
            worst = worst.max(self.step(&step, tolerance).map_err(|e| format!("{place}: {e}"))?);
        }
        Ok(worst)
    }

    /// Runs the positions `range` of a case as one step, then some of its tokens alone; their results must have
    /// the same bits.
    ///
    /// # Errors
    /// Which token has others, or what the device reports.
    pub(crate) fn alone(&self, case: &Case, range: Range<u32>) -> Result<(), String> {
        let func = ds4_ir::parse_funcs(&case.func()).map_err(|e| e.to_string())?.remove(0);
        let step = Step::new(&func, range, 64, &mut Random::new(7));
        let together = self.run(&step, &mut |_, _| ())?;
        for t in [0, step.bind.tokens / 2, step.bind.tokens - 1] {
            let token = step.token(t);
            let (scalar, rows, width) = token.shape();
            let size = rows * scalar.row_bytes(width);
            let alone = self.run(&token, &mut |_, _| ())?;
            if alone[..size] != together[t * size..][..size] {
                return Err(format!("token {t} of {} has other bits alone", step.bind.tokens));
            }
        }
        Ok(())
    }

    fn step(&self, step: &Step<'_>, tolerance: f64) -> Result<f64, String> {
        let expected = step.judge();
        let mut bits: Option<Bytes> = None;
        for order in [Order::Normal, Order::Reversed, Order::Random(step.bind.start as u64)] {
            self.controls.configure(Options { order, ..Options::default() });
            let got = self.run(step, &mut |_, _| ());
            self.controls.configure(Options::default());
            let got = got?;
            if bits.get_or_insert_with(|| got.clone()) != &got {
                return Err(format!("the bits differ when threads run in another order ({order:?})"));
            }
        }
        step.compare(&expected, &bits.expect("it ran"), tolerance)
    }

    fn joints(&self, steps: &[Step<'_>]) -> Result<Vec<Joint>, String> {
        let (func, maxima) = (steps[0].func, steps[0].maxima);
        let members: Vec<Value> = steps.iter().map(|step| step.out).collect();
        let joints = block(func, &members, &maxima, &self.target);
        joints.map_err(|v| format!("{} has no launches for %{}", self.target, func.name(v)))
    }

    /// The bytes of the result's whole memory. After each launch `seen` is given it and the memory of
    /// those of its bindings, by their place, that it reads only.
    pub(crate) fn run(&self, step: &Step<'_>, seen: &mut Seen<'_>) -> Result<Bytes, String> {
        Ok(self.block(std::slice::from_ref(step), seen)?.remove(0))
    }

    /// The same for the members of a block, which share the memory of the operands that they share.
    pub(crate) fn block(&self, steps: &[Step<'_>], seen: &mut Seen<'_>) -> Result<Vec<Bytes>, String> {
        let joints = self.joints(steps)?;
        let bind = steps[0].bind;
        let text = |e: ds4_runtime::Error| e.to_string();
        let memory = |name: &str, bytes: u64| DeviceMemory::new(&self.device, name, bytes).map_err(text);
        let upload = |name: &str, bytes: &[u8], whole: u64| -> Result<DeviceMemory, String> {
            let memory = memory(name, whole.max(bytes.len() as u64))?;
            memory.upload(0, bytes).map_err(text)?;
            Ok(memory)
        };
        let (mut results, mut scratch) = (Vec::new(), Vec::new());
        for (member, step) in steps.iter().enumerate() {
            results.push(match step.node.op.writes() {
                Some(i) => upload("state", step.values[i].as_ref().expect("a state"), 0)?,
                None => memory("result", step.out_bytes())?,
            });
            scratch.push(memory("scratch", member_scratch_bytes(&joints, member).max(1))?);
        }
        let numbers: Bytes = step::values(&bind).iter().flat_map(|n| n.to_le_bytes()).collect();
        for joint in &joints {
            let text_of = emit_joint(joint, &self.target).map_err(|e| e.to_string())?;
            let threads = joint.block().iter().product();
            let kernel = self.load(&text_of, threads)?;
            // Every buffer lives until the launch is done.
            let mut held: Vec<(usize, DeviceMemory)> = Vec::new();
            let mut arguments: Vec<Place> = Vec::new();
            for (place, (member, binding)) in joint.bindings.iter().enumerate() {
                let step = &steps[*member];
                let bytes = match binding {
                    Binding::Out => {
                        arguments.push(results[*member].place(0));
                        continue;
                    }
                    Binding::Scratch { offset, .. } => {
                        arguments.push(scratch[*member].place(*offset));
                        continue;
                    }
                    Binding::Step => numbers.clone(),
                    Binding::Constant(constant) => (constant.bytes)(),
                    Binding::Value(i) => step.values[*i].clone().ok_or("a value that is none")?,
                    Binding::Weight(i, role) | Binding::Base(i, role) => step.stacked(*i, *role).1,
                    Binding::Table(i, role) => {
                        step.stacked(*i, *role).0.iter().flat_map(|at| at.to_le_bytes()).collect()
                    }
                };
                let whole = if let Binding::Value(i) = binding { step.value_bytes(*i) } else { 0 };
                // A kernel may load the rest of the last 16 bytes.
                let whole = whole.max(bytes.len().next_multiple_of(16) as u64);
                held.push((place, upload(&format!("{binding:?}"), &bytes, whole)?));
                arguments.push(held.last().expect("just pushed").1.place(0));
            }
            let (grid, block, shared_bytes) = (joint.grid(), joint.block(), text_of.shared_bytes);
            let run = Launch { kernel, grid, block, shared_bytes, arguments };
            device::record(&self.device, vec![run]).and_then(|list| list.run()).map_err(text)?;
            seen(joint, &held);
        }
        let read = |result: &DeviceMemory| {
            let mut bytes = vec![0; usize::try_from(result.bytes()).expect("small")];
            result.download(0, &mut bytes).map_err(text)?;
            Ok(bytes)
        };
        results.iter().map(read).collect()
    }

    fn load(&self, text: &KernelText, threads: u32) -> Result<device::Kernel, String> {
        let mut loaded = self.loaded.lock().expect("no panic while locked");
        if let Some(kernel) = loaded.get(&text.source) {
            return Ok(*kernel);
        }
        let KernelText { source, entry, shared_bytes } = text;
        let code = Code { source, binary: &[], entry, shared_bytes: *shared_bytes, threads };
        let kernel = self.device.load(&code).map_err(|e| e.to_string())?;
        loaded.insert(source.clone(), kernel);
        Ok(kernel)
    }
}

/// Operands that nodes of a function share.
#[derive(Default)]
struct Known {
    values: BTreeMap<Value, Bytes>,
    weights: BTreeMap<Weight, Vec<(Bytes, Bytes)>>,
}

fn value(setting: &Setting<'_>, random: &mut Random, func: &Func, v: Value, ctx: u32) -> Bytes {
    match func.ty(v) {
        Type::Tensor(ty) | Type::Param(ty) => setting.tensor(random, func.name(v), ty),
        Type::State(ty) => setting.state(random, ty, ty.kind.rows(u64::from(ctx)) as usize),
    }
}

/// Elements of a value or a state in double precision.
enum Elements {
    Real(Vec<f64>),
    Int(Vec<i32>),
    Route(Vec<Route<f64>>),
    Packed(Bytes),
}

impl Elements {
    fn read(scalar: Scalar, bytes: &[u8]) -> Elements {
        let words = || bytes.chunks_exact(4).map(|b| <[u8; 4]>::try_from(b).expect("4 bytes"));
        match scalar {
            Scalar::F32 => Elements::Real(words().map(|b| f64::from(f32::from_le_bytes(b))).collect()),
            Scalar::I32 => Elements::Int(words().map(i32::from_le_bytes).collect()),
            Scalar::Route => {
                let all: Vec<[u8; 4]> = words().collect();
                let route = |pair: &[[u8; 4]]| Route {
                    expert: i32::from_le_bytes(pair[0]),
                    weight: f64::from(f32::from_le_bytes(pair[1])),
                };
                Elements::Route(all.chunks_exact(2).map(route).collect())
            }
            _ => Elements::Packed(bytes.to_vec()),
        }
    }

    fn data(&self) -> Data<'_, f64> {
        match self {
            Elements::Real(x) => Data::Real(x),
            Elements::Int(x) => Data::Int(x),
            Elements::Route(x) => Data::Route(x),
            Elements::Packed(x) => Data::Packed(x),
        }
    }

    fn data_mut(&mut self) -> DataMut<'_, f64> {
        match self {
            Elements::Real(x) => DataMut::Real(x),
            Elements::Int(x) => DataMut::Int(x),
            Elements::Route(x) => DataMut::Route(x),
            Elements::Packed(x) => DataMut::Packed(x),
        }
    }

    /// Row `row` of `width` elements as numbers.
    fn numbers(&self, scalar: Scalar, row: usize, width: usize) -> Vec<f64> {
        match self {
            Elements::Real(x) => x[row * width..][..width].to_vec(),
            Elements::Int(x) => x[row * width..][..width].iter().map(|n| f64::from(*n)).collect(),
            Elements::Route(x) => {
                x[row * width..][..width].iter().flat_map(|r| [f64::from(r.expert), r.weight]).collect()
            }
            Elements::Packed(bytes) => {
                let size = scalar.row_bytes(width);
                let mut out = vec![0.0f64; width];
                formats::decode_row(scalar, &bytes[row * size..][..size], &mut out);
                out
            }
        }
    }
}

impl<'a> Step<'a> {
    /// The only node of `func` with random operands for the positions `range`.
    pub(crate) fn new(func: &'a Func, range: Range<u32>, ctx: u32, random: &mut Random) -> Step<'a> {
        Step::all(func, range, ctx, random).remove(0)
    }

    /// Every node of `func`, with the same random operands where they share one.
    pub(crate) fn all(func: &'a Func, range: Range<u32>, ctx: u32, random: &mut Random) -> Vec<Step<'a>> {
        let mut known = Known::default();
        let of = |(out, node)| Step::of(func, out, node, range.clone(), ctx, random, &mut known);
        func.nodes().map(of).collect()
    }

    fn of(
        func: &'a Func,
        out: Value,
        node: &'a Node,
        range: Range<u32>,
        ctx: u32,
        random: &mut Random,
        known: &mut Known,
    ) -> Step<'a> {
        let tokens = range.len();
        let wanted = (tokens * 2 / 3).max(1);
        let bind = Bind { start: range.start as usize, tokens, wanted };
        let most = *BUCKETS.iter().find(|b| **b as usize >= tokens).expect("a bucket");
        let maxima = Maxima { tokens: most, wanted: most, ctx };
        let setting = Setting { func, bind, step: range };
        let (mut values, mut weights) = (Vec::new(), Vec::new());
        for arg in &node.args {
            values.push(match arg {
                Arg::Value(v) => {
                    let new = || value(&setting, random, func, *v, ctx);
                    Some(known.values.entry(*v).or_insert_with(new).clone())
                }
                _ => None,
            });
            weights.push(match arg {
                Arg::Weight(w) => {
                    let new = || setting.weight(random, func.weight_name(*w), func.weight_type(*w));
                    Some(known.weights.entry(*w).or_insert_with(new).clone())
                }
                _ => None,
            });
        }
        Step { func, node, out, bind, maxima, values, weights }
    }

    /// Token `t` in a step of its own; every tensor has a row per token.
    fn token(&self, t: usize) -> Step<'a> {
        let row = |bytes: &Bytes| {
            let size = bytes.len() / self.bind.tokens;
            bytes[t * size..][..size].to_vec()
        };
        let values = self.values.iter().map(|v| v.as_ref().map(row)).collect();
        let bind = Bind { start: self.bind.start + t, tokens: 1, wanted: 1 };
        let maxima = Maxima { tokens: 1, wanted: 1, ..self.maxima };
        Step { values, bind, maxima, weights: self.weights.clone(), ..*self }
    }
}

impl Step<'_> {
    /// The result's element type, rows and width.
    fn shape(&self) -> (Scalar, usize, usize) {
        match self.func.ty(self.out) {
            Type::State(ty) => (ty.scalar, self.capacity(ty), ty.width as usize),
            ty => {
                let ty = ty.tensor().expect("a tensor");
                let dims = self.bind.dims(ty);
                let (width, outer) = dims.split_last().expect("an axis");
                (ty.scalar, outer.iter().product(), *width)
            }
        }
    }

    fn capacity(&self, ty: &StateType) -> usize {
        ty.kind.rows(u64::from(self.maxima.ctx)) as usize
    }

    fn out_bytes(&self) -> u64 {
        let ty = self.func.ty(self.out).tensor().expect("a tensor");
        self.maxima.bytes(ty).expect("a size").max(256)
    }

    /// Bytes that the plan gives operand `i`.
    fn value_bytes(&self, i: usize) -> u64 {
        let Arg::Value(v) = &self.node.args[i] else { return 0 };
        self.func.ty(*v).tensor().and_then(|ty| self.maxima.bytes(ty)).unwrap_or(0)
    }

    /// The matrices of weight operand `i` one behind the other, and where each begins.
    fn stacked(&self, i: usize, role: Role) -> (Vec<u64>, Bytes) {
        let (mut starts, mut all) = (Vec::new(), Vec::new());
        for (codes, scales) in self.weights[i].as_ref().expect("a weight") {
            all.resize(all.len().next_multiple_of(16), 0);
            starts.push(all.len() as u64);
            all.extend(if role == Role::Codes { codes } else { scales });
        }
        (starts, all)
    }

    /// What the op's meaning gives in double precision.
    fn judge(&self) -> Elements {
        let types: Vec<Option<&TensorType>> = self.node.args.iter().map(|a| self.tensor_type(a)).collect();
        let dims: Vec<Vec<usize>> = types.iter().map(|t| t.map_or(Vec::new(), |t| self.dims(t))).collect();
        let elements: Vec<Option<Elements>> = (0..self.node.args.len()).map(|i| self.elements(i)).collect();
        let items: Vec<Vec<(&[u8], &[u8])>> = self.weights.iter().map(|w| borrowed(w.as_deref())).collect();
        let writes = self.node.op.writes();
        let operand = |(i, arg)| match arg {
            &Arg::Value(_) if writes == Some(i) => Operand::Consumed,
            &Arg::Value(v) => {
                let data = elements[i].as_ref().expect("a value").data();
                match self.func.ty(v) {
                    Type::State(ty) => Operand::State(State { ty: *ty, capacity: self.capacity(ty), data }),
                    ty => {
                        let ty = ty.tensor().expect("a tensor");
                        Operand::Tensor(Tensor { ty, scalar: ty.scalar, dims: &dims[i], data })
                    }
                }
            }
            &Arg::Weight(w) => {
                let scalar = self.func.weight_type(w).scalar;
                Operand::Weight(WeightView { scalar, dims: &dims[i], items: &items[i] })
            }
            Arg::Lit(lit) => Operand::Lit(lit),
        };
        let operands: Vec<Operand<'_, f64>> = self.node.args.iter().enumerate().map(operand).collect();
        let (scalar, rows, width) = self.shape();
        let mut result = match writes {
            Some(i) => self.elements(i).expect("a state"),
            None if scalar == Scalar::Route => Elements::Route(vec![Route::default(); rows * width]),
            None if scalar == Scalar::F32 => Elements::Real(vec![0.0; rows * width]),
            None if scalar == Scalar::I32 => Elements::Int(vec![0; rows * width]),
            None => Elements::Packed(vec![0; rows * scalar.row_bytes(width)]),
        };
        let out_dims = self.func.ty(self.out).tensor().map_or(Vec::new(), |t| self.bind.dims(t));
        let data = result.data_mut();
        let out = match self.func.ty(self.out) {
            Type::State(ty) => Out::State(StateMut { ty: *ty, capacity: self.capacity(ty), data }),
            _ => Out::Tensor { scalar, dims: &out_dims, data },
        };
        let mut frame = Frame { operands: &operands, out, bind: &self.bind, scratch: &mut [] };
        f64::eval_of(self.node.op)(&mut frame);
        result
    }

    fn tensor_type(&self, arg: &Arg) -> Option<&TensorType> {
        match arg {
            Arg::Value(v) => self.func.ty(*v).tensor(),
            Arg::Weight(w) => Some(self.func.weight_type(*w)),
            Arg::Lit(_) => None,
        }
    }

    fn dims(&self, ty: &TensorType) -> Vec<usize> {
        debug_assert!(ty.dims.iter().all(|d| matches!(
            d,
            Dim::Const(_) | Dim::Sym(Sym::Tokens | Sym::Wanted | Sym::Entries(_) | Sym::Closed(_))
        )));
        self.bind.dims(ty)
    }

    fn elements(&self, i: usize) -> Option<Elements> {
        let bytes = self.values[i].as_ref()?;
        let Arg::Value(v) = &self.node.args[i] else { return None };
        let scalar = match self.func.ty(*v) {
            Type::State(ty) => ty.scalar,
            ty => ty.tensor().expect("a tensor").scalar,
        };
        Some(Elements::read(scalar, bytes))
    }

    /// The largest difference, as a share of the largest magnitude of its row.
    fn compare(&self, expected: &Elements, bytes: &[u8], tolerance: f64) -> Result<f64, String> {
        let (scalar, rows, width) = self.shape();
        let size = rows * scalar.row_bytes(width);
        if self.node.op.writes().is_none() && bytes[size..].iter().any(|b| *b != 0xff) {
            return Err("something is written behind the last row of the step".to_string());
        }
        let got = Elements::read(scalar, &bytes[..size]);
        let mut worst = 0.0f64;
        for row in 0..rows {
            let (a, b) = (got.numbers(scalar, row, width), expected.numbers(scalar, row, width));
            let finite = b.iter().filter(|x| x.is_finite()).fold(0.0f64, |m, x| m.max(x.abs()));
            let scale = if finite > 0.0 { finite } else { 1.0 };
            for (column, (a, b)) in a.iter().zip(&b).enumerate() {
                let difference = if a == b { 0.0 } else { (a - b).abs() / scale };
                if difference.is_nan() || difference > tolerance {
                    return Err(format!(
                        "row {row}, column {column}: expected {b:e}, got {a:e}, a difference of {difference:.1e} \
                         of the row's largest magnitude, at most {tolerance:.0e}"
                    ));
                }
                worst = worst.max(difference);
            }
        }
        Ok(worst)
    }
}

fn borrowed(weight: Option<&[(Bytes, Bytes)]>) -> Vec<(&[u8], &[u8])> {
    weight.unwrap_or(&[]).iter().map(|(c, s)| (&c[..], &s[..])).collect()
}
