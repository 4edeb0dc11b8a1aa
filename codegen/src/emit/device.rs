//! What cubecl is told about a target in place of a device.
use crate::{Api, Launch, Target};
use cubecl::ir::features::{Features, Plane};
use cubecl::ir::{DeviceIdentity, HardwareProperties, MemoryDeviceProperties};
use cubecl::prelude::*;
use cubecl_cpp::shared::{register_supported_types, register_wmma_features};
use cubecl_cpp::{cuda, hip, metal};
use std::sync::Arc;

/// What a kernel's constructor takes besides its own arguments.
pub struct Build {
    /// The target.
    pub target: Target,
    block: [u32; 3],
    properties: Arc<DeviceProperties>,
}

impl Build {
    pub(super) fn new(launch: &Launch, target: &Target) -> Build {
        Build { target: *target, block: launch.block, properties: properties(target) }
    }

    /// What every kernel's constructor begins with: block, index width and checks; what the device
    /// can do; what the language can do.
    pub fn parts(&self) -> (KernelSettings, Arc<DeviceProperties>, Arc<TargetProperties>) {
        self.with_index(AddressType::U32)
    }

    /// The same for a kernel that reads a buffer of 2^32 elements and more.
    pub fn wide_parts(&self) -> (KernelSettings, Arc<DeviceProperties>, Arc<TargetProperties>) {
        self.with_index(AddressType::U64)
    }

    fn with_index(
        &self,
        index: AddressType,
    ) -> (KernelSettings, Arc<DeviceProperties>, Arc<TargetProperties>) {
        let [x, y, z] = self.block;
        let settings = KernelSettings::new(*CubeDim::new_3d(x, y, z), ExecutionMode::Unchecked, index);
        (settings, self.properties.clone(), Arc::new(TargetProperties::default()))
    }
}

/// The buffer arguments of a kernel's constructor.
pub fn buffers<const N: usize>() -> [BufferCompilationArg; N] {
    std::array::from_fn(|_| BufferCompilationArg { inplace: None })
}

fn properties(target: &Target) -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: target.subgroup,
        plane_size_max: target.subgroup,
        max_bindings: 31,
        max_shared_memory_size: target.shared_bytes_max as usize,
        max_cube_count: (i32::MAX as u32, u32::from(u16::MAX), u32::from(u16::MAX)),
        max_units_per_cube: target.threads_max,
        max_cube_dim: (target.threads_max, target.threads_max, 64),
        num_streaming_multiprocessors: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity =
        DeviceIdentity { name: target.to_string(), fingerprint: target.to_string(), physical: None };
    let memory = MemoryDeviceProperties::new(u64::MAX, 256);
    let timing = cubecl::profile::TimingMethod::Device;
    let mut p = DeviceProperties::new(Features::default(), memory, hardware, timing, identity);
    register_supported_types(&mut p);
    p.features.plane.insert(Plane::Ops);
    p.features.plane.insert(Plane::Sync);
    p.features.memory_reinterpret = true;
    p.features.alignment = true;
    let matrices = match target.api {
        Api::Cuda => {
            let digits: String = target.arch.chars().filter(char::is_ascii_digit).collect();
            let version = digits.parse().expect("sm_NN");
            let arch = cuda::arch::CudaArchitecture { version, tensor_cores: true };
            cuda::mma::CudaCmmaCompiler::Cpp.supported_cmma_combinations(&arch)
        }
        // The matrix units of AMD are reached by a text of our own, which has the fragments of this one on all.
        Api::Hip => hip::mma::HipCmmaCompiler::Intrinsics
            .supported_cmma_combinations(&hip::arch::AMDArchitecture::GFX11),
        Api::Metal => metal::supported_cmma_combinations_metal(&metal::arch::MetalArchitecture::Metal3),
    };
    register_wmma_features(matrices, &mut p);
    Arc::new(p)
}
