//! The rotation that precedes the rounding of index rows (spec 6.2).
use crate::Real;

/// Orthonormal Walsh-Hadamard transform in place, Sylvester order: its own inverse.
///
/// # Panics
/// If the length is not a power of two.
#[inline(always)]
pub fn hadamard<F: Real>(x: &mut [F]) {
    let n = x.len();
    assert!(n.is_power_of_two(), "hadamard: expected a power of two, got {n} channels");
    let mut half = 1;
    while half < n {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let norm = F::from_f64((n as f64).powf(-0.5));
    for x in x {
        *x *= norm;
    }
}
