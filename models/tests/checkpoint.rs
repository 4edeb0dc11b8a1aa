//! Folders: the fixtures under every spelling, in shards, and with tensors missing or misshapen.
mod common;

use common::{FIXTURES, Raw, contents, fixture, read_raw, scratch, write_folder, write_raw};
use ds4_ir::{Part, Role};
use ds4_models::{Checkpoint, Error, Words, safetensors};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;

#[test]
fn every_byte_of_a_fixture_belongs_to_one_weight() {
    for name in FIXTURES {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        assert_eq!(checkpoint.mtp_blocks(), 1);
        assert_eq!(checkpoint.words(), &Words::None);
        let table = checkpoint.table().unwrap();
        assert!(table.entries.is_sorted_by(|a, b| a.name < b.name));
        let spans = |p: &Part| {
            let (start, step, bytes) = (p.offset, p.stride, p.bytes);
            (0..u64::from(p.count)).map(move |i| (start + i * step, bytes)).collect::<Vec<_>>()
        };
        let mut used: Vec<_> = table.entries.iter().flat_map(|e| e.parts.iter().flat_map(spans)).collect();
        used.sort();
        let header = safetensors::read_header(&fixture(name).join("model.safetensors")).unwrap();
        let mut stored: Vec<_> = header.values().map(|t| (t.offset, t.bytes)).collect();
        stored.sort();
        assert_eq!(used, stored, "{name}");
        assert!(checkpoint.unused(&table).is_empty());
    }
}

#[test]
fn types_and_places_are_those_of_the_file() {
    let folder = fixture("pro-mixed");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let raw: BTreeMap<_, _> =
        read_raw(&folder.join("model.safetensors")).into_iter().map(|t| (t.name.clone(), t)).collect();
    let contents = contents(&checkpoint);
    let check = |name: &str, ty: &str, codes: &[String], scales: &[String]| {
        let (got, [code_bytes, scale_bytes]) = &contents[name];
        assert_eq!(got, ty, "{name}");
        let joined = |names: &[String]| names.iter().flat_map(|n| raw[n].data.clone()).collect::<Vec<_>>();
        assert!(*code_bytes == joined(codes) && *scale_bytes == joined(scales), "{name}");
    };
    let plain = |name: &str| vec![name.to_owned()];
    check("token_embd", "bf16[256, 128]", &plain("embed.weight"), &[]);
    check("blk.0.ffn_gate_tid2eid", "i64[256, 2]", &plain("layers.0.ffn.gate.tid2eid"), &[]);
    for (name, stem) in [("blk.4.attn_kv", "layers.4.attn.wkv"), ("mtp.0.h_proj", "mtp.0.h_proj")] {
        let [codes, scales] = ["weight", "scale"].map(|end| vec![format!("{stem}.{end}")]);
        check(name, "fp8[128, 128]", &codes, &scales);
    }
    let experts =
        |end: &str| (0..5).map(|e| format!("layers.2.ffn.experts.{e}.w3.{end}")).collect::<Vec<_>>();
    check("blk.2.ffn_up_exps", "fp4[5, 128, 128]", &experts("weight"), &experts("scale"));
    let entry = checkpoint.weight("blk.2.ffn_up_exps").unwrap();
    let roles: Vec<_> = entry.parts.iter().map(|p| (p.role, p.count)).collect();
    assert_eq!(roles, [(Role::Codes, 5), (Role::Scales, 5)]);
}

/// Official name to the name that transformers' `save_pretrained` writes.
fn saved_name(name: &str) -> String {
    let name = match name {
        "embed.weight" => "embed_tokens.weight".into(),
        "head.weight" => return name.to_owned(),
        _ => name.replace("hc_head_", "hc_head.hc_").replace("attn.kv_norm.", "attn.norm."),
    };
    format!("model.{name}")
}

