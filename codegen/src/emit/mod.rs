//! The text of a launch: the only contact with cubecl's compilers.
//!
//! Equal launches give equal bytes in every process and build: what cubecl numbers by chance is
//! renamed, and the entry point has a name of our own. Nothing here needs a device or a library.
mod canonical;
mod device;
mod join;

pub use device::{Build, buffers};

use crate::{Api, Joint, Launch, Target};
use cubecl::Compiler;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::{ComputeKernel, target};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The text of a kernel and what a launcher must know of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelText {
    /// The whole translation unit.
    pub source: String,
    /// Name of the entry point.
    pub entry: String,
    /// Shared memory to ask for at launch, in bytes; 0 where the text declares its own.
    pub shared_bytes: u32,
}

/// Why there is no text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmitError {
    /// Key of the launch.
    pub key: String,
    /// What the compiler said.
    pub why: String,
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}
impl std::error::Error for EmitError {}

/// The text of a launch on a target.
///
/// # Errors
/// What the text needs and the target has not; a panic of the compiler is one of these.
pub fn emit(launch: &Launch, target: &Target) -> Result<KernelText, EmitError> {
    let mut text = plain(launch, target)?;
    if let Some(least) = launch.text.threads_min() {
        text.source = with_bounds(&text.source, launch.block, least, target.api);
    }
    Ok(text)
}

/// The text of launches side by side; of one alone its own.
///
/// # Errors
/// As [`emit`].
pub fn emit_joint(joint: &Joint, target: &Target) -> Result<KernelText, EmitError> {
    if let [part] = &joint.parts[..] {
        return emit(&part.launch, target);
    }
    let texts = joint.parts.iter().map(|part| plain(&part.launch, target));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let text = join::joined(joint, &texts, target.api);
    let mut text = text.map_err(|why| EmitError { key: format!("{} on {target}", joint.key()), why })?;
    text.source = with_bounds(&text.source, joint.block(), JOINT_THREADS_MIN, target.api);
    Ok(text)
}

fn plain(launch: &Launch, target: &Target) -> Result<KernelText, EmitError> {
    let error = |why: String| EmitError { key: format!("{} on {target}", launch.key()), why };
    let compiled = catch_unwind(AssertUnwindSafe(|| compile(launch, target)));
    let kernel = compiled.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()));
        Err(format!("the compiler panicked: {}", text.unwrap_or_default()))
    });
    let kernel = kernel.map_err(error)?;
    let shared = u32::try_from(kernel.shared_memory_size).expect("shared memory fits 32 bits");
    if shared > target.shared_bytes_max {
        let max = target.shared_bytes_max;
        return Err(error(format!("shared memory: expected at most {max} bytes, got {shared}")));
    }
    let entry = launch.text.name().to_string();
    let source = canonical::canonical(&kernel.source, &entry).map_err(error)?;
    let source = with_header(source, target.api);
    let source = with_fragments(source, target);
    let shared_bytes = if target.api == Api::Metal { 0 } else { shared };
    Ok(KernelText { source, entry, shared_bytes })
}

/// The text with the header that declares `__half`: cubecl asks for it only where one is loaded or
/// stored, not where one lives in registers alone.
fn with_header(source: String, api: Api) -> String {
    const HEADER: &str = "#include <cuda_fp16.h>\n";
    let missing = api == Api::Cuda && source.contains("__half") && !source.contains(HEADER);
    if missing { HEADER.to_string() + &source } else { source }
}

/// The text with fragments of our own in place of rocWMMA's, which does not come with the compiler.
fn with_fragments(source: String, target: &Target) -> String {
    const HEADER: &str = "#include <rocwmma/rocwmma.hpp>\n";
    if target.api != Api::Hip || !source.contains(HEADER) {
        return source;
    }
    let generation = target.arch.strip_prefix("gfx").map_or("", |digits| &digits[..2]);
    let ours = format!("#define DS4_MATRIX {generation}\n{}", include_str!("fragments.hip"));
    let source = source.replace("#include <hip/hip_bf16.h>\n", "");
    let source = source.replace("__hip_bfloat16", "ds4_bf16").replace("rocwmma::", "fragments::");
    source.replace(HEADER, &ours)
}

/// Threads that a multiprocessor of NVIDIA's is to hold where launches run side by side, whose branches the
/// compiler sees as one kernel: 168 registers each.
const JOINT_THREADS_MIN: u32 = 384;

/// The text with the least number of blocks that a multiprocessor should hold, so many threads, where the
/// compiler's own choice would spill registers.
fn with_bounds(source: &str, block: [u32; 3], threads_min: u32, api: Api) -> String {
    if api != Api::Cuda {
        return source.to_string();
    }
    let threads: u32 = block.iter().product();
    let blocks = (threads_min / threads).max(1);
    let (plain, bounded) =
        (format!("__launch_bounds__({threads})"), format!("__launch_bounds__({threads}, {blocks})"));
    source.replacen(&plain, &bounded, 1)
}

fn compile(launch: &Launch, at: &Target) -> Result<ComputeKernel, String> {
    let definition = launch.text.define(&Build::new(launch, at));
    let options = CompilationOptions {
        warp_size: at.subgroup as usize,
        supports_features: CppSupportedFeatures { dp4a: at.dot_i8, ..Default::default() },
        amd_wmma: None,
    };
    let compiled = match at.api {
        Api::Cuda => CppCompiler::<target::Cuda>::default().compile(definition, &options),
        Api::Hip => CppCompiler::<target::Hip>::default().compile(definition, &options),
        Api::Metal => CppCompiler::<target::Metal>::default().compile(definition, &options),
    };
    compiled.map_err(|e| e.to_string())
}
