//! A model as a module of the IR: one builder per kind of layer, and the list of calls.
mod builder;
mod builtin;
mod ends;
mod layer;
mod shapes;

use crate::Config;
use builder::Built;
pub use builder::WeightTypes;
pub use builtin::Builtin;
use ds4_ir::module::{Call, Decl, Graph, GraphValue, Header};
use ds4_ir::{Class, Dim, Module, Scalar, Sym, TensorType, Type};
use std::collections::BTreeMap;

/// Why a model has no module.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A weight is missing or unreadable.
    #[error(transparent)]
    Weight(#[from] crate::Error),
    /// A weight's shape does not fit where it is used.
    #[error("{message}")]
    Shape {
        /// Place, expected and got.
        message: String,
    },
    /// The numeric class cannot be had for this model.
    #[error("class {class}: {why}")]
    Class {
        /// The class asked for.
        class: Class,
        /// What stands against it.
        why: String,
    },
    /// The context asked for is not one this model has.
    #[error("context: expected 1 to {max} tokens, got {got}")]
    Context {
        /// The model's longest context.
        max: u32,
        /// The context asked for.
        got: u32,
    },
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the module.
    pub name: String,
    /// Numeric class.
    pub class: Class,
    /// Longest context in tokens.
    pub ctx: u32,
    /// Number of MTP blocks to include: 0 or as many as the files hold, at most 1.
    pub mtp_blocks: u32,
}

/// Builds the module of a model: graph `main`, and `mtp` where a block is asked for.
///
/// `main(ids, pos, want)` returns the logits of the wanted positions and the streams after the last
/// layer; `mtp(h, next, pos, want)` takes those streams with the ids to embed beside them and
/// returns logits and its own streams.
///
/// # Errors
/// A weight that is missing or misshapen, a class or context that the model does not have.
pub fn build(config: &Config, types: &dyn WeightTypes, options: &Options) -> Result<Module, GraphError> {
    let Options { name, class, ctx, mtp_blocks } = options.clone();
    let max = config.max_position_embeddings;
    if ctx == 0 || ctx > max {
        return Err(GraphError::Context { max, got: ctx });
    }
    let (width, indexed) = (config.index_head_dim, config.compress_ratios.contains(&4));
    if class != Class::Exact && indexed && !width.is_power_of_two() {
        let why = format!("index_head_dim: expected a power of two for the Hadamard transform, got {width}");
        return Err(GraphError::Class { class, why });
    }
    let mut m =
        Assembly { config, class, types, module: empty(config, name, class, ctx), dedup: BTreeMap::new() };
    m.main()?;
    if mtp_blocks > 0 {
        m.mtp()?;
    }
    Ok(m.finish())
}

fn empty(config: &Config, name: String, class: Class, ctx: u32) -> Module {
    let (weights, states, params, funcs, graphs) = Default::default();
    Module { name, class, ctx, vocab: config.vocab_size, weights, states, params, funcs, graphs }
}

/// A module under construction.
struct Assembly<'a> {
    config: &'a Config,
    class: Class,
    types: &'a dyn WeightTypes,
    module: Module,
    /// Number of functions that share a base name.
    dedup: BTreeMap<String, u32>,
}

/// Index of a graph value.
type Id = usize;

