//! Index scores from packed codes: products of small integers, exact wherever scales are not far apart.
//!
//! Codes of `idx4` are integers of at most 12 in units of half a scale. The products of a head and a key
//! are integers below 2¹⁵ in units of the smallest product of scales as long as the exponents of the
//! products of scales differ by at most 9; all partial sums then are `f32` numbers, and every order of
//! summation gives the same bits as the interpreter's. Keys for which that is not so are told.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::product::Isa;
use crate::memory::Plain;

/// Channels of a key, in four groups with a scale each.
pub(super) const WIDTH: usize = 128;
/// Groups of a row.
const GROUPS: usize = 4;
/// Bytes of a packed row.
pub(super) const ROW: usize = 68;
/// Keys that are scored side by side.
pub(super) const SIDE: usize = 16;
/// Exponents of products of scales may differ by this much.
const SPREAD_MAX: u8 = 9;
/// Scale codes within which neither products nor sums leave the range of normal numbers.
const CODES: std::ops::RangeInclusive<u8> = 67..=187;

/// One head of a query.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Head {
    /// Codes in halves of the scale, four to a word: those of the low nibbles of the row's words, then
    /// those of the high ones.
    codes: [[i8; 4]; 32],
    /// -12 · the sum of a group's codes.
    bias: [i32; GROUPS],
    /// A quarter of the group's scale.
    scales: [f32; GROUPS],
    weight: f32,
}

// SAFETY: numbers of which any bytes are values; the padding at the end is never read.
unsafe impl Plain for Head {}

/// In halves: 0, ½, 1, 1½, 2, 3, 4, 6.
const HALVES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// [`HALVES`] + 12, not negative.
const HALVES_BIASED: [i8; 16] = {
    let mut t = HALVES;
    let mut i = 0;
    while i < 16 {
        t[i] += 12;
        i += 1;
    }
    t
};

/// Smallest and largest scale code of the groups that are not all zero, if it is a row for this.
fn range(row: &[u8; ROW]) -> Option<(u8, u8)> {
    let (mut low, mut high) = (u8::MAX, 0);
    for (codes, scale) in row[..64].chunks_exact(16).zip(&row[64..]) {
        if *scale == u8::MAX {
            return None;
        }
        if codes.iter().any(|c| c & 0x77 != 0) {
            (low, high) = (low.min(*scale), high.max(*scale));
        }
    }
    Some((low, high))
}

impl Head {
    /// Reads a packed row; answers how far its exponents are apart, or `None` where products of it may be
    /// inexact for any key.
    pub(super) fn read(&mut self, row: &[u8; ROW], weight: f32) -> Option<u8> {
        let (low, high) = range(row)?;
        if low <= high && !(CODES.contains(&low) && CODES.contains(&high)) {
            return None;
        }
        for (i, word) in row[..64].as_chunks::<4>().0.iter().enumerate() {
            self.codes[i] = word.map(|c| HALVES[usize::from(c & 15)]);
            self.codes[16 + i] = word.map(|c| HALVES[usize::from(c >> 4)]);
        }
        for g in 0..GROUPS {
            let words = self.codes[4 * g..4 * g + 4].iter().chain(&self.codes[16 + 4 * g..16 + 4 * g + 4]);
            self.bias[g] = -12 * words.flatten().map(|c| i32::from(*c)).sum::<i32>();
            let code = if CODES.contains(&row[64 + g]) { row[64 + g] } else { 127 };
            self.scales[g] = 0.25 * f32::from_bits(u32::from(code) << 23);
        }
        self.weight = weight;
        Some(high.saturating_sub(low))
    }
}

/// Scores of [`SIDE`] keys in rows of [`ROW`] bytes and a mask of those that are exact; `spread` is the
/// largest of the heads.
pub(super) fn scores(isa: Isa, heads: &[Head], spread: u8, keys: &[u8], out: &mut [f32; SIDE]) -> u32 {
    assert!(keys.len() == SIDE * ROW, "{} bytes of keys", keys.len());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has what the version needs.
        Isa::Avx512 => unsafe { avx512::scores(heads, spread, keys, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::scores(heads, spread, keys, out) },
        _ => plain(heads, spread, keys, out),
    }
}

/// The definition.
fn plain(heads: &[Head], spread: u8, keys: &[u8], out: &mut [f32; SIDE]) -> u32 {
    let mut exact = 0;
    for (j, (key, out)) in keys.as_chunks::<ROW>().0.iter().zip(out).enumerate() {
        let Some((low, high)) = range(key) else { continue };
        if low <= high
            && !(CODES.contains(&low) && CODES.contains(&high) && high - low + spread <= SPREAD_MAX)
        {
            continue;
        }
        exact |= 1 << j;
        let mut total = -0.0;
        for head in heads {
            let mut s = 0.0;
            for g in 0..GROUPS {
                let mut sum = 0;
                for i in 4 * g..4 * g + 4 {
                    for b in 0..4 {
                        let code = key[4 * i + b];
                        sum += i32::from(head.codes[i][b]) * i32::from(HALVES[usize::from(code & 15)]);
                        sum += i32::from(head.codes[16 + i][b]) * i32::from(HALVES[usize::from(code >> 4)]);
                    }
                }
                // Zeros take any scale.
                let scale = if sum == 0 { 0.0 } else { f32::from_bits(u32::from(key[64 + g]) << 23) };
                s += sum as f32 * scale * head.scales[g];
            }
            total += s.max(0.0) * head.weight;
        }
        *out = total;
    }
    exact
}
