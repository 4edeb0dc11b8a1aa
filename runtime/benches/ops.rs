//! Speed of the ops that are no products, on one core at the shapes of Flash: time of a launch, and that
//! time as a multiple of reading the bytes that it must read, at the rate of a read in the same run.
//!
//! `cargo bench -p ds4-runtime --bench ops`
//!
//! Each figure is the best of many launches on operands that stay in the caches.
use ds4_runtime::case::{Case, case};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Time for one case.
const BUDGET: Duration = Duration::from_millis(400);
/// More than the caches hold.
const READ_BYTES: usize = 256 << 20;

const KV: &str = "kv8r64";
/// Bytes of a row of keys, of index keys.
const ROWS: (usize, usize) = (584, 68);

fn main() {
    let rate = read_rate();
    println!("a read of memory: {:.1} GB/s", rate / 1e9);
    let say = |name: &str, bytes: usize, case: Case| {
        let seconds = case.seconds(BUDGET);
        let times = seconds * rate / bytes as f64;
        println!("{name:<34} {:9.1} us, {times:7.1} times the read of {bytes} bytes", seconds * 1e6);
    };
    for ctx in [64, 4096, 65536] {
        let keys = ctx.min(128) + ctx / 128;
        say(&format!("hca_attend, context {ctx}"), keys * ROWS.0, hca(ctx));
        let keys = ctx.min(128) + (ctx / 4).min(512);
        say(&format!("csa_attend, context {ctx}"), keys * ROWS.0, csa(ctx));
    }
    for keys in [16, 1 << 10, 16 << 10, 256 << 10] {
        say(&format!("index_select, {keys} keys"), keys * ROWS.1, select(4 * keys));
    }
    let streams = 4 * 4096 * 4;
    let h = "%h: f32[t, 4, 4096], %gates: f32[t, 24], %y: f32[t, 4096], @w: f32[4096]";
    let pre = case(h, "%x = hc_pre_norm %h, %gates, @w, eps=1e-6 : f32[t, 4096]", 0, 1);
    say("hc_pre_norm", streams, pre);
    say("hc_post", 2 * streams, case(h, "%x = hc_post %h, %y, %gates : f32[t, 4, 4096]", 0, 1));
    for fmt in ["q8_0", "q8_k", "e4m3x128"] {
        let line = format!("%y = round_act %x, fmt={fmt} : {fmt}[t, 4096]");
        say(&format!("round_act, {fmt}"), 4096 * 4, case("%x: f32[t, 4096]", &line, 0, 1));
    }
    let heads = "%x: f32[t, 32768], %j: f32[t, 8192], %table: f32[t, 64]";
    let line = "%y = head_rope %x, %table, parts=64, eps=1e-6 : f32[t, 64, 512]";
    say("head_rope", 32768 * 4, case(heads, line, 0, 1));
    let line = "%y = index_query %j, %table, parts=64, fmt=idx4 : idx4[t, 64, 128]";
    say("index_query", 8192 * 4, case(heads, line, 0, 1));
}

/// Operands of attention.
fn attention(more: &str) -> String {
    format!(
        "%q: f32[t, 64, 512], %row: {KV}[t, 512], %pos: i32[t], %table: f32[t, 64], \
         %ring: state ring/128 {KV}[512], @sinks: f32[64], {more}"
    )
}

fn hca(ctx: usize) -> Case {
    let line = "%y = hca_attend %q, %ring, %row, %e, @sinks, %pos, %table : f32[t, 64, 512]";
    case(&attention(&format!("%e: state entries/128 {KV}[512]")), line, ctx - 1, 1)
}

fn csa(ctx: usize) -> Case {
    let header = attention(&format!("%e: state entries/4 {KV}[512], %idx: i32[t, 512]"));
    let line = "%y = csa_attend %q, %ring, %row, %e, %idx, @sinks, %pos, %table : f32[t, 64, 512]";
    let entries = ctx / 4;
    let step = entries.div_ceil(512).max(1);
    let idx = (0..512).map(|i| if i * step < entries { (i * step) as i32 } else { -1 });
    case(&header, line, ctx - 1, 1).ints("idx", idx)
}

fn select(ctx: usize) -> Case {
    let header = "%q: idx4[t, 64, 128], %w: f32[t, 64], %pos: i32[t], %keys: state entries/4 idx4[128]";
    let line = "%y = index_select %q, %w, %keys, %pos, k=512 : i32[t, 512]";
    case(header, line, ctx - 1, 1)
}

/// Bytes per second of reading what the caches do not hold.
fn read_rate() -> f64 {
    let words: Vec<u64> = (0..READ_BYTES as u64 / 8).collect();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < 4 * BUDGET {
        for part in words.chunks(1 << 17) {
            let read = Instant::now();
            let mut sums = [0u64; 32];
            for words in part.as_chunks::<32>().0 {
                sums.iter_mut().zip(words).for_each(|(s, w)| *s = s.wrapping_add(*w));
            }
            black_box(sums);
            best = best.min(read.elapsed().as_secs_f64());
        }
    }
    (1 << 20) as f64 / best
}
