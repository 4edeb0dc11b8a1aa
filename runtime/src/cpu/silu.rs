//! The activation between up and down.
use ds4_ir::ops::moe::swiglu_of;

/// `swiglu` into `gate`.
pub(super) fn swiglu(gate: &mut [f32], up: &[f32], clamp: f32) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just found.
        return unsafe { swiglu_avx2(gate, up, clamp) };
    }
    swiglu_any(gate, up, clamp);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn swiglu_avx2(gate: &mut [f32], up: &[f32], clamp: f32) {
    swiglu_any(gate, up, clamp);
}

#[inline(always)]
fn swiglu_any(gate: &mut [f32], up: &[f32], clamp: f32) {
    gate.iter_mut().zip(up).for_each(|(g, u)| *g = swiglu_of(*g, *u, clamp));
}