/// Official name to the name of the module's parameter in transformers.
fn module_name(name: &str) -> String {
    let pairs = [
        ("hc_head_", "hc_head.hc_"),
        ("hc_attn_", "attn_hc."),
        ("hc_ffn_", "ffn_hc."),
        ("attn_norm.", "input_layernorm."),
        ("ffn_norm.", "post_attention_layernorm."),
        ("attn.indexer.weights_proj", "self_attn.compressor.indexer.scorer.weights_proj"),
        ("attn.indexer.wq_b", "self_attn.compressor.indexer.q_b_proj"),
        ("attn.indexer.compressor.", "self_attn.compressor.indexer."),
        (".attn.compressor.", ".self_attn.compressor."),
        ("compressor.indexer.norm", "compressor.indexer.kv_norm"),
        ("compressor.norm", "compressor.kv_norm"),
        (".wgate", ".gate_proj"),
        (".ape", ".position_bias"),
        (".wkv", ".kv_proj"),
        ("attn.attn_sink", "attn.sinks"),
        (".q_norm", ".q_a_norm"),
        (".wq_a", ".q_a_proj"),
        (".wq_b", ".q_b_proj"),
        (".wo_a", ".o_a_proj"),
        (".wo_b", ".o_b_proj"),
        (".attn.", ".self_attn."),
        (".ffn.", ".mlp."),
        ("gate.bias", "gate.e_score_correction_bias"),
        ("shared_experts.w1", "shared_experts.gate_proj"),
        ("shared_experts.w2", "shared_experts.down_proj"),
        ("shared_experts.w3", "shared_experts.up_proj"),
    ];
    match name {
        "embed.weight" => "model.embed_tokens.weight".into(),
        "head.weight" => "lm_head.weight".into(),
        _ => format!("model.{}", pairs.iter().fold(name.to_owned(), |n, (from, to)| n.replace(from, to))),
    }
}

#[test]
fn aliases_mean_the_same_weights() {
    let folder = fixture("flash-bf16");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut main: Vec<Raw> = read_raw(&folder.join("model.safetensors"));
    main.retain(|t| !t.name.starts_with("mtp."));
    let mut expected = contents(&Checkpoint::open(&folder).unwrap());
    expected.retain(|name, _| !name.starts_with("mtp."));
    for (label, rename) in
        [("prefixed", (|n| format!("model.{n}")) as fn(&str) -> String), ("saved", saved_name)]
    {
        let renamed = main.iter().map(|t| Raw { name: rename(&t.name), ..t.clone() });
        let scratch = scratch(&format!("alias-{label}"));
        write_folder(&scratch, &config, &renamed.collect::<Vec<_>>());
        let checkpoint = Checkpoint::open(&scratch).unwrap();
        assert_eq!(checkpoint.mtp_blocks(), 0);
        assert!(contents(&checkpoint) == expected, "{label}");
    }
}

#[test]
fn fused_experts_are_strided_parts() {
    let folder = fixture("flash-bf16");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let raw: BTreeMap<_, _> =
        read_raw(&folder.join("model.safetensors")).into_iter().map(|t| (t.name.clone(), t)).collect();
    let mut tensors: Vec<Raw> = Vec::new();
    for t in raw.values().filter(|t| !t.name.starts_with("mtp.") && !t.name.contains(".experts.")) {
        tensors.push(Raw { name: module_name(&t.name), ..t.clone() });
    }
    for layer in 0..5 {
        let stack = |name: &str, roles: &[&str], shape: [u64; 3]| {
            let role =
                |e: u32| roles.iter().map(move |r| format!("layers.{layer}.ffn.experts.{e}.{r}.weight"));
            let data = (0..10).flat_map(role).flat_map(|n| raw[&n].data.clone()).collect();
            let name = format!("model.layers.{layer}.mlp.experts.{name}");
            Raw { name, dtype: "BF16".into(), shape: shape.to_vec(), data }
        };
        tensors.push(stack("gate_up_proj", &["w1", "w3"], [10, 112, 96]));
        tensors.push(stack("down_proj", &["w2"], [10, 96, 56]));
    }
    let scratch = scratch("fused");
    write_folder(&scratch, &config, &tensors);
    let checkpoint = Checkpoint::open(&scratch).unwrap();
    let mut expected = contents(&Checkpoint::open(&folder).unwrap());
    expected.retain(|name, _| !name.starts_with("mtp."));
    assert!(contents(&checkpoint) == expected);
    let parts = checkpoint.weight("blk.3.ffn_up_exps").unwrap().parts;
    assert_eq!((parts.len(), parts[0].count, parts[0].bytes * 2), (1, 10, parts[0].stride));
}

