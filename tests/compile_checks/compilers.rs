//! The compilers, and what they say about a text.
use crate::table::Resources;
use ds4_codegen::emit::KernelText;
use ds4_codegen::{Api, Target};
use ds4_runtime::device::emulator::clang;
use ds4_runtime::device::{self, Code, Device, Wanted, compile_cuda, nvrtc_version};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// What hiprtc would include of itself.
const PRELUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compile_checks/hip.h");

pub(crate) struct Compiler {
    /// With its version.
    pub(crate) name: String,
    kind: Kind,
}

enum Kind {
    /// NVRTC, for an architecture.
    Cuda(&'static str),
    /// clang, for an architecture.
    Hip(&'static str, PathBuf),
    /// The emulated device.
    Metal(Arc<dyn Device>),
}

impl Compiler {
    /// The compiler for a target.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn find(target: Target) -> Result<Compiler, String> {
        let text = |e: ds4_runtime::Error| e.to_string();
        if target.api == Api::Cuda {
            let name = format!("NVRTC {}", nvrtc_version().map_err(text)?);
            return Ok(Compiler { name, kind: Kind::Cuda(target.arch) });
        }
        let clang = clang().map_err(text)?;
        let version = Command::new(&clang).arg("-dumpversion").output().map_err(|e| e.to_string())?;
        let name = format!("clang {}", String::from_utf8_lossy(&version.stdout).trim());
        if target.api == Api::Hip {
            return Ok(Compiler { name, kind: Kind::Hip(target.arch, clang) });
        }
        let (api, cache) = (device::Api::Metal, std::env::temp_dir().join("ds4-test-emulator"));
        let wanted = Wanted { api, number: None, subgroup: None, emulator: Some(cache) };
        Ok(Compiler { name, kind: Kind::Metal(device::open(&wanted).map_err(text)?) })
    }

    /// Compiles a text of `threads` threads.
    ///
    /// # Errors
    /// What the compiler has against it.
    pub(crate) fn compile(&self, text: &KernelText, threads: u32) -> Result<Resources, String> {
        match &self.kind {
            Kind::Cuda(arch) => {
                let made = compile_cuda(&text.source, arch).map_err(|e| e.to_string())?;
                assert!(made.portable.ends_with(&[0]), "{}: PTX ends with a zero", text.entry);
                let log = made.log;
                let number = |before: &str, after| number(&log, before, after);
                let registers = number("Used ", " registers")?;
                Ok(Resources {
                    registers,
                    shared: text.shared_bytes,
                    spilled: number("", " bytes stack frame")?,
                })
            }
            Kind::Hip(arch, clang) => {
                let said = hip(clang, arch, &text.source)?;
                let number = |before: &str| number(&said, before, " [-Rpass");
                let (registers, spilled) = (number(" VGPRs: ")?, number("ScratchSize [bytes/lane]: ")?);
                Ok(Resources { registers, shared: text.shared_bytes, spilled })
            }
            Kind::Metal(device) => {
                let KernelText { source, entry, shared_bytes } = text;
                let code = Code { source, binary: &[], entry, shared_bytes: *shared_bytes, threads };
                device.load(&code).map_err(|e| e.to_string())?;
                Ok(Resources { registers: 0, shared: 0, spilled: 0 })
            }
        }
    }
}

/// The number between `before` and `after`.
fn number(log: &str, before: &str, after: &str) -> Result<u32, String> {
    let end = log.match_indices(after).map(|(end, _)| &log[..end]);
    let digits = end.filter_map(|text| {
        let start = text.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1);
        text[..start].ends_with(before).then(|| text[start..].parse().ok()).flatten()
    });
    digits.last().ok_or_else(|| format!("expected `{before}N{after}` in what the compiler says, got:\n{log}"))
}

/// Makes a text into AMD's assembly; answers what clang says about the resources.
fn hip(clang: &Path, arch: &str, source: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("text.hip");
    std::fs::write(&path, source).map_err(|e| e.to_string())?;
    let mut command = Command::new(clang);
    // Assembly, because a binary would need lld too.
    command.args(["-x", "hip", "--cuda-device-only", "-S", "-O3", "-std=c++17", "-w", "-o", "/dev/null"]);
    command.args(["-nogpuinc", "-nogpulib", "-nostdinc", "-fdeclspec", "-include", PRELUDE]);
    command.args(["-Rpass-analysis=kernel-resource-usage", &format!("--offload-arch={arch}")]);
    let output = command.arg(&path).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    if output.status.success() { Ok(said) } else { Err(said) }
}
