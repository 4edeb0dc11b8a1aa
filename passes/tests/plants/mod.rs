//! A generator of functions: definitions of random fused ops over shared operands, some of whose
//! inner values are wanted outside, too.
use ds4_ir::ops::Formal;
use ds4_ir::{Arg, Func, Lit, Node, Op, Type, Value, infer, op, parse_funcs};
use ds4_passes::unfuse;
use std::collections::BTreeMap;

/// xorshift64*.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| {
            rng.next();
        });
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// Within ±1.
    pub(crate) fn real(&mut self) -> f64 {
        self.below(2001) as f64 / 1000.0 - 1.0
    }
}

/// Types of each fused op's operands, literals left out. `D` and `E` are widths, `W` a weight's type,
/// `S` and `I` the types of key/value and index rows.
const OPERANDS: &[(&str, &[&str])] = &[
    (
        "compress_append",
        &[
            "state entries/4 S[D]",
            "state tail/4 f32[4D]",
            "f32[t, 2D]",
            "f32[t, 2D]",
            "f32[4, 2D]",
            "i32[t]",
            "f32[D]",
            "f32[m4, 8]",
        ],
    ),
    (
        "compress_index_append",
        &[
            "state entries/4 I[D]",
            "state tail/4 f32[4D]",
            "f32[t, 2D]",
            "f32[t, 2D]",
            "f32[4, 2D]",
            "i32[t]",
            "f32[D]",
            "f32[m4, 8]",
        ],
    ),
    (
        "compress_index_row",
        &["state tail/4 f32[4D]", "f32[t, 2D]", "f32[t, 2D]", "f32[4, 2D]", "i32[t]", "f32[D]", "f32[m4, 8]"],
    ),
    (
        "compress_row",
        &["state tail/4 f32[4D]", "f32[t, 2D]", "f32[t, 2D]", "f32[4, 2D]", "i32[t]", "f32[D]", "f32[m4, 8]"],
    ),
    (
        "csa_attend",
        &[
            "f32[t, 2, D]",
            "state ring/4 S[D]",
            "S[t, D]",
            "state entries/4 S[D]",
            "i32[t, 3]",
            "f32[2]",
            "i32[t]",
            "f32[t, 8]",
        ],
    ),
    (
        "csa_query_attend",
        &[
            "f32[t, 2D]",
            "f32[t, 8]",
            "state ring/4 S[D]",
            "S[t, D]",
            "state entries/4 S[D]",
            "i32[t, 3]",
            "f32[2]",
            "i32[t]",
        ],
    ),
    ("hc_enter", &["f32[t, 2, D]", "W[8, 2D]", "f32[3]", "f32[8]"]),
    ("hc_head_enter", &["f32[t, 2, D]", "W[2, 2D]", "f32[1]", "f32[2]"]),
    ("hc_pre_norm", &["f32[t, 2, D]", "f32[t, 8]", "f32[D]"]),
    (
        "hca_attend",
        &[
            "f32[t, 2, D]",
            "state ring/4 S[D]",
            "S[t, D]",
            "state entries/4 S[D]",
            "f32[2]",
            "i32[t]",
            "f32[t, 8]",
        ],
    ),
    (
        "hca_query_attend",
        &[
            "f32[t, 2D]",
            "f32[t, 8]",
            "state ring/4 S[D]",
            "S[t, D]",
            "state entries/4 S[D]",
            "f32[2]",
            "i32[t]",
        ],
    ),
    ("head_rope", &["f32[t, 2D]", "f32[t, 8]"]),
    ("index_query", &["f32[t, 2D]", "f32[t, 8]"]),
    ("index_select", &["I[t, 2, D]", "f32[t, 2]", "state entries/4 I[D]", "i32[t]"]),
    ("kv_row", &["f32[t, D]", "f32[D]", "f32[t, 8]"]),
    ("linear", &["f32[t, D]", "W[E, D]"]),
    ("mlp_up", &["f32[t, D]", "W[E, D]", "W[E, D]"]),
    ("moe_down", &["f32[t, 2, E]", "W[4, D, E]", "route[t, 2]", "f32[t, E]", "W[D, E]"]),
    (
        "moe_post",
        &["f32[t, 2, D]", "f32[t, 2, E]", "W[4, D, E]", "route[t, 2]", "f32[t, E]", "W[D, E]", "f32[t, 8]"],
    ),
    ("moe_route", &["f32[t, D]", "W[4, D]", "f32[4]"]),
    ("moe_route_hash", &["f32[t, D]", "W[4, D]", "i32[10, 2]", "i32[t]"]),
    ("moe_up", &["f32[t, D]", "W[4, E, D]", "W[4, E, D]", "route[t, 2]"]),
    ("norm_linear", &["f32[t, D]", "f32[D]", "W[E, D]"]),
    ("out_low", &["f32[t, 2, D]", "W[E, D]"]),
    ("out_post", &["f32[t, 2, D]", "f32[t, E]", "W[D, E]", "f32[t, 8]"]),
    ("swa_attend", &["f32[t, 2, D]", "state ring/4 S[D]", "S[t, D]", "f32[2]", "i32[t]", "f32[t, 8]"]),
    ("swa_query_attend", &["f32[t, 2D]", "f32[t, 8]", "state ring/4 S[D]", "S[t, D]", "f32[2]", "i32[t]"]),
];

/// Formats of one function.
struct Formats {
    d: u32,
    e: u32,
    weight: &'static str,
    packed: bool,
}

