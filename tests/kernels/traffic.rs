//! What hot kernels do to memory: counted on the emulated device at widths of real models, with fewer
//! rows, and kept in `traffic.txt`, which `BLESS=1` writes anew.
//!
//! - `read`: bytes that lanes read of weights, or of the states that an attention streams, per byte
//!   that is needed; `sectors`: the same in sectors of 32 bytes that a warp touches.
//! - `inputs`: bytes of the inputs that a block reads from global memory, per byte of its inputs.
//! - `conflicts`: further passes per access of a warp to shared memory; `barriers`: per block.
use crate::inputs::Random;
use crate::run::{Bench, Step};
use crate::tools;
use ds4_codegen::{Binding, Launch, Target};
use ds4_ir::{Arg, Role, StateKind, Type};
use ds4_runtime::device::DeviceMemory;
use ds4_runtime::device::emulator::{Counters, Options, Touched, clang};
use std::ops::Range;
use std::path::Path;
use std::process::Command;

/// Most `read`, `sectors` and `inputs` of any kernel.
const MOST: [f64; 3] = [1.05, 1.1, 1.0];

struct Subject {
    header: String,
    node: String,
    step: Range<u32>,
    /// The operand that a product multiplies.
    input: usize,
}

fn subject(header: &str, node: &str, step: Range<u32>, input: usize) -> Subject {
    Subject { header: header.to_string(), node: node.to_string(), step, input }
}

fn subjects() -> Vec<Subject> {
    let mut all = Vec::new();
    for format in ["f32", "bf16", "f16", "fp8", "fp4", "mxfp4", "q8_0", "q4_k", "q2_k", "iq2_xxs"] {
        for step in [0..1, 0..8] {
            let header = format!("%x: f32[t, 4096], @w: {format}[32, 4096]");
            all.push(subject(&header, "matmul %x, @w : f32[t, 32]", step, 0));
        }
    }
    // As many rows as a head has: a subgroup takes several.
    for format in ["bf16", "q8_0"] {
        let header = format!("%x: f32[w, 512], @w: {format}[8192, 512]");
        all.push(subject(&header, "matmul %x, @w : f32[w, 8192]", 0..1, 0));
    }
    for (format, fmt) in
        [("fp4", "e4m3x128"), ("mxfp4", "q8_0"), ("q4_k", "q8_k"), ("q2_k", "q8_k"), ("iq2_xxs", "q8_k")]
    {
        let header = format!(
            "%x: f32[t, 4096], @gate: {format}[8, 16, 4096], @up: {format}[8, 16, 4096], %routes: route[t, 6]"
        );
        let node = format!("moe_up %x, @gate, @up, %routes, fmt={fmt}, clamp=10.0 : f32[t, 6, 16]");
        all.push(subject(&header, &node, 0..1, 0));
        let header = format!(
            "%h: f32[t, 4, 32], %x: f32[t, 6, 2048], @w: {format}[8, 32, 2048], %routes: route[t, 6], \
             %y: f32[t, 2048], @v: q8_0[32, 2048], %gates: f32[t, 24]"
        );
        let node =
            format!("moe_post %h, %x, @w, %routes, %y, @v, %gates, fmt={fmt}, y_fmt=q8_0 : f32[t, 4, 32]");
        all.push(subject(&header, &node, 0..1, 1));
    }
    for (format, fmt) in [
        ("q8_0", "q8_0"),
        ("mxfp4", "q8_0"),
        ("q4_k", "q8_k"),
        ("q2_k", "q8_k"),
        ("iq2_xxs", "q8_k"),
        ("f16", "f16"),
        ("fp8", "e4m3x128"),
        ("fp4", "e4m3x128"),
        ("bf16", "bf16"),
        ("fp8", "f32"),
        ("f16", "f32"),
    ] {
        // Inputs that nobody rounds go to matrix units where there are enough rows.
        let rows = if fmt == "f32" { 256 } else { 64 };
        let header = format!("%x: f32[t, 4096], @w: {format}[{rows}, 4096]");
        all.push(subject(&header, &format!("linear %x, @w, fmt={fmt} : f32[t, {rows}]"), 0..64, 0));
    }
    for (header, node, input) in LONG {
        all.push(subject(header, node, 0..64, *input));
    }
    for (header, node, step, input) in OTHERS {
        all.push(subject(header, node, step.clone(), *input));
        if *step == (0..1) && !header.contains("routes") {
            all.push(subject(header, node, 0..8, *input));
        }
    }
    all
}

