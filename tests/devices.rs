//! Whole models on every kind of device: the fixtures, compiled for it, run by the shipping launcher on
//! the emulated driver.
mod common;
#[allow(dead_code, reason = "the tests of the programs use all of it")]
#[path = "cli/lab.rs"]
mod lab;
#[path = "common/tools.rs"]
mod tools;

use common::{Expected, FAST_TOLERANCE, Judge, distance, fixture, interpret, logits_of, worst};
use ds4::compile::{Request, compile};
use ds4::target::CompileTarget;
use ds4_ir::{Bind, Buffer, Class, Interp};
use ds4_runtime::device::{Choice, emulator::clang};
use ds4_runtime::store::{Disk, Options, RealDisk, Store};
use ds4_runtime::{Artifact, Engine, Session, Want};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const FIXTURES: [&str; 2] = ["flash-bf16", "pro-mixed"];
/// All three languages, and both sizes of subgroups.
const TARGETS: [&str; 4] = ["cuda", "hip:gfx1151", "hip:gfx942", "metal"];
/// Positions that are compared, and how they are split: a long step, short ones, single tokens.
const SPLIT: [usize; 6] = [120, 7, 3, 4, 1, 1];
/// Largest difference of a logit in class `exact`.
const TOLERANCE: f64 = 1e-4;

/// Of so many positions in a hundred the logits in class `fast` are held to its bound. At the others an input
/// that a matrix unit takes in f16 may turn a close choice between two experts, which are nothing alike in so
/// small a model.
const NEAR: usize = 95;

/// Whether there is a clang; says by name what is skipped if not.
fn has_clang(test: &str) -> bool {
    let found = clang();
    if let Err(why) = &found {
        tools::missing(test, &why.to_string());
    }
    found.is_ok()
}

fn artifact(name: &str, class: Class, target: &str) -> Artifact {
    let target = CompileTarget::parse(target).unwrap();
    let request = Request { class, ctx: Some(512), target };
    compile(&fixture(name), &std::env::temp_dir(), request).unwrap_or_else(|e| panic!("{name}: {e:#}"))
}

fn engine(artifact: Artifact) -> Engine {
    let cache = std::env::temp_dir().join("ds4-test-emulator");
    let choice = Choice { number: None, emulator: Some(cache) };
    Engine::on_device(artifact, &std::env::temp_dir(), &choice).unwrap_or_else(|e| panic!("{e}"))
}

fn advance(session: &mut Session, ids: &[u32], want: Want) -> Vec<f32> {
    let none = AtomicBool::new(false);
    session.advance(ids, want, ids.len(), &none, &mut |_| ()).unwrap_or_else(|e| panic!("{e}"))
}

fn best<T: Copy + PartialOrd>(row: &[T]) -> u32 {
    let mut best = 0;
    for i in 0..row.len() {
        if row[i] > row[best] {
            best = i;
        }
    }
    best as u32
}

/// The tokens with which the interpreter in double precision goes on.
fn greedy(name: &str, ids: &[u32], count: usize) -> Vec<u32> {
    let judge = Judge::new(&fixture(name), Class::Exact);
    let graph = judge.module.graph("main").unwrap();
    let mut interp = Interp::<f64>::new(&judge.module, &judge);
    let (mut next, mut start, mut all) = (ids.to_vec(), 0, Vec::new());
    for _ in 0..count {
        let n = next.len();
        let ints = |x: &mut dyn Iterator<Item = usize>| Buffer::Int(x.map(|n| n as i32).collect());
        let own = ints(&mut next.iter().map(|id| *id as usize));
        let inputs = vec![own, ints(&mut (start..start + n)), ints(&mut (n - 1..n))];
        let values = interp.step(graph, inputs, &Bind { start, tokens: n, wanted: 1 });
        let token = best(values[graph.results[0]].buffer.real());
        start += n;
        all.push(token);
        next = vec![token];
    }
    all
}

/// A session that has run the positions that are compared, the tokens, and the logits of all of them.
fn prompt(name: &str, class: Class, target: &str) -> (Session, Vec<u32>, Vec<f64>) {
    let n: usize = SPLIT.iter().sum();
    let mut ids = Expected::read(&fixture(name).join("expected.safetensors")).ids("input_ids");
    ids.truncate(n);
    let mut session = engine(artifact(name, class, target)).session().unwrap_or_else(|e| panic!("{e}"));
    let (mut logits, mut at) = (Vec::new(), 0);
    for part in SPLIT {
        logits.extend(advance(&mut session, &ids[at..at + part], Want::All).into_iter().map(f64::from));
        at += part;
    }
    (session, ids, logits)
}

fn exact(target: &str) {
    if !has_clang(&format!("the fixtures in class exact on {target}")) {
        return;
    }
    for name in FIXTURES {
        let (mut session, ids, logits) = prompt(name, Class::Exact, target);
        let expected = Expected::read(&fixture(name).join("expected.safetensors"));
        let vocab = logits.len() / ids.len();
        let worst = worst(logits.iter().copied(), &expected.values("logits")[..logits.len()]);
        println!("{name} on {target}: worst difference of a logit {worst:.1e}");
        assert!(worst <= TOLERANCE, "{name} on {target}: {worst}");
        let mut got = vec![best(&logits[logits.len() - vocab..])];
        while got.len() < 4 {
            let row = advance(&mut session, &[*got.last().unwrap()], Want::Last);
            got.push(best(&row));
        }
        assert_eq!(got, greedy(name, &ids, 4), "{name} on {target}: greedy tokens");
    }
}

