//! What the system says of this process and of the memory there is.
use std::fs;
use std::path::Path;

/// The largest memory that this process has had so far, in bytes: anonymous and mapped pages. `None`
/// where the system does not tell.
pub fn peak_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM:").or_else(peak_of_usage)
}

/// Starts the peak anew from what the process has now; without effect where the system cannot.
pub fn reset_peak() {
    // The peak then covers more than was asked for, which is no error.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Memory that could be taken without swapping, in bytes.
pub fn available_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// Memory of the machine, in bytes.
pub(crate) fn memory_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemTotal:")
}

/// Bytes that this program may still write to the disk of `folder`; `None` where the system does not tell.
#[cfg(unix)]
pub(crate) fn free_disk_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let name = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut disk = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the name ends with a zero; the call fills the whole structure, or answers another value
    // than 0.
    let disk = unsafe {
        if libc::statvfs(name.as_ptr(), disk.as_mut_ptr()) != 0 {
            return None;
        }
        disk.assume_init()
    };
    // The width of these fields differs between systems.
    #[allow(clippy::unnecessary_cast, reason = "32 bits on some systems")]
    Some(disk.f_bavail as u64 * disk.f_frsize as u64)
}

#[cfg(not(unix))]
pub(crate) fn free_disk_bytes(_: &Path) -> Option<u64> {
    None
}

/// A line `key  n kB` of a file of the system, in bytes.
fn field(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(unix)]
fn peak_of_usage() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the whole structure that it is given, or answers another value than 0.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    // Kilobytes everywhere but on Apple's systems.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    u64::try_from(usage.ru_maxrss).ok().map(|n| n * unit)
}

#[cfg(not(unix))]
fn peak_of_usage() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_covers_what_was_touched() {
        let before = peak_bytes().unwrap();
        let block = vec![1u8; 64 << 20];
        let after = peak_bytes().unwrap();
        assert!(after >= before.max(block.len() as u64), "{before}, then {after}");
    }
}
