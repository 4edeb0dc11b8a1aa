//! What several tests need: fixtures, engines, a reader of expected values.
#![allow(dead_code, reason = "no test uses all of it")]
use ds4::compile::{Request, compile};
use ds4::target::CompileTarget;
use ds4_ir::view::WeightView;
use ds4_ir::{Bind, Buffer, Class, Computed, Interp, Module, Real, WeightSource};
use ds4_runtime::{Artifact, Engine, Weights};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Path of a fixture below `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Compiles a model for its whole context of at most 4,096 tokens.
pub(crate) fn artifact(model: &Path, class: Class) -> Artifact {
    let here = std::env::temp_dir();
    let request = Request { class, ctx: Some(4096), target: CompileTarget::Cpu };
    compile(model, &here, request).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Compiles and opens a model.
pub(crate) fn engine(model: &Path, class: Class, threads: usize) -> Engine {
    Engine::new(artifact(model, class), &std::env::temp_dir(), threads).unwrap_or_else(|e| panic!("{e}"))
}

/// A module with its weights, for the interpreter.
pub(crate) struct Judge {
    pub(crate) module: Module,
    weights: Weights,
}

impl Judge {
    pub(crate) fn new(model: &Path, class: Class) -> Judge {
        let artifact = artifact(model, class);
        let weights = Weights::open(&artifact.module, &artifact.table, &std::env::temp_dir());
        Judge { weights: weights.unwrap_or_else(|e| panic!("{e}")), module: artifact.module }
    }
}

impl WeightSource for Judge {
    fn weight(&self, index: usize) -> WeightView<'_> {
        self.weights.weight(index)
    }
}

/// Tensors of a safetensors file: extents and elements. Only the element types of expected values.
pub(crate) struct Expected(BTreeMap<String, (Vec<usize>, Vec<f64>)>);

impl Expected {
    pub(crate) fn read(path: &Path) -> Expected {
        let bytes = std::fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let mut tensors = BTreeMap::new();
        for (name, entry) in header.as_object().unwrap().iter().filter(|(n, _)| *n != "__metadata__") {
            let at = |i: usize| 8 + length + entry["data_offsets"][i].as_u64().unwrap() as usize;
            let data = &bytes[at(0)..at(1)];
            let values: Vec<f64> = match entry["dtype"].as_str().unwrap() {
                "F32" => data
                    .chunks_exact(4)
                    .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                    .collect(),
                "F64" => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
                "I64" => {
                    data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
                }
                other => panic!("{name}: {other}"),
            };
            let shape =
                entry["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
            tensors.insert(name.clone(), (shape, values));
        }
        Expected(tensors)
    }

    pub(crate) fn values(&self, name: &str) -> &[f64] {
        &self.0.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        &self.0[name].0
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.values(name).iter().map(|x| *x as u32).collect()
    }
}

/// Largest absolute difference.
pub(crate) fn worst(got: impl IntoIterator<Item = f64>, expected: &[f64]) -> f64 {
    let mut n = 0;
    let worst = got.into_iter().zip(expected).fold(0.0, |m: f64, (a, b)| {
        n += 1;
        // A NaN must not pass for a small difference.
        if (a - b).is_nan() { f64::INFINITY } else { m.max((a - b).abs()) }
    });
    assert_eq!(n, expected.len(), "numbers compared");
    worst
}

/// Runs graph `main` of the interpreter over parts of the given lengths; all values of each part.
pub(crate) fn interpret<F: Real>(judge: &Judge, ids: &[u32], parts: &[usize]) -> Vec<Vec<Computed<F>>> {
    let mut interp = Interp::<F>::new(&judge.module, judge);
    let graph = judge.module.graph("main").unwrap();
    let mut start = 0;
    let mut all = Vec::new();
    for n in parts {
        let bind = Bind { start, tokens: *n, wanted: *n };
        let ints = |x: &mut dyn Iterator<Item = usize>| Buffer::Int(x.map(|n| n as i32).collect());
        let own = ints(&mut ids[start..start + n].iter().map(|id| *id as usize));
        let inputs = vec![own, ints(&mut (start..start + n)), ints(&mut (0..*n))];
        all.push(interp.step(graph, inputs, &bind));
        start += n;
    }
    assert_eq!(start, ids.len(), "parts cover the prompt");
    all
}

/// The value of graph `main` of that name.
pub(crate) fn named<'a, F>(judge: &Judge, values: &'a [Computed<F>], name: &str) -> &'a Computed<F> {
    let graph = judge.module.graph("main").unwrap();
    &values[graph.values.iter().position(|v| v.name == name).unwrap()]
}

/// The logits of parts that were run, one after the other.
pub(crate) fn logits_of<F: Real>(judge: &Judge, parts: &[Vec<Computed<F>>]) -> Vec<f64> {
    let of = |v: &Vec<Computed<F>>| named(judge, v, "logits").buffer.real().to_vec();
    parts.iter().flat_map(of).map(F::to_f64).collect()
}

/// Root of the mean squared difference, as a share of the logits' own root of the mean square.
pub(crate) fn distance(got: &[f64], expected: &[f64]) -> f64 {
    let square = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let off = square(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    assert!(got.len() == expected.len() && off.is_finite(), "{} of {} logits", got.len(), expected.len());
    (off / square(&mut expected.iter().copied())).sqrt()
}

/// How far class `fast` may be from the interpreter in double precision. A sum that rounds otherwise now
/// and then gives the next code of a state's or an activation's format, and those of so small a model are
/// coarse: the interpreter in single precision is as far away.
pub(crate) const FAST_TOLERANCE: f64 = 0.05;
