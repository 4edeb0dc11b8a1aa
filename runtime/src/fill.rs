//! Sessions at any position without computing it: states filled with random rows, for measuring.
use crate::Session;
use crate::step::Held;
use ds4_ir::formats::encode_row;
use ds4_ir::view::state_slot;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

impl Session {
    /// Brings the session to `position` tokens with random states: every row that a step from there
    /// on may read holds numbers of mean 0 and variance 1, encoded in the type of its state, so that
    /// codes are valid and scales are those of such numbers. The same `seed` gives the same states.
    ///
    /// The session then answers as a model would that has seen noise. It is for measuring speed.
    ///
    /// # Panics
    /// If `position` is beyond the context.
    pub fn fill_random(&mut self, position: u64, seed: u64) {
        let ctx = u64::from(self.engine().module().ctx);
        assert!(position <= ctx, "position {position} of a context of {ctx} tokens");
        self.reset();
        let threads = self.engine().threads();
        let each = self.states.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for (part, states) in self.states.chunks_mut(each).enumerate() {
                scope.spawn(move || {
                    for (i, held) in states.iter_mut().enumerate() {
                        let number = (part * each + i) as u64;
                        fill(held, position, Pcg64Mcg::seed_from_u64(seed ^ number << 32));
                    }
                });
            }
        });
        self.set_restored(position);
    }
}

/// Fills the valid rows of one state at `position`.
fn fill(held: &mut Held, position: u64, mut random: Pcg64Mcg) {
    let width = held.ty.width as usize;
    let size = held.ty.scalar.row_bytes(width);
    let mut row = vec![0f32; width];
    let spread = 3f32.sqrt();
    for number in held.ty.kind.valid(position) {
        let number = usize::try_from(number).expect("rows fit memory");
        let slot = state_slot(held.ty.kind, held.capacity, number);
        for x in &mut row {
            // 24 bits are as many as an f32 holds.
            *x = ((random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0) * spread;
        }
        encode_row(held.ty.scalar, &row, &mut held.memory.bytes_mut()[slot * size..][..size]);
    }
}
