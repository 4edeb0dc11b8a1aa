//! What a device launches: kernel texts, and per node the launches with their buffers.
use ds4_ir::plan::Plan;
use ds4_ir::{Arg, Module, Node, Role};
use serde::{Deserialize, Serialize};

/// Most launches of one node; the largest known has three.
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
    /// Per bucket of the plan, per function of the module, per value that the plan launches: its
    /// launches in order.
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
}

/// Bytes that kernels read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Constant {
    /// Its name.
    pub name: String,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

/// One run of a kernel for a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelLaunch {
    /// Index into [`Kernels::texts`].
    pub text: usize,
    /// Blocks.
    pub grid: [u32; 3],
    /// The kernel's arguments in order.
    pub bindings: Vec<Binding>,
}

/// One buffer of a launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The step buffer: `i32` start, tokens, wanted, 0.
    Step,
    /// Operand of that index: a value, a parameter or a state.
    Value(usize),
    /// Operand of that index, a plain weight.
    Weight(usize, Role),
    /// Operand of that index, a weight of rank 3: per matrix a `u64`, its offset from the base.
    Table(usize, Role),
    /// What the offsets of a table count from.
    Base(usize, Role),
    /// Constant of that index.
    Constant(usize),
    /// The result, or the state that the node updates.
    Out,
    /// So many bytes of the node's scratch memory, from an offset.
    Scratch(u64, u64),
}

/// How a binding is spelled: a letter, then its number, then its role.
impl Serialize for Binding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let role = |r: &Role| if *r == Role::Codes { 'c' } else { 's' };
        serializer.collect_str(&match self {
            Binding::Step => "step".to_string(),
            Binding::Value(i) => format!("v{i}"),
            Binding::Weight(i, r) => format!("w{i}{}", role(r)),
            Binding::Table(i, r) => format!("t{i}{}", role(r)),
            Binding::Base(i, r) => format!("b{i}{}", role(r)),
            Binding::Constant(i) => format!("k{i}"),
            Binding::Out => "out".to_string(),
            Binding::Scratch(offset, bytes) => format!("x{offset}+{bytes}"),
        })
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Binding, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Binding::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("no binding: {text}")))
    }
}

impl Binding {
    fn parse(text: &str) -> Option<Binding> {
        match text {
            "step" => return Some(Binding::Step),
            "out" => return Some(Binding::Out),
            _ => {}
        }
        let rest = text.get(1..)?;
        let with_role = |text: &str| {
            let codes = text.strip_suffix('c').map(|i| (i, Role::Codes));
            let (i, role) = codes.or_else(|| Some((text.strip_suffix('s')?, Role::Scales)))?;
            Some((i.parse().ok()?, role))
        };
        match text.as_bytes()[0] {
            b'v' => Some(Binding::Value(rest.parse().ok()?)),
            b'k' => Some(Binding::Constant(rest.parse().ok()?)),
            b'w' => with_role(rest).map(|(i, r)| Binding::Weight(i, r)),
            b't' => with_role(rest).map(|(i, r)| Binding::Table(i, r)),
            b'b' => with_role(rest).map(|(i, r)| Binding::Base(i, r)),
            b'x' => {
                let (offset, bytes) = rest.split_once('+')?;
                Some(Binding::Scratch(offset.parse().ok()?, bytes.parse().ok()?))
            }
            _ => None,
        }
    }
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
            for (f, (func, values)) in module.funcs.iter().zip(funcs).enumerate() {
                let names = &plan.launches[f].launches;
                counts(&format!("@{}: values with launches", func.name), names.len(), values.len())?;
                for (name, launches) in names.iter().zip(values) {
                    let v = func.find(name).expect("the plan was checked");
                    let node = func.node(v).expect("the plan was checked");
                    let scratch = bucket.funcs[f].scratch[v.index()].map_or(0, |(_, bytes)| bytes);
                    let types = |i: usize| match node.args.get(i) {
                        Some(Arg::Weight(w)) => Some(func.weight_type(*w).dims.len()),
                        _ => None,
                    };
                    let place = |why: String| format!("@{} %{name}: {why}", func.name);
                    counts(
                        &place("launches".to_string()),
                        launches.len().clamp(1, LAUNCHES_MAX),
                        launches.len(),
                    )?;
                    for launch in launches {
                        self.check_launch(launch, node, &types, scratch).map_err(place)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_launch(
        &self,
        launch: &KernelLaunch,
        node: &Node,
        rank: &dyn Fn(usize) -> Option<usize>,
        scratch: u64,
    ) -> Result<(), String> {
        if launch.text >= self.texts.len() {
            return Err(format!("expected one of {} texts, got {}", self.texts.len(), launch.text));
        }
        if launch.grid.contains(&0) {
            return Err(format!("expected a grid of blocks, got {:?}", launch.grid));
        }
        for binding in &launch.bindings {
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

    /// All binaries one behind the other, each after its length in 8 bytes.
    pub(super) fn binaries(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for text in &self.texts {
            all.extend((text.binary.len() as u64).to_le_bytes());
            all.extend(&text.binary);
        }
        all
    }

    /// Gives the texts the binaries of that section.
    pub(super) fn set_binaries(&mut self, mut section: &[u8]) -> Result<(), String> {
        for text in &mut self.texts {
            let (length, rest) = section.split_first_chunk::<8>().ok_or("section binaries: too short")?;
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > rest.len() {
                return Err(format!("section binaries: expected {length} bytes, got {}", rest.len()));
            }
            let (binary, rest) = rest.split_at(length);
            text.binary = binary.to_vec();
            section = rest;
        }
        if section.is_empty() { Ok(()) } else { Err("section binaries: bytes are left".to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_read_back() {
        let all = [
            Binding::Step,
            Binding::Out,
            Binding::Value(3),
            Binding::Weight(12, Role::Codes),
            Binding::Table(1, Role::Scales),
            Binding::Base(1, Role::Codes),
            Binding::Constant(0),
            Binding::Scratch(256, 1024),
        ];
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(text, r#"["step","out","v3","w12c","t1s","b1c","k0","x256+1024"]"#);
        let back: Vec<Binding> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, all);
        for bad in ["", "v", "w1", "x1", "ü1c", "stepp"] {
            assert_eq!(Binding::parse(bad), None, "{bad}");
        }
    }
}
