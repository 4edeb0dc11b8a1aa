//! From logits to the next token.
use crate::{Error, Result};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// How the next token is chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest.
    pub temperature: f32,
    /// Only the `top_k` most probable tokens; 0 for all.
    pub top_k: usize,
    /// Only the most probable tokens that make up this much probability.
    pub top_p: f32,
    /// Only tokens at least this probable, relative to the most probable.
    pub min_p: f32,
    /// Start of the random sequence.
    pub seed: u64,
}

impl Sampling {
    /// The most probable token, always.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 };

    fn check(&self) -> Result<()> {
        let range = |name: &str, x: f32, low: f32, high: f32| {
            if (low..=high).contains(&x) {
                return Ok(());
            }
            Err(Error::Invalid(format!("{name}: expected a number from {low} to {high}, got {x}")))
        };
        range("temperature", self.temperature, 0.0, 100.0)?;
        range("top-p", self.top_p, 0.0, 1.0)?;
        range("min-p", self.min_p, 0.0, 1.0)
    }
}

/// Chooses tokens; the same seed and logits give the same tokens on every machine.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Pcg64,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(sampling: Sampling) -> Result<Sampler> {
        sampling.check()?;
        Ok(Sampler { sampling, random: Pcg64::seed_from_u64(sampling.seed) })
    }

    /// The next token for these logits (one per token id). NaN counts as -∞.
    ///
    /// Temperature comes first, then top-k, top-p and min-p each narrow the choice.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        assert!(!logits.is_empty(), "logits of at least one token");
        let id = |i: usize| u32::try_from(i).expect("ids fit 32 bits");
        let key = |i: usize| if logits[i].is_nan() { f32::NEG_INFINITY } else { logits[i] };
        let order = |a: &usize, b: &usize| key(*b).total_cmp(&key(*a)).then(a.cmp(b));
        if self.sampling.temperature == 0.0 {
            return id((0..logits.len()).min_by(order).expect("not empty"));
        }
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        let k = self.sampling.top_k;
        if k > 0 && k < ids.len() {
            ids.select_nth_unstable_by(k - 1, order);
            ids.truncate(k);
        }
        ids.sort_unstable_by(order);
        let scale = 1.0 / f64::from(self.sampling.temperature);
        let best = f64::from(key(ids[0]));
        // With a best logit of -∞ nothing is known; the differences would be no numbers.
        let weight =
            |i: &usize| if best.is_finite() { ((f64::from(key(*i)) - best) * scale).exp() } else { 1.0 };
        let mut weights: Vec<f64> = ids.iter().map(weight).collect();
        self.narrow(&mut weights);
        let total: f64 = weights.iter().sum();
        // 53 random bits make a uniform number in [0, 1).
        let mut at = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        for (i, w) in ids.iter().zip(&weights) {
            at -= w;
            if at < 0.0 {
                return id(*i);
            }
        }
        id(ids[weights.len() - 1])
    }

    /// Cuts the descending weights to what top-p and min-p leave; at least one stays.
    fn narrow(&self, weights: &mut Vec<f64>) {
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let enough = weights.iter().position(|w| {
            sum += w;
            sum >= total * f64::from(self.sampling.top_p)
        });
        weights.truncate(enough.map_or(weights.len(), |i| i + 1));
        let floor = weights[0] * f64::from(self.sampling.min_p);
        let kept = weights.iter().take_while(|w| **w >= floor).count().max(1);
        weights.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling).expect("in range");
        let mut counts = vec![0.0; logits.len()];
        (0..20_000).for_each(|_| counts[sampler.next(logits) as usize] += 1.0 / 20_000.0);
        counts
    }

    #[test]
    fn frequencies_follow_the_logits() {
        let base = Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY };
        let logits = [0.0, 2f32.ln(), f32::NAN, 5f32.ln()];
        for (got, expected) in share(base, &logits).iter().zip([0.125, 0.25, 0.0, 0.625]) {
            assert!((got - expected).abs() < 0.02, "{got} {expected}");
        }
        for (got, expected) in
            share(Sampling { temperature: 0.5, ..base }, &logits).iter().zip([1.0, 4.0, 0.0, 25.0])
        {
            assert!((got - expected / 30.0).abs() < 0.02, "{got} {expected}");
        }
    }

    #[test]
    fn the_choice_narrows() {
        let base = Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY };
        let logits = [0.0, 2f32.ln(), 5f32.ln()];
        let allowed = |s: Sampling| share(s, &logits).iter().map(|x| *x > 0.0).collect::<Vec<_>>();
        assert_eq!(allowed(Sampling { top_k: 2, ..base }), [false, true, true]);
        assert_eq!(allowed(Sampling { top_p: 0.6, ..base }), [false, false, true]);
        assert_eq!(allowed(Sampling { top_p: 0.7, ..base }), [false, true, true]);
        assert_eq!(allowed(Sampling { top_p: 0.0, ..base }), [false, false, true]);
        assert_eq!(allowed(Sampling { min_p: 0.3, ..base }), [false, true, true]);
        assert_eq!(allowed(base), [true, true, true]);
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_settings_are_checked() {
        let mut sampler = Sampler::new(Sampling::GREEDY).expect("in range");
        assert_eq!(sampler.next(&[1.0, 3.0, 3.0, f32::NAN]), 1);
        for bad in [
            Sampling { temperature: -1.0, ..Sampling::GREEDY },
            Sampling { top_p: f32::NAN, ..Sampling::GREEDY },
        ] {
            assert!(Sampler::new(bad).is_err());
        }
    }
}
