//! Compilers of kernel texts: NVRTC and hiprtc, opened at run time.
use super::library::{self, functions};
use crate::{Error, Result};
use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

type Program = *mut c_void;
type Text = *const c_char;

functions! { Compiler:
    create = ["nvrtcCreateProgram", "hiprtcCreateProgram"](
        *mut Program, Text, Text, c_int, *const Text, *const Text
    ) -> c_int;
    compile = ["nvrtcCompileProgram", "hiprtcCompileProgram"](Program, c_int, *const Text) -> c_int;
    destroy = ["nvrtcDestroyProgram", "hiprtcDestroyProgram"](*mut Program) -> c_int;
    log_bytes = ["nvrtcGetProgramLogSize", "hiprtcGetProgramLogSize"](Program, *mut usize) -> c_int;
    log = ["nvrtcGetProgramLog", "hiprtcGetProgramLog"](Program, *mut c_char) -> c_int;
    code_bytes = ["nvrtcGetCUBINSize", "hiprtcGetCodeSize"](Program, *mut usize) -> c_int;
    code = ["nvrtcGetCUBIN", "hiprtcGetCode"](Program, *mut c_char) -> c_int;
}

functions! { Portable:
    bytes = ["nvrtcGetPTXSize"](Program, *mut usize) -> c_int;
    text = ["nvrtcGetPTX"](Program, *mut c_char) -> c_int;
}

functions! { Version: version = ["nvrtcVersion"](*mut c_int, *mut c_int) -> c_int; }

/// What a compiler made of a text.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The binary.
    pub binary: Vec<u8>,
    /// What drivers of later devices make their code of: PTX of NVIDIA's, ended by a zero. Empty without one.
    pub portable: Vec<u8>,
    /// What the compiler said; NVRTC tells registers and spilled bytes.
    pub log: String,
}

/// Compiles a CUDA text to a cubin for `arch` (`sm_90`), with NVRTC wherever it is found.
///
/// # Errors
/// There is no NVRTC, or the text does not compile.
pub fn compile_cuda(source: &str, arch: &str) -> Result<Compiled> {
    cuda(None, source, arch)
}

/// Compiles a HIP text to a code object for `arch` (`gfx1151`), with hiprtc.
///
/// # Errors
/// There is no hiprtc, or the text does not compile.
pub fn compile_hip(source: &str, arch: &str) -> Result<Compiled> {
    hip(None, source, arch)
}

/// The version of NVRTC, `13.1`.
///
/// # Errors
/// There is no NVRTC.
pub fn nvrtc_version() -> Result<String> {
    let library = nvrtc()?;
    let found = Version::find(&library, 0)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: places for two numbers.
    match unsafe { (found.version)(&mut major, &mut minor) } {
        0 => Ok(format!("{major}.{minor}")),
        code => Err(Error::Device(format!("NVRTC: no version is told (code {code})"))),
    }
}

fn nvrtc() -> Result<Library> {
    library::open(
        "NVRTC (part of the CUDA toolkit, and of the Python wheel nvidia-cuda-nvrtc)",
        &nvrtc_names(),
    )
}

/// As [`compile_cuda`], with the compiler in `emulator` if there is one.
pub(super) fn cuda(emulator: Option<&Library>, source: &str, arch: &str) -> Result<Compiled> {
    let opened;
    let library = match emulator {
        Some(library) => library,
        None => {
            opened = nvrtc()?;
            &opened
        }
    };
    let compiler = Compiler::find(library, 0)?;
    let mut options =
        vec![format!("--gpu-architecture={arch}"), "--std=c++17".to_string(), "-default-device".to_string()];
    if emulator.is_none() {
        options.push("--ptxas-options=-v".to_string());
        options.extend(include_folders().iter().map(|p| format!("--include-path={}", p.display())));
    }
    let portable = if emulator.is_none() { Some(Portable::find(library, 0)?) } else { None };
    compiler.run("NVRTC", source, &options, portable.as_ref()).map_err(|error| match error {
        Error::Device(why) if why.contains("cannot open source file") => Error::Device(format!(
            "{why}\nheaders: expected those of a CUDA toolkit, or of the Python wheels nvidia-cuda-runtime, \
             nvidia-cuda-crt and nvidia-cuda-cccl"
        )),
        other => other,
    })
}

