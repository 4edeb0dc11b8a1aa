//! Where the time of a session's steps goes, wave by wave.
use crate::program::Launch;
use std::time::{Duration, Instant};

/// The time of one kind of wave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaveTime {
    /// The ops that run at once, in order.
    pub ops: Vec<&'static str>,
    /// Waves of that kind that have run.
    pub waves: u64,
    /// Their time.
    pub time: Duration,
}

/// Times of all waves since a session was told to keep them.
#[derive(Default)]
pub(crate) struct Times {
    kinds: Vec<WaveTime>,
}

impl Times {
    /// Runs `wave` and adds its time to those of its kind.
    pub(crate) fn add(&mut self, wave: &[Launch], run: impl FnOnce()) {
        let start = Instant::now();
        run();
        let time = start.elapsed();
        let ops = || wave.iter().map(|launch| launch.op);
        let at = self.kinds.iter().position(|k| k.ops.iter().copied().eq(ops()));
        let at = at.unwrap_or_else(|| {
            self.kinds.push(WaveTime { ops: ops().collect(), waves: 0, time: Duration::ZERO });
            self.kinds.len() - 1
        });
        self.kinds[at].waves += 1;
        self.kinds[at].time += time;
    }

    /// The kinds of waves, those that took longest first.
    pub(crate) fn sorted(&self) -> Vec<WaveTime> {
        let mut kinds = self.kinds.clone();
        kinds.sort_by_key(|k| std::cmp::Reverse(k.time));
        kinds
    }
}
