//! GPUs: one small interface, and a launcher per API that opens its driver at run time.
//!
//! A device runs lists of launches on memory that it owns. It knows nothing of models: kernels come
//! as text or binary, arguments are places in its memory. Nothing here needs a toolkit to be built,
//! and everything is built on every system.
mod arch;
mod backend;
mod body;
pub mod emulator;
mod find;
mod layout;
mod library;
mod metal;
mod objc;
mod rtc;
mod streams;

pub use arch::{carries_over_to, runs_on};
pub(crate) use backend::Backend;
pub use backend::Choice;
pub(crate) use body::DeviceBody;
pub use find::{Found, Wanted, found, open};
pub use rtc::{Compiled, compile_cuda, compile_hip, nvrtc_version};

use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// How a GPU is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Api {
    /// NVIDIA: the CUDA driver and NVRTC.
    Cuda,
    /// AMD: the HIP runtime and hiprtc.
    Hip,
    /// Apple.
    Metal,
}

impl Api {
    /// All APIs by name.
    pub const ALL: [(&'static str, Api); 3] = [("cuda", Api::Cuda), ("hip", Api::Hip), ("metal", Api::Metal)];

    /// Reads a name of [`Api::ALL`].
    pub fn parse(name: &str) -> Option<Api> {
        Api::ALL.iter().find(|(n, _)| *n == name).map(|(_, api)| *api)
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Api::ALL[*self as usize].0)
    }
}

/// What a device is and what it allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// How it is spoken to.
    pub api: Api,
    /// Its number among the devices of its API.
    pub number: usize,
    /// Name as the driver tells it.
    pub name: String,
    /// `sm_90`, `gfx1151`; for Metal `metal`.
    pub arch: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Threads of a warp, wavefront or SIMD group.
    pub subgroup: u32,
    /// Most threads of a block.
    pub threads_max: u32,
    /// Most bytes of shared memory of a block.
    pub shared_bytes_max: u32,
    /// Largest allocation in bytes.
    pub allocation_bytes_max: u64,
    /// Whether it is the emulated one.
    pub is_emulated: bool,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceInfo { api, number, name, arch, memory_bytes, .. } = self;
        write!(f, "{api} device {number}: {name} ({arch}, {:.1} GB)", *memory_bytes as f64 / 1e9)
    }
}

/// A kernel as an artifact carries it.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// The text in the language of the API.
    pub source: &'a str,
    /// What the driver loads, or makes code of by itself, with no compiler beside it; empty where there is none.
    pub binary: &'a [u8],
    /// Name of the function.
    pub entry: &'a str,
    /// Shared memory in bytes that a launch asks for.
    pub shared_bytes: u32,
    /// Threads of a block.
    pub threads: u32,
}

/// A kernel that a device has loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel(u64);

/// A place in a device's memory: an allocation and bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    allocation: u64,
    offset: u64,
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// The buffers, in the order of the kernel's parameters.
    pub arguments: Vec<Place>,
}

/// Launches in order, made ready to be run many times.
pub struct Recording {
    device: Arc<dyn Device>,
    launches: Vec<Launch>,
    /// A graph of the driver; 0 where the API has none.
    graph: u64,
}

impl Recording {
    /// Number of launches.
    pub fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether it holds no launch.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Runs all launches and waits for the last.
    ///
    /// # Errors
    /// A launch that the device refuses or that fails.
    pub fn run(&self) -> Result<()> {
        match self.graph {
            0 => self.device.run(&self.launches),
            graph => self.device.run_graph(graph),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.graph != 0 {
            self.device.drop_graph(self.graph);
        }
    }
}

/// Memory of a device, given back when dropped.
pub struct DeviceMemory {
    device: Arc<dyn Device>,
    allocation: u64,
    bytes: u64,
}

impl DeviceMemory {
    /// Allocates at least one byte.
    ///
    /// # Errors
    /// The device has not as much, in one piece or at all.
    pub fn new(device: &Arc<dyn Device>, what: &str, bytes: u64) -> Result<DeviceMemory> {
        let bytes = bytes.max(1);
        let most = device.info().allocation_bytes_max;
        if bytes > most {
            return Err(Error::Device(format!(
                "{what}: expected at most {most} bytes in one piece on {}, got {bytes}",
                device.info()
            )));
        }
        let allocation = device.allocate(bytes).map_err(|e| Error::Device(format!("{what}: {e}")))?;
        Ok(DeviceMemory { device: device.clone(), allocation, bytes })
    }

