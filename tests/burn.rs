//! A second opinion on the meaning of ops: burn, written by others, on random inputs.
//!
//! Part of the tests only with `--features burn`, whose build is long.
use burn::module::Param;
use burn::nn::RmsNormConfig;
use burn::tensor::{Device, Tensor, TensorData, activation};
use ds4_ir::view::WeightView;
use ds4_ir::{Bind, Buffer, Computed, Interp, Scalar, WeightSource, parse_module, verify_module};

/// Both sum in single precision, each in its own order.
const TOLERANCE: f32 = 2e-6;

/// xorshift64*: numbers of [-2, 2).
struct Random(u64);

impl Random {
    fn numbers(&mut self, n: usize) -> Vec<f32> {
        let mut next = || {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 22) as f32 - 2.0
        };
        (0..n).map(|_| next()).collect()
    }
}

fn tensor<const D: usize>(x: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(x.to_vec(), shape), &Device::flex())
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("f32 elements")
}

/// The one weight of a function.
struct Weight {
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

struct Bound<'a> {
    dims: &'a [usize],
    items: [(&'a [u8], &'a [u8]); 1],
}

impl WeightSource for Bound<'_> {
    fn weight(&self, _: usize) -> WeightView<'_> {
        WeightView { scalar: Scalar::F32, dims: self.dims, items: &self.items }
    }
}

impl Weight {
    fn new(x: &[f32], dims: &[usize]) -> Weight {
        Weight { dims: dims.to_vec(), bytes: x.iter().flat_map(|x| x.to_le_bytes()).collect() }
    }
}

/// The last value of a function of `t` tokens from position 0 on: `values` are its inputs as written in
/// a header, `state` and `weight` what else it declares.
fn eval(
    values: &str,
    state: Option<&str>,
    weight: Option<(&str, &Weight)>,
    line: &str,
    inputs: Vec<Buffer<f32>>,
    tokens: usize,
) -> Computed<f32> {
    let (mut decls, mut bindings, mut header) = (String::new(), String::new(), values.to_string());
    if let Some(ty) = state {
        decls += &format!("state s: {ty}\n");
        bindings += "%s = s\n";
        header += &format!(", %s: {ty}");
    }
    if let Some((ty, _)) = weight {
        decls += &format!("weight w: {ty}\n");
        bindings += "@w = w\n";
        header += &format!(", @w: {ty}");
    }
    let results = if state.is_some() { "%y, %s" } else { "%y" };
    let args: Vec<&str> =
        values.split(", %").map(|v| v.split(':').next().unwrap().trim_start_matches('%')).collect();
    let text = format!(
        "module @m {{\nclass exact\nctx 64\nvocab 2\n}}\n{decls}\
         func @f({header}) {{\n%y = {line}\nreturn {results}\n}}\n\
         graph @main({values}) {{\ncall @f(%{}) -> %result {{\n{bindings}}}\nreturn %result\n}}\n",
        args.join(", %")
    );
    let module = parse_module(&text).unwrap_or_else(|e| panic!("{e}"));
    verify_module(&module).unwrap_or_else(|e| panic!("{}", e[0]));
    let none = Weight::new(&[], &[0]);
    let weight = weight.map_or(&none, |(_, w)| w);
    let bound = Bound { dims: &weight.dims, items: [(&weight.bytes, &[])] };
    let bind = Bind { start: 0, tokens, wanted: 0 };
    Interp::new(&module, &bound).step(&module.graphs[0], inputs, &bind).pop().expect("a result")
}

fn close(op: &str, got: &[f32], burn: &[f32]) {
    assert_eq!(got.len(), burn.len(), "{op}: elements");
    for (i, (a, b)) in got.iter().zip(burn).enumerate() {
        let fits = (a - b).abs() <= TOLERANCE * b.abs().max(1.0);
        assert!(fits, "{op}: element {i}: {a} here, {b} in burn");
    }
}

#[test]
fn rms_norm_is_burns() {
    let mut random = Random(1);
    let (x, w) = (random.numbers(5 * 24), random.numbers(24));
    let weight = Weight::new(&w, &[24]);
    let line = "rms_norm %x, @w, eps=1e-6 : f32[t, 24]";
    let got =
        eval("%x: f32[t, 24]", None, Some(("f32[24]", &weight)), line, vec![Buffer::Real(x.clone())], 5);
    let mut norm = RmsNormConfig::new(24).with_epsilon(1e-6).init(&Device::flex());
    norm.gamma = Param::from_tensor(tensor(&w, [24]));
    close("rms_norm", got.buffer.real(), &numbers(norm.forward(tensor(&x, [5, 24]))));
}

