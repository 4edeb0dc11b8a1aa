//! The launcher for Apple: Metal through the Objective-C runtime, opened at run time.
//!
//! Metal has no captured graphs that fit here: each step encodes its launches into one command buffer.
use super::objc::{Id, Objc, Sel};
use super::{Api, Code, Device, DeviceInfo, Kernel, Launch, Place};
use crate::{Error, Result};
use std::ffi::{CStr, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};

/// `MTLResourceStorageModeShared`: the host and the device see the same memory.
const STORAGE_SHARED: usize = 0;
/// `MTLCommandBufferStatusCompleted`.
const STATUS_COMPLETED: usize = 4;
/// Threads of a SIMD group on every GPU of Apple.
const SUBGROUP: u32 = 32;
/// Most threads of a threadgroup; a pipeline may allow fewer.
const THREADS_MAX: u32 = 1024;

/// `MTLSize`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Size {
    width: usize,
    height: usize,
    depth: usize,
}

impl Size {
    fn of([width, height, depth]: [u32; 3]) -> Size {
        Size { width: width as usize, height: height as usize, depth: depth as usize }
    }
}

/// Selectors that every launch sends.
struct Selectors {
    set_pipeline: usize,
    set_buffer: usize,
    dispatch: usize,
}

struct MetalDevice {
    objc: Objc,
    device: usize,
    queue: usize,
    info: DeviceInfo,
    selectors: Selectors,
    pipelines: Mutex<Vec<usize>>,
}

/// The system's GPU.
///
/// # Errors
/// No Metal.
pub(super) fn devices(emulator: Option<&Path>) -> Result<Vec<DeviceInfo>> {
    let objc = Objc::open(emulator)?;
    let device = objc.default_device();
    if device.is_null() {
        return Ok(Vec::new());
    }
    let info = info(&objc, device, emulator.is_some());
    objc.release(device);
    Ok(vec![info])
}

fn info(objc: &Objc, device: Id, is_emulated: bool) -> DeviceInfo {
    let shared = objc.ask(device, c"maxThreadgroupMemoryLength");
    DeviceInfo {
        api: Api::Metal,
        number: 0,
        name: objc.pooled(|| objc.text(objc.ask(device, c"name") as Id)),
        arch: "metal".to_string(),
        memory_bytes: objc.ask(device, c"recommendedMaxWorkingSetSize") as u64,
        subgroup: SUBGROUP,
        threads_max: THREADS_MAX,
        shared_bytes_max: u32::try_from(shared).unwrap_or(u32::MAX),
        allocation_bytes_max: objc.ask(device, c"maxBufferLength") as u64,
        is_emulated,
    }
}

/// Opens the system's GPU.
///
/// # Errors
/// No Metal, or another number than 0.
pub(super) fn open(number: usize, emulator: Option<&Path>) -> Result<Arc<dyn Device>> {
    let objc = Objc::open(emulator)?;
    let device = objc.default_device();
    if device.is_null() || number != 0 {
        return Err(Error::Device(format!("metal device {number}: expected the system's GPU, number 0")));
    }
    let info = info(&objc, device, emulator.is_some());
    let queue = objc.ask(device, c"newCommandQueue");
    if queue == 0 {
        return Err(Error::Device(format!("{info}: no command queue")));
    }
    let selector = |name: &CStr| objc.selector(name) as usize;
    let selectors = Selectors {
        set_pipeline: selector(c"setComputePipelineState:"),
        set_buffer: selector(c"setBuffer:offset:atIndex:"),
        dispatch: selector(c"dispatchThreadgroups:threadsPerThreadgroup:"),
    };
    let pipelines = Mutex::default();
    Ok(Arc::new(MetalDevice { objc, device: device as usize, queue, info, selectors, pipelines }))
}

impl MetalDevice {
    fn error(&self, what: &str, error: Id) -> Error {
        Error::Device(format!("{what}: {}", self.objc.reason(error)))
    }

