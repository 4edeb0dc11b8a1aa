//! Layers of the true geometry of Flash: the engine against the interpreter.
//!
//! The model is a synthetic one with one layer of each kind at the published sizes; layers share their
//! experts and the vocabulary is short, so that the file stays small. The sessions begin with made-up
//! states just before position 128, so that both kinds of compressors close an entry.
mod common;

use common::{Judge, engine};
use ds4_ir::{Bind, Buffer, Class, Interp, Real, StateKind, StateType, formats};
use ds4_models::synth::{Alias, Spec, placeholder_vocab, write};
use ds4_models::{Config, Mix};
use ds4_runtime::store::{Boundary, Options, RealDisk, StateRows, Store};
use ds4_runtime::{Session, Want};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Tokens before the step: those of the step close a block of 4 and one of 128, and see the entries.
const BEFORE: usize = 126;
/// The step.
const IDS: [u32; 3] = [17, 900, 3];
/// Words of the model.
const VOCAB: u32 = 1024;
/// Most of the logits' root mean square by which class `fast` may differ from the interpreter in double
/// precision, as a root mean square. Rounding the inputs of products turns a last bit into a step of 1/127 of the
/// largest, and now and then another expert is chosen, so that single precision itself is 0.05 away.
const FAST: f64 = 0.15;

/// Two window-only layers, CSA with hashed experts, HCA, CSA with scored experts.
fn model(folder: &Path) -> PathBuf {
    let config = Config { vocab_size: VOCAB, ..Config::flash().truncated(5) };
    let kinds: Vec<_> = (0..5).map(|i| (config.ratio(i), config.is_hash_routed(i))).collect();
    assert_eq!(kinds, [(0, true), (0, true), (4, true), (128, false), (4, false)]);
    let (vocab, alias) = (placeholder_vocab(&config), Alias { expert_sets: 1, dense_sets: 2 });
    let name = "flash-kinds".to_string();
    let path = folder.join("flash.gguf");
    write(&Spec { config, name, mix: Mix::Ds4Q2, alias: Some(alias), vocab, seed: 3 }, &path, &mut |_, _| ())
        .unwrap();
    path
}

/// States that no model has computed: rows of random numbers in each state's format.
struct MadeUp(Vec<StateType>);

impl StateRows for MadeUp {
    fn read(&self, state: usize, rows: Range<u64>, out: &mut Vec<u8>) {
        let ty = self.0[state];
        let mut bytes = vec![0; ty.scalar.row_bytes(ty.width as usize)];
        for row in rows {
            let mut random = (state as u64 + 1) << 32 | row;
            let mut next = |_| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (random >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            let numbers: Vec<f32> = (0..ty.width).map(&mut next).collect();
            formats::encode_row(ty.scalar, &numbers, &mut bytes);
            out.extend(&bytes);
        }
    }

    fn write(&mut self, _: usize, _: Range<u64>, _: &[u8]) {
        unreachable!("only read from");
    }
}

/// A session with made-up states after [`BEFORE`] tokens.
fn session(path: &Path, class: Class) -> Session {
    let mut session = engine(path, class, 2).session().unwrap();
    let states = MadeUp(session.engine().module().states.iter().map(|s| s.ty).collect());
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(RealDisk), folder.path(), Options::default()).unwrap();
    let (tokens, logits) = ([1; BEFORE], [0.0; VOCAB as usize]);
    let boundary = Boundary { tokens: &tokens, logits: &logits, seconds_per_token: 1.0 };
    store.commit(&store.capture(&session.layout(), boundary, &states).unwrap().unwrap()).unwrap();
    assert_eq!(session.restore(&store, &tokens).tokens, BEFORE as u64);
    session
}

/// Logits of the step by the interpreter, whose states are first those of the session.
fn interpret<F: Real>(judge: &Judge, session: &Session) -> Vec<F> {
    let mut interp = Interp::<F>::new(&judge.module, judge);
    let mut row = Vec::new();
    for (i, state) in judge.module.states.iter().enumerate() {
        let capacity = state.ty.kind.rows(u64::from(judge.module.ctx)) as usize;
        for slot in 0..capacity {
            row.clear();
            session.read(i, slot as u64..slot as u64 + 1, &mut row);
            interp.set_state_row(i, slot, &row);
        }
    }
    let graph = judge.module.graph("main").unwrap();
    let bind = Bind { start: BEFORE, tokens: IDS.len(), wanted: IDS.len() };
    let places = 0..IDS.len() as i32;
    let inputs = [
        IDS.iter().map(|id| *id as i32).collect(),
        places.clone().map(|i| i + BEFORE as i32).collect(),
        places.collect(),
    ];
    let values = interp.step(graph, inputs.map(Buffer::Int).into(), &bind);
    values[graph.results[0]].buffer.real().to_vec()
}

#[test]
fn layers_of_every_kind_equal_the_interpreter() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = model(folder.path());
    for class in [Class::Exact, Class::Official, Class::Fast] {
        let judge = Judge::new(&path, class);
        let kinds: Vec<StateKind> = judge.module.states.iter().map(|s| s.ty.kind).collect();
        assert!(kinds.contains(&StateKind::Tail(4)) && kinds.contains(&StateKind::Tail(128)));
        let mut session = session(&path, class);
        if class == Class::Fast {
            let (judged, single) = (interpret::<f64>(&judge, &session), interpret::<f32>(&judge, &session));
            let got = advance(&mut session);
            let rms = |x: &[f64]| (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt();
            let far = |x: &[f32]| {
                let difference: Vec<f64> = x.iter().zip(&judged).map(|(a, b)| f64::from(*a) - b).collect();
                rms(&difference) / rms(&judged)
            };
            let (engine, single) = (far(&got), far(&single));
            println!("{class}: {engine:.4}, the interpreter in single precision {single:.4}");
            assert!(engine <= FAST, "{class}: {engine}");
        } else {
            let judged: Vec<u32> = interpret::<f32>(&judge, &session).iter().map(|x| x.to_bits()).collect();
            let got: Vec<u32> = advance(&mut session).iter().map(|x| x.to_bits()).collect();
            assert!(got == judged, "{class}");
        }
    }
}

fn advance(session: &mut Session) -> Vec<f32> {
    let none = AtomicBool::new(false);
    session.advance(&IDS, Want::All, IDS.len(), &none, &mut |_| ()).unwrap()
}
