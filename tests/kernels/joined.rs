//! Blocks of nodes whose launches are joined: each member has the bits that it has alone.
use crate::inputs::Random;
use crate::run::{Bench, Step};
use crate::{TARGETS, tools};
use ds4_codegen::Target;
use ds4_runtime::device::emulator::{Options, Order, clang};
use std::ops::Range;

/// A block, and the steps that it is run on: buckets of one and of eight tokens, and one that joins nothing.
const STEPS: [Range<u32>; 3] = [7..8, 8..15, 8..17];
/// Blocks, and their launches in the buckets that join.
const BLOCKS: [(&str, usize); 3] = [
    (PRODUCTS, 1),
    // Choosing experts takes a second launch.
    (ROUTES, 2),
    (ROWS, 1),
];

/// Products of several formats, which read one input, and rows that are copied beside them.
const PRODUCTS: &str =
    "func @products(%x: f32[t, 512], %ring: state ring/16 f32[40], %row: f32[t, 40], %pos: i32[t], \
    @a: q8_0[40, 512], @b: f32[24, 512], @c: iq2_xxs[17, 512], @d: q4_k[9, 512]) {
  %p = linear %x, @a, fmt=q8_0 : f32[t, 40]
  %q = matmul %x, @b : f32[t, 24]
  %r = linear %x, @c, fmt=q8_k : f32[t, 17]
  %ring1 = push %ring, %row, %pos : state ring/16 f32[40]
  %s = linear %x, @d, fmt=q8_k : f32[t, 9]
  return %p, %q, %r, %ring1, %s
}
";

/// A node of two launches beside one of one.
const ROUTES: &str =
    "func @routes(%x: f32[t, 96], @w: f32[37, 96], @bias: f32[37], @gate: q8_0[48, 96], @up: q8_0[48, 96]) {
  %routes = moe_route %x, @w, @bias, fmt=f32, k=6, scale=1.5 : route[t, 6]
  %act = mlp_up %x, @gate, @up, fmt=q8_0, clamp=10.0 : f32[t, 48]
  return %routes, %act
}
";

/// Rows on their way into values and states beside a product with a norm, with shared memory of several sizes.
const ROWS: &str = "func @rows(%q: f32[t, 96], %k: f32[t, 144], %jb: f32[t, 192], %e: state entries/4 kv8r16[80], %tail: state tail/4 f32[320], \
    %ck: f32[t, 160], %cg: f32[t, 160], %pos: i32[t], %angles: f32[t, 16], %closed: f32[m4, 16], \
    @qn: f32[96], @w: q8_0[24, 96], @kn: f32[144], @ape: f32[4, 160], @cn: f32[80]) {
  %p = norm_linear %q, @qn, @w, eps=1e-6, fmt=q8_0 : f32[t, 24]
  %row = kv_row %k, @kn, %angles, eps=1e-6, fmt=kv8, dims=16 : kv8r16[t, 144]
  %e1 = compress_append %e, %tail, %ck, %cg, @ape, %pos, @cn, %closed, eps=1e-6, fmt=kv8, dims=16 : state entries/4 kv8r16[80]
  %jq = index_query %jb, %angles, parts=3, fmt=idx4 : idx4[t, 3, 64]
  return %p, %row, %e1, %jq
}
";

#[test]
fn a_member_of_a_joined_launch_has_the_bits_that_it_has_alone() {
    if let Err(why) = clang() {
        let name = "a_member_of_a_joined_launch_has_the_bits_that_it_has_alone";
        return tools::missing(name, &why.to_string());
    }
    for target in TARGETS {
        let bench = Bench::new(Target::parse(target).unwrap());
        for (text, joined) in BLOCKS {
            let func = ds4_ir::parse_funcs(text).unwrap().remove(0);
            for range in STEPS {
                let steps = Step::all(&func, range.clone(), 64, &mut Random::new(range.start.into()));
                let place = format!("{target}, @{} of {range:?}", func.name);
                let mut apart = 0;
                let alone: Result<Vec<_>, _> =
                    steps.iter().map(|step| bench.run(step, &mut |_, _| apart += 1)).collect();
                let alone = alone.unwrap_or_else(|why| panic!("{place}: {why}"));
                for order in [Order::Normal, Order::Reversed, Order::Random(9)] {
                    bench.controls.configure(Options { order, ..Options::default() });
                    let mut count = 0;
                    let together = bench.block(&steps, &mut |_, _| count += 1);
                    bench.controls.configure(Options::default());
                    let together = together.unwrap_or_else(|why| panic!("{place}: {why}"));
                    assert!(together == alone, "{place}: other bits ({order:?})");
                    let expected = if range.len() <= 8 { joined } else { apart };
                    assert_eq!(count, expected, "{place}: launches");
                }
            }
        }
    }
}
