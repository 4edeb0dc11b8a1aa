//! Bytes that a device brings together, and where a stretch of them lies.
#[cfg(feature = "gpu")]
use cubecl::prelude::*;

/// Bytes of global memory that come together.
pub(crate) const SECTOR: u32 = 32;

/// Groups of 16 bytes of shared memory that so many bytes take, wherever in a sector they begin: a whole number
/// of sectors, so that stretches one behind the other are loaded by whole sectors.
pub(crate) fn groups_of(bytes: u32) -> u32 {
    (bytes + SECTOR - 1).div_ceil(SECTOR) * (SECTOR / 16)
}

/// A stretch of a buffer in groups of 16 bytes.
#[cfg(feature = "gpu")]
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Stretch {
    /// First group of its first sector, which is what lies first in shared memory.
    pub(crate) sector: usize,
    /// First group that holds a byte of it.
    first: usize,
    /// The group behind its last.
    end: usize,
}

#[cfg(feature = "gpu")]
#[cube]
impl Stretch {
    /// `length` bytes from byte `byte` on.
    pub(crate) fn new(byte: usize, length: usize) -> Stretch {
        let size = comptime!(SECTOR as usize);
        Stretch {
            sector: byte / size * comptime!(size / 16),
            first: byte / 16,
            end: (byte + length + 15) / 16,
        }
    }

    /// The same up to the end of its last sector, or to the last group before byte `end` if that comes first.
    pub(crate) fn up_to_sector(&self, end: usize) -> Stretch {
        let per_sector = comptime!((SECTOR / 16) as usize);
        let whole = (self.end + comptime!(per_sector - 1)) / per_sector * per_sector;
        Stretch { sector: self.sector, first: self.first, end: clamp_max(whole, (end + 15) / 16) }
    }

    /// Groups from its first sector to its end.
    pub(crate) fn groups(&self) -> usize {
        self.end - self.sector
    }

    /// Whether group `at` of the buffer holds a byte of it.
    pub(crate) fn holds(&self, at: usize) -> bool {
        at >= self.first && at < self.end
    }
}
