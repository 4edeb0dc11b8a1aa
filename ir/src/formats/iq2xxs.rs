//! `iq2_xxs`: eight magnitudes at a time from a table, signs of even parity (spec 4.4, appendix C).
use super::blocks::f16_at;
use crate::Real;

/// The table in base 3: digit k, least significant first, selects magnitude k of the entry.
const GRID_BASE_3: [u16; 256] = [
    0, 2, 4, 6, 8, 10, 12, 18, 20, 24, 26, 28, 30, 36, 42, 46, 48, 54, 56, 62, 74, 82, 84, 90, 94, 108, 138,
    150, 162, 164, 182, 218, 244, 246, 252, 262, 264, 270, 272, 276, 288, 298, 300, 306, 318, 324, 326, 330,
    342, 356, 376, 378, 388, 412, 414, 432, 462, 480, 486, 490, 492, 498, 510, 514, 516, 522, 524, 546, 570,
    594, 650, 660, 730, 732, 738, 748, 756, 774, 786, 792, 796, 810, 816, 828, 846, 854, 864, 912, 922, 972,
    978, 990, 994, 1006, 1026, 1068, 1100, 1134, 1148, 1216, 1218, 1224, 1242, 1270, 1296, 1300, 1368, 1414,
    1458, 1460, 1466, 1488, 1504, 1512, 1514, 1564, 1572, 1620, 1622, 1702, 1704, 1710, 1728, 1742, 1782,
    1810, 1830, 1926, 1950, 1962, 2010, 2136, 2188, 2190, 2196, 2202, 2206, 2208, 2214, 2220, 2228, 2232,
    2242, 2244, 2250, 2268, 2286, 2314, 2322, 2326, 2350, 2358, 2382, 2390, 2400, 2430, 2436, 2448, 2484,
    2500, 2522, 2532, 2592, 2674, 2676, 2682, 2700, 2704, 2754, 2796, 2800, 2810, 2866, 2898, 2916, 2922,
    2926, 2932, 2934, 2970, 2976, 3000, 3026, 3072, 3142, 3222, 3224, 3248, 3322, 3360, 3402, 3412, 3418,
    3450, 3510, 3570, 3648, 3654, 3672, 3696, 3726, 3766, 3822, 3852, 3888, 3892, 3978, 3980, 4026, 4160,
    4374, 4376, 4382, 4402, 4430, 4458, 4470, 4482, 4546, 4618, 4620, 4626, 4630, 4644, 4662, 4698, 4730,
    4764, 4786, 4806, 4824, 4862, 4944, 5032, 5106, 5112, 5124, 5130, 5176, 5198, 5238, 5296, 5346, 5366,
    5376, 5464, 5644, 5688, 5834, 5868, 5890, 5920, 5994, 6090, 6354, 6402,
];

/// The magnitudes that an index byte selects: 8, 25 or 43 each.
pub static IQ2XXS_GRID: [[u8; 8]; 256] = {
    let mut grid = [[0; 8]; 256];
    let mut i = 0;
    while i < 256 {
        let mut digits = GRID_BASE_3[i];
        let mut k = 0;
        while k < 8 {
            grid[i][k] = [8, 25, 43][(digits % 3) as usize];
            digits /= 3;
            k += 1;
        }
        i += 1;
    }
    grid
};

/// Per sign code: 0xff where the element is negative, else 0.
static SIGN_MASKS: [[u8; 8]; 128] = {
    let mut masks = [[0; 8]; 128];
    let mut code = 0;
    while code < 128 {
        let signs = iq2xxs_signs(code as u8);
        let mut k = 0;
        while k < 8 {
            masks[code][k] = if signs >> k & 1 == 1 { 0xff } else { 0 };
            k += 1;
        }
        code += 1;
    }
    masks
};

/// The eight signs of a seven bit sign code; a set bit is a minus. Bit 7 makes their number even.
pub const fn iq2xxs_signs(code: u8) -> u8 {
    let code = code & 0x7f;
    code | (code.count_ones() as u8 & 1) << 7
}

/// f16 `d`, then per 32 values: four index bytes and a u32 of four sign codes under a scale in the top
/// four bits; value = d·(scale + 1/2)/4·magnitude, signed.
#[inline]
pub(super) fn decode_iq2_xxs<F: Real>(block: &[u8; 66], out: &mut [F; 256]) {
    let d: F = f16_at(block, 0);
    let (groups, _) = block[2..].as_chunks::<8>();
    for (group, out) in groups.iter().zip(out.as_chunks_mut::<32>().0) {
        let [i0, i1, i2, i3, signs @ ..] = *group;
        let signs = u32::from_le_bytes(signs);
        let scale = d * F::from_f32(((signs >> 28) as f32 + 0.5) * 0.25);
        for (k, (index, out)) in [i0, i1, i2, i3].iter().zip(out.as_chunks_mut::<8>().0).enumerate() {
            let magnitudes = &IQ2XXS_GRID[usize::from(*index)];
            let masks = &SIGN_MASKS[(signs >> (7 * k) & 0x7f) as usize];
            for ((magnitude, mask), out) in magnitudes.iter().zip(masks).zip(out) {
                let signed = (magnitude ^ mask).wrapping_sub(*mask) as i8;
                *out = scale * F::from_f32(f32::from(signed));
            }
        }
    }
}
