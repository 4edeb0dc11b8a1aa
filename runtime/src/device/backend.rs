//! A model on a device: kernels, weights, and the launches of every bucket.
use super::{Api, Code, Device, DeviceMemory, Kernel, Wanted, open};
use crate::artifact::{Binding, Buffer, Kernels};
use crate::program::Place;
use crate::tune::Choices;
use crate::weights::Weights;
use crate::{Error, Result};
use ds4_ir::plan::{ALIGN, Plan};
use ds4_ir::{Arg, Module, Role, Value, WeightSource};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Which device an engine is to run on.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Its number among those of the API that the artifact is for; the first if absent.
    pub number: Option<usize>,
    /// The folder in which the emulated driver is built; `None` for the real one.
    pub emulator: Option<PathBuf>,
}

/// Where an argument of a launch lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    /// The step buffer.
    Step,
    /// The arena, from an address on.
    Arena(u64),
    /// A state of the session.
    State(usize),
    /// A parameter of the session.
    Param(usize),
    /// The weights, from an offset on.
    Weights(u64),
    /// The tables of experts, from an offset on.
    Tables(u64),
    /// The constants of kernels, from an offset on.
    Constants(u64),
}

/// A launch whose arguments are known but for the session's memory.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) kernel: Kernel,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
    pub(crate) arguments: Vec<Argument>,
}

/// What all sessions of a model share on a device.
pub(crate) struct Backend {
    pub(crate) device: Arc<dyn Device>,
    /// The launches of graph `main`, per bucket.
    pub(crate) programs: Vec<Vec<Planned>>,
    pub(crate) weights: DeviceMemory,
    pub(crate) tables: DeviceMemory,
    pub(crate) constants: DeviceMemory,
}

/// Where weights lie in the device's memory.
struct Layout<'a> {
    /// Offset of each range of the files by where it lies on the host.
    ranges: HashMap<(usize, usize), u64>,
    /// The ranges in order of their offsets.
    order: Vec<(u64, &'a [u8])>,
    bytes: u64,
}

impl<'a> Layout<'a> {
    /// Gives every range that the module's weights name one place, once.
    fn new(module: &Module, weights: &'a Weights) -> Layout<'a> {
        let mut layout = Layout { ranges: HashMap::new(), order: Vec::new(), bytes: 0 };
        for index in 0..module.weights.len() {
            for (codes, scales) in weights.weight(index).items {
                layout.add(codes);
                layout.add(scales);
            }
        }
        layout
    }

    fn add(&mut self, bytes: &'a [u8]) {
        let at = self.bytes;
        if self.ranges.contains_key(&key(bytes)) {
            return;
        }
        self.ranges.insert(key(bytes), at);
        self.order.push((at, bytes));
        self.bytes = (at + bytes.len() as u64).next_multiple_of(ALIGN);
    }

    fn at(&self, bytes: &[u8]) -> u64 {
        self.ranges[&key(bytes)]
    }
}

fn key(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr() as usize, bytes.len())
}

impl Backend {
    /// Opens the device, uploads the weights and loads the kernels.
    ///
    /// # Errors
    /// No device that fits the kernels, not enough memory for the weights, a text that does not
    /// compile.
    pub(crate) fn new(
        module: &Module,
        plan: &Plan,
        kernels: &Kernels,
        weights: &Weights,
        main: usize,
        choice: &Choice,
    ) -> Result<Backend> {
        let device = open_for(kernels, choice)?;
        let layout = Layout::new(module, weights);
        let free = device.memory_free()?;
        if layout.bytes > free {
            let (info, needed) = (device.info(), layout.bytes);
            return Err(Error::Device(format!("{info}: the weights need {needed} bytes, {free} are free")));
        }
        let loaded = load(&device, kernels)?;
        let memory = DeviceMemory::new(&device, "weights", layout.bytes)?;
        for (at, bytes) in &layout.order {
            memory.upload(*at, bytes)?;
        }
        let mut tables = Tables::default();
        let (constants, constant_at) = constants(&device, kernels)?;
        let choices = Choices::of(None);
        let mut programs = Vec::new();
        for (b, bucket) in plan.buckets.iter().enumerate() {
            let mut program = Vec::new();
            for (index, call) in module.graphs[main].calls.iter().enumerate() {
                let place = Place::new(module, bucket, main, index, (weights, &choices));
                let blocks = module.funcs[call.func].launches();
                for (members, launches) in blocks.iter().zip(&kernels.launches[b][call.func]) {
                    let node = |member: usize| Resolver {
                        place: &place,
                        out: members[member],
                        layout: &layout,
                        weights,
                        constants: &constant_at,
                    };
                    for launch in launches {
                        let text = &kernels.texts[launch.text];
                        let argument = |b: &Buffer| node(b.member).argument(&b.binding, &mut tables);
                        program.push(Planned {
                            kernel: loaded[launch.text],
                            grid: launch.grid,
                            block: text.block,
                            shared_bytes: text.shared_bytes,
                            arguments: launch.buffers.iter().map(argument).collect(),
                        });
                    }
                }
            }
            programs.push(program);
        }
        let table_memory = DeviceMemory::new(&device, "tables of experts", tables.bytes.len() as u64)?;
        table_memory.upload(0, &tables.bytes)?;
        Ok(Backend { device, programs, weights: memory, tables: table_memory, constants })
    }
}

