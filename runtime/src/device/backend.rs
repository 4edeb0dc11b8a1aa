//! A model on a device: kernels, weights, and the launches of every bucket.
use super::layout::Layout;
use super::{Api, Code, Device, DeviceInfo, DeviceMemory, Kernel, Wanted, carries_over_to, open, runs_on};
use crate::artifact::{Binding, Buffer, KernelText, Kernels};
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
    /// One of the memories that hold weights, from an offset on.
    Weights(usize, u64),
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
    /// First the one for what is uploaded.
    pub(crate) weights: Vec<DeviceMemory>,
    pub(crate) tables: DeviceMemory,
    pub(crate) constants: DeviceMemory,
}

impl Backend {
    /// Opens the device, brings the weights there and loads the kernels.
    ///
    /// Weights that are used where they lie must stay mapped as long as anything runs.
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
        let layout = Layout::new(module, weights, device.page_bytes(), device.info().allocation_bytes_max);
        let free = device.memory_free()?;
        if layout.bytes > free {
            let (info, needed) = (device.info(), layout.bytes);
            return Err(Error::Device(format!("{info}: the weights need {needed} bytes, {free} are free")));
        }
        let loaded = load(&device, kernels)?;
        let mut memories = vec![DeviceMemory::new(&device, "weights", layout.bytes)?];
        for (at, bytes) in &layout.order {
            memories[0].upload(*at, bytes)?;
        }
        for view in &layout.views {
            // SAFETY: the pages are those of a mapped file, which the engine keeps as long as its sessions.
            memories.push(unsafe { DeviceMemory::of_pages(&device, view.start, view.bytes) }?);
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
        Ok(Backend { device, programs, weights: memories, tables: table_memory, constants })
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
    let load = |text: &KernelText| {
        device.load(&Code {
            source: &text.source,
            binary: binary(text, device.info()),
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

/// What the device's driver takes of a text as it is; empty if it must be compiled.
fn binary<'a>(text: &'a KernelText, device: &DeviceInfo) -> &'a [u8] {
    match &text.arch {
        Some(_) if device.is_emulated => &[],
        Some(arch) if runs_on(arch, &device.arch) => &text.binary,
        Some(arch) if carries_over_to(arch, &device.arch) => &text.portable,
        _ => &[],
    }
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
            Binding::Base(i, role) => Argument::Weights(self.layout.memory(self.weight(*i), *role), 0),
            Binding::Weight(i, role) => {
                let index = self.weight(*i);
                let item = self.weights.weight(index).items[0];
                Argument::Weights(self.layout.memory(index, *role), self.layout.at(index, *role, item))
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
            tables.bytes.extend(self.layout.at(index, role, *item).to_le_bytes());
        }
        tables.known.insert(entry, at);
        at
    }
}
