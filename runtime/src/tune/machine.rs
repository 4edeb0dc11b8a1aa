//! Which machine a record is of.
use crate::cpu::product::kernels;
use crate::probe;
use serde::{Deserialize, Serialize};

/// What decides which kernel is the fastest: the processor, and the kernels there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MachineId {
    /// Processor as it calls itself.
    pub processor: String,
    /// Instruction set extensions that kernels know.
    pub features: Vec<String>,
    /// Cores and hardware threads.
    pub cores: u64,
    /// Hardware threads.
    pub threads: u64,
    /// Sizes of the data caches in bytes, first level first.
    pub cache_bytes: Vec<u64>,
    /// Hex of a blake3 over the names of all kernels of the build.
    pub kernels: String,
}

impl MachineId {
    /// This machine with this build.
    pub fn here() -> MachineId {
        let host = probe::host();
        let mut names = blake3::Hasher::new();
        names.update(env!("CARGO_PKG_VERSION").as_bytes());
        for k in kernels() {
            let (name, packing) = (super::kernel_name(k), k.packing.name());
            names.update(format!("{name} {} {packing} {}\n", k.weight, k.input).as_bytes());
        }
        let features = host["features"].as_array().into_iter().flatten();
        let caches = host["cache_bytes"].as_array().into_iter().flatten();
        MachineId {
            processor: host["processor"].as_str().unwrap_or_default().to_string(),
            features: features.filter_map(|f| Some(f.as_str()?.to_string())).collect(),
            cores: host["cores"].as_u64().unwrap_or(0),
            threads: host["threads"].as_u64().unwrap_or(0),
            cache_bytes: caches.filter_map(|c| c.as_u64()).collect(),
            kernels: names.finalize().to_hex()[..32].to_string(),
        }
    }
}
