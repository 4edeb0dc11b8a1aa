//! Reports on the real models, without their weights.
use super::common::{model, target, targets};
use ds4_ir::Class;
use ds4_models::Mix;
use ds4_passes::report::{Report, report};
use ds4_passes::{Machine, Target, optimize};
use std::path::Path;

fn machine(target: Target) -> Machine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/machines/{target}.json"));
    Machine::from_json(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn reported(name: &str, mix: Mix, target: Target, machine: Option<&Machine>) -> Report {
    let module = model(name, mix, Class::Fast, 131_072);
    let (module, plan) = optimize(&module, target, &mut |_, _| ()).unwrap();
    report(&module, &plan, target, machine)
}

#[test]
fn reports_of_the_real_models() {
    for (name, mix) in [("flash", Mix::Ds4Q2), ("pro", Mix::Ds4Q4)] {
        for (target_name, target) in targets() {
            let text = reported(name, mix, target, Some(&machine(target))).to_string();
            insta::assert_snapshot!(format!("{name}-{target_name}"), text);
        }
    }
}

#[test]
fn a_token_of_flash_reads_what_the_geometry_says() {
    // Written by the generator of synthetic geometry for the 2-bit mix, in MB.
    let expected = [
        ("attention projections", "4887.5"),
        ("routed experts", "1826.1"),
        ("shared expert", "1149.8"),
        ("output head", "562.6"),
        ("compressor", "523.0"),
        ("indexer", "451.5"),
        ("router and norms", "90.9"),
        ("hyper-connection", "67.8"),
        ("embedding row", "0.0"),
    ];
    let report = reported("flash", Mix::Ds4Q2, target("cuda"), None);
    let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    for (name, size) in expected {
        let group = report.weights.iter().find(|g| g.name == name).unwrap();
        assert_eq!(mb(group.token_bytes), size, "{name}");
    }
    let all: u64 = report.weights.iter().map(|g| g.token_bytes).sum();
    assert_eq!(mb(all), "9559.1");
    let routed = report.weights.iter().find(|g| g.name == "routed experts").unwrap().token_bytes;
    assert_eq!((100.0 * (all - routed) as f64 / all as f64).round(), 81.0);
}

#[test]
fn nothing_is_predicted_without_a_machine() {
    let report = reported("flash", Mix::Ds4Q2, target("cuda"), None);
    assert_eq!(report.prediction, None);
    assert!(!report.to_json().contains("prediction"));
    assert!(!report.to_string().contains("predicted"));
    // A machine without such a device predicts nothing for it either.
    let report = reported("flash", Mix::Ds4Q2, target("cuda"), Some(&machine(target("metal"))));
    assert_eq!(report.prediction, None);
}

#[test]
fn a_report_reads_back_as_json() {
    let report = reported("pro", Mix::Official, target("hip"), Some(&machine(target("hip"))));
    let value: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(value["ctx"], 131_072);
    assert_eq!(value["prediction"]["fits"], false);
    assert_eq!(value["functions"].as_array().unwrap().len(), report.functions.len());
}

#[test]
fn bad_profiles_are_refused() {
    let good = machine(target("cuda")).to_json();
    assert_eq!(Machine::from_json(&good).unwrap(), machine(target("cuda")));
    let zero = good.replace("4300.0", "0.0");
    assert!(Machine::from_json(&zero).unwrap_err().contains("rates above 0"));
    assert!(Machine::from_json("{}").unwrap_err().contains("machine profile"));
}
