//! Every kernel, on every kind of device, on the shapes that it names: the text that is shipped, run
//! by the shipping launcher on the emulated driver, against the meaning of its op in double precision.
//!
//! Inputs are random, outputs and scratch begin poisoned, every buffer is an allocation of its own
//! whose bounds are checked, and lanes run in three orders, which must give the same bits.
//! `DS4_KERNEL=matmul` restricts the run to ops whose name starts so.
mod inputs;
mod joined;
mod run;
#[path = "../common/tools.rs"]
mod tools;
mod traffic;

use ds4_codegen::{KERNELS, Target};
use ds4_runtime::device::emulator::clang;
use run::Bench;

/// The kinds of devices: both sizes of subgroups, all three languages.
const TARGETS: [&str; 4] = ["cuda:sm_90", "hip:gfx1151", "hip:gfx942", "metal:apple7"];

/// Runs the cases of all ops whose name starts with `wanted`.
fn check(target: &str, wanted: &str) {
    if let Err(why) = clang() {
        return tools::missing(&format!("kernels on {target}"), &why.to_string());
    }
    let target = Target::parse(target).unwrap();
    let bench = Bench::new(target);
    let mut failures = Vec::new();
    let mut worst: Vec<(&str, f64)> = Vec::new();
    for kernel in KERNELS.iter().filter(|k| k.op.starts_with(wanted)) {
        let mut most = 0.0f64;
        for (i, case) in kernel.cases.iter().enumerate() {
            match bench.case(kernel, case, i as u64) {
                Ok(difference) => most = most.max(difference),
                Err(why) => failures.push(format!("{} case {i} ({}): {why}", kernel.op, case.node)),
            }
        }
        worst.push((kernel.op, most));
    }
    println!("{target}: worst difference per op, as a share of the row's largest magnitude");
    for (op, difference) in worst {
        println!("  {op:<24} {difference:.1e}");
    }
    assert!(failures.is_empty(), "{target}: {} failures\n{}", failures.len(), failures.join("\n"));
}

/// Runs those of all ops, or of those that the environment names.
fn check_all(target: &str) {
    check(target, &std::env::var("DS4_KERNEL").unwrap_or_default());
}

/// Ops that are products with weights, whose inputs have a row per token.
const PRODUCTS: [&str; 11] = [
    "grouped_matmul",
    "hc_enter",
    "linear",
    "matmul",
    "mlp_up",
    "moe_down",
    "moe_post",
    "moe_up",
    "norm_linear",
    "out_low",
    "out_post",
];

/// An output of a product is summed in one order, whatever the bucket, up to the longest whose products run on no
/// matrix units.
#[test]
fn products_have_the_same_bits_in_steps_of_up_to_8_tokens() {
    if let Err(why) = clang() {
        return tools::missing("products_have_the_same_bits_in_steps_of_up_to_8_tokens", &why.to_string());
    }
    for target in ["cuda:sm_90", "hip:gfx942"] {
        let bench = Bench::new(Target::parse(target).unwrap());
        for kernel in KERNELS.iter().filter(|k| PRODUCTS.contains(&k.op)) {
            for case in kernel.cases {
                let same = bench.alone(case, 0..7);
                same.unwrap_or_else(|why| panic!("{target}: {} of {}: {why}", case.node, case.header));
            }
        }
    }
}

#[test]
fn cuda_kernels_compute_their_ops() {
    check_all(TARGETS[0]);
}

#[test]
fn hip_kernels_compute_their_ops_in_waves_of_32() {
    check_all(TARGETS[1]);
}

#[test]
fn hip_kernels_compute_their_ops_in_waves_of_64() {
    check_all(TARGETS[2]);
}

#[test]
fn metal_kernels_compute_their_ops() {
    check_all(TARGETS[3]);
}

/// The matrix instructions of a generation that none of [`TARGETS`] has.
#[test]
fn linear_computes_on_rdna_4() {
    check("hip:gfx1201", "linear");
}
