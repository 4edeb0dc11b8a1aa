//! Sessions and the store: restoring equals recomputing, bit for bit.
mod common;

use common::{Expected, artifact, engine, fixture};
use ds4::compile::{Request, compile};
use ds4::target::CompileTarget;
use ds4_ir::module::Decl;
use ds4_ir::{Class, Scalar, TensorType};
use ds4_runtime::store::{Boundary, Options, RealDisk, Reason, Store};
use ds4_runtime::{Engine, Error, Session, Want};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Tokens computed after each restore.
const AFTER: usize = 32;

fn advance(session: &mut Session, ids: &[u32], chunk: usize) -> Vec<u32> {
    let none = AtomicBool::new(false);
    let logits = session.advance(ids, Want::All, chunk, &none, &mut |_| ()).unwrap();
    logits.iter().map(|x| x.to_bits()).collect()
}

fn open(folder: &Path) -> Store {
    Store::open(Arc::new(RealDisk), &folder.join("kv"), Options::default()).unwrap()
}

/// Saves the session's states after `tokens`; answers the logits saved with them.
fn save(engine: &Engine, store: &Store, tokens: &[u32]) -> Vec<f32> {
    let mut session = engine.session().unwrap();
    let none = AtomicBool::new(false);
    let logits = session.advance(tokens, Want::Last, 512, &none, &mut |_| ()).unwrap();
    if let Some(capture) = session.capture(store, tokens, &logits, 0.01).unwrap() {
        store.commit(&capture).unwrap();
    }
    logits
}

#[test]
fn restoring_equals_recomputing_at_every_kind_of_boundary() {
    for (name, class) in
        [("flash-bf16", Class::Fast), ("pro-mixed", Class::Official), ("flash-bf16", Class::Exact)]
    {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(&fixture(name), class, 2);
        let ids = Expected::read(&fixture(name).join("expected.safetensors")).ids("input_ids");
        let ids: Vec<u32> = ids.iter().copied().cycle().take(600).collect();
        // The bits of the uninterrupted session.
        let whole = advance(&mut engine.session().unwrap(), &ids, 512);
        let vocab = engine.module().vocab as usize;
        let mut saved = engine.session().unwrap();
        // One token; inside a ratio-4 block; around a window and a ratio-128 block; a second one; around a
        // step of the prompt.
        for cut in
            [1, 2, 3, 4, 5, 31, 32, 33, 127, 128, 129, 130, 131, 132, 200, 255, 256, 511, 512, 513, 567]
        {
            let store = open(folder.path());
            let at = usize::try_from(saved.position()).unwrap();
            let none = AtomicBool::new(false);
            let logits = saved.advance(&ids[at..cut], Want::Last, 512, &none, &mut |_| ()).unwrap();
            store.commit(&saved.capture(&store, &ids[..cut], &logits, 0.01).unwrap().unwrap()).unwrap();
            let mut session = engine.session().unwrap();
            // What the session held before must not matter.
            advance(&mut session, &ids[40..100], 7);
            let restored = session.restore(&store, &ids[..cut]);
            assert_eq!((restored.tokens, &restored.reason), (cut as u64, &Reason::Whole), "{name} {cut}");
            assert_eq!(restored.logits, logits, "{name} {class} {cut}");
            let after = advance(&mut session, &ids[cut..cut + AFTER], 5);
            assert!(after == whole[cut * vocab..(cut + AFTER) * vocab], "{name} {class} cut at {cut}");
            assert!(store.take_warnings().is_empty());
        }
        // A longer request finds the longest of all these.
        let restored = engine.session().unwrap().restore(&open(folder.path()), &ids);
        assert_eq!(restored.tokens, 567, "{name}");
    }
}

#[test]
fn a_restored_session_refuses_a_rewind_that_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&fixture("flash-bf16"), Class::Fast, 1);
    let ids: Vec<u32> = (0..140).map(|i| i % 300).collect();
    let store = open(folder.path());
    save(&engine, &store, &ids[..130]);
    let mut session = engine.session().unwrap();
    session.restore(&store, &ids[..130]);
    assert!(matches!(session.rewind(1), Err(Error::Rewind { max: 0, back: 1 })));
    // New tokens bring back the room for rewinds: eight of them can be taken back.
    let fresh = advance(&mut session, &ids[130..], 4);
    session.rewind(8).unwrap();
    let again = advance(&mut session, &ids[132..], 3);
    assert!(fresh.ends_with(&again));
}