/// What runs on matrix units besides, in a long step.
const LONG: &[(&str, &str, usize)] = &[
    (
        "%x: f32[t, 4096], @gate: fp8[32, 4096], @up: fp8[32, 4096]",
        "mlp_up %x, @gate, @up, fmt=e4m3x128, clamp=10.0 : f32[t, 32]",
        0,
    ),
    (
        "%x: f32[t, 2048], @gate: iq2_xxs[32, 32, 2048], @up: iq2_xxs[32, 32, 2048], %routes: route[t, 6]",
        "moe_up %x, @gate, @up, %routes, fmt=q8_k, clamp=10.0 : f32[t, 6, 32]",
        0,
    ),
    (
        "%h: f32[t, 4, 64], %x: f32[t, 6, 2048], @w: q2_k[32, 64, 2048], %routes: route[t, 6], \
         %y: f32[t, 2048], @v: q8_0[64, 2048], %gates: f32[t, 24]",
        "moe_post %h, %x, @w, %routes, %y, @v, %gates, fmt=q8_k, y_fmt=q8_0 : f32[t, 4, 64]",
        1,
    ),
];

type Other = (&'static str, &'static str, Range<u32>, usize);

const OTHERS: &[Other] = &[
    (
        "%x: f32[t, 4096], @gate: fp8[32, 4096], @up: fp8[32, 4096]",
        "mlp_up %x, @gate, @up, fmt=e4m3x128, clamp=10.0 : f32[t, 32]",
        0..1,
        0,
    ),
    (
        "%x: f32[t, 1024], @norm: bf16[1024], @w: fp8[64, 1024]",
        "norm_linear %x, @norm, @w, eps=1e-6, fmt=e4m3x128 : f32[t, 64]",
        0..1,
        0,
    ),
    ("%x: f32[t, 16, 512], @w: q8_0[32, 4096]", "out_low %x, @w, groups=2, fmt=q8_0 : f32[t, 32]", 0..1, 0),
    (
        "%h: f32[t, 4, 32], %x: f32[t, 8192], @w: fp8[32, 8192], %gates: f32[t, 24]",
        "out_post %h, %x, @w, %gates, fmt=e4m3x128 : f32[t, 4, 32]",
        0..1,
        1,
    ),
    (
        "%h: f32[t, 4, 4096], @w: f32[24, 16384], @scale: f32[3], @base: f32[24]",
        "hc_enter %h, @w, @scale, @base, norm_eps=1e-6, fmt=f32, iters=20, eps=1e-6 : f32[t, 24]",
        0..1,
        0,
    ),
    (
        "%x: f32[t, 4096], @w: bf16[256, 4096], @bias: f32[256]",
        "moe_route %x, @w, @bias, fmt=f32, k=6, scale=1.5 : route[t, 6]",
        0..1,
        0,
    ),
    (
        "%q: f32[t, 8, 512], %ring: state ring/128 kv8r64[512], %row: kv8r64[t, 512], @sinks: f32[8], \
         %pos: i32[t], %table: f32[t, 64]",
        "swa_attend %q, %ring, %row, @sinks, %pos, %table : f32[t, 8, 512]",
        2047..2048,
        0,
    ),
    (
        "%q: f32[t, 8, 512], %ring: state ring/128 kv8r64[512], %row: kv8r64[t, 512], \
         %entries: state entries/4 kv8r64[512], %idx: i32[t, 256], @sinks: f32[8], %pos: i32[t], \
         %table: f32[t, 64]",
        "csa_attend %q, %ring, %row, %entries, %idx, @sinks, %pos, %table : f32[t, 8, 512]",
        2047..2048,
        0,
    ),
    (
        "%q: f32[t, 8, 512], %ring: state ring/128 kv8r64[512], %row: kv8r64[t, 512], \
         %entries: state entries/128 kv8r64[512], @sinks: f32[8], %pos: i32[t], %table: f32[t, 64]",
        "hca_attend %q, %ring, %row, %entries, @sinks, %pos, %table : f32[t, 8, 512]",
        16383..16384,
        0,
    ),
    (
        "%q: idx4[t, 64, 128], %w: f32[t, 64], %e: state entries/4 idx4[128], %pos: i32[t]",
        "index_select %q, %w, %e, %pos, k=512 : i32[t, 512]",
        8191..8192,
        0,
    ),
];

