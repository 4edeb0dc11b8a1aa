//! What stands around the layers: embedding, rotary tables, the head, and the entry of an MTP block.
use super::GraphError;
use super::builder::{A, Builder, Built, WeightTypes};
use super::shapes::Shapes;
use crate::Config;
use ds4_ir::{Class, Dim, Scalar, Sym, TensorType};

/// Token ids to residual streams (spec 2).
pub(super) fn embed(c: &Config, class: Class, types: &dyn WeightTypes) -> Result<Built, GraphError> {
    let mut b = Builder::new("embed", class, types, &str::to_string);
    let ids = b.input("ids", Shapes::new(c, class).ids());
    let x = b.op("x", "embed_rows", [A::W("token_embd"), ids.into()]);
    let h = b.op("h", "streams", [x.into(), A::Int(c.hc_mult)]);
    b.finish(&[h])
}

/// The rotary table of this step's tokens: plain for window-only layers, else with the compressed
/// layers' base and YaRN (spec 2.2). `ratio` names the layer kind.
pub(super) fn angles(
    c: &Config,
    class: Class,
    types: &dyn WeightTypes,
    ratio: u32,
) -> Result<Built, GraphError> {
    let name = if ratio == 0 { "angles_window" } else { "angles_compressed" };
    let mut b = Builder::new(name, class, types, &str::to_string);
    let pos = b.input("pos", Shapes::new(c, class).ids());
    let table = b.op("angles", "rope_table", table(c, pos, ratio));
    b.finish(&[table])
}

/// The rotary table of the entries of `ratio` that this step closes (spec 2.5).
pub(super) fn closed(
    c: &Config,
    class: Class,
    types: &dyn WeightTypes,
    ratio: u32,
) -> Result<Built, GraphError> {
    let mut b = Builder::new(&format!("closed_{ratio}"), class, types, &str::to_string);
    let pos = b.input("pos", Shapes::new(c, class).ids());
    let first = b.op("first", "closed_pos", [pos.into(), A::Int(ratio)]);
    let table = b.op("angles", "rope_table", table(c, first, ratio));
    b.finish(&[table])
}

fn table(c: &Config, pos: ds4_ir::Value, ratio: u32) -> [A<'static>; 7] {
    let base = if ratio == 0 { c.rope_theta } else { c.compress_rope_theta };
    let yarn = c.yarn.filter(|_| ratio > 0);
    let [factor, orig, fast, slow] =
        yarn.map_or([1.0, 1.0, 1.0, 1.0], |y| [y.factor, f64::from(y.original), y.beta_fast, y.beta_slow]);
    let dims = A::Int(c.qk_rope_head_dim);
    [pos.into(), dims, A::Real(base), A::Real(factor), A::Real(orig), A::Real(fast), A::Real(slow)]
}

/// Streams of the wanted positions to logits (spec 2.1, head). `module_name` gives the module's
/// names of `hc_fn`, `hc_scale`, `hc_base`, `norm` and `output`.
pub(super) fn head(
    c: &Config,
    class: Class,
    types: &dyn WeightTypes,
    module_name: &dyn Fn(&str) -> String,
) -> Result<Built, GraphError> {
    let mut b = Builder::new("head", class, types, module_name);
    let h = b.input("h", Shapes::new(c, class).streams());
    let want = b.input("want", TensorType::new(Scalar::I32, [Dim::Sym(Sym::Wanted)]));
    let h = b.op("h1", "take_rows", [h.into(), want.into()]);
    let flat = b.op("flat", "flat_norm", [h.into(), A::Real(c.rms_norm_eps)]);
    let mix = b.unrounded("mix", flat, "hc_fn");
    let gates = [mix.into(), A::W("hc_scale"), A::W("hc_base"), A::Real(c.hc_eps)];
    let gates = b.op("gates", "hc_head_gates", gates);
    let x = b.op("x", "hc_pre", [h.into(), gates.into()]);
    let xn = b.op("xn", "rms_norm", [x.into(), A::W("norm"), A::Real(c.rms_norm_eps)]);
    let logits = b.unrounded("logits", xn, "output");
    b.finish(&[logits])
}

/// The main stack's streams and the embedding of the token beside them to the streams of MTP block
/// `block` (spec 2.9).
pub(super) fn mtp_enter(
    c: &Config,
    class: Class,
    types: &dyn WeightTypes,
    block: u32,
) -> Result<Built, GraphError> {
    let module_name = |local: &str| match local {
        "token_embd" => local.to_string(),
        _ => format!("mtp.{block}.{local}"),
    };
    let mut b = Builder::new("mtp_enter", class, types, &module_name);
    let shapes = Shapes::new(c, class);
    let h = b.input("h", shapes.streams());
    let next = b.input("next", shapes.ids());
    let eps = || A::Real(c.rms_norm_eps);
    let e = b.op("e", "embed_rows", [A::W("token_embd"), next.into()]);
    let en = b.op("en", "rms_norm", [e.into(), A::W("enorm"), eps()]);
    let ep = b.linear("ep", en, "e_proj");
    let hn = b.op("hn", "rms_norm", [h.into(), A::W("hnorm"), eps()]);
    let hp = b.linear("hp", hn, "h_proj");
    let z = b.op("z", "stream_add", [hp.into(), ep.into()]);
    b.finish(&[z])
}
