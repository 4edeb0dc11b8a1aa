//! The launcher for NVIDIA and AMD: the CUDA driver and the HIP runtime, opened at run time.
//!
//! Both APIs have the same functions under two names; what differs is how a thread says which device
//! it means, and how a device's architecture is asked for.
use super::library::{self, functions};
use super::{Api, Code, Device, DeviceInfo, Kernel, Launch, Place, rtc};
use crate::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};

type Code32 = c_int;
type Handle = *mut c_void;

functions! { Driver:
    init = ["cuInit", "hipInit"](c_uint) -> Code32;
    device_count = ["cuDeviceGetCount", "hipGetDeviceCount"](*mut c_int) -> Code32;
    device_get = ["cuDeviceGet", "hipDeviceGet"](*mut c_int, c_int) -> Code32;
    device_name = ["cuDeviceGetName", "hipDeviceGetName"](*mut c_char, c_int, c_int) -> Code32;
    device_memory = ["cuDeviceTotalMem_v2", "hipDeviceTotalMem"](*mut usize, c_int) -> Code32;
    device_attribute = ["cuDeviceGetAttribute", "hipDeviceGetAttribute"](*mut c_int, c_int, c_int) -> Code32;
    memory_info = ["cuMemGetInfo_v2", "hipMemGetInfo"](*mut usize, *mut usize) -> Code32;
    allocate = ["cuMemAlloc_v2", "hipMalloc"](*mut u64, usize) -> Code32;
    free = ["cuMemFree_v2", "hipFree"](u64) -> Code32;
    upload = ["cuMemcpyHtoD_v2", "hipMemcpyHtoD"](u64, *const c_void, usize) -> Code32;
    download = ["cuMemcpyDtoH_v2", "hipMemcpyDtoH"](*mut c_void, u64, usize) -> Code32;
    module_load = ["cuModuleLoadData", "hipModuleLoadData"](*mut Handle, *const c_void) -> Code32;
    module_unload = ["cuModuleUnload", "hipModuleUnload"](Handle) -> Code32;
    function_get = ["cuModuleGetFunction", "hipModuleGetFunction"](*mut Handle, Handle, *const c_char) -> Code32;
    function_set = ["cuFuncSetAttribute", "hipFuncSetAttribute"](Handle, c_int, c_int) -> Code32;
    stream_create = ["cuStreamCreate", "hipStreamCreateWithFlags"](*mut Handle, c_uint) -> Code32;
    stream_destroy = ["cuStreamDestroy_v2", "hipStreamDestroy"](Handle) -> Code32;
    stream_synchronize = ["cuStreamSynchronize", "hipStreamSynchronize"](Handle) -> Code32;
    capture_begin = ["cuStreamBeginCapture_v2", "hipStreamBeginCapture"](Handle, c_int) -> Code32;
    capture_end = ["cuStreamEndCapture", "hipStreamEndCapture"](Handle, *mut Handle) -> Code32;
    graph_instantiate = ["cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags"](*mut Handle, Handle, u64) -> Code32;
    graph_launch = ["cuGraphLaunch", "hipGraphLaunch"](Handle, Handle) -> Code32;
    graph_destroy = ["cuGraphDestroy", "hipGraphDestroy"](Handle) -> Code32;
    graph_exec_destroy = ["cuGraphExecDestroy", "hipGraphExecDestroy"](Handle) -> Code32;
    launch = ["cuLaunchKernel", "hipModuleLaunchKernel"](
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
    ) -> Code32;
    error_text = ["cuGetErrorString", "hipDrvGetErrorString"](Code32, *mut *const c_char) -> Code32;
}

functions! { CudaOnly:
    retain = ["cuDevicePrimaryCtxRetain"](*mut Handle, c_int) -> Code32;
    release = ["cuDevicePrimaryCtxRelease_v2"](c_int) -> Code32;
    set_current = ["cuCtxSetCurrent"](Handle) -> Code32;
}

functions! { HipOnly:
    set_device = ["hipSetDevice"](c_int) -> Code32;
    properties = ["hipGetDevicePropertiesR0600"](*mut c_void, c_int) -> Code32;
}

const STREAM_NON_BLOCKING: c_uint = 1;
const CAPTURE_THREAD_LOCAL: c_int = 1;
const FUNCTION_DYNAMIC_SHARED_BYTES: c_int = 8;
/// Shared memory that every kernel may use without asking.
const SHARED_BYTES_PLAIN: u32 = 48 * 1024;

/// Numbers of attributes of a device.
struct Attributes {
    threads_max: c_int,
    shared_bytes: c_int,
    shared_bytes_asked: c_int,
    subgroup: c_int,
}
const CUDA_ATTRIBUTES: Attributes =
    Attributes { threads_max: 1, shared_bytes: 8, shared_bytes_asked: 97, subgroup: 10 };
