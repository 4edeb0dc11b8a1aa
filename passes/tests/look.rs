mod common;
use ds4_ir::Class;
use ds4_models::Mix;
use ds4_passes::*;
#[test]
fn look() {
    for t in [Target::Cuda, Target::Cpu] {
        let m = common::model("flash", Mix::Ds4Q2, Class::Fast, 131072);
        let now = std::time::Instant::now();
        let (m, plan) = optimize(&m, t, &mut |p, m| {
            println!("{p:?} {:?}", now.elapsed());
            let _ = m;
        })
        .unwrap();
        println!("{}", m.func("csa_topk").unwrap());
        println!("{}", m.func("head").unwrap());
        for b in &plan.buckets {
            println!("{t} {} arena {:.1} MiB", b.maxima.tokens, b.arena_bytes as f64 / 1048576.0);
            for f in &b.funcs {
                println!(
                    "   {} {:.1} scratch {:.1}",
                    f.func,
                    f.bytes as f64 / 1048576.0,
                    f.scratch.iter().flatten().map(|s| s.1).sum::<u64>() as f64 / 1048576.0
                );
            }
        }
    }
}
