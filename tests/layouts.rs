//! Packed layouts of a small quantised model: the same bits as stored, less copied than described.
use ds4::compile::{Request, compile};
use ds4::target::CompileTarget;
use ds4_ir::{Class, Layout};
use ds4_models::synth::{self, Alias, Spec, placeholder_vocab};
use ds4_models::{Config, Mix};
use ds4_runtime::layout::{self, Choice};
use ds4_runtime::{Artifact, Engine, Want};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A model whose rows are whole blocks of every format, in a file whose layers share their weights.
fn model(folder: &Path) -> Artifact {
    let config = Config {
        vocab_size: 600,
        hidden_size: 256,
        num_attention_heads: 4,
        head_dim: 128,
        q_lora_rank: 256,
        o_groups: 2,
        o_lora_rank: 128,
        index_n_heads: 4,
        n_routed_experts: 16,
        moe_intermediate_size: 256,
        ..Config::flash().truncated(8)
    };
    let vocab = placeholder_vocab(&config);
    let (alias, name) = (Some(Alias::default()), "small".to_string());
    let spec = Spec { config, name, mix: Mix::Ds4Q2, alias, vocab, seed: 7 };
    let path = folder.join("small.gguf");
    synth::write(&spec, &path, &mut |_, _| ()).unwrap();
    compile(&path, folder, Request { class: Class::Fast, ctx: Some(256), target: CompileTarget::Cpu })
        .unwrap()
}

/// Bits of the logits of every position, prompts in steps of `chunk` tokens.
fn bits(artifact: &Artifact, folder: &Path, chunk: usize) -> Vec<u32> {
    let engine = Engine::new(artifact.clone(), folder, 2).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| i * 13 % 600).collect();
    let none = AtomicBool::new(false);
    let logits = engine.session().unwrap().advance(&ids, Want::All, chunk, &none, &mut |_| ()).unwrap();
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn packed_weights_give_the_bits_of_stored_ones() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let stored = model(folder);
    assert!(layout::choose(&stored, Choice::Stored, folder, "l").is_none());
    let expected = [1, 40].map(|chunk| bits(&stored, folder, chunk));
    assert_eq!(expected[0], expected[1]);
    for (choice, name) in [(Choice::Packed, "packed"), (Choice::Expanded, "expanded")] {
        let mut artifact = stored.clone();
        artifact.layouts = layout::choose(&artifact, choice, folder, name);
        if cfg!(target_arch = "x86_64") && std::is_x86_feature_detected!("avx2") {
            let types = artifact.layouts.as_ref().expect("this machine has packings").table.entries.iter();
            let types: std::collections::BTreeSet<String> = types.map(|e| e.ty.scalar.to_string()).collect();
            assert!(types.contains("iq2_xxs"), "{choice:?}: {types:?}");
        }
        let Some(layouts) = &artifact.layouts else { continue };
        // Layers share three sets of weights, and so do their packed forms.
        let summary = layout::summary(layouts);
        let described: u64 = summary.packings.values().map(|(_, bytes, _)| bytes).sum();
        assert!(summary.file_bytes * 2 < described, "{choice:?}: {summary:?}");
        let grows = |e: &&ds4_ir::WeightEntry| e.layout == Layout::Repacked("sign_planes".to_string());
        assert_eq!(layouts.table.entries.iter().any(|e| grows(&e)), choice == Choice::Expanded);
        layout::build(&mut artifact, folder, 2, &AtomicBool::new(false), &mut |_, _| ()).unwrap();
        for (chunk, expected) in [1, 40].into_iter().zip(&expected) {
            assert!(bits(&artifact, folder, chunk) == *expected, "{choice:?}, steps of {chunk}");
        }
        // The packed bytes are what is read: other ones give other logits.
        let path = folder.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - summary.file_bytes as usize;
        bytes[at..].iter_mut().step_by(7).for_each(|b| *b ^= 1);
        std::fs::write(&path, bytes).unwrap();
        artifact.layouts.as_mut().unwrap().mark = Some(ds4_runtime::mark(&path).unwrap());
        assert!(bits(&artifact, folder, 40) != expected[1], "{choice:?}");
    }
}
