//! Random blocks of every element type, with a wanted mean and standard deviation.
use crate::StoredType;
use crate::gguf::tensor_bytes;
use ds4_ir::formats::{f32_to_bf16, f32_to_f16};

/// Blocks that are made and written at a time.
pub(super) const CHUNK_BLOCKS: u64 = 4096;

/// A distribution. Block formats are centred: only plain types have a mean other than 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Mean.
    pub(super) mean: f32,
    /// Standard deviation.
    pub(super) deviation: f32,
}

/// xoshiro256++ (Blackman and Vigna), seeded through splitmix64.
pub(super) struct Rng([u64; 4]);

impl Rng {
    /// A generator for the bytes named `key`.
    pub(super) fn new(seed: u64, key: &str) -> Rng {
        // FNV-1a over the key keeps tensors independent of one another.
        let hash = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let mut state = key.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, hash);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Rng([next(), next(), next(), next()])
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Mean 0, deviation 1: the sum of four uniform numbers of 16 bits each.
    fn bell(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 3f32.sqrt()
    }

    /// Uniform below `n`.
    fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Elements and bytes of the pieces that [`fill`] makes of a type.
fn piece(ty: StoredType) -> (u64, usize) {
    let elements = match ty {
        StoredType::Q8_0 | StoredType::Mxfp4 => 32,
        StoredType::Q4K | StoredType::Q2K | StoredType::Iq2Xxs => 256,
        _ => 1,
    };
    (elements, tensor_bytes(ty, &[elements]) as usize)
}

/// Pieces of a tensor; a row is one piece of an id table.
pub(super) fn blocks(ty: StoredType, shape: &[u64]) -> u64 {
    let numbers: u64 = shape.iter().product();
    if ty == StoredType::I32 { shape[0] } else { numbers / piece(ty).0 }
}

/// Replaces the buffer with `count` random pieces.
pub(super) fn fill(rng: &mut Rng, ty: StoredType, numbers: Numbers, count: u64, out: &mut Vec<u8>) {
    let (_, bytes) = piece(ty);
    out.clear();
    out.resize(count as usize * bytes, 0);
    let make = match ty {
        StoredType::F32 => f32,
        StoredType::F16 => f16,
        StoredType::Bf16 => bf16,
        StoredType::Q8_0 => q8_0,
        StoredType::Q4K => q4_k,
        StoredType::Q2K => q2_k,
        StoredType::Iq2Xxs => iq2_xxs,
        StoredType::Mxfp4 => mxfp4,
        other => unreachable!("no weight is written as {other}"),
    };
    out.chunks_exact_mut(bytes).for_each(|block| make(rng, numbers, block));
}

/// Replaces the buffer with `count` rows of `k` distinct experts.
pub(super) fn fill_ids(rng: &mut Rng, experts: u32, k: u64, count: u64, out: &mut Vec<u8>) {
    out.clear();
    let k = k as u32;
    for _ in 0..count {
        // Equal steps around the circle of experts never meet.
        let first = rng.below(experts);
        let step = 1 + rng.below((experts / k).max(2) - 1);
        for i in 0..k {
            out.extend(((first + i * step) % experts).to_le_bytes());
        }
    }
}

fn f32(rng: &mut Rng, numbers: Numbers, out: &mut [u8]) {
    out.copy_from_slice(&(numbers.mean + numbers.deviation * rng.bell()).to_le_bytes());
}

fn f16(rng: &mut Rng, numbers: Numbers, out: &mut [u8]) {
    let x = numbers.mean + numbers.deviation * rng.bell();
    out.copy_from_slice(&f32_to_f16(x).to_le_bytes());
}

fn bf16(rng: &mut Rng, numbers: Numbers, out: &mut [u8]) {
    let x = numbers.mean + numbers.deviation * rng.bell();
    out.copy_from_slice(&f32_to_bf16(x).to_le_bytes());
}

/// A scale near `typical`, as f16 bits.
fn scale(rng: &mut Rng, typical: f32) -> [u8; 2] {
    f32_to_f16(typical * (0.9 + 0.2 * rng.unit())).to_le_bytes()
}

fn q8_0(rng: &mut Rng, numbers: Numbers, block: &mut [u8]) {
    rng.fill(block);
    // Codes -127 to 127, of which the root mean square is 73.3.
    block[2..].iter_mut().filter(|code| **code == 128).for_each(|code| *code = 0);
    block[..2].copy_from_slice(&scale(rng, numbers.deviation / 73.3));
}

fn q4_k(rng: &mut Rng, numbers: Numbers, block: &mut [u8]) {
    rng.fill(block);
    // Sub-block scales of 32 to 63 with the same number as minimum: the root mean square of
    // scale times (code - 7.5) is 48.4 times 4.61.
    let scales: [u8; 8] = std::array::from_fn(|_| 32 + (rng.below(32) as u8));
    for j in 0..4 {
        block[4 + j] = scales[j] | scales[j + 4] >> 4 << 6;
        block[8 + j] = scales[j] | scales[j + 4] >> 4 << 6;
        block[12 + j] = (scales[j + 4] & 15) * 0x11;
    }
    let d = numbers.deviation / (48.4 * 4.61) * (0.9 + 0.2 * rng.unit());
    block[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
    block[2..4].copy_from_slice(&f32_to_f16(7.5 * d).to_le_bytes());
}

fn q2_k(rng: &mut Rng, numbers: Numbers, block: &mut [u8]) {
    rng.fill(block);
    // The minimum has the scale's nibble, so that code - 1.5 is what is scaled: 8.8 times 1.118.
    block[..16].iter_mut().for_each(|s| *s = (*s & 15) * 0x11);
    let d = numbers.deviation / (8.8 * 1.118) * (0.9 + 0.2 * rng.unit());
    block[80..82].copy_from_slice(&f32_to_f16(d).to_le_bytes());
    block[82..84].copy_from_slice(&f32_to_f16(1.5 * d).to_le_bytes());
}

fn iq2_xxs(rng: &mut Rng, numbers: Numbers, block: &mut [u8]) {
    rng.fill(block);
    // The root mean square of grid magnitudes is 23.1, that of group scales 9.23, over 4.
    block[..2].copy_from_slice(&scale(rng, numbers.deviation / (0.25 * 9.23 * 23.1)));
}

fn mxfp4(rng: &mut Rng, numbers: Numbers, block: &mut [u8]) {
    rng.fill(block);
    // Codes have a root mean square of 2.926. Two neighbouring powers of two are drawn so that
    // the mean square is right.
    let wanted = numbers.deviation / 2.926;
    let exponent = wanted.log2().floor();
    let excess = (wanted / exponent.exp2()).powi(2);
    let up = rng.unit() < (excess - 1.0) / 3.0;
    block[0] = (exponent as i32 + 127 + i32::from(up)).clamp(0, 254) as u8;
}