    /// Memory of the host where it is: whole pages that hold `bytes` from address `start` on, see
    /// [`Device::page_bytes`]. Nobody may upload to it.
    ///
    /// # Errors
    /// The device cannot use it.
    ///
    /// # Safety
    /// The pages stay readable as long as a launch may read this memory.
    pub unsafe fn of_pages(device: &Arc<dyn Device>, start: usize, bytes: usize) -> Result<DeviceMemory> {
        // SAFETY: the caller vouches for the pages.
        let allocation = unsafe { device.adopt(start, bytes) }?;
        Ok(DeviceMemory { device: device.clone(), allocation, bytes: bytes as u64 })
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The place `offset` bytes from the start.
    pub fn place(&self, offset: u64) -> Place {
        assert!(offset <= self.bytes, "offset {offset} in {} bytes", self.bytes);
        Place { allocation: self.allocation, offset }
    }

    /// Copies bytes of the host to `offset`.
    ///
    /// # Errors
    /// The driver fails.
    pub fn upload(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len());
        if bytes.is_empty() { Ok(()) } else { self.device.upload(self.place(offset), bytes) }
    }

    /// Copies bytes from `offset` to the host.
    ///
    /// # Errors
    /// The driver fails.
    pub fn download(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.check(offset, bytes.len());
        if bytes.is_empty() { Ok(()) } else { self.device.download(self.place(offset), bytes) }
    }

    fn check(&self, offset: u64, bytes: usize) {
        let end = offset.checked_add(bytes as u64);
        assert!(end.is_some_and(|end| end <= self.bytes), "{offset} + {bytes} of {} bytes", self.bytes);
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.device.free(self.allocation);
    }
}

/// A GPU. Calls may come from any thread; each is done when it returns.
pub trait Device: Send + Sync {
    /// What it is.
    fn info(&self) -> &DeviceInfo;

    /// Bytes that are free now.
    ///
    /// # Errors
    /// The driver fails.
    fn memory_free(&self) -> Result<u64>;

    /// Loads a kernel, compiling its text if it has no binary.
    ///
    /// # Errors
    /// The text does not compile, with the compiler's words; the binary is for another device.
    fn load(&self, code: &Code<'_>) -> Result<Kernel>;

    /// Allocates memory; see [`DeviceMemory`], which frees it.
    ///
    /// # Errors
    /// Not enough memory.
    fn allocate(&self, bytes: u64) -> Result<u64>;

    /// The size of the pages of the host's memory, if kernels can read it where it is.
    fn page_bytes(&self) -> Option<usize> {
        None
    }

    /// Pages of the host's memory as an allocation; see [`DeviceMemory`], which frees it.
    ///
    /// # Errors
    /// The device cannot use them.
    ///
    /// # Safety
    /// They stay readable as long as a launch may read them, and no launch writes them.
    unsafe fn adopt(&self, start: usize, bytes: usize) -> Result<u64> {
        Err(Error::Device(format!("{}: {bytes} bytes at {start:#x} are the host's", self.info())))
    }

    /// Gives an allocation back.
    fn free(&self, allocation: u64);

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// The driver fails.
    fn upload(&self, to: Place, bytes: &[u8]) -> Result<()>;

    /// Copies bytes from the device.
    ///
    /// # Errors
    /// The driver fails.
    fn download(&self, from: Place, bytes: &mut [u8]) -> Result<()>;

    /// Runs launches one after the other and waits for the last.
    ///
    /// # Errors
    /// A launch that the device refuses or that fails.
    fn run(&self, launches: &[Launch]) -> Result<()>;

    /// Captures launches as a graph; 0 where the API has none.
    ///
    /// # Errors
    /// The driver fails.
    fn capture(&self, launches: &[Launch]) -> Result<u64>;

    /// Runs a captured graph and waits for its end.
    ///
    /// # Errors
    /// A launch that fails.
    fn run_graph(&self, graph: u64) -> Result<()>;

    /// Gives a captured graph back.
    fn drop_graph(&self, graph: u64);
}

/// Makes a list of launches ready to be run many times, as a graph where the API has them.
///
/// # Errors
/// A launch beyond the device's limits; the driver fails.
pub fn record(device: &Arc<dyn Device>, launches: Vec<Launch>) -> Result<Recording> {
    for launch in &launches {
        check(device.info(), launch)?;
    }
    let graph = if launches.is_empty() { 0 } else { device.capture(&launches)? };
    Ok(Recording { device: device.clone(), launches, graph })
}

fn check(info: &DeviceInfo, launch: &Launch) -> Result<()> {
    let threads: u64 = launch.block.iter().map(|n| u64::from(*n)).product();
    if threads == 0 || threads > u64::from(info.threads_max) {
        let most = info.threads_max;
        return Err(Error::Device(format!("{info}: expected blocks of 1 to {most} threads, got {threads}")));
    }
    if launch.shared_bytes > info.shared_bytes_max {
        return Err(Error::Device(format!(
            "{info}: expected at most {} bytes of shared memory, got {}",
            info.shared_bytes_max, launch.shared_bytes
        )));
    }
    if launch.grid.contains(&0) {
        return Err(Error::Device(format!("{info}: expected a grid of blocks, got {:?}", launch.grid)));
    }
    Ok(())
}