impl Assembly<'_> {
    fn main(&mut self) -> Result<(), GraphError> {
        let mut g = new_graph("main");
        let ids = input(&mut g, "ids", per_token());
        let pos = input(&mut g, "pos", per_token());
        let want = input(&mut g, "want", TensorType::new(Scalar::I32, [Dim::Sym(Sym::Wanted)]));
        let embed = ends::embed(self.config, self.class, self.types)?;
        let mut h = self.call(&mut g, embed, &[ids], "h0");
        let mut tables = BTreeMap::new();
        for layer in 0..self.config.num_hidden_layers {
            h = self.layer(&mut g, layer, h, Some(ids), pos, &mut tables, &format!("h{}", layer + 1))?;
        }
        let names = |local: &str| match local {
            "output" => "output".to_string(),
            local => format!("output_{local}"),
        };
        let head = ends::head(self.config, self.class, self.types, &names)?;
        let logits = self.call(&mut g, head, &[h, want], "logits");
        g.results = vec![logits, h];
        self.module.graphs.push(g);
        Ok(())
    }

    fn mtp(&mut self) -> Result<(), GraphError> {
        let mut g = new_graph("mtp");
        let c = self.config;
        let streams = [Dim::Sym(Sym::Tokens), Dim::Const(c.hc_mult), Dim::Const(c.hidden_size)];
        let h = input(&mut g, "h", TensorType::new(Scalar::F32, streams));
        let next = input(&mut g, "next", per_token());
        let pos = input(&mut g, "pos", per_token());
        let want = input(&mut g, "want", TensorType::new(Scalar::I32, [Dim::Sym(Sym::Wanted)]));
        let enter = ends::mtp_enter(c, self.class, self.types, 0)?;
        let z = self.call(&mut g, enter, &[h, next], "z0");
        let z = self.layer(&mut g, c.num_hidden_layers, z, None, pos, &mut BTreeMap::new(), "z1")?;
        let names = |local: &str| match local {
            "output" => "output".to_string(),
            "norm" => "mtp.0.norm".to_string(),
            local => format!("mtp.0.hc_head_{}", local.trim_start_matches("hc_")),
        };
        let head = ends::head(c, self.class, self.types, &names)?;
        let logits = self.call(&mut g, head, &[z, want], "logits");
        g.results = vec![logits, z];
        self.module.graphs.push(g);
        Ok(())
    }

    /// Calls a layer's function, and before it whatever makes the rotary tables it needs.
    #[allow(clippy::too_many_arguments, reason = "each is one operand of the call")]
    fn layer(
        &mut self,
        g: &mut Graph,
        layer: u32,
        h: Id,
        ids: Option<Id>,
        pos: Id,
        tables: &mut BTreeMap<String, Id>,
        out: &str,
    ) -> Result<Id, GraphError> {
        let (c, ratio) = (self.config, self.config.ratio(layer));
        let mut wanted = vec![ends::angles(c, self.class, self.types, ratio)?];
        if ratio > 0 {
            wanted.push(ends::closed(c, self.class, self.types, ratio)?);
        }
        let mut args = vec![h];
        args.extend(ids.filter(|_| c.is_hash_routed(layer)));
        args.push(pos);
        for built in wanted {
            let name = built.func.name.clone();
            let table = match tables.get(&name) {
                Some(table) => *table,
                None => self.call(g, built, &[pos], &name),
            };
            tables.insert(name, table);
            args.push(table);
        }
        let built = layer::layer(c, self.class, self.types, layer)?;
        Ok(self.call(g, built, &args, out))
    }

    /// Appends a call with one result. Functions that are equal but for their name are shared.
    fn call(&mut self, g: &mut Graph, built: Built, args: &[Id], out: &str) -> Id {
        let Built { func, weights, states } = built;
        let out_type = func.ty(Header::of(&func).outs[0]).clone();
        let func = self.share(func);
        let id = g.values.len();
        g.values.push(GraphValue { name: out.to_string(), ty: out_type });
        let weight = |name: &String| {
            let ty = self.types.weight_type(name).expect("the builder has looked it up");
            declare(&mut self.module.weights, name, ty)
        };
        let weights = weights.iter().map(weight).collect();
        let states = states.iter().map(|(name, ty)| declare(&mut self.module.states, name, *ty)).collect();
        g.calls.push(Call { func, args: args.to_vec(), outs: vec![id], weights, states, params: vec![] });
        id
    }

    fn share(&mut self, mut func: ds4_ir::Func) -> usize {
        let base = func.name.clone();
        let known = self.dedup.get(&base).copied().unwrap_or(0);
        for i in 0..=known {
            func.name = if i == 0 { base.clone() } else { format!("{base}_{}", i + 1) };
            if let Some(at) = self.module.funcs.iter().position(|f| *f == func) {
                return at;
            }
        }
        self.dedup.insert(base, known + 1);
        self.module.funcs.push(func);
        self.module.funcs.len() - 1
    }

    /// Puts weights in order of name and checks the whole.
    fn finish(self) -> Module {
        let mut module = self.module;
        let mut order: Vec<usize> = (0..module.weights.len()).collect();
        order.sort_by(|a, b| module.weights[*a].name.cmp(&module.weights[*b].name));
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
        module.weights = order.iter().map(|i| module.weights[*i].clone()).collect();
        for call in module.graphs.iter_mut().flat_map(|g| &mut g.calls) {
            call.weights.iter_mut().for_each(|w| *w = place[*w]);
        }
        if let Err(errors) = ds4_ir::verify_module(&module) {
            panic!("the model's module is malformed: {}", errors[0]);
        }
        module
    }
}

/// Index of the declaration `name`, added if it is new.
fn declare<T>(decls: &mut Vec<Decl<T>>, name: &str, ty: T) -> usize {
    decls.iter().position(|d| d.name == name).unwrap_or_else(|| {
        decls.push(Decl { name: name.to_string(), ty });
        decls.len() - 1
    })
}

fn new_graph(name: &str) -> Graph {
    Graph { name: name.to_string(), inputs: 0, values: vec![], calls: vec![], results: vec![] }
}

fn input(g: &mut Graph, name: &str, ty: TensorType) -> Id {
    g.values.push(GraphValue { name: name.to_string(), ty: Type::Tensor(ty) });
    g.inputs = g.values.len();
    g.inputs - 1
}

fn per_token() -> TensorType {
    TensorType::new(Scalar::I32, [Dim::Sym(Sym::Tokens)])
}
