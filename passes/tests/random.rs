//! Random functions in which definitions are planted: every pass keeps what they compute, bit for
//! bit, and every fused op is found and taken apart again.
mod plants;

use ds4_ir::module::{Call, Decl, Graph, GraphValue, Header};
use ds4_ir::ops::ops;
use ds4_ir::plan::Maxima;
use ds4_ir::view::{Route, WeightView};
use ds4_ir::{Bind, Buffer, Class, Computed, Func, Interp, Module, Real, Scalar, Type, WeightSource, verify};
use ds4_passes::{Site, canonicalize, fuse, normal_form, pack, schedule, unfuse};
use plants::{Rng, plant};
use std::collections::BTreeMap;

/// One launch costs one, whatever it moves; views cost nothing.
fn by_launches(site: &Site<'_>) -> Option<u64> {
    let fused = u64::from(site.op.definition().is_some());
    Some(if site.is_view() { 0 } else { 1000 + fused })
}

#[test]
fn every_fused_op_is_found_a_hundred_times_and_computes_the_same() {
    let mut found: BTreeMap<&str, usize> =
        ops().filter(|op| op.definition().is_some()).map(|op| (op.name, 0)).collect();
    let sizes = Maxima { tokens: 8, wanted: 8, ctx: 64 };
    for seed in 1.. {
        let mut rng = Rng::new(seed);
        let source = plant(&mut rng, &found);
        verify(&source).unwrap_or_else(|e| panic!("seed {seed}: {}\n{source}", e[0]));
        let canonical = canonicalize(&source);
        let fused = fuse(&canonical, &by_launches);
        let packed = pack(&fused);
        let scheduled = schedule(&packed, &sizes);
        for func in [&canonical, &fused, &packed, &scheduled] {
            verify(func).unwrap_or_else(|e| panic!("seed {seed}: {}\n{func}", e[0]));
        }
        assert_eq!(normal_form(&unfuse(&fused)), normal_form(&canonical), "seed {seed}\n{source}\n{fused}");
        assert_eq!(normal_form(&scheduled), normal_form(&fused), "seed {seed}");
        for (_, node) in scheduled.nodes() {
            if let Some(n) = found.get_mut(node.op.name) {
                *n += 1;
            }
        }
        let inputs = seed.wrapping_mul(77);
        assert_eq!(
            run::<f32>(&source, inputs),
            run::<f32>(&scheduled, inputs),
            "seed {seed}\n{source}\n{scheduled}"
        );
        if seed % 8 == 0 {
            assert_eq!(run::<f64>(&source, inputs), run::<f64>(&scheduled, inputs), "seed {seed}");
        }
        if found.values().all(|n| *n >= 100) {
            println!("{seed} functions: {found:?}");
            return;
        }
        assert!(seed < 6000, "{found:?}");
    }
}

/// The results of three steps, as bits.
fn run<F: Real>(func: &Func, seed: u64) -> Vec<Vec<u64>> {
    let module = module(func);
    let weights = Weights::new(&module, seed);
    let mut interp = Interp::<F>::new(&module, &weights);
    let mut rng = Rng::new(seed ^ 0x5eed);
    let (mut start, mut all) = (0, Vec::new());
    for tokens in [3, 1, 6] {
        let bind = Bind { start, tokens, wanted: tokens };
        let graph = &module.graphs[0];
        let inputs = graph.values[..graph.inputs].iter().map(|v| input(v, &bind, &mut rng)).collect();
        let values = interp.step(graph, inputs, &bind);
        all.extend(graph.results.iter().map(|id| bits(&values[*id])));
        start += tokens;
    }
    all
}

fn input<F: Real>(value: &GraphValue, bind: &Bind, rng: &mut Rng) -> Buffer<F> {
    let ty = value.ty.tensor().unwrap();
    let dims = bind.dims(ty);
    let (width, count) = (*dims.last().unwrap(), dims.iter().product::<usize>());
    let entries = ((bind.start + bind.tokens) / 4) as u64;
    match (ty.scalar, value.name.as_str()) {
        (Scalar::I32, "pos") => Buffer::Int((0..count).map(|i| (bind.start + i) as i32).collect()),
        (Scalar::I32, "ids") => Buffer::Int((0..count).map(|_| rng.below(10) as i32).collect()),
        (Scalar::I32, _) => Buffer::Int((0..count).map(|_| rng.below(entries + 1) as i32 - 1).collect()),
        (Scalar::Route, _) => {
            let route =
                |rng: &mut Rng| Route { expert: rng.below(4) as i32, weight: F::from_f64(rng.real()) };
            Buffer::Route((0..count).map(|_| route(rng)).collect())
        }
        (Scalar::F32, _) => Buffer::Real((0..count).map(|_| F::from_f64(rng.real())).collect()),
        (scalar, _) => {
            let size = scalar.row_bytes(width);
            let mut bytes = vec![0; count / width * size];
            for row in bytes.chunks_exact_mut(size) {
                let numbers: Vec<f32> = (0..width).map(|_| rng.real() as f32).collect();
                ds4_ir::formats::encode_row(scalar, &numbers, row);
            }
            Buffer::Packed(bytes)
        }
    }
}