/// What a launch did.
struct Traffic {
    name: &'static str,
    blocks: u64,
    needed: u64,
    streamed: Touched,
    input: Touched,
    /// Bytes of the inputs of all tokens.
    input_bytes: u64,
    counters: Counters,
}

impl Subject {
    fn traffic(&self, bench: &Bench) -> Result<Vec<Traffic>, String> {
        let text = format!("func @case({}) {{\n  %out = {}\n  return %out\n}}\n", self.header, self.node);
        let func = ds4_ir::parse_funcs(&text).map_err(|e| e.to_string())?.remove(0);
        let step = Step::new(&func, self.step.clone(), self.step.end.max(64), &mut Random::new(1));
        let mut all = Vec::new();
        bench.controls.configure(Options { count: true, races: false, ..Options::default() });
        bench.controls.reset();
        let result = bench.run(&step, &mut |joint, held| {
            all.push(self.seen(bench, &step, &joint.parts[0].launch, held));
            bench.controls.reset();
        });
        bench.controls.configure(Options::default());
        result.map(|_| all)
    }

    fn seen(
        &self,
        bench: &Bench,
        step: &Step<'_>,
        launch: &Launch,
        held: &[(usize, DeviceMemory)],
    ) -> Traffic {
        let (mut needed, mut streamed, mut input) = (0, Touched::default(), Touched::default());
        for (place, memory) in held {
            let touched = bench.controls.touched(memory);
            let binding = &launch.bindings[*place];
            if let Some(bytes) = needed_bytes(step, binding) {
                // A weight without scales is bound a second time in their place.
                needed += if launch.bindings[..*place].contains(binding) { 0 } else { bytes };
                streamed.bytes_read += touched.bytes_read;
                streamed.sectors_read += touched.sectors_read;
            }
            if launch.bindings[*place] == Binding::Value(self.input) {
                input = touched;
            }
        }
        let input_bytes = step.values[self.input].as_ref().map_or(0, |bytes| bytes.len() as u64);
        let blocks = launch.grid.iter().map(|n| u64::from(*n)).product();
        let counters = bench.controls.counters();
        Traffic { name: launch.text.name(), blocks, needed, streamed, input, input_bytes, counters }
    }
}

/// Bytes that a step must read of what streams past: matrices, chosen experts, visible rows of states.
fn needed_bytes(step: &Step<'_>, binding: &Binding) -> Option<u64> {
    let part = |part: &(Vec<u8>, Vec<u8>), role: Role| match role {
        Role::Codes => part.0.len() as u64,
        Role::Scales => part.1.len() as u64,
    };
    match binding {
        // A norm's weight or a bias is an input of every block.
        Binding::Weight(i, role) => {
            let Arg::Weight(w) = &step.node.args[*i] else { return None };
            let matrix = step.func.weight_type(*w).dims.len() > 1;
            matrix.then(|| part(&step.weights[*i].as_ref().expect("a weight")[0], *role))
        }
        Binding::Base(i, role) => {
            let items = step.weights[*i].as_ref().expect("a weight");
            Some(experts(step).into_iter().map(|e| part(&items[e], *role)).sum())
        }
        Binding::Value(i) => {
            let Arg::Value(v) = &step.node.args[*i] else { return None };
            let Type::State(ty) = step.func.ty(*v) else { return None };
            let rows = match ty.kind {
                StateKind::Ring(span) => step.bind.start.min(span as usize - 1),
                StateKind::Entries(ratio) => chosen(step).unwrap_or((step.bind.start + 1) / ratio as usize),
                StateKind::Tail(_) => return None,
            };
            Some((rows * ty.scalar.row_bytes(ty.width as usize)) as u64)
        }
        _ => None,
    }
}