fn fast(target: &str) {
    if !has_clang(&format!("the fixtures in class fast on {target}")) {
        return;
    }
    for name in FIXTURES {
        let (_, ids, logits) = prompt(name, Class::Fast, target);
        let judge = Judge::new(&fixture(name), Class::Fast);
        // Over these positions the interpreter in double precision chooses other experts once: it is as far
        // from that in single precision as from a device.
        let expected = logits_of(&judge, &interpret::<f32>(&judge, &ids, &[ids.len()]));
        let vocab = logits.len() / ids.len();
        let rows = logits.chunks(vocab).zip(expected.chunks(vocab));
        let mut each: Vec<f64> = rows.map(|(got, expected)| distance(got, expected)).collect();
        each.sort_by(f64::total_cmp);
        let (middle, most) = (each[ids.len() / 2], each[ids.len() * NEAR / 100]);
        println!(
            "{name} on {target}: distance of a position's logits in class fast {middle:.1e}, of {NEAR} in 100 at most {most:.1e}"
        );
        assert!(most <= FAST_TOLERANCE, "{name} on {target}: {most}");
    }
}

#[test]
fn exact_on_cuda() {
    exact(TARGETS[0]);
}

#[test]
fn exact_on_hip_in_waves_of_32() {
    exact(TARGETS[1]);
}

#[test]
fn exact_on_hip_in_waves_of_64() {
    exact(TARGETS[2]);
}

#[test]
fn exact_on_metal() {
    exact(TARGETS[3]);
}

#[test]
fn fast_on_cuda() {
    fast(TARGETS[0]);
}

#[test]
fn fast_on_hip_in_waves_of_32() {
    fast(TARGETS[1]);
}

#[test]
fn fast_on_hip_in_waves_of_64() {
    fast(TARGETS[2]);
}

#[test]
fn fast_on_metal() {
    fast(TARGETS[3]);
}

#[test]
fn states_on_a_device_go_into_a_store_and_back() {
    if !has_clang("states_on_a_device_go_into_a_store_and_back") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let path: PathBuf = folder.path().join("kv");
    let store = Store::open(disk, &path, Options::default()).unwrap();
    let expected = Expected::read(&fixture(FIXTURES[0]).join("expected.safetensors"));
    let ids = expected.ids("input_ids");
    let engine = engine(artifact(FIXTURES[0], Class::Exact, "cuda"));
    let mut session = engine.session().unwrap();
    let row = advance(&mut session, &ids[..100], Want::Last);
    let captured = session.capture(&store, &ids[..100], &row, 0.01).unwrap().expect("nothing is stored yet");
    store.commit(&captured).unwrap();
    let mut again = engine.session().unwrap();
    let restored = again.restore(&store, &ids[..100]);
    assert_eq!((restored.tokens, restored.logits), (100, row));
    // Bits depend on whether a step is short, so the steps that are compared all are.
    let go_on = |session: &mut Session| {
        advance(session, &ids[100..106], Want::Last);
        advance(session, &ids[106..110], Want::All)
    };
    let (a, b) = (go_on(&mut session), go_on(&mut again));
    assert_eq!(a, b, "a restored session computes the same bits");
    session.rewind(4).unwrap();
    let later = advance(&mut session, &ids[106..110], Want::All);
    assert_eq!(later, a, "so does one that was rewound");
}

#[test]
fn an_artifact_with_kernels_reads_back() {
    let mut made = artifact(FIXTURES[0], Class::Exact, "metal");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ds4");
    made.write(&path).unwrap();
    let read = Artifact::read(&path).unwrap();
    assert_eq!(read.kernels, made.kernels);
    let text = &mut made.kernels.as_mut().expect("kernels").texts[0];
    (text.binary, text.portable) = (vec![1, 2, 3], b".version\0".to_vec());
    made.write(&path).unwrap();
    assert_eq!(Artifact::read(&path).unwrap().kernels, made.kernels);
    // A driver would read on behind its end.
    made.kernels.as_mut().expect("kernels").texts[0].portable.pop();
    made.write(&path).unwrap();
    let why = Artifact::read(&path).unwrap_err().to_string();
    assert!(why.contains("section portable") && why.contains("expected a zero at the end"), "{why}");
}

#[test]
fn the_programs_compile_for_a_device_and_tell_what_it_launches_and_how_fast() {
    if !has_clang("the_programs_compile_for_a_device_and_tell_what_it_launches_and_how_fast") {
        return;
    }
    let lab = lab::Lab::new();
    let (model, made) = (fixture(FIXTURES[0]), lab.path("model.ds4"));
    let compile = ["compile", lab::text(&model), "-o", lab::text(&made), "--ctx", "64", "--target", "metal"];
    lab.ds4c(&compile).good();
    let told = lab.ds4c(&["inspect", lab::text(&made)]).good();
    assert!(told.contains("target    metal:apple7 ("), "{told}");
    assert!(told.contains("launches of steps of up to 8 tokens"), "{told}");
    let line =
        told.lines().find(|l| l.contains("moe_up") && l.contains(" x 1")).expect("a launch of a kernel");
    assert!(line.split_whitespace().count() == 7, "text, kernel, grid: {line}");
    let bench =
        ["bench", lab::text(&made), "--device", "emulate", "--prefill", "3", "--decode", "1", "--ctx"];
    let answer = lab.ds4(&[&bench[..], &["9", "--json"]].concat());
    let found: serde_json::Value =
        serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    assert!(answer.err.contains("running on "), "{answer:?}");
    assert!(found["prefill"][0]["tok_s"].as_f64().unwrap() > 0.0, "{found}");
    assert!(found["decode"][0]["tok_s"].as_f64().unwrap() > 0.0, "{found}");
    // The raw read is of the processor's memory: of a device it says nothing.
    assert!(found["read_gbs"].is_null() && found["decode"][0]["limit_share"].is_null(), "{found}");
}
