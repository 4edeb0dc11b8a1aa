//! The bytes of packed blocks, in both directions.
use ds4_ir::formats::{IQ2XXS_GRID, iq2xxs_signs};

/// Bytes of a packed block.
pub(super) const INDEX_SIGNS: usize = 70;
pub(super) const SIGN_PLANES: usize = 102;
pub(super) const TRANSPOSED: usize = 84;
/// Rows of a tile of sign planes.
pub(super) const PLANE_ROWS: usize = 32;

/// Block by block.
pub(super) fn each<const A: usize, const B: usize>(
    from: &[u8],
    to: &mut [u8],
    f: fn(&[u8; A], &mut [u8; B]),
) {
    let (from, rest) = from.as_chunks::<A>();
    assert!(rest.is_empty() && from.len() * B == to.len(), "whole blocks");
    from.iter().zip(to.as_chunks_mut::<B>().0).for_each(|(from, to)| f(from, to));
}

/// A group of 32 of a stored `iq2_xxs` block: indices, sign codes, scale.
fn group(block: &[u8; 66], g: usize) -> ([u8; 4], [u8; 4], u8) {
    let [i0, i1, i2, i3, s0, s1, s2, s3] =
        *block[2..].as_chunks::<8>().0[g].first_chunk().expect("eight bytes");
    let word = u32::from_le_bytes([s0, s1, s2, s3]);
    ([i0, i1, i2, i3], [0, 7, 14, 21].map(|at| (word >> at) as u8 & 0x7f), (word >> 28) as u8)
}

#[cfg(test)]
fn put_group(block: &mut [u8; 66], g: usize, indices: [u8; 4], signs: [u8; 4], scale: u8) {
    let word = signs.iter().rev().fold(u32::from(scale), |word, s| word << 7 | u32::from(*s & 0x7f));
    let out = &mut block[2 + 8 * g..][..8];
    out[..4].copy_from_slice(&indices);
    out[4..].copy_from_slice(&word.to_le_bytes());
}

/// ```text
/// 32 indices   4v + c: index k of group 4h + c, v = 4h + k
/// 32 signs     byte 8c + l, bit v: sign l of that index
///  4 scales    byte c: of group c in the low nibble, of group 4 + c in the high
///  2 d
/// ```
pub(super) fn index_signs(from: &[u8; 66], to: &mut [u8; INDEX_SIGNS]) {
    to.fill(0);
    for g in 0..8 {
        let (indices, signs, scale) = group(from, g);
        let (h, c) = (g / 4, g % 4);
        for k in 0..4 {
            let v = 4 * h + k;
            to[4 * v + c] = indices[k];
            for l in 0..8 {
                to[32 + 8 * c + l] |= (iq2xxs_signs(signs[k]) >> l & 1) << v;
            }
        }
        to[64 + c] |= scale << (4 * h);
    }
    to[68..].copy_from_slice(&from[..2]);
}

#[cfg(test)]
pub(super) fn from_index_signs(from: &[u8; INDEX_SIGNS], to: &mut [u8; 66]) {
    to[..2].copy_from_slice(&from[68..]);
    for g in 0..8 {
        let (h, c) = (g / 4, g % 4);
        let v = |k: usize| 4 * h + k;
        let indices = [0, 1, 2, 3].map(|k| from[4 * v(k) + c]);
        let sign = |k: usize, l: usize| (from[32 + 8 * c + l] >> v(k) & 1) << l;
        let signs = [0, 1, 2, 3].map(|k| (0..7).map(|l| sign(k, l)).sum());
        put_group(to, g, indices, signs, from[64 + c] >> (4 * h) & 15);
    }
}

/// Element 16p + e of the block is two bits of vector e / 2, byte 2p + e % 2; vectors 0 to 3 lie in the
/// first 32 bytes, lowest bits first. Scales, d and dmin stay where they are.
fn transposed_place(i: usize) -> (usize, usize) {
    let (p, e) = (i / 16, i % 16);
    let (vector, byte) = (e / 2, 2 * p + e % 2);
    (16 + vector / 4 * 32 + byte, vector % 4 * 2)
}

fn stored_place(i: usize) -> (usize, usize) {
    (16 + i / 128 * 32 + i % 32, i / 32 % 4 * 2)
}

fn move_codes(from: &[u8; 84], to: &mut [u8; 84], places: [fn(usize) -> (usize, usize); 2]) {
    to.copy_from_slice(from);
    to[16..80].fill(0);
    for i in 0..256 {
        let ((byte, bit), (to_byte, to_bit)) = (places[0](i), places[1](i));
        to[to_byte] |= (from[byte] >> bit & 3) << to_bit;
    }
}