    /// A library of the text, compiled without fast math: results must be those that were tested.
    fn library(&self, code: &Code<'_>) -> Result<Id> {
        let objc = &self.objc;
        let source = objc.string(code.source)?;
        let options = objc.ask(objc.class(c"MTLCompileOptions"), c"new") as Id;
        let mut error: Id = null_mut();
        // SAFETY: the methods take these arguments; the place for an error lives through the call.
        let library = unsafe {
            let set: unsafe extern "C" fn(Id, Sel, i8) = objc.message();
            set(options, objc.selector(c"setFastMathEnabled:"), 0);
            let make: unsafe extern "C" fn(Id, Sel, Id, Id, *mut Id) -> Id = objc.message();
            let selector = objc.selector(c"newLibraryWithSource:options:error:");
            make(self.device as Id, selector, source, options, &mut error)
        };
        objc.release(options);
        if library.is_null() {
            Err(self.error(&format!("{}: Metal refuses the text", code.entry), error))
        } else {
            Ok(library)
        }
    }

    fn pipeline(&self, code: &Code<'_>) -> Result<Id> {
        let objc = &self.objc;
        let library = self.library(code)?;
        let name = objc.string(code.entry)?;
        // SAFETY: the method takes a string and answers an object that the caller owns.
        let function = unsafe {
            let find: unsafe extern "C" fn(Id, Sel, Id) -> Id = objc.message();
            find(library, objc.selector(c"newFunctionWithName:"), name)
        };
        objc.release(library);
        if function.is_null() {
            return Err(Error::Device(format!("{}: the text has no such kernel", code.entry)));
        }
        let mut error: Id = null_mut();
        // SAFETY: as in `library`.
        let pipeline = unsafe {
            let make: unsafe extern "C" fn(Id, Sel, Id, *mut Id) -> Id = objc.message();
            let selector = objc.selector(c"newComputePipelineStateWithFunction:error:");
            make(self.device as Id, selector, function, &mut error)
        };
        objc.release(function);
        if pipeline.is_null() { Err(self.error(code.entry, error)) } else { Ok(pipeline) }
    }

    fn encode(&self, encoder: Id, launch: &Launch) {
        let (objc, selectors) = (&self.objc, &self.selectors);
        // SAFETY: the methods take these arguments; the pipeline and the buffers were made by this
        // device, and the caller keeps them until the launch is done.
        unsafe {
            let set_pipeline: unsafe extern "C" fn(Id, Sel, Id) = objc.message();
            set_pipeline(encoder, selectors.set_pipeline as Sel, launch.kernel.0 as Id);
            let set_buffer: unsafe extern "C" fn(Id, Sel, Id, usize, usize) = objc.message();
            for (i, place) in launch.arguments.iter().enumerate() {
                let (buffer, offset) = (place.allocation as Id, place.offset as usize);
                set_buffer(encoder, selectors.set_buffer as Sel, buffer, offset, i);
            }
            let dispatch: unsafe extern "C" fn(Id, Sel, Size, Size) = objc.message();
            dispatch(encoder, selectors.dispatch as Sel, Size::of(launch.grid), Size::of(launch.block));
        }
    }

    fn contents(&self, place: Place) -> *mut u8 {
        let start = self.objc.ask(place.allocation as Id, c"contents") as *mut u8;
        // `DeviceMemory` has checked that the offset lies inside.
        start.wrapping_add(usize::try_from(place.offset).expect("an offset in memory"))
    }
}

/// The size of the system's pages.
#[cfg(unix)]
fn page_bytes() -> Option<usize> {
    // SAFETY: a question without memory.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok().filter(|bytes| bytes.is_power_of_two())
}

#[cfg(not(unix))]
fn page_bytes() -> Option<usize> {
    None
}