const HIP_ATTRIBUTES: Attributes =
    Attributes { threads_max: 56, shared_bytes: 74, shared_bytes_asked: 74, subgroup: 87 };
/// CUDA's compute capability: major and minor.
const CUDA_CAPABILITY: [c_int; 2] = [75, 76];
/// Where HIP's properties hold the name of the architecture, and their size with room to grow.
const HIP_ARCH_OFFSET: usize = 1160;
const HIP_PROPERTIES_BYTES: usize = 4096;

/// How a thread says which device its calls mean.
enum Turn {
    Cuda(CudaOnly, usize),
    Hip(HipOnly),
}

/// One GPU of NVIDIA or AMD.
struct StreamDevice {
    driver: Driver,
    turn: Turn,
    info: DeviceInfo,
    ordinal: c_int,
    stream: usize,
    modules: Mutex<Vec<usize>>,
    /// The emulator tells more of a failure; its library holds the compiler too.
    emulator: Option<super::emulator::Voice>,
    library: Library,
}

fn column(api: Api) -> usize {
    usize::from(api == Api::Hip)
}

fn driver(api: Api, emulator: Option<&Path>) -> Result<(Library, Driver)> {
    let text = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_string()).collect() };
    let (what, names) = match (emulator, api) {
        (Some(path), _) => ("the emulated driver", vec![path.display().to_string()]),
        (None, Api::Hip) => (
            "the HIP runtime",
            text(&["libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "/opt/rocm/lib/libamdhip64.so"]),
        ),
        (None, _) => ("the CUDA driver", text(&["libcuda.so.1", "libcuda.so", "nvcuda.dll"])),
    };
    let library = library::open(what, &names)?;
    let driver = Driver::find(&library, column(api))?;
    // SAFETY: the function takes flags, of which there are none.
    driver.check("init", unsafe { (driver.init)(0) })?;
    Ok((library, driver))
}

/// All devices of the driver.
///
/// # Errors
/// No driver, or it fails.
pub(super) fn devices(api: Api, emulator: Option<&Path>) -> Result<Vec<DeviceInfo>> {
    let (library, driver) = driver(api, emulator)?;
    let mut count = 0;
    // SAFETY: a place for a number.
    driver.check("device count", unsafe { (driver.device_count)(&mut count) })?;
    (0..count).map(|i| driver.info(&library, api, i, emulator.is_some())).collect()
}

/// Opens the device of that number.
///
/// # Errors
/// No driver, no such device, or the driver fails.
pub(super) fn open(api: Api, number: usize, emulator: Option<&Path>) -> Result<Arc<dyn Device>> {
    let (library, driver) = driver(api, emulator)?;
    let ordinal = c_int::try_from(number).map_err(|_| Error::Device(format!("{api} device {number}")))?;
    let info = driver.info(&library, api, ordinal, emulator.is_some())?;
    let turn = if api == Api::Hip {
        Turn::Hip(HipOnly::find(&library, 0)?)
    } else {
        let cuda = CudaOnly::find(&library, 0)?;
        let mut context = null_mut();
        // SAFETY: a place for a handle; `drop` releases it.
        driver.check("cuDevicePrimaryCtxRetain", unsafe { (cuda.retain)(&mut context, ordinal) })?;
        Turn::Cuda(cuda, context as usize)
    };
    let emulator = emulator.map(|_| super::emulator::Voice::find(&library)).transpose()?;
    let modules = Mutex::default();
    let mut device = StreamDevice { driver, turn, info, ordinal, stream: 0, modules, emulator, library };
    device.enter()?;
    let mut stream = null_mut();
    // SAFETY: a place for a handle, in the device that was just entered.
    let made = unsafe { (device.driver.stream_create)(&mut stream, STREAM_NON_BLOCKING) };
    device.check("stream", made)?;
    device.stream = stream as usize;
    Ok(Arc::new(device))
}

impl Driver {
    fn check(&self, what: &str, code: Code32) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: a place for a pointer to a text that the driver keeps.
        let told = unsafe { (self.error_text)(code, &mut text) } == 0 && !text.is_null();
        // SAFETY: not null, and the driver's texts end with a zero.
        let text = if told { unsafe { CStr::from_ptr(text) }.to_string_lossy() } else { "unknown".into() };
        Err(Error::Device(format!("{what}: {text} (code {code})")))
    }

    fn info(&self, library: &Library, api: Api, ordinal: c_int, is_emulated: bool) -> Result<DeviceInfo> {
        let mut device = 0;
        let mut name = [0u8; 256];
        let mut memory = 0;
        // SAFETY: places for a number, for at most 256 characters with a zero, and for a size.
        unsafe {
            self.check(&format!("{api} device {ordinal}"), (self.device_get)(&mut device, ordinal))?;
            self.check("device name", (self.device_name)(name.as_mut_ptr().cast(), 256, device))?;
            self.check("device memory", (self.device_memory)(&mut memory, device))?;
        }
        let attribute = |id: c_int| -> Result<u32> {
            let mut value = 0;
            // SAFETY: a place for a number.
            self.check("device attribute", unsafe { (self.device_attribute)(&mut value, id, device) })?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let (ids, arch) = if api == Api::Hip {
            let hip = HipOnly::find(library, 0)?;
            let mut properties = [0u64; HIP_PROPERTIES_BYTES / 8];
            // SAFETY: more than the struct takes in any version, and aligned as it is.
            let code = unsafe { (hip.properties)(properties.as_mut_ptr().cast(), ordinal) };
            self.check("device properties", code)?;
            let bytes = properties.iter().flat_map(|w| w.to_ne_bytes()).skip(HIP_ARCH_OFFSET);
            // Features may follow the name: `gfx942:sramecc+:xnack-`.
            let arch = bytes.take(256).take_while(|b| *b != 0 && *b != b':').map(char::from).collect();
            (HIP_ATTRIBUTES, arch)
        } else {
            let [major, minor] = CUDA_CAPABILITY;
            (CUDA_ATTRIBUTES, format!("sm_{}{}", attribute(major)?, attribute(minor)?))
        };
        let name = CStr::from_bytes_until_nul(&name).map(CStr::to_string_lossy).unwrap_or_default();
        Ok(DeviceInfo {
            api,
            number: usize::try_from(ordinal).unwrap_or(0),
            name: name.into_owned(),
            arch,
            memory_bytes: memory as u64,
            subgroup: attribute(ids.subgroup)?,
            threads_max: attribute(ids.threads_max)?,
            shared_bytes_max: attribute(ids.shared_bytes_asked)?.max(attribute(ids.shared_bytes)?),
            allocation_bytes_max: memory as u64,
            is_emulated,
        })
    }
}

impl StreamDevice {
    /// Says that the calls of this thread mean this device; every call begins so.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained until `drop`; the device exists.
        let code = unsafe {
            match &self.turn {
                Turn::Cuda(cuda, context) => (cuda.set_current)(*context as Handle),
                Turn::Hip(hip) => (hip.set_device)(self.ordinal),
            }
        };
        self.check("entering the device", code)
    }

    fn stream(&self) -> Handle {
        self.stream as Handle
    }

    fn check(&self, what: &str, code: Code32) -> Result<()> {
        self.driver.check(what, code).map_err(|error| match &self.emulator {
            Some(voice) => voice.explain(error),
            None => error,
        })
    }

    fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream lives until `drop`.
        self.check("stream", unsafe { (self.driver.stream_synchronize)(self.stream()) })
    }

    fn issue(&self, launches: &[Launch]) -> Result<()> {
        for launch in launches {
            let mut addresses: Vec<u64> = launch.arguments.iter().map(|p| p.allocation + p.offset).collect();
            // A null ends the list for the emulator; the driver knows the number from the kernel.
            let pointer = |a: &mut u64| std::ptr::from_mut(a).cast::<c_void>();
            let mut params: Vec<*mut c_void> =
                addresses.iter_mut().map(pointer).chain([null_mut()]).collect();
            let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
            let kernel = launch.kernel.0 as Handle;
            // SAFETY: the kernel was loaded by this device and takes these buffers, which the caller
            // keeps until the launch is done; the list of pointers outlives the call, which copies it.
            let code = unsafe {
                let params = params.as_mut_ptr();
                let (shared, stream) = (launch.shared_bytes, self.stream());
                (self.driver.launch)(kernel, gx, gy, gz, bx, by, bz, shared, stream, params, null_mut())
            };
            self.check("launch", code)?;
        }
        Ok(())
    }
}

