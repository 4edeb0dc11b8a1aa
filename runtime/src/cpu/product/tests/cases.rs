//! Matrices and input rows to multiply, from harmless to hostile.
use super::super::*;
use ds4_ir::formats::encode_row;
use std::ops::{Deref, DerefMut};

pub(super) const WEIGHTS: [Scalar; 10] = [
    Scalar::F32,
    Scalar::Bf16,
    Scalar::F16,
    Scalar::Fp8,
    Scalar::Fp4,
    Scalar::Mxfp4,
    Scalar::Q8_0,
    Scalar::Q4K,
    Scalar::Q2K,
    Scalar::Iq2Xxs,
];

pub(super) const INPUTS: [Scalar; 6] =
    [Scalar::F32, Scalar::F16, Scalar::Bf16, Scalar::E4m3x128, Scalar::Q8K, Scalar::Q8_0];

/// The scalar kernel of a pair.
pub(super) fn twin(weight: Scalar, input: Scalar) -> &'static ProductKernel {
    let mut scalar = kernels().filter(|k| (k.weight, k.input, k.isa) == (weight, input, Isa::Scalar));
    let found = scalar.next().unwrap_or_else(|| panic!("no twin of {weight} times {input}"));
    assert!(scalar.next().is_none(), "two twins of {weight} times {input}");
    found
}

/// Bytes that start `offset` behind a multiple of 64.
pub(super) struct Bytes {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Bytes {
    pub(super) fn new(len: usize, offset: usize) -> Bytes {
        let memory = vec![0; len + 64 + offset];
        let from = memory.as_ptr().align_offset(64) + offset;
        Bytes { memory, from, len }
    }

    fn copied(bytes: &[u8], offset: usize) -> Bytes {
        let mut copy = Bytes::new(bytes.len(), offset);
        copy.copy_from_slice(bytes);
        copy
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.from..][..self.len]
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..][..self.len]
    }
}

/// What numbers a case is made of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Flavour {
    /// Numbers as a model has them.
    Tame,
    /// Largest codes and largest sub-scales everywhere: integer sums at their bounds.
    Largest,
    /// Scales and numbers among the smallest, denormals included.
    Tiny,
    /// Any bytes: every code, infinities and NaN among scales and floats.
    Any,
}

pub(super) const FLAVOURS: [Flavour; 4] = [Flavour::Tame, Flavour::Largest, Flavour::Tiny, Flavour::Any];

/// A sequence of bits without pattern.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n.div_ceil(8)).flat_map(|_| self.bits().to_le_bytes()).take(n).collect()
    }

    /// In -1 … 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A stored matrix with codes at an odd address.
pub(super) struct Weight {
    pub(super) scalar: Scalar,
    pub(super) rows: usize,
    pub(super) width: usize,
    codes: Bytes,
    scales: Bytes,
}

impl Weight {
    pub(super) fn new(
        scalar: Scalar,
        rows: usize,
        width: usize,
        flavour: Flavour,
        noise: &mut Noise,
    ) -> Weight {
        let mut codes = noise.bytes(rows * scalar.row_bytes(width));
        let [r, s] = scalar.scale_shape(rows, width).unwrap_or([0, 0]);
        let mut scales = noise.bytes(r * s);
        if flavour == Flavour::Largest {
            let byte = match scalar {
                Scalar::Q8_0 => 0x80,
                Scalar::Mxfp4 | Scalar::Fp4 => 0x77,
                // The magnitudes 43 43 43 ... stand nowhere in the table; any index will do.
                _ => 0xff,
            };
            codes.fill(byte);
        }
        if flavour != Flavour::Any {
            scales.iter_mut().for_each(|s| *s = e8m0(flavour, *s));
            tame(scalar, flavour, &mut codes);
        }
        Weight { scalar, rows, width, codes: Bytes::copied(&codes, 1), scales: Bytes::copied(&scales, 3) }
    }

    /// The codes as the packing wants them, at an odd address where it is as stored.
    pub(super) fn packed(&self, packing: Packing) -> Bytes {
        if packing == Packing::Stored {
            return Bytes::copied(&self.codes, 1);
        }
        let size = packing.packed_bytes(self.scalar, self.rows, self.width).expect("a matrix of the packing");
        let mut packed = Bytes::new(size, 0);
        packing.pack(&self.matrix(&self.codes), 0..self.rows, &mut packed);
        packed
    }

