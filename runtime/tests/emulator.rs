//! The launchers on the emulated drivers: small kernels in all three languages, and faults that must
//! be caught.
#![cfg(feature = "gpu")]

#[path = "../../tests/common/tools.rs"]
mod tools;

use ds4_runtime::device::emulator::{Emulator, Options, Order, clang};
use ds4_runtime::device::{Api, Code, Device, DeviceMemory, Launch, Wanted, open, record};
use ds4_runtime::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// One block of 64 threads that adds neighbours through shared memory and sums each subgroup.
const BODY: &str = "
    tile[i] = x[i];
    BARRIER;
    y[i] = tile[i] + tile[(i + 1) % 64];
    float all = SUM;
    if (LANE == 0) sums[i / SUBGROUP] = all;
";

fn cache() -> PathBuf {
    std::env::temp_dir().join("ds4-test-emulator")
}

/// Every API with an architecture and its subgroup.
const TARGETS: [(Api, &str, u32); 4] = [
    (Api::Cuda, "sm_90", 32),
    (Api::Hip, "gfx1151", 32),
    (Api::Hip, "gfx942", 64),
    (Api::Metal, "metal", 32),
];

/// Whether there is a clang; says by name what is skipped if not.
fn has_clang(test: &str) -> bool {
    let found = clang();
    if let Err(why) = &found {
        tools::missing(test, &why.to_string());
    }
    found.is_ok()
}

fn device(api: Api, arch: &str) -> Arc<dyn Device> {
    let subgroup = TARGETS.iter().find(|t| t.1 == arch).map(|t| t.2);
    let wanted = Wanted { api, number: None, subgroup, emulator: Some(cache()) };
    let device = open(&wanted).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(device.info().arch, arch);
    device
}

/// A kernel `f(x, y, sums)` in the language of `api`.
fn text(api: Api, subgroup: u32, body: &str) -> String {
    let sum = |shuffle: &str| {
        format!(
            "[&] {{ float s = y[i]; for (int m = 1; m < {subgroup}; m *= 2) s += {shuffle}; return s; }}()"
        )
    };
    let (head, barrier, sum) = match api {
        Api::Cuda | Api::Hip => {
            let shuffle = if api == Api::Cuda { "__shfl_xor_sync(~0u, s, m)" } else { "__shfl_xor(s, m)" };
            let head = "extern \"C\" __global__ void __launch_bounds__(64) f(float const* const __restrict__ x, \
                        float* const __restrict__ y, float* const __restrict__ sums) {\n\
                        extern __shared__ __align__(16) char raw[];\n\
                        float* const tile = reinterpret_cast<float*>(&raw[0]);\n\
                        unsigned const i = threadIdx.x;";
            (head, "__syncthreads()", sum(shuffle))
        }
        Api::Metal => {
            let head = "#include <metal_stdlib>\nusing namespace metal;\n\
                        [[max_total_threads_per_threadgroup(64)]] [[kernel]] void f(\
                        device float const* const x [[buffer(0)]], device float* const y [[buffer(1)]], \
                        device float* const sums [[buffer(2)]], \
                        uint const i [[thread_index_in_threadgroup]]) {\n\
                        alignas(16) threadgroup char raw[256];\n\
                        threadgroup float* const tile = reinterpret_cast<threadgroup float*>(&raw[0]);";
            (head, "threadgroup_barrier(mem_flags::mem_threadgroup)", "simd_sum(y[i])".to_string())
        }
    };
    let body = body.replace("BARRIER", barrier).replace("SUM", &sum);
    let body = body.replace("LANE", &format!("i % {subgroup}")).replace("SUBGROUP", &subgroup.to_string());
    format!("{head}\n{body}\n}}\n")
}