impl Device for StreamDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory_free(&self) -> Result<u64> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for two sizes.
        self.check("free memory", unsafe { (self.driver.memory_info)(&mut free, &mut total) })?;
        Ok(free as u64)
    }

    fn load(&self, code: &Code<'_>) -> Result<Kernel> {
        let compiled;
        let mut image = code.binary;
        if image.is_empty() {
            let from = self.emulator.as_ref().map(|_| &self.library);
            compiled = match self.info.api {
                Api::Hip => rtc::hip(from, code.source, &self.info.arch)?.binary,
                _ => rtc::cuda(from, code.source, &self.info.arch)?.binary,
            };
            image = &compiled;
        }
        self.enter()?;
        let entry = CString::new(code.entry).map_err(|e| Error::Device(format!("{}: {e}", code.entry)))?;
        let (mut module, mut function) = (null_mut(), null_mut());
        // SAFETY: the image is a whole binary, or a text that the driver checks; places for handles.
        unsafe {
            let loaded = (self.driver.module_load)(&mut module, image.as_ptr().cast());
            self.check(&format!("{}: binary", code.entry), loaded)?;
            self.modules.lock().expect("no panic while locked").push(module as usize);
            let found = (self.driver.function_get)(&mut function, module, entry.as_ptr());
            self.check(&format!("{}: function", code.entry), found)?;
        }
        // AMD's kernels need not ask.
        if code.shared_bytes > SHARED_BYTES_PLAIN && self.info.api == Api::Cuda {
            let bytes = c_int::try_from(code.shared_bytes).unwrap_or(c_int::MAX);
            // SAFETY: the function was just found.
            let set = unsafe { (self.driver.function_set)(function, FUNCTION_DYNAMIC_SHARED_BYTES, bytes) };
            self.check(&format!("{}: {bytes} bytes of shared memory", code.entry), set)?;
        }
        Ok(Kernel(function as u64))
    }

    fn allocate(&self, bytes: u64) -> Result<u64> {
        self.enter()?;
        let size =
            usize::try_from(bytes).map_err(|_| Error::Device(format!("no memory of {bytes} bytes")))?;
        let mut address = 0;
        // SAFETY: a place for an address.
        let code = unsafe { (self.driver.allocate)(&mut address, size) };
        self.check(&format!("{bytes} bytes"), code)?;
        Ok(address)
    }

    fn free(&self, allocation: u64) {
        // SAFETY: the allocation came from `allocate` and is given back once. A driver that fails here
        // has lost the device, and the memory with it.
        let _ = self.enter().and_then(|()| self.check("free", unsafe { (self.driver.free)(allocation) }));
    }

    fn upload(&self, to: Place, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        let address = to.allocation + to.offset;
        // SAFETY: `DeviceMemory` has checked the range; the source is a slice.
        let code = unsafe { (self.driver.upload)(address, bytes.as_ptr().cast(), bytes.len()) };
        self.check("upload", code)
    }

    fn download(&self, from: Place, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        let address = from.allocation + from.offset;
        // SAFETY: `DeviceMemory` has checked the range; the destination is a slice.
        let code = unsafe { (self.driver.download)(bytes.as_mut_ptr().cast(), address, bytes.len()) };
        self.check("download", code)
    }

    fn run(&self, launches: &[Launch]) -> Result<()> {
        self.enter()?;
        self.issue(launches)?;
        self.synchronize()
    }

    fn capture(&self, launches: &[Launch]) -> Result<u64> {
        self.enter()?;
        let (mut graph, mut exec) = (null_mut(), null_mut());
        // SAFETY: the stream lives; a capture that has begun is ended whatever happens between.
        unsafe {
            let begun = (self.driver.capture_begin)(self.stream(), CAPTURE_THREAD_LOCAL);
            self.check("begin of a capture", begun)?;
            let issued = self.issue(launches);
            let ended = (self.driver.capture_end)(self.stream(), &mut graph);
            issued?;
            self.check("end of a capture", ended)?;
            let made = (self.driver.graph_instantiate)(&mut exec, graph, 0);
            (self.driver.graph_destroy)(graph);
            self.check("graph", made)?;
        }
        Ok(exec as u64)
    }

    fn run_graph(&self, graph: u64) -> Result<()> {
        self.enter()?;
        // SAFETY: the graph came from `capture` and is dropped after its recording.
        let code = unsafe { (self.driver.graph_launch)(graph as Handle, self.stream()) };
        self.check("graph", code)?;
        self.synchronize()
    }

    fn drop_graph(&self, graph: u64) {
        // SAFETY: the graph came from `capture` and is given back once.
        let destroy = || unsafe { (self.driver.graph_exec_destroy)(graph as Handle) };
        // As for `free`.
        let _ = self.enter().and_then(|()| self.check("graph", destroy()));
    }
}

impl Drop for StreamDevice {
    fn drop(&mut self) {
        let modules = std::mem::take(&mut *self.modules.lock().expect("no panic while locked"));
        // SAFETY: everything was made by this device, and nothing that uses it is left: memory,
        // recordings and engines hold the device. Failures leave nothing to be done.
        unsafe {
            if self.enter().is_err() {
                return;
            }
            for module in modules {
                (self.driver.module_unload)(module as Handle);
            }
            (self.driver.stream_destroy)(self.stream());
            if let Turn::Cuda(cuda, _) = &self.turn {
                (cuda.release)(self.ordinal);
            }
        }
    }
}