#[test]
fn another_model_class_or_parameter_finds_only_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..40).collect();
    let store = open(folder.path());
    save(&engine(&fixture("flash-bf16"), Class::Fast, 1), &store, &ids);
    let others = [("flash-bf16", Class::Official), ("flash-bf16", Class::Exact), ("pro-mixed", Class::Fast)];
    for (name, class) in others {
        let restored = engine(&fixture(name), class, 1).session().unwrap().restore(&store, &ids);
        assert_eq!((restored.tokens, restored.reason), (0, Reason::OtherIdentity), "{name} {class}");
    }

    // A parameter of the model, and each value of it.
    let mut artifact = artifact(&fixture("flash-bf16"), Class::Fast);
    let ty = TensorType::fixed(Scalar::F32, &[2]);
    artifact.module.params.push(Decl { name: "steer".into(), ty });
    let engine = Engine::new(artifact, &std::env::temp_dir(), 1).unwrap();
    let restore = |value: [f32; 2]| {
        let mut session = engine.session().unwrap();
        session.set_param("steer", &value).unwrap();
        session.restore(&store, &ids)
    };
    assert_eq!(restore([0.0, 0.0]).reason, Reason::OtherIdentity);
    save(&engine, &store, &ids); // Parameters are zero at first.
    assert_eq!(restore([0.0, 0.0]).tokens, 40);
    assert_eq!(restore([0.0, 1.0]).reason, Reason::OtherIdentity);
    // And the first is there as it was, with as many threads as you like and a context of any length.
    let mut request = Request { class: Class::Fast, ctx: Some(256), target: CompileTarget::Cpu };
    for ctx in [256, 2048] {
        request.ctx = Some(ctx);
        let artifact = compile(&fixture("flash-bf16"), &std::env::temp_dir(), request).unwrap();
        let engine = Engine::new(artifact, &std::env::temp_dir(), 2).unwrap();
        assert_eq!(engine.session().unwrap().restore(&store, &ids).tokens, 40, "{ctx}");
    }
}

#[test]
fn another_schema_version_is_a_clean_miss_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&fixture("flash-bf16"), Class::Fast, 1);
    let ids: Vec<u32> = (0..140).collect();
    let store = open(folder.path());
    let logits = save(&engine, &store, &ids);
    let mut session = engine.session().unwrap();
    let (own, later) = (session.layout(), session.layout_of(2));
    drop(store.create_session(&own, "chat", &ids).unwrap());

    let missed = store.restore(&later, &ids, &mut session);
    assert_eq!((missed.tokens, &missed.reason), (0, &Reason::OtherIdentity));
    let why = "restored 0 of 140 tokens: what is stored is for another model, numeric class or state schema";
    assert_eq!(missed.to_string(), why);
    let refused = store.open_session(&later, "chat").err().unwrap().to_string();
    assert_eq!(refused, "session chat: recorded for another model, numeric class or state schema");
    // Both live side by side, and neither costs the other anything.
    let boundary = Boundary { tokens: &ids, logits: &logits, seconds_per_token: 0.1 };
    advance(&mut session, &ids, 512);
    store.commit(&store.capture(&later, boundary, &session).unwrap().unwrap()).unwrap();
    for layout in [&own, &later] {
        assert_eq!(store.restore(layout, &ids, &mut session).reason, Reason::Whole);
    }
    assert_eq!(store.open_session(&own, "chat").unwrap().1, ids);
    assert!(store.verify().unwrap().problems.is_empty());
    assert_eq!(store.take_warnings(), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(folder.path().join("kv/quarantine")).unwrap().count(), 0);
}

#[test]
fn a_damaged_entry_is_a_shorter_prefix_and_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&fixture("flash-bf16"), Class::Fast, 1);
    let ids: Vec<u32> = (0..200).map(|i| i % 300).collect();
    let store = open(folder.path());
    save(&engine, &store, &ids[..128]);
    save(&engine, &store, &ids[..150]);
    let newest = std::fs::read_dir(folder.path().join("kv/nodes")).unwrap().filter_map(Result::ok);
    let edge = newest.filter(|e| e.path().extension().is_some_and(|x| x == "edge"));
    let edge = edge.max_by_key(|e| e.metadata().unwrap().modified().unwrap()).unwrap().path();
    let mut bytes = std::fs::read(&edge).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&edge, bytes).unwrap();
    let store = open(folder.path());
    let mut session = engine.session().unwrap();
    let restored = session.restore(&store, &ids[..150]);
    assert_eq!((restored.tokens, restored.reason), (128, Reason::Damaged));
    assert!(!store.take_warnings().is_empty(), "the damage is told");
    let after = advance(&mut session, &ids[128..], 512);
    let whole = advance(&mut engine.session().unwrap(), &ids, 512);
    assert!(whole.ends_with(&after), "the answer is right all the same");
}