/// Runs `body` on 64 numbers; answers `y` and `sums`.
fn run(device: &Arc<dyn Device>, body: &str) -> Result<(Vec<f32>, Vec<f32>)> {
    let info = device.info();
    let source = text(info.api, info.subgroup, body);
    let shared_bytes = if info.api == Api::Metal { 0 } else { 256 };
    let code = Code { source: &source, binary: &[], entry: "f", shared_bytes, threads: 64 };
    let kernel = device.load(&code)?;
    let x: Vec<u8> = (0..64).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let memory = |name, bytes| DeviceMemory::new(device, name, bytes);
    let (input, y, sums) = (memory("x", 256)?, memory("y", 256)?, memory("sums", 8)?);
    input.upload(0, &x)?;
    let arguments = vec![input.place(0), y.place(0), sums.place(0)];
    let launch = Launch { kernel, grid: [1, 1, 1], block: [64, 1, 1], shared_bytes, arguments };
    record(device, vec![launch])?.run()?;
    let floats = |memory: &DeviceMemory| -> Result<Vec<f32>> {
        let mut bytes = vec![0; memory.bytes() as usize];
        memory.download(0, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    };
    Ok((floats(&y)?, floats(&sums)?))
}

/// What goes wrong when `body` runs on a target.
fn fault(api: Api, arch: &str, body: &str) -> String {
    match run(&device(api, arch), body) {
        Err(Error::Device(why)) => why,
        other => panic!("{api} {arch}: expected a fault, got {other:?}"),
    }
}

#[test]
fn kernels_run_alike_on_every_target_and_in_every_order() {
    if !has_clang("kernels_run_alike_on_every_target_and_in_every_order") {
        return;
    }
    for (api, arch, subgroup) in TARGETS {
        let device = device(api, arch);
        assert_eq!(device.info().subgroup, subgroup, "{}", device.info());
        let controls = Emulator::new(api, &cache()).unwrap();
        for order in [Order::Normal, Order::Reversed, Order::Random(7)] {
            controls.configure(Options { order, ..Options::default() });
            let (y, sums) = run(&device, BODY).unwrap_or_else(|e| panic!("{api} {arch}: {e}"));
            let expected: Vec<f32> = (0..64).map(|i| (i + (i + 1) % 64) as f32).collect();
            assert_eq!(y, expected, "{api} {arch} {order:?}");
            let part = |i: usize| y[i * subgroup as usize..].iter().take(subgroup as usize).sum::<f32>();
            assert_eq!(sums[0], part(0), "{api} {arch} {order:?}");
            let second = if subgroup == 32 { part(1) } else { f32::NAN };
            assert_eq!(sums[1].to_bits() == second.to_bits(), subgroup == 32, "fresh memory is poisoned");
        }
        controls.configure(Options::default());
    }
}

#[test]
fn a_missing_barrier_is_caught() {
    if !has_clang("a_missing_barrier_is_caught") {
        return;
    }
    for (api, arch, _) in TARGETS {
        let why = fault(api, arch, &BODY.replace("BARRIER;", ""));
        assert!(why.contains("missing barrier"), "{api} {arch}: {why}");
    }
}

#[test]
fn a_divergent_barrier_is_caught() {
    if !has_clang("a_divergent_barrier_is_caught") {
        return;
    }
    for (api, arch, _) in TARGETS {
        let why = fault(api, arch, "if (i < 40) { BARRIER; }\ny[i] = x[i];");
        assert!(why.contains("divergent barrier"), "{api} {arch}: {why}");
    }
}

#[test]
fn accesses_out_of_bounds_are_caught() {
    if !has_clang("accesses_out_of_bounds_are_caught") {
        return;
    }
    for (api, arch, _) in TARGETS {
        let read = fault(api, arch, &BODY.replace("= x[i];", "= x[i + 1];"));
        assert!(read.contains("global memory: a read of 4 bytes"), "{api} {arch}: {read}");
        let write = fault(api, arch, &BODY.replace("y[i] =", "y[i + 64] ="));
        assert!(write.contains("global memory: a write of 4 bytes"), "{api} {arch}: {write}");
        let shared = fault(api, arch, &BODY.replace("tile[i] = x[i];", "tile[i + 1] = x[i];"));
        assert!(shared.contains("shared memory"), "{api} {arch}: {shared}");
    }
}

#[test]
fn a_text_that_does_not_compile_is_refused_with_the_compilers_words() {
    if !has_clang("a_text_that_does_not_compile_is_refused_with_the_compilers_words") {
        return;
    }
    for (api, arch, _) in TARGETS {
        let why = fault(api, arch, "y[i] = nonsense;");
        assert!(why.contains("undeclared identifier 'nonsense'"), "{api} {arch}: {why}");
    }
}

#[test]
fn accesses_are_counted() {
    if !has_clang("accesses_are_counted") {
        return;
    }
    let (device, controls) = (device(Api::Cuda, "sm_90"), Emulator::new(Api::Cuda, &cache()).unwrap());
    controls.configure(Options { count: true, ..Options::default() });
    controls.reset();
    run(&device, BODY).unwrap();
    let plain = controls.counters();
    // 64 lanes read x and write y, and one lane of each warp writes a sum.
    assert_eq!((plain.bytes_read, plain.sectors_read), (256, 8));
    assert_eq!((plain.bytes_written, plain.sectors_written), (264, 10));
    assert_eq!((plain.barriers, plain.bank_conflicts, plain.launches), (1, 0, 1));
    // Lanes 32 numbers apart share a bank, and a stride of 8 numbers touches a sector per lane.
    controls.reset();
    let scattered = "tile[i % 2 * 32 + i / 2] = x[i * 8 % 64];\nBARRIER;\ny[i] = tile[i];";
    run(&device, scattered).unwrap();
    let strided = controls.counters();
    assert_eq!((strided.bytes_read, strided.sectors_read), (256, 16));
    assert_eq!(strided.bank_conflicts, 2);
    controls.configure(Options::default());
}

#[test]
fn memory_of_the_host_is_read_where_it_is_where_the_device_shares_it() {
    if !has_clang("memory_of_the_host_is_read_where_it_is_where_the_device_shares_it") {
        return;
    }
    for (api, arch, subgroup) in TARGETS {
        let device = device(api, arch);
        let mut pages = memmap2::MmapMut::map_anon(1 << 16).unwrap();
        let start = pages.as_ptr() as usize;
        let Some(page) = device.page_bytes() else {
            // SAFETY: the device refuses them.
            let refused = unsafe { DeviceMemory::of_pages(&device, start, 1 << 16) };
            assert!(api != Api::Metal && refused.is_err(), "{api}");
            continue;
        };
        let source = text(api, subgroup, "y[i] = x[i];");
        let code = Code { source: &source, binary: &[], entry: "f", shared_bytes: 0, threads: 64 };
        let kernel = device.load(&code).unwrap();
        // SAFETY: the pages outlive all launches, and the kernel only reads.
        let (all, last) = unsafe {
            let part = DeviceMemory::of_pages(&device, start + page, page).unwrap();
            (DeviceMemory::of_pages(&device, start, 1 << 16).unwrap(), part)
        };
        let y = DeviceMemory::new(&device, "y", 256).unwrap();
        let read = |place| {
            let arguments = vec![place, y.place(0), y.place(0)];
            let launch = Launch { kernel, grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 0, arguments };
            record(&device, vec![launch])?.run()?;
            let mut bytes = [0; 256];
            y.download(0, &mut bytes)?;
            Ok::<u8, Error>(bytes[255])
        };
        pages[page + 32 + 255] = 7;
        assert_eq!((read(all.place(page as u64 + 32)).unwrap(), read(last.place(32)).unwrap()), (7, 7));
        pages[page + 32 + 255] = 8;
        assert_eq!(read(last.place(32)).unwrap(), 8);
        drop(all);
        assert_eq!(read(last.place(32)).unwrap(), 8, "views of the same pages are given back one by one");
        let why = read(last.place(page as u64 - 128)).unwrap_err().to_string();
        assert!(why.contains("global memory: a read of 4 bytes"), "{why}");
    }
}

#[test]
fn memory_that_does_not_suffice_and_devices_that_are_not_there_are_named() {
    if !has_clang("memory_that_does_not_suffice_and_devices_that_are_not_there_are_named") {
        return;
    }
    for (api, arch, _) in TARGETS {
        let device = device(api, arch);
        let Err(why) = DeviceMemory::new(&device, "weights", 1 << 40) else { panic!("a terabyte") };
        assert!(why.to_string().starts_with("weights: expected at most"), "{why}");
        let wanted = Wanted { api, number: Some(9), subgroup: None, emulator: Some(cache()) };
        let Err(why) = open(&wanted) else { panic!("a tenth device") };
        assert!(why.to_string().contains("expected device 9; devices found:"), "{why}");
    }
}