#[test]
fn scales_may_be_spelled_otherwise() {
    let folder = fixture("pro-mixed");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut tensors = read_raw(&folder.join("model.safetensors"));
    for t in &mut tensors {
        if let Some(stem) = t.name.strip_suffix(".scale") {
            t.name = format!("{stem}.weight_scale_inv");
        }
    }
    let scratch = scratch("scale-inv");
    write_folder(&scratch, &config, &tensors);
    let expected = contents(&Checkpoint::open(&folder).unwrap());
    assert!(contents(&Checkpoint::open(&scratch).unwrap()) == expected);
}

#[test]
fn shards_are_one_model() {
    let folder = fixture("pro-mixed");
    let scratch = scratch("shards");
    fs::copy(folder.join("config.json"), scratch.join("config.json")).unwrap();
    fs::write(scratch.join("tokenizer.json"), "{}").unwrap();
    let tensors = read_raw(&folder.join("model.safetensors"));
    let mut map = serde_json::Map::new();
    for shard in 0..3 {
        let file = format!("model-{:05}-of-00003.safetensors", shard + 1);
        let part: Vec<_> = tensors.iter().skip(shard).step_by(3).cloned().collect();
        part.iter().for_each(|t| drop(map.insert(t.name.clone(), json!(file))));
        write_raw(&scratch.join(&file), &part);
    }
    let write_index = |map: &serde_json::Map<String, serde_json::Value>| {
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
        fs::write(scratch.join("model.safetensors.index.json"), index).unwrap();
    };
    write_index(&map);
    let checkpoint = Checkpoint::open(&scratch).unwrap();
    assert_eq!(checkpoint.files().len(), 3);
    assert_eq!(checkpoint.words(), &Words::TokenizerJson(scratch.join("tokenizer.json")));
    assert!(contents(&checkpoint) == contents(&Checkpoint::open(&folder).unwrap()));

    let elsewhere = map.insert("embed.weight".into(), json!("../model.safetensors")).unwrap();
    write_index(&map);
    let error = Checkpoint::open(&scratch).unwrap_err().to_string();
    assert!(
        error.ends_with("expected names of files in the same folder, got ../model.safetensors"),
        "{error}"
    );
    map.insert("embed.weight".into(), elsewhere);
    map.insert("nothing.weight".into(), json!("model-00002-of-00003.safetensors"));
    write_index(&map);
    let error = Checkpoint::open(&scratch).unwrap_err().to_string();
    assert!(error.contains("expected a tensor nothing.weight as the index says"), "{error}");
}

#[test]
fn missing_misshapen_and_ill_typed_tensors_are_named() {
    let folder = fixture("pro-mixed");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let tensors = read_raw(&folder.join("model.safetensors"));
    let with = |label: &str, change: &dyn Fn(&mut Vec<Raw>)| {
        let mut changed = tensors.clone();
        change(&mut changed);
        let scratch = scratch(&format!("broken-{label}"));
        write_folder(&scratch, &config, &changed);
        Checkpoint::open(&scratch).unwrap().table().unwrap_err()
    };
    fn at<'a>(tensors: &'a mut [Raw], name: &str) -> &'a mut Raw {
        tensors.iter_mut().find(|t| t.name == name).unwrap()
    }
    let error = with("missing", &|t| t.retain(|t| t.name != "layers.3.attn.wo_b.weight"));
    let text = error.to_string();
    assert!(matches!(error, Error::Missing { .. }));
    assert!(
        text.starts_with("blk.3.attn_output_b: expected layers.3.attn.wo_b.weight [128, 256] in "),
        "{text}"
    );
    let error = with("expert", &|t| t.retain(|t| t.name != "layers.3.ffn.experts.4.w2.weight"));
    let expected = "blk.3.ffn_down_exps: expected layers.3.ffn.experts.4.w2.weight [128, 128], got no tensor of that name";
    assert_eq!(error.to_string(), expected);
    let error = with("scale", &|t| t.retain(|t| t.name != "layers.3.attn.wkv.scale"));
    let expected =
        "layers.3.attn.wkv.weight: expected layers.3.attn.wkv.scale [1, 1], got no tensor of that name";
    assert_eq!(error.to_string(), expected);
    let error = with("transposed", &|t| at(t, "layers.1.attn.wq_b.weight").shape.reverse());
    assert_eq!(error.to_string(), "layers.1.attn.wq_b.weight: expected shape [512, 128], got [128, 512]");
    let error = with("scale-shape", &|t| at(t, "layers.1.attn.wq_b.scale").shape.reverse());
    assert_eq!(error.to_string(), "layers.1.attn.wq_b.scale: expected shape [4, 1], got [1, 4]");
    let error = with("norm", &|t| at(t, "norm.weight").dtype = "U16".into());
    assert_eq!(error.to_string(), "norm.weight: expected type f32, f16 or bf16, got u16");
    let error = with("ids", &|t| {
        let ids = at(t, "layers.0.ffn.gate.tid2eid");
        (ids.dtype, ids.shape) = ("F32".into(), vec![256, 4]);
    });
    assert_eq!(error.to_string(), "layers.0.ffn.gate.tid2eid: expected type i32 or i64, got f32");
    let error = with("mixed", &|t| {
        let expert = at(t, "layers.0.ffn.experts.1.w1.weight");
        expert.dtype = "BF16".into();
        expert.shape = vec![128, 128];
        expert.data = vec![0; 128 * 128 * 2];
    });
    assert_eq!(
        error.to_string(),
        "layers.0.ffn.experts.1.w1.weight: expected type fp4 as expert 0, got bf16"
    );
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let error = checkpoint.weight("blk.0.attn_q").unwrap_err().to_string();
    assert_eq!(error, "blk.0.attn_q: expected a weight of this model, got an unknown name");
}