/// The bytes of the tensor operand of that name, as integers.
fn integers(step: &Step<'_>, name: &str) -> Option<Vec<i32>> {
    let is_it = |arg: &Arg| matches!(arg, Arg::Value(v) if step.func.name(*v) == name);
    let bytes = step.values[step.node.args.iter().position(is_it)?].as_ref()?;
    let word = |b: &[u8]| i32::from_le_bytes(b.try_into().expect("4 bytes"));
    Some(bytes.chunks_exact(4).map(word).collect())
}

/// Experts that the routes name, each once.
fn experts(step: &Step<'_>) -> std::collections::BTreeSet<usize> {
    let routes = integers(step, "routes").expect("experts have routes");
    routes.chunks_exact(2).map(|route| route[0] as usize).collect()
}

/// How many entries the indices name, if there are any indices.
fn chosen(step: &Step<'_>) -> Option<usize> {
    Some(integers(step, "idx")?.iter().filter(|i| **i >= 0).count())
}

impl Traffic {
    fn read(&self) -> f64 {
        self.streamed.bytes_read as f64 / self.needed as f64
    }

    fn sectors(&self) -> f64 {
        self.streamed.sectors_read as f64 * 32.0 / self.needed as f64
    }

    fn inputs(&self) -> f64 {
        self.input.bytes_read as f64 / (self.input_bytes * self.blocks) as f64
    }

    fn line(&self) -> String {
        let ratio = |value: f64| if self.needed > 0 { format!("{value:.2}") } else { "-".to_string() };
        let Counters { shared_accesses, bank_conflicts, barriers, .. } = self.counters;
        let conflicts = bank_conflicts as f64 / shared_accesses.max(1) as f64;
        format!(
            "{:<16} {:>6} {:>9} {:>6} {:>7} {:>6.2} {:>9.2} {:>8.1}",
            self.name,
            self.blocks,
            self.needed,
            ratio(self.read()),
            ratio(self.sectors()),
            self.inputs(),
            conflicts,
            barriers as f64 / self.blocks as f64,
        )
    }
}

/// Which clang it is: another may merge neighbouring accesses that this one leaves alone.
fn version(clang: &Path) -> String {
    let output = Command::new(clang).arg("-dumpversion").output().expect("it ran before");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

#[test]
fn hot_kernels_read_what_they_need_once() {
    let clang = match clang() {
        Ok(clang) => clang,
        Err(why) => return tools::missing("hot_kernels_read_what_they_need_once", &why.to_string()),
    };
    let bench = Bench::new(Target::parse("cuda:sm_90").unwrap());
    let clang = version(&clang);
    let columns = "kernel           blocks    needed   read sectors inputs conflicts barriers";
    let mut text = format!("emulated by clang {clang}\n{columns}\n");
    let mut beyond = Vec::new();
    for subject in subjects() {
        text += &format!("\n{} tokens: {}\n  of {}\n", subject.step.len(), subject.node, subject.header);
        let list = subject.traffic(&bench).unwrap_or_else(|why| panic!("{}: {why}", subject.node));
        for traffic in list {
            text += &format!("{}\n", traffic.line());
            let got = [traffic.read(), traffic.sectors(), traffic.inputs()];
            if traffic.needed > 0 && got.iter().zip(MOST).any(|(got, most)| *got > most + 0.005) {
                beyond.push(format!("{} of {}", traffic.line(), subject.header));
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/traffic.txt");
    if std::env::var("BLESS").is_ok_and(|v| v == "1") {
        std::fs::write(path, &text).unwrap();
    }
    assert!(beyond.is_empty(), "more than what is needed:\n{}", beyond.join("\n"));
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    if kept.lines().next() != text.lines().next() {
        return eprintln!(
            "traffic.txt: {}; counts of another clang are not compared",
            kept.lines().next().unwrap_or_default()
        );
    }
    assert!(kept == text, "tests/kernels/traffic.txt is not what is counted; BLESS=1 accepts\n{text}");
}