    pub(super) fn matrix<'a>(&'a self, codes: &'a [u8]) -> Matrix<'a> {
        Matrix { scalar: self.scalar, rows: self.rows, width: self.width, codes, scales: &self.scales }
    }

    /// The matrix as stored.
    pub(super) fn stored(&self) -> Matrix<'_> {
        self.matrix(&self.codes)
    }
}

fn e8m0(flavour: Flavour, byte: u8) -> u8 {
    if flavour == Flavour::Tiny { byte % 4 } else { 120 + byte % 8 }
}

fn f16(flavour: Flavour, bits: u16) -> [u8; 2] {
    let code = match flavour {
        // Sign and fraction of a number between 2^-10 and 2^-6.
        Flavour::Tame => bits & 0x8fff | 0x1400 | bits & 0x0400,
        Flavour::Largest => 0x7bff,
        _ => bits & 0x83ff,
    };
    code.to_le_bytes()
}

/// Replaces scales and floats by such of the flavour.
fn tame(scalar: Scalar, flavour: Flavour, codes: &mut [u8]) {
    let (block, scales): (usize, &[usize]) = match scalar {
        Scalar::F16 => (2, &[0]),
        Scalar::Q8_0 => (34, &[0]),
        Scalar::Q4K => (144, &[0, 2]),
        Scalar::Q2K => (84, &[80, 82]),
        Scalar::Iq2Xxs => (66, &[0]),
        Scalar::F32 | Scalar::Bf16 => return tame_floats(scalar, flavour, codes),
        Scalar::Fp8 if flavour == Flavour::Largest => return codes.fill(0x7e),
        Scalar::Fp8 => {
            // Bit 6 of the exponent away: no NaN.
            return codes.iter_mut().for_each(|c| *c &= 0xbf);
        }
        Scalar::Mxfp4 => {
            return codes.chunks_exact_mut(17).for_each(|b| b[0] = e8m0(flavour, b[0]));
        }
        _ => return,
    };
    for block in codes.chunks_exact_mut(block) {
        for at in scales {
            let bits = u16::from_le_bytes([block[*at], block[at + 1]]);
            block[*at..at + 2].copy_from_slice(&f16(flavour, bits));
        }
    }
}

fn tame_floats(scalar: Scalar, flavour: Flavour, codes: &mut [u8]) {
    // The exponent stands in the upper two bytes of both types.
    let size = if scalar == Scalar::F32 { 4 } else { 2 };
    for number in codes.chunks_exact_mut(size) {
        let [low, high] = &mut number[size - 2..] else { unreachable!() };
        let upper = u16::from_le_bytes([*low, *high]);
        let upper = match flavour {
            Flavour::Tiny => upper & 0x807f,
            Flavour::Largest => 0x5f7f,
            _ => upper & 0x81ff | 0x3c00,
        };
        [*low, *high] = upper.to_le_bytes();
    }
}

/// Encoded input rows.
pub(super) struct Inputs {
    pub(super) scalar: Scalar,
    pub(super) rows: Vec<Vec<u8>>,
}

impl Inputs {
    pub(super) fn new(scalar: Scalar, n: usize, width: usize, flavour: Flavour, noise: &mut Noise) -> Inputs {
        let scale = match flavour {
            Flavour::Tiny => 1e-38,
            Flavour::Any => 1e30,
            _ => 1.0,
        };
        let mut row = |i: usize| {
            let mut x: Vec<f32> = (0..width).map(|_| noise.unit() * scale).collect();
            match (flavour, i % 4) {
                (Flavour::Largest, 0) => x.fill(1.0),
                (Flavour::Largest, 1) => x.fill(-1.0),
                (Flavour::Largest, _) => x.iter_mut().for_each(|x| *x = x.signum()),
                // An outlier, a row of zeros, and one that is no numbers at its start.
                (Flavour::Tame, 1) => x[0] = 100.0,
                (_, 2) => x.fill(0.0),
                (Flavour::Any, 3) => x[0] = f32::NAN,
                _ => {}
            }
            let mut bytes = vec![0; scalar.row_bytes(width)];
            encode_row(scalar, &x, &mut bytes);
            bytes
        };
        Inputs { scalar, rows: (0..n).map(&mut row).collect() }
    }
}
