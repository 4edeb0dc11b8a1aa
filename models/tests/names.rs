//! The table of tensors against the published totals (spec 4.3), and its names against one another.
use ds4_models::{Config, Container, Content, Mix, Tensor, mtp_tensors, tensors};
use std::collections::BTreeSet;

fn with_mtp(config: &Config) -> Vec<Tensor> {
    [tensors(config), mtp_tensors(config, 0)].concat()
}

#[test]
fn tensors_and_bytes_are_the_published_ones() {
    let (flash, pro) = (Config::flash(), Config::pro());
    assert_eq!(Mix::Official.count(&with_mtp(&flash)), (69_187, 159_609_485_896));
    assert_eq!(Mix::Official.count(&with_mtp(&pro)), (145_116, 864_704_792_696));
    assert_eq!(Mix::Official.count(&mtp_tensors(&flash, 0)).1, 3_593_787_756);
    assert_eq!(Mix::Official.count(&mtp_tensors(&pro, 0)).1, 13_956_587_692);
    // Given as 86.7 and 164.6 GB.
    assert_eq!(Mix::Ds4Q2.count(&tensors(&flash)).1 / 100_000_000, 867);
    assert_eq!(Mix::Ds4Q4.count(&tensors(&flash)).1 / 100_000_000, 1646);
}

#[test]
fn parameters_are_the_published_ones() {
    let parameters = |tensors: &[Tensor]| -> u64 {
        let numbers = tensors.iter().filter(|t| t.content() != Content::Ids);
        numbers.map(|t| t.shape.iter().map(|n| u64::from(*n)).product::<u64>()).sum()
    };
    let (flash, pro) = (Config::flash(), Config::pro());
    assert_eq!(parameters(&tensors(&flash)), 284_332_240_471);
    assert_eq!(parameters(&with_mtp(&flash)), 290_942_289_362);
    assert_eq!(parameters(&tensors(&pro)), 1_572_997_201_763);
    assert_eq!(parameters(&with_mtp(&pro)), 1_598_837_347_742);
}

#[test]
fn no_spelling_means_two_tensors() {
    for config in [Config::flash(), Config::pro()] {
        let all = with_mtp(&config);
        let names: BTreeSet<&str> = all.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        for container in [Container::Gguf, Container::Safetensors] {
            let mut seen = BTreeSet::new();
            for tensor in &all {
                let mut spellings = tensor.spellings(container);
                if container == Container::Safetensors && tensor.content() == Content::Experts {
                    spellings = tensor.expert_spellings(7);
                }
                assert!(!spellings.is_empty(), "{}", tensor.name);
                for spelling in BTreeSet::from_iter(spellings) {
                    assert!(seen.insert(spelling.clone()), "{spelling}");
                }
            }
        }
    }
}

#[test]
fn layers_have_what_their_kind_needs() {
    let config = Config::flash();
    let all = tensors(&config);
    let has = |name: &str| all.iter().any(|t| t.name == name);
    assert!(has("blk.2.indexer.attn_q_b") && has("blk.2.ffn_gate_tid2eid") && !has("blk.2.exp_probs_b"));
    assert!(has("blk.3.attn_compressor_kv") && !has("blk.3.indexer.attn_q_b") && has("blk.3.exp_probs_b"));
    assert!(!has("blk.1.attn_compressor_kv") && !has("mtp.0.e_proj"));
    let shape = |name: &str| all.iter().find(|t| t.name == name).unwrap().shape.clone();
    assert_eq!(shape("blk.2.attn_compressor_ape"), [4, 1024]);
    assert_eq!(shape("blk.3.attn_compressor_ape"), [128, 512]);
    assert_eq!(shape("blk.4.ffn_gate_exps"), [256, 2048, 4096]);
    assert_eq!(shape("blk.4.ffn_down_exps"), [256, 4096, 2048]);
    assert_eq!(shape("blk.4.attn_output_a"), [8192, 4096]);
}

#[test]
fn mixed_files_keep_the_last_layers_in_four_bit() {
    let all = tensors(&Config::flash());
    let types: Vec<String> = all
        .iter()
        .filter(|t| t.name.ends_with("ffn_down_exps"))
        .map(|t| Mix::Ds4Q2Q4.scalar(t).to_string())
        .collect();
    assert_eq!(types[..37], vec!["q2_k"; 37]);
    assert_eq!(types[37..], vec!["q4_k"; 6]);
    for (name, mix) in Mix::NAMES {
        assert_eq!(Mix::parse(name), Some(*mix));
    }
    assert_eq!(Mix::parse("q2"), None);
}