/// The device that is chosen, or the first of the API with the subgroup that the kernels count with.
fn open_for(kernels: &Kernels, choice: &Choice) -> Result<Arc<dyn Device>> {
    let api = Api::parse(kernels.api())
        .ok_or_else(|| Error::Invalid(format!("kernels: expected a known API, got {}", kernels.target)))?;
    let (number, emulator) = (choice.number, choice.emulator.clone());
    open(&Wanted { api, number, subgroup: Some(kernels.subgroup), emulator })
}

/// Loads every text, on all cores: compiling is what takes the time.
fn load(device: &Arc<dyn Device>, kernels: &Kernels) -> Result<Vec<Kernel>> {
    let load = |text: &crate::artifact::KernelText| {
        let fits = text.arch.as_ref() == Some(&device.info().arch) && !device.info().is_emulated;
        device.load(&Code {
            source: &text.source,
            binary: if fits { &text.binary } else { &[] },
            entry: &text.entry,
            shared_bytes: text.shared_bytes,
            threads: text.block.iter().product(),
        })
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let each = kernels.texts.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let parts = kernels.texts.chunks(each);
        let load = &load;
        let running: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().map(load).collect::<Result<Vec<Kernel>>>()))
            .collect();
        let mut all = Vec::new();
        for part in running {
            all.extend(part.join().expect("loading kernels does not panic")?);
        }
        Ok(all)
    })
}

/// The constants in one memory, and where each begins.
fn constants(device: &Arc<dyn Device>, kernels: &Kernels) -> Result<(DeviceMemory, Vec<u64>)> {
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for constant in &kernels.constants {
        bytes.resize(bytes.len().next_multiple_of(ALIGN as usize), 0);
        starts.push(bytes.len() as u64);
        bytes.extend(&constant.bytes);
    }
    let memory = DeviceMemory::new(device, "constants", bytes.len() as u64)?;
    memory.upload(0, &bytes)?;
    Ok((memory, starts))
}

/// Tables of experts, each once.
#[derive(Default)]
struct Tables {
    bytes: Vec<u8>,
    known: HashMap<(usize, bool), u64>,
}

/// What bindings of one node resolve to.
struct Resolver<'a> {
    place: &'a Place<'a>,
    /// What the node defines.
    out: Value,
    layout: &'a Layout<'a>,
    weights: &'a Weights,
    constants: &'a [u64],
}

impl Resolver<'_> {
    /// The argument for a binding; the section has passed its check.
    fn argument(&self, binding: &Binding, tables: &mut Tables) -> Argument {
        let (place, out) = (self.place, self.out);
        let node = place.func.node(out).expect("checked");
        match binding {
            Binding::Step => Argument::Step,
            Binding::Constant(i) => Argument::Constants(self.constants[*i]),
            Binding::Base(..) => Argument::Weights(0),
            Binding::Weight(i, role) => {
                let item = self.weights.weight(self.weight(*i)).items[0];
                Argument::Weights(self.layout.at(of_role(item, *role)))
            }
            Binding::Table(i, role) => Argument::Tables(self.table(*i, *role, tables)),
            Binding::Scratch(offset, _) => {
                let (at, _) = place.bucket.funcs[place.call.func].scratch[out.index()].expect("checked");
                Argument::Arena(place.base + at + offset)
            }
            Binding::Out if place.func.ty(out).state().is_some() => Argument::State(place.state(out)),
            Binding::Out => Argument::Arena(place.address(out).0),
            Binding::Value(i) => {
                let Arg::Value(v) = node.args[*i] else { unreachable!("checked") };
                if place.func.ty(v).state().is_some() {
                    return Argument::State(place.state(v));
                }
                match place.param(v) {
                    Some(index) => Argument::Param(index),
                    None => Argument::Arena(place.address(v).0),
                }
            }
        }
    }

    /// Index of the module weight that operand `i` is bound to.
    fn weight(&self, i: usize) -> usize {
        let Arg::Weight(w) = self.place.func.node(self.out).expect("checked").args[i] else {
            unreachable!("checked")
        };
        self.place.call.weights[w.index()]
    }

    fn table(&self, i: usize, role: Role, tables: &mut Tables) -> u64 {
        let index = self.weight(i);
        let entry = (index, role == Role::Codes);
        if let Some(at) = tables.known.get(&entry) {
            return *at;
        }
        tables.bytes.resize(tables.bytes.len().next_multiple_of(ALIGN as usize), 0);
        let at = tables.bytes.len() as u64;
        for item in self.weights.weight(index).items {
            tables.bytes.extend(self.layout.at(of_role(*item, role)).to_le_bytes());
        }
        tables.known.insert(entry, at);
        at
    }
}

fn of_role<'a>((codes, scales): (&'a [u8], &'a [u8]), role: Role) -> &'a [u8] {
    if role == Role::Codes { codes } else { scales }
}
