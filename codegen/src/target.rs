//! The devices that kernels are made for, with the limits that geometry and text depend on.
use std::fmt;

/// The language of a kernel's text and the driver that takes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Api {
    /// CUDA C++, for NVRTC.
    Cuda,
    /// HIP C++, for hiprtc or clang.
    Hip,
    /// The Metal Shading Language.
    Metal,
}

impl Api {
    /// All of them, by the name that a target starts with.
    pub const ALL: [(&'static str, Api); 3] = [("cuda", Api::Cuda), ("hip", Api::Hip), ("metal", Api::Metal)];

    /// Extension of a file that holds a text.
    pub fn extension(self) -> &'static str {
        match self {
            Api::Cuda => "cu",
            Api::Hip => "hip",
            Api::Metal => "metal",
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Api::ALL[*self as usize].0)
    }
}

/// A kind of device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// Language and driver.
    pub api: Api,
    /// The vendor's name of the architecture; for Apple the GPU family.
    pub arch: &'static str,
    /// Threads that run in step and exchange registers: warp, wavefront, SIMD-group.
    pub subgroup: u32,
    /// Most shared memory of a block, in bytes.
    pub shared_bytes_max: u32,
    /// Most threads of a block.
    pub threads_max: u32,
    /// Whether there is an instruction for the dot product of four signed bytes.
    pub dot_i8: bool,
}

const KIB: u32 = 1024;

const fn nvidia(arch: &'static str, shared_kib: u32) -> Target {
    let shared_bytes_max = shared_kib * KIB;
    Target { api: Api::Cuda, arch, subgroup: 32, shared_bytes_max, threads_max: 1024, dot_i8: true }
}

const fn amd(arch: &'static str, subgroup: u32) -> Target {
    let shared_bytes_max = 64 * KIB;
    Target { api: Api::Hip, arch, subgroup, shared_bytes_max, threads_max: 1024, dot_i8: false }
}

const fn apple(arch: &'static str) -> Target {
    let shared_bytes_max = 32 * KIB;
    Target { api: Api::Metal, arch, subgroup: 32, shared_bytes_max, threads_max: 1024, dot_i8: false }
}

impl Target {
    /// All targets; the first of an API is its default.
    pub const ALL: &'static [Target] = &[
        nvidia("sm_90", 227),
        nvidia("sm_80", 163),
        nvidia("sm_86", 99),
        nvidia("sm_89", 99),
        nvidia("sm_100", 227),
        nvidia("sm_120", 99),
        nvidia("sm_121a", 99),
        amd("gfx1151", 32),
        amd("gfx1100", 32),
        amd("gfx1201", 32),
        amd("gfx90a", 64),
        amd("gfx942", 64),
        apple("apple7"),
        apple("apple8"),
        apple("apple9"),
    ];

    /// The default of an API.
    pub fn default_of(api: Api) -> Target {
        *Target::ALL.iter().find(|t| t.api == api).expect("every API has a target")
    }

    /// The same target of [`Target::ALL`].
    pub fn known(self) -> &'static Target {
        Target::ALL.iter().find(|t| **t == self).expect("targets are made there alone")
    }

    /// Reads `cuda`, `cuda:sm_80`, `hip:gfx942`.
    ///
    /// # Errors
    /// The names there are.
    pub fn parse(text: &str) -> Result<Target, String> {
        let found = Target::ALL.iter().find(|t| t.to_string() == text);
        let bare = Api::ALL.iter().find(|(name, _)| *name == text);
        if let Some(target) = found.copied().or(bare.map(|(_, api)| Target::default_of(*api))) {
            return Ok(target);
        }
        let names: Vec<String> = Target::ALL.iter().map(Target::to_string).collect();
        Err(format!("expected cuda, hip, metal, or one of {}, got {text}", names.join(", ")))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.api, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for target in Target::ALL {
            assert_eq!(Target::parse(&target.to_string()), Ok(*target));
        }
        assert_eq!(Target::parse("cuda").unwrap().arch, "sm_90");
        assert_eq!(Target::parse("hip").unwrap().arch, "gfx1151");
        assert_eq!(Target::parse("metal").unwrap().arch, "apple7");
        assert!(Target::parse("cuda:sm_10").unwrap_err().contains("cuda:sm_90, cuda:sm_80"));
    }
}
