//! What a launch is: a text, its geometry, and the buffers it is given.
use crate::Target;
use ds4_ir::Role;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One buffer of a launch. A kernel's arguments are its bindings in order and nothing else.
///
/// Every address is a multiple of 16 bytes, that of a base buffer plus each of its table's offsets
/// included. Memory goes on to the next such multiple behind a buffer's end: kernels may load from there
/// what they do not use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The [step buffer](crate::step).
    Step,
    /// Operand of that index: a value, a parameter or a state.
    Value(usize),
    /// Operand of that index, a plain weight: its codes or its scales.
    Weight(usize, Role),
    /// Operand of that index, a weight of rank 3: one `u64` per expert, the offset in bytes of its
    /// codes or scales from the [base](Binding::Base).
    Table(usize, Role),
    /// The buffer that the table's offsets count from.
    Base(usize, Role),
    /// Bytes that are the same in every model.
    Constant(&'static Constant),
    /// The result; of an op that writes a state, the state.
    Out,
    /// A part of the scratch memory that the plan gives the node.
    Scratch {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        bytes: u64,
    },
}

impl Binding {
    /// Where the binding ends in the scratch memory of its node; 0 of others.
    pub(crate) fn scratch_end(&self) -> u64 {
        match self {
            Binding::Scratch { offset, bytes } => offset + bytes,
            _ => 0,
        }
    }
}

/// Bytes that kernels read and no model holds.
pub struct Constant {
    /// Unique among constants.
    pub name: &'static str,
    /// Makes the bytes, little endian.
    pub bytes: fn() -> Vec<u8>,
}

impl PartialEq for Constant {
    fn eq(&self, other: &Constant) -> bool {
        self.name == other.name
    }
}
impl Eq for Constant {}
impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Everything a kernel's text is specialised on, beside block and target.
///
/// `Debug` names every field that the text depends on: it is the key by which equal texts are found.
pub trait Text: fmt::Debug + Send + Sync {
    /// The kernel's name: the op, or the op and the part of it, in snake case.
    fn name(&self) -> &'static str;

    /// Whether it holds so many sums that NVIDIA's compiler would rather spill some than let a
    /// multiprocessor hold fewer threads; it is then told how few will do.
    fn holds_many_sums(&self) -> bool {
        false
    }

    /// How many threads are enough for a multiprocessor of NVIDIA's, where its compiler's own choice would spill
    /// registers: 768 have 80 each.
    fn threads_min(&self) -> Option<u32> {
        self.holds_many_sums().then_some(768)
    }

    /// How far a result may be from its op's meaning where this text takes part, if that is more than the
    /// [kernel's own](Kernel::tolerance).
    fn tolerance(&self) -> f64 {
        0.0
    }

    /// The kernel as cubecl sees it.
    #[cfg(feature = "gpu")]
    fn define(&self, at: &crate::emit::Build) -> cubecl::prelude::KernelDefinition;
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What runs.
    pub text: Arc<dyn Text>,
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks; a constant of node and bucket.
    pub grid: [u32; 3],
    /// The kernel's arguments.
    pub bindings: Vec<Binding>,
}

impl Launch {
    /// Everything that the text depends on but the target: launches of one target with equal keys
    /// have equal texts.
    pub fn key(&self) -> String {
        format!("{} {:?} block {:?}", self.text.name(), self.text, self.block)
    }
}

/// The kernels of one op.
pub struct Kernel {
    /// The op.
    pub op: &'static str,
    /// The launches of a node in order, `None` if there is no kernel for these types or literals on
    /// the target.
    pub launches: fn(&Site<'_>, &Maxima, &Target) -> Option<Vec<Launch>>,
    /// Nodes to test it on.
    pub cases: &'static [Case],
    /// How far a real result may be from the meaning in double precision, as a share of the largest
    /// magnitude of its row. Codes and integers are compared after decoding.
    pub tolerance: f64,
}

/// A node that a kernel is tested on, and the steps that are run one after the other.
pub struct Case {
    /// The header of a function.
    pub header: &'static str,
    /// Its only line: op, operands and result type.
    pub node: &'static str,
    /// The positions of each step's tokens.
    pub steps: &'static [Range<u32>],
}

impl Case {
    /// The function's text; it returns what the node defines.
    pub fn func(&self) -> String {
        format!("func @case({}) {{\n  %out = {}\n  return %out\n}}\n", self.header, self.node)
    }
}
