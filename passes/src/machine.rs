//! The machine profile: what a plan and a prediction need to know of a machine.
//!
//! `ds4c probe` measures one, a file carries it; nothing here measures anything.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// A name for people.
    pub name: String,
    /// Processor, memory and disks.
    pub host: Host,
    /// What computes, by the name of its target; a plan for a target needs its entry.
    pub devices: BTreeMap<String, Device>,
}

/// What runs the program.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// Operating system and architecture.
    pub system: String,
    /// Processor as it calls itself.
    pub processor: String,
    /// Instruction set extensions that kernels know.
    pub features: Vec<String>,
    /// Cores that share nothing but caches.
    pub cores: u32,
    /// Hardware threads.
    pub threads: u32,
    /// Sizes of the data caches in bytes, first level first.
    pub cache_bytes: Vec<u64>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Whether and how large pages are given, as the system words it.
    pub huge_pages: String,
    /// Rates of the disks that models may lie on.
    pub disks: Vec<Disk>,
    /// Graphics processors found, as the system names them.
    pub gpus: Vec<String>,
}

/// A disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// A folder on it.
    pub path: String,
    /// Large reads in sequence, GB/s.
    pub read_gb_s: f64,
    /// Reads of 1 MiB at random places, GB/s.
    pub random_gb_s: f64,
}

/// Rates of what computes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Threads that the rates were measured with; absent where a device has none to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Memory in bytes that weights, states and the arena may take.
    pub memory_bytes: u64,
    /// Reads of anonymous memory, or of the device's own, GB/s.
    pub read_gb_s: f64,
    /// Reads of a mapped file that is in memory, GB/s; absent where files are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_gb_s: Option<f64>,
    /// Multiplications and additions in f32, GFLOP/s.
    pub f32_gflop_s: f64,
    /// Multiplications and additions of 8-bit integers, GOP/s.
    pub i8_gop_s: f64,
    /// From one launch to the next, in microseconds.
    pub launch_us: f64,
}

impl Machine {
    /// Reads a profile.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_json(text: &str) -> Result<Machine, String> {
        let machine: Machine = serde_json::from_str(text).map_err(|e| format!("machine profile: {e}"))?;
        for (name, device) in &machine.devices {
            let rates = [device.read_gb_s, device.f32_gflop_s, device.i8_gop_s];
            if rates.iter().any(|r| !r.is_finite() || *r <= 0.0) || !(0.0..1e6).contains(&device.launch_us) {
                return Err(format!("machine profile: {name}: expected rates above 0"));
            }
        }
        Ok(machine)
    }

    /// The profile as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a profile is plain data")
    }
}