#[test]
fn tensors_that_no_weight_uses_are_told() {
    let folder = fixture("flash-bf16");
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut tensors = read_raw(&folder.join("model.safetensors"));
    tensors[3].name = "layers.0.something.weight".into();
    let renamed = read_raw(&folder.join("model.safetensors")).swap_remove(3);
    tensors.push(renamed);
    let scratch = scratch("unused");
    write_folder(&scratch, &config, &tensors);
    let checkpoint = Checkpoint::open(&scratch).unwrap();
    assert_eq!(checkpoint.unused(&checkpoint.table().unwrap()), ["layers.0.something.weight"]);
}

#[test]
fn folders_that_hold_no_model_are_refused() {
    let folder = scratch("no-model");
    let refused = |expected: &str| {
        let error = Checkpoint::open(&folder).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    };
    refused("config.json: No such file");
    fs::write(folder.join("config.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    refused("config.json: file: expected at most 1048576 bytes, got more");
    fs::write(folder.join("config.json"), [0xff, 0xfe]).unwrap();
    refused("config.json: file: expected UTF-8");
    fs::write(folder.join("config.json"), "").unwrap();
    refused("config.json: expected JSON, got EOF");
    fs::copy(fixture("flash-bf16").join("config.json"), folder.join("config.json")).unwrap();
    refused("model.safetensors.index.json: No such file");
    let index = folder.join("model.safetensors.index.json");
    for (text, expected) in [
        ("", "index: expected a weight_map, got EOF"),
        ("{}", "missing field `weight_map`"),
        (r#"{"weight_map": {"a": 1}}"#, "index: expected a weight_map, got invalid type"),
        (
            r#"{"weight_map": {"a": "/etc/passwd"}}"#,
            "expected names of files in the same folder, got /etc/passwd",
        ),
        (r#"{"weight_map": {"a": ".."}}"#, "expected names of files in the same folder, got .."),
        (r#"{"weight_map": {"a": "absent.safetensors"}}"#, "absent.safetensors: No such file"),
    ] {
        fs::write(&index, text).unwrap();
        refused(expected);
    }
    fs::write(&index, r#"{"weight_map": {}}"#).unwrap();
    let empty = Checkpoint::open(&folder).unwrap().table().unwrap_err().to_string();
    assert!(empty.starts_with("blk.0.attn_kv: expected layers.0.attn.wkv.weight [48, 96] in "), "{empty}");
    fs::create_dir(folder.join("model.safetensors")).unwrap();
    refused("model.safetensors: file: expected a regular file, got something else");
    let inside = Checkpoint::open(&folder.join("config.json")).unwrap_err().to_string();
    assert!(inside.ends_with("config.json: expected the folder that this file lies in"), "{inside}");
}