#[test]
fn matmul_is_burns() {
    let mut random = Random(2);
    let (x, w) = (random.numbers(7 * 19), random.numbers(11 * 19));
    let weight = Weight::new(&w, &[11, 19]);
    let line = "matmul %x, @w : f32[t, 11]";
    let got =
        eval("%x: f32[t, 19]", None, Some(("f32[11, 19]", &weight)), line, vec![Buffer::Real(x.clone())], 7);
    let burn = tensor(&x, [7, 19]).matmul(tensor(&w, [11, 19]).transpose());
    close("matmul", got.buffer.real(), &numbers(burn));
}

#[test]
fn swiglu_is_burns() {
    let mut random = Random(3);
    let (gate, up) = (random.numbers(6 * 15), random.numbers(6 * 15));
    let inputs = vec![Buffer::Real(gate.clone()), Buffer::Real(up.clone())];
    let line = "swiglu %g, %u, clamp=1.25 : f32[t, 15]";
    let got = eval("%g: f32[t, 15], %u: f32[t, 15]", None, None, line, inputs, 6);
    let gate = tensor(&gate, [6, 15]).clamp_max(1.25);
    let burn = activation::silu(gate) * tensor(&up, [6, 15]).clamp(-1.25, 1.25);
    close("swiglu", got.buffer.real(), &numbers(burn));
}

#[test]
fn topk_is_burns() {
    let mut random = Random(4);
    let scores = random.numbers(9 * 33);
    let line = "topk %s, k=6 : i32[t, 6]";
    let got = eval("%s: f32[t, 33]", None, None, line, vec![Buffer::Real(scores.clone())], 9);
    let (_, indices) = tensor(&scores, [9, 33]).topk_with_indices(6, 1);
    let burn: Vec<i64> = indices.into_data().convert::<i64>().try_to_vec().expect("whole numbers");
    let got = got.tensor();
    for (t, (got, burn)) in got.int().chunks(6).zip(burn.chunks(6)).enumerate() {
        let mut burn = burn.to_vec();
        burn.sort_unstable();
        assert_eq!(got.iter().map(|i| i64::from(*i)).collect::<Vec<_>>(), burn, "token {t}");
    }
}

/// A window of 4 over 10 tokens, 3 heads of 8 channels: the sink is one more score that no value has.
#[test]
fn softmax_with_sink_is_burns() {
    let (tokens, heads, width, window) = (10, 3, 8, 4);
    let mut random = Random(5);
    let (q, k, sinks) =
        (random.numbers(tokens * heads * width), random.numbers(tokens * width), random.numbers(heads));
    let weight = Weight::new(&sinks, &[heads]);
    let positions = Buffer::Int((0..tokens as i32).collect());
    let inputs = vec![Buffer::Real(q.clone()), Buffer::Real(k.clone()), positions];
    let got = eval(
        "%q: f32[t, 3, 8], %k: f32[t, 8], %pos: i32[t]",
        Some("state ring/4 f32[8]"),
        Some(("f32[3]", &weight)),
        "attend_window %q, %s, %k, @w, %pos : f32[t, 3, 8]",
        inputs,
        tokens,
    );
    let hidden = |i: usize| {
        let (p, j) = (i / tokens, i % tokens);
        if j <= p && p - j < window { 0.0 } else { f32::NEG_INFINITY }
    };
    let mask: Vec<f32> = (0..tokens * tokens).map(hidden).collect();
    let keys = tensor(&k, [tokens, width]).unsqueeze::<3>().repeat_dim(0, heads);
    let q = tensor(&q, [tokens, heads, width]).swap_dims(0, 1);
    let scores = q.matmul(keys.clone().swap_dims(1, 2)).div_scalar((width as f32).sqrt());
    let scores = scores + tensor(&mask, [tokens, tokens]).unsqueeze::<3>().repeat_dim(0, heads);
    let sinks = tensor(&sinks, [heads, 1, 1]).repeat_dim(1, tokens);
    let weights = activation::softmax(Tensor::cat(vec![scores, sinks], 2), 2).narrow(2, 0, tokens);
    let burn = weights.matmul(keys).swap_dims(0, 1);
    close("attend_window", got.buffer.real(), &numbers(burn));
}
