//! Sessions at any position without computing it: states filled with random rows, for measuring.
use crate::{Result, Session};
use ds4_ir::StateType;
use ds4_ir::formats::encode_row;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

impl Session {
    /// Brings the session to `position` tokens with random states: every row that a step from there
    /// on may read holds numbers of mean 0 and variance 1, encoded in the type of its state, so that
    /// codes are valid and scales are those of such numbers. The same `seed` gives the same states.
    ///
    /// The session then answers as a model would that has seen noise. It is for measuring speed.
    ///
    /// # Errors
    /// What a device reports.
    ///
    /// # Panics
    /// If `position` is beyond the context.
    pub fn fill_random(&mut self, position: u64, seed: u64) -> Result<()> {
        let ctx = u64::from(self.engine().module().ctx);
        assert!(position <= ctx, "position {position} of a context of {ctx} tokens");
        self.reset();
        // As many states at once as there are threads to make their rows.
        let threads = self.engine().threads().max(1);
        let types: Vec<StateType> = self.engine().module().states.iter().map(|s| s.ty).collect();
        for (part, types) in types.chunks(threads).enumerate() {
            let made: Vec<Vec<u8>> = std::thread::scope(|scope| {
                let make = |(i, ty): (usize, &StateType)| {
                    let (ty, number) = (*ty, (part * threads + i) as u64);
                    scope.spawn(move || rows(ty, position, Pcg64Mcg::seed_from_u64(seed ^ number << 32)))
                };
                let running: Vec<_> = types.iter().enumerate().map(make).collect();
                running.into_iter().map(|t| t.join().expect("making rows does not panic")).collect()
            });
            for (i, (ty, bytes)) in types.iter().zip(made).enumerate() {
                self.body.write_rows(part * threads + i, ty.kind.valid(position), &bytes)?;
            }
        }
        self.set_restored(position);
        Ok(())
    }
}

/// The valid rows of a state at `position`.
fn rows(ty: StateType, position: u64, mut random: Pcg64Mcg) -> Vec<u8> {
    let width = ty.width as usize;
    let size = ty.scalar.row_bytes(width);
    let mut row = vec![0f32; width];
    let spread = 3f32.sqrt();
    let valid = ty.kind.valid(position);
    let count = usize::try_from(valid.end - valid.start).expect("rows fit memory");
    let mut all = vec![0; count * size];
    for to in all.chunks_exact_mut(size) {
        for x in &mut row {
            // 24 bits are as many as an f32 holds.
            *x = ((random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0) * spread;
        }
        encode_row(ty.scalar, &row, to);
    }
    all
}
