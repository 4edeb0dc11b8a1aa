//! Measures the machine it runs on: what `ds4c probe` writes down as a machine profile.
//!
//! Everything is measured with all the threads asked for and the best of a few runs counts, because other work on
//! the machine can only slow a run down.
use crate::pool::{Pool, Turn};
use crate::process;
use crate::raw::sum;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Runs of each measurement.
const RUNS: usize = 5;
/// Bytes of memory that a thread reads at once.
const READ: usize = 1 << 20;
/// Bytes of one sequential disk read.
const CHUNK: usize = 16 << 20;
/// Bytes of one random disk read: about an expert's share of a layer.
const PIECE: usize = 1 << 20;
/// Alignment of direct reads.
const PAGE: usize = 4096;

/// Measures this machine on `threads` threads, 0 for all, with buffers of `bytes` bytes and a file of
/// that size in `folder`, which is removed again. Buffers should be several times as large as the last
/// cache; 1 GiB is.
///
/// # Errors
/// The file cannot be written or mapped, or there are no such threads.
pub fn probe(folder: &Path, bytes: usize, threads: usize) -> io::Result<Value> {
    let threads = if threads == 0 { crate::pool::cores() } else { threads };
    let pool = Pool::new(threads, 0).map_err(io::Error::other)?;
    measure(folder, bytes, &mut pool.turn())
}

fn measure(folder: &Path, bytes: usize, turn: &mut Turn<'_>) -> io::Result<Value> {
    let bytes = bytes.max(4 * CHUNK) / CHUNK * CHUNK;
    let path = folder.join(format!(".ds4-probe-{}", std::process::id()));
    let measured = write_file(&path, bytes).and_then(|()| {
        let mapped = mapped_gb_s(&path, turn)?;
        Ok((mapped, disk(&path, bytes)))
    });
    // The file is gone whatever happened; a file that never was is no error.
    let _ = fs::remove_file(&path);
    let (mapped, disk) = measured?;
    let disks: Vec<Value> = disk
        .map(|(read, random)| json!({"path": folder.display().to_string(), "read_gb_s": read, "random_gb_s": random}))
        .into_iter()
        .collect();
    let mut host = host();
    host["disks"] = Value::from(disks);
    let memory = host["memory_bytes"].as_u64().unwrap_or(0);
    let device = json!({
        "threads": turn.threads(),
        "memory_bytes": memory,
        "read_gb_s": read_gb_s(&noise(bytes), turn),
        "mapped_gb_s": mapped,
        "f32_gflop_s": f32_gflop_s(turn),
        "i8_gop_s": i8_gop_s(turn),
        "launch_us": launch_us(turn),
    });
    let name = host["processor"].as_str().unwrap_or("this machine").to_string();
    Ok(json!({"name": name, "host": host, "devices": {"cpu": device}}))
}

/// What the system says of itself.
pub(crate) fn host() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = cpuinfo.lines().find(|l| l.starts_with(key));
        line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_string())
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let processor = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let huge = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let huge = huge.split(['[', ']']).nth(1).unwrap_or_default().to_string();
    json!({
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "processor": processor,
        "features": features(),
        "cores": cores(&cpuinfo).unwrap_or(threads),
        "threads": threads,
        "cache_bytes": caches(),
        "memory_bytes": process::memory_bytes().unwrap_or(0),
        "huge_pages": huge,
        "gpus": gpus(),
    })
}

/// Pairs of package and core, counted once each.
fn cores(cpuinfo: &str) -> Option<usize> {
    let value = |block: &str, key: &str| {
        block
            .lines()
            .find(|l| l.starts_with(key))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_string())
    };
    let mut pairs: Vec<_> = cpuinfo
        .split("\n\n")
        .filter_map(|block| Some((value(block, "physical id")?, value(block, "core id")?)))
        .collect();
    pairs.sort();
    pairs.dedup();
    Some(pairs.len()).filter(|n| *n > 0)
}

fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("f16c", std::is_x86_feature_detected!("f16c")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
            ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
            ("avxvnni", std::is_x86_feature_detected!("avxvnni")),
        ];
        found.extend(known.iter().filter(|(_, has)| *has).map(|(name, _)| *name));
    }
    #[cfg(target_arch = "aarch64")]
    {
        let known = [
            ("neon", std::arch::is_aarch64_feature_detected!("neon")),
            ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
            ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ];
        found.extend(known.iter().filter(|(_, has)| *has).map(|(name, _)| *name));
    }
    found
}

/// Data caches of the first core, first level first.
fn caches() -> Vec<u64> {
    let read = |index: usize, file: &str| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}")).ok()
    };
    let size = |text: String| text.trim().strip_suffix('K')?.parse::<u64>().ok().map(|kib| kib * 1024);
    (0..8)
        .filter(|i| read(*i, "type").is_some_and(|t| t.trim() != "Instruction"))
        .filter_map(|i| read(i, "size").and_then(size))
        .collect()
}

fn gpus() -> Vec<String> {
    let Ok(folders) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut names: Vec<String> = folders
        .filter_map(|f| fs::read_to_string(f.ok()?.path().join("information")).ok())
        .filter_map(|text| text.lines().find_map(|l| l.strip_prefix("Model:").map(|m| m.trim().to_string())))
        .collect();
    names.sort();
    names
}

/// The shortest of some runs, in seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(time).fold(f64::INFINITY, f64::min).max(1e-9)
}