/// As [`compile_hip`], with the compiler in `emulator` if there is one.
pub(super) fn hip(emulator: Option<&Library>, source: &str, arch: &str) -> Result<Compiled> {
    let opened;
    let library = match emulator {
        Some(library) => library,
        None => {
            let names = ["libhiprtc.so", "libhiprtc.so.7", "libhiprtc.so.6", "/opt/rocm/lib/libhiprtc.so"];
            opened = library::open("hiprtc (part of ROCm)", &names.map(str::to_string))?;
            &opened
        }
    };
    let compiler = Compiler::find(library, 1)?;
    compiler.run("hiprtc", source, &[format!("--offload-arch={arch}"), "-O3".to_string()], None)
}

impl Compiler {
    fn run(
        &self,
        who: &str,
        source: &str,
        options: &[String],
        portable: Option<&Portable>,
    ) -> Result<Compiled> {
        let text = |s: &str| CString::new(s).map_err(|e| Error::Device(format!("{who}: {e}")));
        let (source, name) = (text(source)?, text("kernel")?);
        let options = options.iter().map(|o| text(o)).collect::<Result<Vec<_>>>()?;
        let options: Vec<Text> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program = null_mut();
        // SAFETY: all texts end with a zero and outlive the program; sizes are asked for before
        // buffers of these sizes are filled; the program is destroyed once.
        unsafe {
            let made = (self.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, null(), null());
            if made != 0 {
                return Err(Error::Device(format!("{who}: no program can be made (code {made})")));
            }
            let count = c_int::try_from(options.len()).expect("few options");
            let code = (self.compile)(program, count, options.as_ptr());
            let log = fetch(program, self.log_bytes, self.log);
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
            let binary = if code == 0 { fetch(program, self.code_bytes, self.code) } else { Vec::new() };
            let portable = portable.filter(|_| code == 0);
            let portable = portable.map(|p| fetch(program, p.bytes, p.text)).unwrap_or_default();
            (self.destroy)(&mut program);
            if code != 0 || binary.is_empty() {
                return Err(Error::Device(format!("{who} refuses the text (code {code}):\n{log}")));
            }
            Ok(Compiled { binary, portable, log })
        }
    }
}

/// # Safety
/// The functions are those of one compiler, and the program is alive.
unsafe fn fetch(
    program: Program,
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    content: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
) -> Vec<u8> {
    let mut bytes = 0;
    // SAFETY: a place for a size, then a buffer of that size.
    unsafe {
        if size(program, &mut bytes) != 0 {
            return Vec::new();
        }
        let mut buffer = vec![0u8; bytes];
        if content(program, buffer.as_mut_ptr().cast()) != 0 {
            buffer.clear();
        }
        buffer
    }
}

/// Names and paths under which NVRTC may be found: by the loader, in a toolkit, in a Python wheel.
fn nvrtc_names() -> Vec<String> {
    let mut names: Vec<String> = std::env::var("DS4_NVRTC").into_iter().collect();
    for name in ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
    {
        names.push(name.to_string());
        let beside = |folder: PathBuf| folder.join(name);
        names.extend(
            folders("lib").into_iter().map(beside).filter(|p| p.exists()).map(|p| p.display().to_string()),
        );
    }
    names
}

/// Folders with headers of CUDA.
fn include_folders() -> Vec<PathBuf> {
    folders("include").into_iter().filter(|p| p.join("cuda_fp16.h").exists()).collect()
}

/// Folders `part` of toolkits and of the wheels of NVIDIA.
fn folders(part: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for root in ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(std::env::var_os) {
        all.push(Path::new(&root).join(part));
        all.push(Path::new(&root).join(format!("{part}64")));
    }
    all.push(Path::new("/usr/local/cuda").join(part));
    all.push(Path::new("/usr/local/cuda").join(format!("{part}64")));
    let home = std::env::var_os("HOME").map(|h| Path::new(&h).join(".local/lib"));
    let active = std::env::var_os("VIRTUAL_ENV").map(|v| Path::new(&v).join("lib"));
    let bases = [active, home, Some("/usr/local/lib".into()), Some("/usr/lib".into())];
    for python in bases.into_iter().flatten().flat_map(|base| inside(&base)) {
        let is_python = python.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python3"));
        for packages in ["site-packages", "dist-packages"].iter().filter(|_| is_python) {
            all.extend(inside(&python.join(packages).join("nvidia")).into_iter().map(|p| p.join(part)));
        }
    }
    all
}

fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder);
    let mut all: Vec<PathBuf> = entries.into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
    all.sort();
    all
}
