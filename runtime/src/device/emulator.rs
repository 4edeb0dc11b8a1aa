//! The emulated drivers: built by the system's clang on first use, opened like the vendors'.
//!
//! One library per API has the entry points that the launcher calls. It compiles the kernel text with
//! the same clang and runs it on fibers, with bounds checks on every access to memory. Its sources
//! are part of this crate (`runtime/emulator`).
use super::library::functions;
use super::{Api, DeviceMemory};
use crate::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, c_char};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest version of clang that compiles the emulator and the texts.
const CLANG_MIN: u32 = 15;
/// Newest version that is looked for by name.
const CLANG_NEWEST: u32 = 24;

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../emulator/", $name)))),*]
    };
}

/// Every file of the emulator.
const SOURCES: &[(&str, &str)] = sources![
    "access.cpp",
    "access.h",
    "core.cpp",
    "core.h",
    "fiber.h",
    "metal.cpp",
    "rewrite.cpp",
    "rewrite.h",
    "streams.cpp",
    "text.cpp",
    "text.h",
    "shim/fragments.h",
    "shim/math.h",
    "shim/numbers.h",
    "shim/simt.h",
    "shim/threads.h",
    "shim/cuda/prelude.h",
    "shim/hip/amdgcn.h",
    "shim/hip/prelude.h",
    "shim/metal/metal_stdlib",
];

/// Headers that texts include and that hold nothing the prelude has not.
const EMPTY_HEADERS: &[&str] = &[
    "shim/cuda/cuda_bf16.h",
    "shim/cuda/cuda_fp16.h",
    "shim/cuda/cuda_fp4.h",
    "shim/cuda/cuda_fp6.h",
    "shim/cuda/cuda_fp8.h",
    "shim/cuda/mma.h",
    "shim/hip/hip/hip_bf16.h",
    "shim/hip/hip/hip_fp16.h",
    "shim/hip/hip/hip_runtime.h",
    "shim/metal/metal_simdgroup_matrix",
];

/// The clang that the emulator uses.
///
/// # Errors
/// None of version 15 or newer is found.
pub fn clang() -> Result<PathBuf> {
    let named = (CLANG_MIN..=CLANG_NEWEST).rev().map(|n| format!("clang++-{n}"));
    let asked = std::env::var("DS4_CLANG").into_iter();
    for name in asked.chain(named).chain(["clang++".to_string()]) {
        let Ok(output) = Command::new(&name).arg("-dumpversion").output() else { continue };
        let version = String::from_utf8_lossy(&output.stdout);
        let major = version.trim().split('.').next().and_then(|n| n.parse::<u32>().ok());
        if output.status.success() && major.is_some_and(|n| n >= CLANG_MIN) {
            return Ok(PathBuf::from(name));
        }
    }
    Err(Error::Device(format!(
        "the emulated device: expected clang++ of version {CLANG_MIN} or newer in the path (or named by \
         DS4_CLANG), found none"
    )))
}

/// The emulated driver of `api`, built below `cache` if it is not there yet.
///
/// # Errors
/// No clang, or no place to write.
pub(super) fn library(api: Api, cache: &Path) -> Result<PathBuf> {
    let clang = clang()?;
    let mut hasher = blake3::Hasher::new();
    for (name, text) in SOURCES {
        hasher.update(format!("{name} {}\n{text}", text.len()).as_bytes());
    }
    hasher.update(clang.as_os_str().as_encoded_bytes());
    let folder = cache.join("emulator").join(&hasher.finalize().to_hex()[..16]);
    let library = folder.join(format!("libds4_{api}.so"));
    if !library.exists() {
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        // Whoever comes first builds, in this process or another; the others wait.
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(Error::io(&path))?;
        lock.lock().map_err(Error::io(&path))?;
        if !library.exists() {
            unpack(&folder, &clang)?;
            build(api, &clang, &folder, &library)?;
        }
    }
    library.canonicalize().map_err(Error::io(&library))
}

/// Writes the sources, and where the driver finds the compiler.
fn unpack(folder: &Path, clang: &Path) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        let parent = path.parent().expect("a file in a folder");
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        std::fs::write(&path, text).map_err(Error::io(&path))
    };
    SOURCES.iter().try_for_each(|(name, text)| write(name, text))?;
    EMPTY_HEADERS.iter().try_for_each(|name| write(name, "#pragma once\n"))?;
    write("clang", &clang.display().to_string())
}