impl Device for MetalDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn memory_free(&self) -> Result<u64> {
        let used = self.objc.ask(self.device as Id, c"currentAllocatedSize") as u64;
        Ok(self.info.memory_bytes.saturating_sub(used))
    }

    fn load(&self, code: &Code<'_>) -> Result<Kernel> {
        let pipeline = self.objc.pooled(|| self.pipeline(code))?;
        self.pipelines.lock().expect("no panic while locked").push(pipeline as usize);
        let most = self.objc.ask(pipeline, c"maxTotalThreadsPerThreadgroup");
        if code.threads as usize > most {
            return Err(Error::Device(format!(
                "{}: expected at most {most} threads, got {}",
                code.entry, code.threads
            )));
        }
        Ok(Kernel(pipeline as u64))
    }

    fn allocate(&self, bytes: u64) -> Result<u64> {
        let size =
            usize::try_from(bytes).map_err(|_| Error::Device(format!("no memory of {bytes} bytes")))?;
        // SAFETY: the method takes a length and options and answers an object that the caller owns.
        let buffer = unsafe {
            let make: unsafe extern "C" fn(Id, Sel, usize, usize) -> Id = self.objc.message();
            let selector = self.objc.selector(c"newBufferWithLength:options:");
            make(self.device as Id, selector, size, STORAGE_SHARED)
        };
        if buffer.is_null() {
            return Err(Error::Device(format!("{}: no memory for {bytes} bytes", self.info)));
        }
        Ok(buffer as u64)
    }

    fn page_bytes(&self) -> Option<usize> {
        let flag = self.objc.ask(self.device as Id, c"hasUnifiedMemory");
        // A BOOL is the lowest byte of the word.
        if flag & 0xff == 0 { None } else { page_bytes() }
    }

    unsafe fn adopt(&self, start: usize, bytes: usize) -> Result<u64> {
        let nobody: Id = null_mut();
        // SAFETY: the method takes an address, a length, options and a block for the end of the memory, of which
        // there is none, and answers an object that the caller owns; the caller vouches for the pages.
        let buffer = unsafe {
            let make: unsafe extern "C" fn(Id, Sel, *mut c_void, usize, usize, Id) -> Id =
                self.objc.message();
            let selector = self.objc.selector(c"newBufferWithBytesNoCopy:length:options:deallocator:");
            make(self.device as Id, selector, start as *mut c_void, bytes, STORAGE_SHARED, nobody)
        };
        if buffer.is_null() {
            return Err(Error::Device(format!("{}: {bytes} bytes of files are not taken", self.info)));
        }
        Ok(buffer as u64)
    }

    fn free(&self, allocation: u64) {
        self.objc.release(allocation as Id);
    }

    fn upload(&self, to: Place, bytes: &[u8]) -> Result<()> {
        // SAFETY: the memory is shared with the host, the range was checked, and no launch is running:
        // each is waited for.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.contents(to), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Place, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: as for `upload`.
        unsafe { std::ptr::copy_nonoverlapping(self.contents(from), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn run(&self, launches: &[Launch]) -> Result<()> {
        let objc = &self.objc;
        objc.pooled(|| {
            let commands = objc.ask(self.queue as Id, c"commandBuffer") as Id;
            let encoder = objc.ask(commands, c"computeCommandEncoder") as Id;
            for launch in launches {
                self.encode(encoder, launch);
            }
            objc.ask(encoder, c"endEncoding");
            objc.ask(commands, c"commit");
            objc.ask(commands, c"waitUntilCompleted");
            if objc.ask(commands, c"status") == STATUS_COMPLETED {
                return Ok(());
            }
            Err(self.error("launch", objc.ask(commands, c"error") as Id))
        })
    }

    fn capture(&self, _launches: &[Launch]) -> Result<u64> {
        Ok(0)
    }

    fn run_graph(&self, _graph: u64) -> Result<()> {
        unreachable!("Metal captures no graph")
    }

    fn drop_graph(&self, _graph: u64) {}
}

impl Drop for MetalDevice {
    fn drop(&mut self) {
        let pipelines = std::mem::take(&mut *self.pipelines.lock().expect("no panic while locked"));
        for object in pipelines.into_iter().chain([self.queue, self.device]) {
            self.objc.release(object as Id);
        }
    }
}
