//! The indices of the largest scores, without sorting: the k-th largest is found digit by digit.

/// Bits of the digits of a rank, from the top.
const DIGITS: [u32; 3] = [11, 11, 10];
/// Values of the largest digit.
pub(super) const COUNTS: usize = 1 << 11;

/// A number that orders as scores do, -0 as 0; 0 for what is never selected: -∞ and NaN.
#[inline(always)]
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    if score > f32::NEG_INFINITY { ordered } else { 0 }
}

/// Writes the indices of the `out.len()` largest of `scores`, ties to the lower index, in ascending
/// order, then -1; as the op `topk` does.
pub(super) fn select(scores: &[f32], counts: &mut [u32], out: &mut [i32]) {
    let (least, mut ties) = threshold(scores, out.len(), counts);
    let mut n = 0;
    for (i, score) in scores.iter().enumerate() {
        let rank = rank(*score);
        if rank >= least {
            if rank == least {
                if ties == 0 {
                    continue;
                }
                ties -= 1;
            }
            out[n] = i32::try_from(i).expect("entries fit an i32");
            n += 1;
        }
    }
    out[n..].fill(-1);
}

/// The least rank that is selected, and how many of that rank.
fn threshold(scores: &[f32], k: usize, counts: &mut [u32]) -> (u32, usize) {
    let (mut prefix, mut left, mut missing) = (0, u32::BITS, k);
    for bits in DIGITS {
        left -= bits;
        let counts = &mut counts[..1 << bits];
        counts.fill(0);
        for score in scores {
            let rank = rank(*score);
            if left + bits == u32::BITS || rank >> (left + bits) == prefix {
                counts[(rank >> left) as usize & ((1 << bits) - 1)] += 1;
            }
        }
        if left + bits == u32::BITS {
            // Only what is never selected begins with 0.
            let selectable = scores.len() - counts[0] as usize;
            if selectable <= k {
                return (1, usize::MAX);
            }
        }
        let mut digit = counts.len() - 1;
        while (counts[digit] as usize) < missing {
            missing -= counts[digit] as usize;
            digit -= 1;
        }
        prefix = prefix << bits | digit as u32;
    }
    (prefix, missing)
}

#[cfg(test)]
mod tests {
    use super::{COUNTS, select};
    use crate::cpu::case::noise;

    #[test]
    fn is_what_sorting_gives() {
        let mut seed = 3;
        for n in [0, 1, 2, 7, 127, 128, 129, 5000] {
            for k in [1, 2, 128, 512] {
                for kind in 0..5 {
                    let mut score = |i: usize| match (kind, noise(&mut seed)) {
                        (0, x) => x,
                        (1, x) => (x * 3.0).round() * 0.0,
                        (2, x) => (x * 4.0).round(),
                        (3, _) if i.is_multiple_of(3) => f32::NEG_INFINITY,
                        (3, x) => x * 1e-44,
                        (_, x) if x > 0.9 => f32::NAN,
                        (_, x) if x > 0.8 => f32::INFINITY,
                        (_, x) => 1.0 + x * 1e-6,
                    };
                    let scores: Vec<f32> = (0..n).map(&mut score).collect();
                    let mut expected: Vec<i32> =
                        ds4_ir::ops::largest(&scores, k).into_iter().map(|i| i as i32).collect();
                    expected.sort_unstable();
                    expected.resize(k, -1);
                    let mut got = vec![7; k];
                    select(&scores, &mut [9; COUNTS], &mut got);
                    assert_eq!(got, expected, "{k} of {n}, kind {kind}");
                }
            }
        }
    }
}