fn bits<F: Real>(value: &Computed<F>) -> Vec<u64> {
    match &value.buffer {
        Buffer::Real(x) => x.iter().map(|x| x.to_f64().to_bits()).collect(),
        Buffer::Int(x) => x.iter().map(|x| u64::from(x.cast_unsigned())).collect(),
        Buffer::Route(x) => x
            .iter()
            .flat_map(|r| [u64::from(r.expert.cast_unsigned()), r.weight.to_f64().to_bits()])
            .collect(),
        Buffer::Packed(x) => x.iter().map(|b| u64::from(*b)).collect(),
    }
}

/// A module that calls the function once; every tensor result is returned.
fn module(func: &Func) -> Module {
    let header = Header::of(func);
    let named = |v: &ds4_ir::Value| GraphValue { name: func.name(*v).to_string(), ty: func.ty(*v).clone() };
    let mut values: Vec<GraphValue> = header.tensors.iter().map(named).collect();
    let inputs = values.len();
    let outs: Vec<usize> = (inputs..inputs + header.outs.len()).collect();
    values.extend(
        header
            .outs
            .iter()
            .enumerate()
            .map(|(i, v)| GraphValue { name: format!("out{i}"), ty: func.ty(*v).clone() }),
    );
    let weights = func
        .weights()
        .map(|w| Decl { name: func.weight_name(w).to_string(), ty: func.weight_type(w).clone() });
    let state = |v: &ds4_ir::Value| match func.ty(*v) {
        Type::State(ty) => Decl { name: func.name(*v).to_string(), ty: *ty },
        _ => unreachable!("a state"),
    };
    let states: Vec<_> = header.states.iter().map(state).collect();
    let weights: Vec<_> = weights.collect();
    let call = Call {
        func: 0,
        args: (0..inputs).collect(),
        outs: outs.clone(),
        weights: (0..weights.len()).collect(),
        states: (0..states.len()).collect(),
        params: vec![],
    };
    let graph = Graph { name: "main".to_string(), inputs, values, calls: vec![call], results: outs };
    let module = Module {
        name: "random".to_string(),
        class: Class::Exact,
        ctx: 64,
        vocab: 10,
        weights,
        states,
        params: vec![],
        funcs: vec![func.clone()],
        graphs: vec![graph],
    };
    ds4_ir::verify_module(&module).unwrap_or_else(|e| panic!("{}\n{func}", e[0]));
    module
}

/// Codes and scales of each matrix of a weight.
type Items = Vec<(&'static [u8], &'static [u8])>;

/// Random weights of a module: type, extents, bytes.
struct Weights(Vec<(Scalar, Vec<usize>, Items)>);

impl Weights {
    fn new(module: &Module, seed: u64) -> Weights {
        let mut rng = Rng::new(seed ^ 0xfeed);
        let mut one = |decl: &Decl<ds4_ir::TensorType>| {
            let scalar = decl.ty.scalar;
            let dims: Vec<usize> = decl.ty.constants().unwrap().iter().map(|n| *n as usize).collect();
            let width = *dims.last().unwrap();
            let experts = if dims.len() == 3 { dims[0] } else { 1 };
            let rows = dims.iter().product::<usize>() / width / experts;
            let matrix = |rng: &mut Rng| {
                let mut bytes = vec![0; rows * scalar.row_bytes(width)];
                for row in bytes.chunks_exact_mut(scalar.row_bytes(width)) {
                    match scalar {
                        Scalar::I32 => row.chunks_exact_mut(4).enumerate().for_each(|(i, b)| {
                            b.copy_from_slice(&((rng.below(2) + 2 * i as u64) as i32).to_le_bytes());
                        }),
                        scalar => {
                            let numbers: Vec<f32> = (0..width).map(|_| rng.real() as f32).collect();
                            ds4_ir::formats::encode_row(scalar, &numbers, row);
                        }
                    }
                }
                let bytes: &'static [u8] = Box::leak(bytes.into_boxed_slice());
                (bytes, &[][..])
            };
            let items = (0..experts).map(|_| matrix(&mut rng)).collect();
            (scalar, dims, items)
        };
        Weights(module.weights.iter().map(&mut one).collect())
    }
}

impl WeightSource for Weights {
    fn weight(&self, index: usize) -> WeightView<'_> {
        let (scalar, dims, items) = &self.0[index];
        WeightView { scalar: *scalar, dims, items }
    }
}
