//! Random operands that mean something: positions that are positions, experts that exist.
use ds4_ir::view::Route;
use ds4_ir::{Bind, Func, Scalar, StateKind, StateType, TensorType, Type, formats};
use std::ops::Range;

/// A small generator (xorshift): the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(0x9e37_79b9_7f4a_7c15 ^ (seed + 1).wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// From -2 to 2.
    pub(crate) fn real(&mut self) -> f32 {
        ((self.next() >> 40) as f32 / (1u64 << 24) as f32) * 4.0 - 2.0
    }
}

/// The elements of an operand as the device has them: bytes of rows.
pub(crate) type Bytes = Vec<u8>;

/// What random operands of a case must agree on.
pub(crate) struct Setting<'a> {
    pub(crate) func: &'a Func,
    pub(crate) bind: Bind,
    pub(crate) step: Range<u32>,
}

impl Setting<'_> {
    /// Experts that a route may name.
    fn experts(&self) -> usize {
        let tables = self.func.weights().map(|w| self.func.weight_type(w)).filter(|t| t.dims.len() == 3);
        tables.filter_map(|t| t.constants()).map(|d| d[0] as usize).next().unwrap_or(8)
    }

    /// Rows that a token id may name.
    fn vocab(&self) -> usize {
        let tables = self.func.weights().map(|w| self.func.weight_type(w)).filter(|t| t.dims.len() == 2);
        tables.filter_map(|t| t.constants()).map(|d| d[0] as usize).min().unwrap_or(8)
    }

    /// Entries that the `t`-th token of the step may see.
    fn visible(&self, t: usize) -> usize {
        let ratio = self.func.inputs().find_map(|v| match self.func.ty(v) {
            Type::State(StateType { kind: StateKind::Entries(r), .. }) => Some(*r as usize),
            _ => None,
        });
        (self.bind.start + t + 1) / ratio.unwrap_or(4)
    }

    /// Elements of the tensor input of that name.
    pub(crate) fn tensor(&self, random: &mut Random, name: &str, ty: &TensorType) -> Bytes {
        let dims = self.bind.dims(ty);
        let (width, outer) = dims.split_last().expect("a tensor has an axis");
        let rows: usize = outer.iter().product();
        match (ty.scalar, name) {
            (Scalar::I32, _) => {
                self.ints(random, name, rows, *width).iter().flat_map(|n| n.to_le_bytes()).collect()
            }
            (Scalar::Route, _) => routes(random, rows, *width, self.experts()),
            (Scalar::F32, "scores") => scores(random, rows, *width),
            (Scalar::F32, name) if name.starts_with(WILD) => wild(random, rows, *width),
            (scalar, _) => encoded(random, scalar, rows, *width),
        }
    }

    fn ints(&self, random: &mut Random, name: &str, rows: usize, width: usize) -> Vec<i32> {
        match name {
            "pos" => self.step.clone().map(|p| p as i32).collect(),
            "want" => (self.bind.tokens - width..self.bind.tokens).map(|i| i as i32).collect(),
            "idx" => (0..rows).flat_map(|t| chosen(random, self.visible(t), width)).collect(),
            _ => (0..rows * width).map(|_| random.below(self.vocab()) as i32).collect(),
        }
    }

    /// Codes and scales of each matrix of a weight.
    pub(crate) fn weight(&self, random: &mut Random, name: &str, ty: &TensorType) -> Vec<(Bytes, Bytes)> {
        let dims: Vec<usize> = ty.constants().expect("constant").iter().map(|d| *d as usize).collect();
        let (items, rows, width) = match dims[..] {
            [width] => (1, 1, width),
            [rows, width] => (1, rows, width),
            [items, rows, width] => (items, rows, width),
            _ => panic!("a weight of {} axes", dims.len()),
        };
        let experts = self.experts();
        let mut item = || {
            let scales = ty.scalar.scale_shape(rows, width).map_or(0, |[r, c]| r * c);
            let mut codes = weight_rows(random, ty.scalar, rows, width, experts);
            let mut scales: Bytes = (0..scales).map(|_| (118 + random.below(9)) as u8).collect();
            if name.starts_with(WILD) {
                rise(random, ty.scalar, rows, &mut codes, &mut scales);
            }
            (codes, scales)
        };
        (0..items).map(|_| item()).collect()
    }

    /// All rows of a state.
    pub(crate) fn state(&self, random: &mut Random, ty: &StateType, capacity: usize) -> Bytes {
        encoded(random, ty.scalar, capacity, ty.width as usize)
    }
}

/// Rows of random numbers in a format that is written as well as read.
fn encoded(random: &mut Random, scalar: Scalar, rows: usize, width: usize) -> Bytes {
    let mut all = Vec::new();
    for _ in 0..rows {
        let x: Vec<f32> = (0..width).map(|_| random.real()).collect();
        if scalar == Scalar::F32 {
            all.extend(x.iter().flat_map(|x| x.to_le_bytes()));
            continue;
        }
        let mut row = vec![0; scalar.row_bytes(width)];
        formats::encode_row(scalar, &x, &mut row);
        all.extend(row);
    }
    all
}

/// How names of operands begin whose numbers lie far apart.
const WILD: &str = "wild";

/// Rows of random numbers, some rows of large ones and some of small ones.
fn wild(random: &mut Random, rows: usize, width: usize) -> Bytes {
    let mut row = || {
        let scale = 2.0f32.powi(random.below(24) as i32 - 12);
        (0..width).flat_map(|_| (random.real() * scale).to_le_bytes()).collect::<Bytes>()
    };
    (0..rows).flat_map(|_| row()).collect()
}

