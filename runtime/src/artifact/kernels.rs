//! What a device launches: kernel texts, and per launch of a function what runs it, with its buffers.
use super::binding::{Binding, Buffer};
use ds4_ir::plan::Plan;
use ds4_ir::{Arg, Func, Module, Value};
use serde::{Deserialize, Serialize};

/// Most launches per node; the largest known has three.
const LAUNCHES_MAX: usize = 16;
/// Most threads of a block on any device.
const THREADS_MAX: u64 = 1024;

/// The kernels of an artifact for one target.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Kernels {
    /// What they were made for, such as `cuda:sm_90`.
    pub target: String,
    /// Threads of a subgroup that the texts count with.
    pub subgroup: u32,
    /// Distinct texts.
    pub texts: Vec<KernelText>,
    /// Bytes that kernels read and no model holds: name, bytes.
    pub constants: Vec<Constant>,
    /// Per bucket of the plan, per function of the module, per [launch](Func::launches) of the function, a node
    /// or a block of them: what runs it, in order.
    pub launches: Vec<Vec<Vec<Vec<KernelLaunch>>>>,
}

/// One text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelText {
    /// Name of the kernel; of the function in the text too.
    pub entry: String,
    /// The whole translation unit in the target's language.
    pub source: String,
    /// Threads of a block.
    pub block: [u32; 3],
    /// Shared memory in bytes that a launch asks for.
    pub shared_bytes: u32,
    /// The architecture that the binary is for; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// What the driver loads without a compiler; empty without one. Stored in a section of its own.
    #[serde(skip)]
    pub binary: Vec<u8>,
    /// What the drivers of later devices make their code of: PTX of NVIDIA's, ended by a zero; empty without one.
    /// Stored in a section of its own.
    #[serde(skip)]
    pub portable: Vec<u8>,
}

/// A section of bytes of every text.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Binary,
    Portable,
}

impl Part {
    fn of(self, text: &KernelText) -> &[u8] {
        match self {
            Part::Binary => &text.binary,
            Part::Portable => &text.portable,
        }
    }

    /// Gives a text its part. A driver reads a portable one up to its zero.
    fn set(self, text: &mut KernelText, bytes: &[u8]) -> Result<(), String> {
        match self {
            Part::Binary => text.binary = bytes.to_vec(),
            Part::Portable if !bytes.is_empty() && !bytes.ends_with(&[0]) => {
                return Err(format!("{}: expected a zero at the end", text.entry));
            }
            Part::Portable => text.portable = bytes.to_vec(),
        }
        Ok(())
    }
}

/// Bytes that kernels read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// Its name.
    pub name: String,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

/// One run of a text: for a node, or for several of a block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelLaunch {
    /// Index into [`Kernels::texts`].
    pub text: usize,
    /// Blocks.
    pub grid: [u32; 3],
    /// The text's arguments in order.
    pub buffers: Vec<Buffer>,
}

/// A launch of a function in a bucket.
struct Block<'a> {
    func: &'a Func,
    members: &'a [Value],
    /// What the plan gives each value of the function, as address and bytes.
    scratch: &'a [Option<(u64, u64)>],
}

impl Kernels {
    /// The API that the target names.
    pub fn api(&self) -> &str {
        self.target.split_once(':').map_or(&self.target, |(api, _)| api)
    }

    /// The architecture that the target names.
    pub fn arch(&self) -> &str {
        self.target.split_once(':').map_or("", |(_, arch)| arch)
    }

    /// Proves that the launches fit a module and its plan: every text and operand that is named is
    /// there and of its kind, every piece of scratch lies in what the plan gives the node.
    ///
    /// # Errors
    /// The first that does not, by function and value.
    pub fn check(&self, module: &Module, plan: &Plan) -> Result<(), String> {
        for text in &self.texts {
            let threads: u64 = text.block.iter().map(|n| u64::from(*n)).product();
            if threads == 0 || threads > THREADS_MAX {
                return Err(format!(
                    "{}: expected blocks of 1 to {THREADS_MAX} threads, got {threads}",
                    text.entry
                ));
            }
        }
        let counts = |what: &str, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(format!("{what}: expected {expected}, got {got}")) }
        };
        counts("buckets with launches", plan.buckets.len(), self.launches.len())?;
        for (bucket, funcs) in plan.buckets.iter().zip(&self.launches) {
            counts("functions with launches", module.funcs.len(), funcs.len())?;
            for (f, (func, blocks)) in module.funcs.iter().zip(funcs).enumerate() {
                let known = func.launches();
                counts(&format!("@{}: launches with kernels", func.name), known.len(), blocks.len())?;
                for (members, launches) in known.iter().zip(blocks) {
                    let scratch = &bucket.funcs[f].scratch;
                    let block = Block { func, members, scratch };
                    let place = |why: String| format!("@{} %{}: {why}", func.name, func.name(members[0]));
                    let most = LAUNCHES_MAX * members.len();
                    counts(&place("launches".to_string()), launches.len().clamp(1, most), launches.len())?;
                    for launch in launches {
                        self.check_launch(launch, &block).map_err(place)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_launch(&self, launch: &KernelLaunch, block: &Block<'_>) -> Result<(), String> {
        if launch.text >= self.texts.len() {
            return Err(format!("expected one of {} texts, got {}", self.texts.len(), launch.text));
        }
        if launch.grid.contains(&0) {
            return Err(format!("expected a grid of blocks, got {:?}", launch.grid));
        }
        for Buffer { member, binding } in &launch.buffers {
            let Some(v) = block.members.get(*member) else {
                let count = block.members.len();
                return Err(format!("expected one of {count} members of the block, got {member}"));
            };
            let node = block.func.node(*v).expect("launches are nodes");
            let rank = |i: usize| match node.args.get(i) {
                Some(Arg::Weight(w)) => Some(block.func.weight_type(*w).dims.len()),
                _ => None,
            };
            let scratch = block.scratch[v.index()].map_or(0, |(_, bytes)| bytes);
            let fits = match binding {
                Binding::Step | Binding::Out => true,
                Binding::Value(i) => matches!(node.args.get(*i), Some(Arg::Value(_))),
                Binding::Weight(i, _) => rank(*i).is_some_and(|n| n < 3),
                Binding::Table(i, _) | Binding::Base(i, _) => rank(*i) == Some(3),
                Binding::Constant(i) => *i < self.constants.len(),
                Binding::Scratch(at, bytes) => at.checked_add(*bytes).is_some_and(|end| end <= scratch),
            };
            if !fits {
                return Err(format!("`{}` has nothing for the binding {binding:?}", node.op.name));
            }
        }
        Ok(())
    }

    /// That part of all texts one behind the other, each after its length in 8 bytes.
    pub(super) fn part(&self, part: Part) -> Vec<u8> {
        let mut all = Vec::new();
        for text in &self.texts {
            let bytes = part.of(text);
            all.extend((bytes.len() as u64).to_le_bytes());
            all.extend(bytes);
        }
        all
    }

    /// Gives the texts what that section has for them.
    pub(super) fn set_part(&mut self, part: Part, mut section: &[u8]) -> Result<(), String> {
        for text in &mut self.texts {
            let (length, rest) = section.split_first_chunk::<8>().ok_or("too short")?;
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > rest.len() {
                return Err(format!("expected {length} bytes, got {}", rest.len()));
            }
            let (bytes, rest) = rest.split_at(length);
            section = rest;
            part.set(text, bytes)?;
        }
        if section.is_empty() { Ok(()) } else { Err("bytes are left".to_string()) }
    }
}
