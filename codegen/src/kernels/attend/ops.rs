//! The three attentions.
use super::{Place, launches};
use crate::{Case, Kernel};

pub(crate) const SWA: Kernel = Kernel {
    op: "swa_attend",
    launches: |site, maxima, target| {
        launches(site, maxima, target, &Place { entries: None, idx: None, sinks: 3, table: 5 })
    },
    cases: &[
        Case {
            header: "%q: f32[t, 3, 40], %ring: state ring/8 f32[40], %row: f32[t, 40], @sinks: f32[3], %pos: i32[t], %table: f32[t, 16]",
            node: "swa_attend %q, %ring, %row, @sinks, %pos, %table : f32[t, 3, 40]",
            steps: &[0..1, 1..3, 3..10, 10..26],
        },
        Case {
            header: "%q: f32[t, 9, 48], %ring: state ring/128 kv8r16[48], %row: kv8r16[t, 48], @sinks: bf16[9], %pos: i32[t], %table: f32[t, 16]",
            node: "swa_attend %q, %ring, %row, @sinks, %pos, %table : f32[t, 9, 48]",
            steps: &[0..7, 7..8],
        },
    ],
    tolerance: 5e-6,
};

pub(crate) const CSA: Kernel = Kernel {
    op: "csa_attend",
    launches: |site, maxima, target| {
        launches(site, maxima, target, &Place { entries: Some(3), idx: Some(4), sinks: 5, table: 7 })
    },
    cases: &[
        Case {
            header: "%q: f32[t, 3, 48], %ring: state ring/8 kv8r16[48], %row: kv8r16[t, 48], %entries: state entries/4 kv8r16[48], %idx: i32[t, 5], @sinks: f32[3], %pos: i32[t], %table: f32[t, 16]",
            node: "csa_attend %q, %ring, %row, %entries, %idx, @sinks, %pos, %table : f32[t, 3, 48]",
            steps: &[0..1, 1..8, 8..10, 10..28],
        },
        Case {
            header: "%q: f32[t, 2, 40], %ring: state ring/8 f32[40], %row: f32[t, 40], %entries: state entries/4 f32[40], %idx: i32[t, 200], @sinks: f32[2], %pos: i32[t], %table: f32[t, 8]",
            node: "csa_attend %q, %ring, %row, %entries, %idx, @sinks, %pos, %table : f32[t, 2, 40]",
            steps: &[0..7, 7..9],
        },
    ],
    tolerance: 5e-6,
};

pub(crate) const HCA: Kernel = Kernel {
    op: "hca_attend",
    launches: |site, maxima, target| {
        launches(site, maxima, target, &Place { entries: Some(3), idx: None, sinks: 4, table: 6 })
    },
    cases: &[
        Case {
            header: "%q: f32[t, 3, 48], %ring: state ring/8 kv8r16[48], %row: kv8r16[t, 48], %entries: state entries/4 kv8r16[48], @sinks: f32[3], %pos: i32[t], %table: f32[t, 16]",
            node: "hca_attend %q, %ring, %row, %entries, @sinks, %pos, %table : f32[t, 3, 48]",
            steps: &[0..1, 1..8, 8..10, 10..28],
        },
        Case {
            header: "%q: f32[t, 2, 40], %ring: state ring/128 f32[40], %row: f32[t, 40], %entries: state entries/8 f32[40], @sinks: f32[2], %pos: i32[t], %table: f32[t, 8]",
            node: "hca_attend %q, %ring, %row, %entries, @sinks, %pos, %table : f32[t, 2, 40]",
            steps: &[0..7, 7..9],
        },
    ],
    tolerance: 5e-6,
};
