//! Adds up bytes as fast as memory gives them.

/// Lanes that are summed apart from each other.
const LANES: usize = 16;

/// Sum of the 64-bit words of `bytes`; what is left of a short last group counts byte by byte.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        return unsafe { sum_avx2(bytes) };
    }
    sum_any(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u64 {
    sum_any(bytes)
}

#[inline(always)]
fn sum_any(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; LANES];
    let (groups, rest) = bytes.as_chunks::<{ 8 * LANES }>();
    for group in groups {
        for (lane, word) in lanes.iter_mut().zip(group.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    let rest = rest.iter().map(|b| u64::from(*b));
    lanes.into_iter().chain(rest).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        for start in [0, 1, 37] {
            for end in [start, start + 5, 200, 999, 1000] {
                assert_eq!(sum(&bytes[start..end]), sum_any(&bytes[start..end]));
                let mut other = bytes[start..end].to_vec();
                if let Some(last) = other.last_mut() {
                    *last ^= 1;
                    assert_ne!(sum(&other), sum(&bytes[start..end]));
                }
            }
        }
    }
}