/// Two digits after the point.
fn rate(x: f64) -> f64 {
    ((x * 100.0).round() / 100.0).max(0.01)
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn read_gb_s(bytes: &[u8], turn: &mut Turn<'_>) -> f64 {
    let pieces = bytes.len().div_ceil(READ);
    let seconds = best(|| {
        let all = AtomicU64::new(0);
        turn.run(pieces, &|i, _| {
            let piece = &bytes[i * READ..bytes.len().min((i + 1) * READ)];
            all.fetch_add(sum(piece), Ordering::Relaxed);
        });
        black_box(all.into_inner());
    });
    rate(bytes.len() as f64 / seconds / 1e9)
}

fn write_file(path: &Path, bytes: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    let block = noise(CHUNK);
    for _ in 0..bytes / CHUNK {
        file.write_all(&block)?;
    }
    file.sync_all()
}

fn mapped_gb_s(path: &Path, turn: &mut Turn<'_>) -> io::Result<f64> {
    let file = File::open(path)?;
    // SAFETY: the file is this program's own and nobody shortens it while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    // The first run faults the pages in; the best one does not.
    Ok(read_gb_s(&map, turn))
}

/// Sequential and random reads past the page cache, GB/s; `None` where the system has no such reads.
fn disk(path: &Path, bytes: usize) -> Option<(f64, f64)> {
    let file = open_direct(path).ok()?;
    let mut buffer = vec![0u8; CHUNK + PAGE];
    let from = buffer.as_ptr().align_offset(PAGE);
    let buffer = &mut buffer[from..from + CHUNK];
    let mut read = |at: usize, size: usize| read_at(&file, &mut buffer[..size], at as u64);
    let start = Instant::now();
    for at in (0..bytes).step_by(CHUNK) {
        read(at, CHUNK).ok()?;
    }
    let sequential = bytes as f64 / start.elapsed().as_secs_f64().max(1e-9) / 1e9;
    let (places, mut at) = (bytes / PIECE, 0);
    let start = Instant::now();
    for _ in 0..places.min(256) {
        at = (at + 7919) % places;
        read(at * PIECE, PIECE).ok()?;
    }
    let random = (places.min(256) * PIECE) as f64 / start.elapsed().as_secs_f64().max(1e-9) / 1e9;
    Some((rate(sequential), rate(random)))
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    /// `O_DIRECT` of the system's headers.
    const DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0x10000 } else { 0x4000 };
    OpenOptions::new().read(true).custom_flags(DIRECT).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(path: &Path) -> io::Result<File> {
    let _ = (path, OpenOptions::new());
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.read_exact_at(buffer, at)
}

#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// Elements of the vectors that stay in the first cache.
const SHORT: usize = 2048;
/// Products of them in one run.
const ROUNDS: usize = 4000;

fn f32_gflop_s(turn: &mut Turn<'_>) -> f64 {
    let x: Vec<f32> = (0..SHORT).map(|i| i as f32 / SHORT as f32).collect();
    let threads = turn.threads();
    let seconds = best(|| {
        turn.run(threads, &|_, _| {
            for _ in 0..ROUNDS {
                black_box(ds4_ir::ops::dot(black_box(&x), black_box(&x)));
            }
        });
    });
    rate((2 * SHORT * ROUNDS * threads) as f64 / seconds / 1e9)
}

fn i8_gop_s(turn: &mut Turn<'_>) -> f64 {
    let x: Vec<i8> = (0..SHORT).map(|i| (i % 255) as u8 as i8).collect();
    let threads = turn.threads();
    let seconds = best(|| {
        turn.run(threads, &|_, _| {
            for _ in 0..ROUNDS {
                black_box(dot_i8(black_box(&x), black_box(&x)));
            }
        });
    });
    rate((2 * SHORT * ROUNDS * threads) as f64 / seconds / 1e9)
}

fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        return unsafe { dot_i8_avx2(a, b) };
    }
    dot_i8_any(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_i8_avx2(a: &[i8], b: &[i8]) -> i32 {
    dot_i8_any(a, b)
}

#[inline(always)]
fn dot_i8_any(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum()
}

/// From one parallel region to the next, in microseconds.
fn launch_us(turn: &mut Turn<'_>) -> f64 {
    let threads = turn.threads();
    let regions = 200;
    let seconds = best(|| {
        for _ in 0..regions {
            turn.run(threads, &|i, _| {
                black_box(i);
            });
        }
    });
    rate(seconds / f64::from(regions) * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_probe_measures_everything_and_leaves_nothing() {
        let folder = std::env::temp_dir();
        let profile = probe(&folder, 64 << 20, 1).unwrap();
        let cpu = &profile["devices"]["cpu"];
        for rate in ["read_gb_s", "mapped_gb_s", "f32_gflop_s", "i8_gop_s", "launch_us"] {
            assert!(cpu[rate].as_f64().unwrap() > 0.0, "{rate}: {cpu}");
        }
        assert!(profile["host"]["threads"].as_u64().unwrap() >= 1);
        assert_eq!(cpu["threads"].as_u64(), Some(1));
        let left = folder.join(format!(".ds4-probe-{}", std::process::id()));
        assert!(!left.exists());
    }

    #[test]
    fn hardware_threads_of_a_core_count_once() {
        let core = |package, core| format!("processor: 0\nphysical id\t: {package}\ncore id\t: {core}\n");
        let text = [core(0, 0), core(0, 0), core(0, 1), core(1, 0)].join("\n");
        assert_eq!(cores(&text), Some(3));
        assert_eq!(cores("model name: x"), None);
    }
}