fn build(api: Api, clang: &Path, folder: &Path, library: &Path) -> Result<()> {
    let compile = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(clang);
        command.current_dir(folder).args(["-std=c++20", "-O2", "-fPIC"]).args(arguments);
        let output = command.output().map_err(Error::io(clang))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::Device(format!("the emulated {api} driver does not build:\n{said}")))
    };
    // What all drivers share is compiled once.
    if !folder.join("core.o").exists() {
        std::thread::scope(|scope| {
            let parts = ["access", "core", "rewrite", "text"];
            let parts = parts.map(|name| {
                let (source, object) = (format!("{name}.cpp"), format!("{name}.part.o"));
                scope.spawn(move || compile(&["-c", &source, "-o", &object]))
            });
            parts.into_iter().try_for_each(|part| part.join().expect("compiling does not panic"))
        })?;
        for name in ["access", "rewrite", "text", "core"] {
            let (from, to) = (folder.join(format!("{name}.part.o")), folder.join(format!("{name}.o")));
            std::fs::rename(&from, &to).map_err(Error::io(&to))?;
        }
    }
    let temp = folder.join(format!("libds4_{api}.part.so"));
    // The name by which compiled texts ask for this library.
    let name = if cfg!(target_os = "macos") {
        format!("-Wl,-install_name,{}", library.display())
    } else {
        format!("-Wl,-soname,{}", library.display())
    };
    let (entry_points, option) = match api {
        Api::Cuda => ("streams.cpp", "-DEMULATE_CUDA"),
        Api::Hip => ("streams.cpp", "-DEMULATE_HIP"),
        Api::Metal => ("metal.cpp", "-DEMULATE_METAL"),
    };
    let output = temp.display().to_string();
    let objects = ["access.o", "core.o", "rewrite.o", "text.o"];
    let arguments = [&["-shared", "-o", &output, &name, option, entry_points], &objects[..], &["-lm"]];
    compile(&arguments.concat())?;
    std::fs::rename(&temp, library).map_err(Error::io(library))
}

/// In which order blocks, warps and lanes run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Ascending.
    #[default]
    Normal,
    /// Descending.
    Reversed,
    /// Shuffled anew at every turn, from this seed.
    Random(u64),
}

/// How launches of this thread are emulated from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// In which order things run.
    pub order: Order,
    /// Whether accesses to shared memory that no barrier orders end the launch.
    pub races: bool,
    /// Whether accesses to memory are counted.
    pub count: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { order: Order::Normal, races: true, count: false }
    }
}

/// What launches of this thread did since the last [`Emulator::reset`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Counters {
    /// Launches.
    pub launches: u64,
    /// Bytes of global memory read, by every lane.
    pub bytes_read: u64,
    /// Bytes of global memory written.
    pub bytes_written: u64,
    /// Sectors of 32 bytes that the reads of a warp touch.
    pub sectors_read: u64,
    /// Sectors of 32 bytes that the writes of a warp touch.
    pub sectors_written: u64,
    /// Accesses of a warp to shared memory.
    pub shared_accesses: u64,
    /// Further passes that such an access needs because lanes meet in a bank.
    pub bank_conflicts: u64,
    /// Barriers of a block.
    pub barriers: u64,
}

/// What launches did to one allocation, of all threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Touched {
    /// Bytes read, by every lane.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Sectors of 32 bytes read by a warp.
    pub sectors_read: u64,
    /// Sectors of 32 bytes written by a warp.
    pub sectors_written: u64,
}

#[repr(C)]
struct RawOptions {
    order: u32,
    races: u32,
    count: u32,
    unused: u32,
    seed: u64,
}

functions! { Controls:
    configure = ["emulator_configure"](*const RawOptions);
    counters = ["emulator_counters"](*mut Counters);
    reset = ["emulator_reset_counters"]();
    touched = ["emulator_touched"](u64, *mut Touched);
    reset_touched = ["emulator_reset_touched"]();
}

/// The controls of an emulated driver beside its entry points.
pub struct Emulator {
    controls: Controls,
    _library: Library,
}

impl Emulator {
    /// The controls of the driver of `api` below `cache`.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn new(api: Api, cache: &Path) -> Result<Emulator> {
        let path = library(api, cache)?;
        let library = super::library::open("the emulator", &[path.display().to_string()])?;
        Ok(Emulator { controls: Controls::find(&library, 0)?, _library: library })
    }

    /// Sets how launches of this thread run.
    pub fn configure(&self, options: Options) {
        let (order, seed) = match options.order {
            Order::Normal => (0, 0),
            Order::Reversed => (1, 0),
            Order::Random(seed) => (2, seed),
        };
        let (races, count) = (u32::from(options.races), u32::from(options.count));
        // SAFETY: the struct is the emulator's, which copies it.
        unsafe { (self.controls.configure)(&RawOptions { order, races, count, unused: 0, seed }) }
    }

    /// What launches of this thread did since the last reset; accesses only while they are counted.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        // SAFETY: a place for the emulator's struct.
        unsafe { (self.controls.counters)(&mut counters) }
        counters
    }

    /// What counted launches did to an allocation since the last reset.
    pub fn touched(&self, memory: &DeviceMemory) -> Touched {
        let mut touched = Touched::default();
        // SAFETY: a place for the emulator's struct. Allocations of CUDA and HIP are addresses.
        unsafe { (self.controls.touched)(memory.place(0).allocation, &mut touched) }
        touched
    }

    /// Sets all counters to zero.
    pub fn reset(&self) {
        // SAFETY: functions without arguments.
        unsafe {
            (self.controls.reset)();
            (self.controls.reset_touched)();
        }
    }
}

functions! { Words: message = ["emulator_message"]() -> *const c_char; }

/// Tells what an error code cannot.
pub(super) struct Voice(Words);

impl Voice {
    pub(super) fn find(library: &Library) -> Result<Voice> {
        Ok(Voice(Words::find(library, 0)?))
    }

    /// The error with what the emulator has seen.
    pub(super) fn explain(&self, error: Error) -> Error {
        // SAFETY: the emulator answers a text that ends with a zero, and keeps it for this thread.
        let message = unsafe { CStr::from_ptr((self.0.message)()) }.to_string_lossy();
        if message.is_empty() { error } else { Error::Device(format!("{error}: {message}")) }
    }
}
