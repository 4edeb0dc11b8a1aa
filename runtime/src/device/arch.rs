//! Which devices a binary runs on, by the names of architectures.

/// A compute capability of NVIDIA's, and whether code for it runs there alone.
struct Capability {
    major: u32,
    minor: u32,
    /// `sm_121a`: with instructions that no later device need have.
    is_own: bool,
}

impl Capability {
    /// Reads `sm_90`, `sm_121a`.
    fn of(arch: &str) -> Option<Capability> {
        let digits = arch.strip_prefix("sm_")?;
        let plain = digits.trim_end_matches(['a', 'f']);
        let number: u32 = plain.parse().ok()?;
        Some(Capability { major: number / 10, minor: number % 10, is_own: plain != digits })
    }
}

/// Whether a binary that was made for one architecture runs on a device of another: of NVIDIA's on devices of the same
/// major capability that are not older.
pub fn runs_on(made_for: &str, device: &str) -> bool {
    match (Capability::of(made_for), Capability::of(device)) {
        (Some(made), Some(found)) => {
            let minor_fits = if made.is_own { found.minor == made.minor } else { found.minor >= made.minor };
            found.major == made.major && minor_fits
        }
        _ => made_for == device,
    }
}

/// Whether the portable form of a binary runs on it: on all devices that are not older.
pub fn carries_over_to(made_for: &str, device: &str) -> bool {
    match (Capability::of(made_for), Capability::of(device)) {
        (Some(made), Some(found)) => !made.is_own && (found.major, found.minor) >= (made.major, made.minor),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_run_on_later_devices_of_a_kind_and_portable_ones_on_all_later() {
        // Made for, device, binary, portable.
        let cases = [
            ("sm_90", "sm_90", true, true),
            ("sm_80", "sm_86", true, true),
            ("sm_86", "sm_80", false, false),
            ("sm_90", "sm_120", false, true),
            ("sm_120", "sm_90", false, false),
            ("sm_121a", "sm_121", true, false),
            ("sm_121a", "sm_120", false, false),
            ("gfx1151", "gfx1151", true, false),
            ("gfx1151", "gfx1100", false, false),
        ];
        for (made, device, binary, portable) in cases {
            assert_eq!(runs_on(made, device), binary, "{made} on {device}");
            assert_eq!(carries_over_to(made, device), portable, "{made} on {device}");
        }
    }
}