/// Scales that rise from the left to the right, through all exponents that an f16 has.
fn rise(random: &mut Random, scalar: Scalar, rows: usize, codes: &mut Bytes, scales: &mut Bytes) {
    let mut exponent =
        |block: usize, blocks: usize| (34 * block / blocks) as i32 - 20 + random.below(2) as i32;
    let mut in_rows = |bytes: &mut Bytes, size: usize, put: &dyn Fn(&mut [u8], i32)| {
        let of_row = bytes.len() / rows;
        for row in bytes.chunks_exact_mut(of_row) {
            let each = row.chunks_exact_mut(size).enumerate();
            each.for_each(|(i, block)| put(block, exponent(i, of_row / size)));
        }
    };
    let f16 = |e: i32| formats::f32_to_f16(1.5 * 2.0f32.powi(e)).to_le_bytes();
    let e8m0 = |block: &mut [u8], e: i32| block[0] = (127 + e) as u8;
    match scalar {
        Scalar::Q8_0 => in_rows(codes, 34, &|b, e| b[..2].copy_from_slice(&f16(e))),
        Scalar::Iq2Xxs => in_rows(codes, 66, &|b, e| b[..2].copy_from_slice(&f16(e))),
        Scalar::Q4K => in_rows(codes, 144, &|b, e| b[..4].copy_from_slice(&[f16(e), f16(e)].concat())),
        Scalar::Q2K => in_rows(codes, 84, &|b, e| b[80..].copy_from_slice(&[f16(e), f16(e)].concat())),
        Scalar::Mxfp4 => in_rows(codes, 17, &e8m0),
        Scalar::Fp4 => in_rows(scales, 1, &e8m0),
        other => panic!("no scales of {other} rise"),
    }
}

/// Scores with ties, and with a tail that no token may see.
fn scores(random: &mut Random, rows: usize, width: usize) -> Bytes {
    let mut all = Vec::new();
    for _ in 0..rows {
        let seen = random.below(width + 1);
        let score =
            |j: usize| if j < seen { (random.real() * 16.0).round() / 16.0 } else { f32::NEG_INFINITY };
        all.extend((0..width).map(score).flat_map(f32::to_le_bytes));
    }
    all
}

/// `k` of the first `n` numbers in ascending order, filled up with -1.
fn chosen(random: &mut Random, n: usize, k: usize) -> Vec<i32> {
    let mut left = k.min(n);
    let mut all = Vec::new();
    for i in 0..n {
        if random.below(n - i) < left {
            all.push(i as i32);
            left -= 1;
        }
    }
    all.resize(k, -1);
    all
}

fn routes(random: &mut Random, rows: usize, width: usize, experts: usize) -> Bytes {
    let mut all = Vec::new();
    for _ in 0..rows {
        let mut left: Vec<i32> = (0..experts as i32).collect();
        for _ in 0..width {
            let expert = left.swap_remove(random.below(left.len()));
            let route = Route { expert, weight: random.real().abs() };
            all.extend(route.expert.to_le_bytes());
            all.extend(route.weight.to_le_bytes());
        }
    }
    all
}

/// Random blocks whose scales are small numbers.
fn weight_rows(random: &mut Random, scalar: Scalar, rows: usize, width: usize, experts: usize) -> Bytes {
    let size = scalar.row_bytes(width);
    let mut all: Bytes = (0..rows * size).map(|_| random.below(256) as u8).collect();
    let mut f16 = |at: &mut [u8]| {
        let x = 0.01 + 0.01 * random.real().abs();
        at.copy_from_slice(&formats::f32_to_f16(x).to_le_bytes());
    };
    match scalar {
        Scalar::F32 => all.chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&random.real().to_le_bytes())),
        Scalar::F16 => all
            .chunks_exact_mut(2)
            .for_each(|b| b.copy_from_slice(&formats::f32_to_f16(random.real()).to_le_bytes())),
        Scalar::Bf16 => all
            .chunks_exact_mut(2)
            .for_each(|b| b.copy_from_slice(&formats::f32_to_bf16(random.real()).to_le_bytes())),
        Scalar::I32 => all
            .chunks_exact_mut(4)
            .for_each(|b| b.copy_from_slice(&(random.below(experts) as i32).to_le_bytes())),
        Scalar::I64 => all
            .chunks_exact_mut(8)
            .for_each(|b| b.copy_from_slice(&(random.below(experts) as i64).to_le_bytes())),
        Scalar::Q8_0 => all.chunks_exact_mut(34).for_each(|b| f16(&mut b[..2])),
        Scalar::Q4K => all.chunks_exact_mut(144).for_each(|b| {
            f16(&mut b[..2]);
            f16(&mut b[2..4]);
        }),
        Scalar::Q2K => all.chunks_exact_mut(84).for_each(|b| {
            f16(&mut b[80..82]);
            f16(&mut b[82..84]);
        }),
        Scalar::Iq2Xxs => all.chunks_exact_mut(66).for_each(|b| f16(&mut b[..2])),
        Scalar::Mxfp4 => all.chunks_exact_mut(17).for_each(|b| b[0] = (120 + random.below(8)) as u8),
        // All codes but those that are no numbers.
        Scalar::Fp8 => all.iter_mut().filter(|b| **b & 127 == 127).for_each(|b| *b = 1),
        _ => {}
    }
    all
}