pub(super) fn transposed(from: &[u8; 84], to: &mut [u8; 84]) {
    move_codes(from, to, [stored_place, transposed_place]);
}

#[cfg(test)]
pub(super) fn from_transposed(from: &[u8; 84], to: &mut [u8; 84]) {
    move_codes(from, to, [transposed_place, stored_place]);
}

/// Order in which a tile keeps the scales d of its rows: that of the kernel's sums.
pub(super) const PLANE_ORDER: [usize; 32] = [
    0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28,
    29, 30, 31,
];

/// Where a nibble of four signs of plane `p` of row `r` lies, quad `q` of the 64 of a block: byte and shift.
fn plane_place(q: usize, p: usize, r: usize) -> (usize, usize) {
    (384 * (q / 8) + 96 * (q % 8 / 2) + 32 * p + r, q % 2 * 4)
}

/// The signs, set for plus, with which 33/2, 35/2 and 18/2 add up to a weight.
fn planes(magnitude: u8, minus: bool) -> u8 {
    let plus = match magnitude {
        43 => 0b111,
        25 => 0b011,
        _ => 0b101,
    };
    if minus { plus ^ 7 } else { plus }
}

/// Per 32 rows, per block:
///
/// ```text
/// 3072 planes  see `plane_place`; bit i of a nibble is element i of the quad
///  128 scales  byte 16g + r: of row r in the low nibble, of row 16 + r in the high
///   64 d       of the rows in `PLANE_ORDER`
/// ```
pub(super) fn sign_planes(from: &[u8], blocks: usize, to: &mut [u8]) {
    to.fill(0);
    let from = from.as_chunks::<66>().0;
    for (tile, out) in to.chunks_exact_mut(SIGN_PLANES * PLANE_ROWS).enumerate() {
        let block = |r: usize| &from[(tile / blocks * PLANE_ROWS + r) * blocks + tile % blocks];
        for r in 0..PLANE_ROWS {
            for g in 0..8 {
                let (indices, signs, scale) = group(block(r), g);
                for i in 0..32 {
                    let (k, l) = (i / 8, i % 8);
                    let minus = iq2xxs_signs(signs[k]) >> l & 1 == 1;
                    let code = planes(IQ2XXS_GRID[usize::from(indices[k])][l], minus);
                    for p in 0..3 {
                        let (byte, shift) = plane_place(8 * g + i / 4, p, r);
                        out[byte] |= (code >> p & 1) << (i % 4 + shift);
                    }
                }
                out[3072 + 16 * g + r % 16] |= scale << (r / 16 * 4);
            }
        }
        for (r, d) in PLANE_ORDER.into_iter().zip(out[3200..].as_chunks_mut::<2>().0) {
            d.copy_from_slice(&block(r)[..2]);
        }
    }
}

#[cfg(test)]
pub(super) fn from_sign_planes(from: &[u8], blocks: usize, to: &mut [u8]) {
    let to = to.as_chunks_mut::<66>().0;
    for (tile, packed) in from.chunks_exact(SIGN_PLANES * PLANE_ROWS).enumerate() {
        for r in 0..PLANE_ROWS {
            let block = &mut to[(tile / blocks * PLANE_ROWS + r) * blocks + tile % blocks];
            for g in 0..8 {
                let code = |i: usize| {
                    let bit = |p: usize| {
                        let (byte, shift) = plane_place(8 * g + i / 4, p, r);
                        (packed[byte] >> (i % 4 + shift) & 1) << p
                    };
                    bit(0) | bit(1) | bit(2)
                };
                let (mut indices, mut signs) = ([0; 4], [0; 4]);
                for k in 0..4 {
                    let codes: [u8; 8] = std::array::from_fn(|l| code(8 * k + l));
                    // The lowest bit is the sign of every magnitude.
                    let minus = codes.map(|c| c & 1 == 0);
                    let same = |entry: &[u8; 8]| (0..8).all(|l| planes(entry[l], minus[l]) == codes[l]);
                    let index = IQ2XXS_GRID.iter().position(same).expect("magnitudes of the table");
                    indices[k] = index as u8;
                    signs[k] = (0..7).map(|l| u8::from(minus[l]) << l).sum();
                }
                let scale = packed[3072 + 16 * g + r % 16] >> (r / 16 * 4) & 15;
                put_group(block, g, indices, signs, scale);
            }
            let at = PLANE_ORDER.iter().position(|o| *o == r).expect("a row of the tile");
            block[..2].copy_from_slice(&packed[3200 + 2 * at..][..2]);
        }
    }
}
