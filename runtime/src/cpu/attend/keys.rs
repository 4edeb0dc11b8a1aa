//! The keys of one token, in the order of the interpreter: window positions ascending, then entries.
use crate::cpu::product::Isa;
use crate::cpu::simd::{self, versions};
use ds4_ir::formats::{bf16_to_f32, e4m3_to_f32, e8m0_to_f32};
use ds4_ir::view::{Data, State, Tensor, state_slot};
use ds4_ir::{KV8_GROUP, Scalar};
use std::ops::Range;

/// Channels that are decoded at once: those that share a scale.
pub(super) const CHANNELS: usize = KV8_GROUP;

/// What follows the keys of the window.
#[derive(Clone, Copy)]
pub(super) enum More<'a> {
    /// The first rows, as many.
    First(Data<'a, f32>, usize),
    /// The rows of these numbers.
    Picked(Data<'a, f32>, &'a [u32]),
}

/// Where the keys of one token lie.
pub(super) struct Keys<'a> {
    ring: State<'a, f32>,
    own: Tensor<'a, f32>,
    /// First position of the step; those before are in the ring.
    start: usize,
    /// Positions of the window.
    window: Range<usize>,
    more: More<'a>,
}

#[derive(Clone, Copy)]
struct Key<'a> {
    data: Data<'a, f32>,
    row: usize,
}

impl<'a> Keys<'a> {
    /// The keys of the token at position `p` of a step that starts at `start`.
    pub(super) fn new(
        ring: State<'a, f32>,
        own: Tensor<'a, f32>,
        start: usize,
        p: usize,
        more: More<'a>,
    ) -> Keys<'a> {
        let from = (p + 1).saturating_sub(ring.ty.kind.span() as usize);
        Keys { ring, own, start, window: from..p + 1, more }
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.window.len()
            + match self.more {
                More::First(_, n) => n,
                More::Picked(_, rows) => rows.len(),
            }
    }

    fn key(&self, i: usize) -> Key<'a> {
        let p = self.window.start + i;
        if p >= self.window.end {
            let i = p - self.window.end;
            return match self.more {
                More::First(data, _) => Key { data, row: i },
                More::Picked(data, rows) => Key { data, row: rows[i] as usize },
            };
        }
        match p.checked_sub(self.start) {
            Some(row) => Key { data: self.own.data, row },
            None => Key { data: self.ring.data, row: state_slot(self.ring.ty.kind, self.ring.capacity, p) },
        }
    }

    /// Decodes channels of key `i` from `from` on, a multiple of [`CHANNELS`]; at most so many.
    fn read(&self, isa: Isa, i: usize, from: usize, out: &mut [f32]) {
        let Key { data, row } = self.key(i);
        let width = self.ring.ty.width as usize;
        match (data, self.ring.ty.scalar) {
            (Data::Real(x), _) => out.copy_from_slice(&x[row * width + from..][..out.len()]),
            (Data::Packed(bytes), scalar @ Scalar::Kv8 { rope }) => {
                let size = scalar.row_bytes(width);
                decode_kv8(isa, &bytes[row * size..][..size], width - usize::from(rope), width, from, out);
            }
            (_, scalar) => panic!("expected kv8 or f32 keys, got {scalar}"),
        }
    }

    /// Decodes whole keys as [`super::tile::scores`] reads them, rows of `stride` ≥ width floats; the
    /// channels beyond the width are zero.
    pub(super) fn read_groups(&self, isa: Isa, keys: Range<usize>, stride: usize, out: &mut [f32]) {
        let (width, side) = (self.ring.ty.width as usize, simd::rows(isa));
        let mut part = [0.0; CHANNELS];
        for (i, key) in keys.enumerate() {
            let group = &mut out[i / side * side * stride..][..side * stride];
            for from in (0..width).step_by(CHANNELS) {
                let used = CHANNELS.min(width - from);
                self.read(isa, key, from, &mut part[..used]);
                part[used..].fill(0.0);
                let eights = part.as_chunks::<8>().0.iter().take(used.div_ceil(8));
                for (at, eight) in eights.enumerate() {
                    group[((from / 8 + at) * side + i % side) * 8..][..8].copy_from_slice(eight);
                }
            }
        }
    }

    /// Decodes [`CHANNELS`] channels of each key from `from` on, zeros beyond the width.
    pub(super) fn read_channels(&self, isa: Isa, keys: Range<usize>, from: usize, out: &mut [f32]) {
        let used = CHANNELS.min(self.ring.ty.width as usize - from);
        for (key, out) in keys.zip(out.chunks_exact_mut(CHANNELS)) {
            self.read(isa, key, from, &mut out[..used]);
            out[used..].fill(0.0);
        }
    }
}

versions! {
    /// Channels `from..` of a `kv8` row with `n` scaled channels of `width`.
    fn decode_kv8<V>(row: &[u8], n: usize, width: usize, from: usize, out: &mut [f32]) {
        let (codes, rest) = row.split_at(n);
        let (halves, scales) = rest.split_at(2 * (width - n));
        let scaled = n.saturating_sub(from).min(out.len());
        let (out, rotary) = out.split_at_mut(scaled);
        if scaled > 0 {
            let scale = e8m0_to_f32(scales[from / KV8_GROUP]);
            for (o, code) in out.iter_mut().zip(&codes[from..]) {
                *o = e4m3_to_f32(*code) * scale;
            }
        }
        let halves = halves.as_chunks::<2>().0;
        for (o, half) in rotary.iter_mut().zip(&halves[(from + scaled) - n.min(from + scaled)..]) {
            *o = bf16_to_f32(u16::from_le_bytes(*half));
        }
    }
}
