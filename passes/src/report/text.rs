//! The report for people.
use super::{Figures, Report, Step};
use std::fmt;

const MIB: f64 = 1_048_576.0;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, class {}, for {}, context {}", self.model, self.class, self.target, self.ctx)?;
        writeln!(
            f,
            "\nper call, one token{:>15} calls launches weights MB states kB values kB    MFLOP      MOP",
            ""
        )?;
        for func in &self.functions {
            line(f, &func.name, Some(func.calls), &func.token)?;
        }
        writeln!(f, "\nper call, {} tokens", self.prefill.tokens)?;
        for func in &self.functions {
            line(f, &func.name, Some(func.calls), &func.prefill)?;
        }
        writeln!(f, "\nper step")?;
        let step =
            |s: &Step| format!("{} token{} at {}", s.tokens, if s.tokens == 1 { "" } else { "s" }, s.ctx);
        for s in self.decode.iter().chain([&self.prefill]) {
            line(f, &step(s), None, &s.total)?;
        }
        self.memory(f)?;
        self.speed(f)
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, calls: Option<u64>, c: &Figures) -> fmt::Result {
    let calls = calls.map_or(String::new(), |n| n.to_string());
    let (weights, states, values) = (c.weights as f64 / 1e6, c.states as f64 / 1e3, c.values as f64 / 1e3);
    let (flops, ops) = (c.flops as f64 / 1e6, c.int_ops as f64 / 1e6);
    writeln!(
        f,
        "  {name:<32} {calls:>5} {:>8} {weights:>10.1} {states:>9.1} {values:>9.1} {flops:>8.0} {ops:>8.0}",
        c.launches
    )
}

impl Report {
    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nweights{:>33} MB    MB/token", "")?;
        for group in &self.weights {
            let (all, token) = (group.bytes as f64 / 1e6, group.token_bytes as f64 / 1e6);
            writeln!(f, "  {:<28} {all:>12.1} {token:>11.1}", group.name)?;
        }
        let token: u64 = self.weights.iter().map(|g| g.token_bytes).sum();
        writeln!(f, "  {:<28} {:>12.1} {:>11.1}", "all", self.weight_bytes as f64 / 1e6, token as f64 / 1e6)?;
        writeln!(f, "\narena")?;
        for arena in &self.arena {
            writeln!(f, "  up to {:>4} tokens {:>12.2} MiB", arena.tokens, arena.bytes as f64 / MIB)?;
        }
        writeln!(f, "\nstates of a session, {:.0} bytes per token", self.state_bytes_per_token)?;
        for states in &self.states {
            writeln!(f, "  at {:>7} tokens {:>12.2} MiB", states.ctx, states.bytes as f64 / MIB)?;
        }
        writeln!(f, "\nin all at {} tokens {:.2} GiB", self.ctx, self.peak_bytes as f64 / MIB / 1024.0)
    }

    fn speed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(p) = &self.prediction else { return Ok(()) };
        writeln!(
            f,
            "\npredicted for {}{}",
            p.machine,
            if p.fits { "" } else { ": DOES NOT FIT its memory" }
        )?;
        for (what, speed, limit) in [
            ("decode, short", p.decode_tokens_s, p.decode_limit),
            ("decode, full", p.decode_full_tokens_s, p.decode_full_limit),
            ("prefill", p.prefill_tokens_s, p.prefill_limit),
        ] {
            let limit = format!("{limit:?}").to_lowercase();
            writeln!(f, "  {what:<14} {speed:>8} tokens/s, held by {limit}")?;
        }
        Ok(())
    }
}