impl Formats {
    fn ty(&self, template: &str) -> Type {
        let (row, index) = if self.packed { ("kv8r8", "idx4") } else { ("f32", "f32") };
        let text = template
            .replace("4D", &(4 * self.d).to_string())
            .replace("2D", &(2 * self.d).to_string())
            .replace('D', &self.d.to_string())
            .replace('E', &self.e.to_string())
            .replace("S[", &format!("{row}["))
            .replace("I[", &format!("{index}["))
            .replace("W[", &format!("{}[", self.weight));
        let func = parse_funcs(&format!("func @f(\n    %x: {text},\n) {{\n    return\n}}\n")).unwrap();
        func[0].ty(func[0].find("x").unwrap()).clone()
    }

    fn literal(&self, op: &Op, formal: &str, rng: &mut Rng) -> Lit {
        let act = ["f32", "bf16", "q8_0"][rng.below(3) as usize];
        match (formal, op.name) {
            ("fmt", "kv_row" | "compress_row" | "compress_append") => {
                Lit::Word(if self.packed { "kv8" } else { "f32" }.to_string())
            }
            ("fmt", "index_query" | "compress_index_row" | "compress_index_append") => {
                Lit::Word(if self.packed { "idx4" } else { "f32" }.to_string())
            }
            ("fmt" | "y_fmt", _) => Lit::Word(act.to_string()),
            ("dims", _) => Lit::Int(8),
            ("iters", _) => Lit::Int(3),
            ("parts" | "groups" | "k", _) => Lit::Int(2),
            ("scale", _) => Lit::Real(1.5),
            ("clamp", _) => Lit::Real(0.5),
            ("eps" | "norm_eps", _) => Lit::Real(1e-6),
            other => panic!("no literal for {other:?}"),
        }
    }
}

/// A random function in primitive ops. The ops that were found least are planted first.
pub(crate) fn plant(rng: &mut Rng, found: &BTreeMap<&'static str, usize>) -> Func {
    let formats = Formats {
        d: [32, 64][rng.below(2) as usize],
        e: [32, 64][rng.below(2) as usize],
        weight: ["f32", "f16", "q8_0"][rng.below(3) as usize],
        packed: rng.below(2) == 0,
    };
    let fewest = *found.iter().min_by_key(|(_, n)| **n).expect("fused ops").0;
    let mut chosen = vec![op(fewest).expect("an op")];
    for _ in 0..rng.below(4) {
        chosen.push(op(OPERANDS[rng.below(OPERANDS.len() as u64) as usize].0).expect("an op"));
    }
    let mut func = Func::new("random");
    let mut nodes: Vec<(&'static Op, Vec<Arg>)> = Vec::new();
    // Inputs come before nodes: operands first, then the planted ops, which may also read each other.
    for op in &chosen {
        let args = operands(&mut func, &formats, op, rng);
        nodes.push((op, args));
    }
    let mut results = Vec::new();
    let mut consumed = Vec::new();
    for (i, (op, mut args)) in nodes.into_iter().enumerate() {
        for arg in &mut args {
            let Arg::Value(v) = arg else { continue };
            let twin = results.iter().rev().find(|r| func.ty(**r) == func.ty(*v)).copied();
            let is_data = matches!(func.ty(*v), Type::Tensor(ty) if ty.scalar == ds4_ir::Scalar::F32);
            if let Some(twin) = twin.filter(|_| is_data && rng.below(2) == 0) {
                *arg = Arg::Value(twin);
            }
        }
        let node = Node { op, args };
        consumed.extend(node.consumes());
        let ty = infer(&func, &node).unwrap_or_else(|why| panic!("{}: {why}", op.name));
        results.push(func.push(format!("result{i}"), ty, node));
    }
    let states = func.inputs().filter(|v| func.ty(*v).state().is_some() && !consumed.contains(v));
    func.results = results.iter().copied().chain(states.collect::<Vec<_>>()).collect();
    let mut func = unfuse(&func);
    if rng.below(4) == 0 {
        let inner: Vec<Value> = func
            .nodes()
            .map(|(v, _)| v)
            .filter(|v| {
                func.ty(*v).state().is_none() && !func.results.contains(v) && func.view_of(*v).is_none()
            })
            .collect();
        if !inner.is_empty() {
            func.results.push(inner[rng.below(inner.len() as u64) as usize]);
        }
    }
    func
}

/// Fresh inputs and weights for one op; positions, ids and tables are shared.
fn operands(func: &mut Func, formats: &Formats, op: &'static Op, rng: &mut Rng) -> Vec<Arg> {
    let (_, types) =
        OPERANDS.iter().find(|(name, _)| *name == op.name).unwrap_or_else(|| panic!("{}", op.name));
    let mut types = types.iter();
    let number = func.values().count();
    let formals: Vec<Formal> = op.operands().collect();
    let mut args = Vec::new();
    for formal in formals {
        if formal.is_literal() {
            args.push(Arg::Lit(formats.literal(op, formal.name, rng)));
            continue;
        }
        let ty = formats.ty(types.next().expect("a type for each operand"));
        if !formal.takes_value() {
            let name = format!("{}{number}", formal.name);
            let ty = ty.tensor().expect("weights are tensors").clone();
            args.push(Arg::Weight(func.declare(name, ty)));
            continue;
        }
        let name = match formal.name {
            "pos" | "ids" => formal.name.to_string(),
            other => format!("{other}{number}"),
        };
        args.push(Arg::Value(func.find(&name).unwrap_or_else(|| func.input(name, ty))));
    }
    args
}
