//! What a bench found, for programs and for people.
use ds4_runtime::WaveTime;
use serde_json::{Value, json};
use std::fmt;

/// Everything that one bench found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Bench {
    /// What was measured: model, class, threads or device.
    pub title: String,
    /// Threads of the engine and of the raw read; 0 on a device.
    pub threads: usize,
    /// Rate of the raw read in GB/s, the faster of mapped files and huge pages; `None` on a device, which
    /// it says nothing about.
    pub read_gbs: Option<f64>,
    /// Bytes of weights that a token reads, in the layouts of the artifact.
    pub token_bytes: u64,
    /// The same weights as they are published.
    pub source_bytes: u64,
    /// Largest memory of the engine on the processor's side, in bytes, before the raw read copied anything.
    pub peak_bytes: u64,
    /// Prompts.
    pub prefill: Vec<Prefill>,
    /// Context frontiers.
    pub decode: Vec<Decode>,
    /// Where the time of tokens goes, if that was asked for.
    pub waves: Vec<Waves>,
}

/// What the time of a token is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// A prompt of so many tokens.
    Prefill(usize),
    /// Decoding after so many tokens.
    Decode(u32),
}

/// Where the time of a token goes.
#[derive(Clone, PartialEq, Debug)]
pub struct Waves {
    /// Of which tokens.
    pub part: Part,
    /// Measured tokens.
    pub tokens: usize,
    /// Times over all of them, the longest first.
    pub times: Vec<WaveTime>,
}

impl Waves {
    /// Milliseconds, waves and ops of each kind, for one token.
    fn rows(&self) -> impl Iterator<Item = (f64, f64, String)> {
        let tokens = self.tokens as f64;
        let row = move |t: &WaveTime| {
            (t.time.as_secs_f64() * 1e3 / tokens, t.waves as f64 / tokens, t.ops.join(" "))
        };
        self.times.iter().map(row)
    }
}

/// Speed of prompts of one length.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Prefill {
    /// Tokens of the prompt.
    pub tokens: usize,
    /// Tokens per second.
    pub tok_s: f64,
    /// Share of the machine's rate of 8-bit integer operations that the prompt's own make up; `None` without a
    /// profile of this machine.
    pub int8_share: Option<f64>,
}

/// Speed of decoding at one context.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decode {
    /// Tokens that the session holds before the first measured token.
    pub ctx: u32,
    /// Tokens per second, median of the pairs.
    pub tok_s: f64,
    /// Share of what the raw read allows, median of the pairs' ratios; `None` on a device.
    pub limit_share: Option<f64>,
    /// What the plan predicts; `None` without a profile of this machine.
    pub predicted_tok_s: Option<f64>,
}

impl Decode {
    /// Tokens per second at which nothing but the published weights is read.
    pub fn limit_tok_s(&self) -> Option<f64> {
        self.limit_share.map(|share| self.tok_s / share)
    }
}

impl Bench {
    /// The object that `--json` prints.
    pub fn to_json(&self) -> Value {
        let prefill = |p: &Prefill| {
            json!({
                "tokens": p.tokens,
                "tok_s": digits(p.tok_s),
                "int8_share": p.int8_share.map(digits),
            })
        };
        let decode = |d: &Decode| {
            json!({
                "ctx": d.ctx,
                "tok_s": digits(d.tok_s),
                "limit_share": d.limit_share.map(digits),
                "predicted_tok_s": d.predicted_tok_s,
            })
        };
        let mut all = json!({
            "threads": self.threads,
            "read_gbs": self.read_gbs.map(digits),
            "peak_bytes": self.peak_bytes,
            "prefill": self.prefill.iter().map(prefill).collect::<Vec<_>>(),
            "decode": self.decode.iter().map(decode).collect::<Vec<_>>(),
        });
        let kind = |(ms, waves, ops)| json!({"ops": ops, "ms": digits(ms), "waves": digits(waves)});
        let waves = |w: &Waves| {
            let kinds = w.rows().map(kind).collect::<Vec<_>>();
            match w.part {
                Part::Prefill(tokens) => json!({"prefill": tokens, "kinds": kinds}),
                Part::Decode(ctx) => json!({"ctx": ctx, "kinds": kinds}),
            }
        };
        if !self.waves.is_empty() {
            all["waves"] = self.waves.iter().map(waves).collect();
        }
        all
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        if !self.prefill.is_empty() {
            writeln!(f, "\nprefill   tokens   tokens/s   of int8 peak")?;
        }
        for p in &self.prefill {
            writeln!(f, "{:>16} {:>10} {:>14}", p.tokens, digits(p.tok_s), percent(p.int8_share))?;
        }
        if let Some(read_gbs) = self.read_gbs {
            let limit = read_gbs * 1e9 / self.source_bytes as f64;
            let (gb, source) = (self.token_bytes as f64 / 1e9, self.source_bytes as f64 / 1e9);
            writeln!(f, "\nraw read  {} GB/s of the {gb:.3} GB that a token reads here", digits(read_gbs))?;
            writeln!(f, "limit     {} tokens/s, for {source:.3} GB as published", digits(limit))?;
        }
        if !self.decode.is_empty() {
            writeln!(f, "\ndecode   context   tokens/s   of the limit   predicted")?;
        }
        for d in &self.decode {
            let predicted = d.predicted_tok_s.map_or("none".to_string(), |x| x.to_string());
            let share = percent(d.limit_share);
            writeln!(f, "{:>16} {:>10} {share:>14} {predicted:>11}", d.ctx, digits(d.tok_s))?;
        }
        for waves in &self.waves {
            let part = match waves.part {
                Part::Prefill(tokens) => format!("prompt of {tokens}"),
                Part::Decode(ctx) => format!("context {ctx}"),
            };
            writeln!(f, "\n{part}: ms of a token, waves of a kind for it, ops that run at once")?;
            for (ms, count, ops) in waves.rows() {
                writeln!(f, "{ms:>10.3} {:>6} {ops}", digits(count))?;
            }
        }
        writeln!(f, "\npeak memory {:.3} GB", self.peak_bytes as f64 / 1e9)
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("none".to_string(), |x| format!("{:.1} %", x * 100.0))
}

/// Four digits: more than a measurement is worth.
pub(super) fn digits(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let scale = 10f64.powi(3 - x.abs().log10().floor() as i32);
    (x * scale).round() / scale
}

/// The middle of some numbers, the mean of both middles of an even count.
///
/// # Panics
/// If there are none.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    assert!(!numbers.is_empty(), "the median of nothing");
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[half] } else { (numbers[half - 1] + numbers[half]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn numbers_keep_four_digits() {
        assert_eq!(digits(0.123456), 0.1235);
        assert_eq!(digits(123456.0), 123500.0);
    }
}
