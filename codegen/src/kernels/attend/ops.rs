//! The three attentions, with queries that are ready and with queries as they come from their product.
use super::{Place, launches};
use crate::{Case, Kernel};

/// `q ring row … @sinks pos table`.
const READY: Place = Place { ring: 1, entries: None, idx: None, sinks: 0, table: 0, eps: None };
/// `x table ring row … @sinks pos parts= eps=`.
const RAW: Place = Place { ring: 2, table: 1, ..READY };

pub(crate) const SWA: Kernel = Kernel {
    op: "swa_attend",
    launches: |site, maxima, target| launches(site, maxima, target, &Place { sinks: 3, table: 5, ..READY }),
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
        launches(site, maxima, target, &Place { entries: Some(3), idx: Some(4), sinks: 5, table: 7, ..READY })
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
        launches(site, maxima, target, &Place { entries: Some(3), sinks: 4, table: 6, ..READY })
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

pub(crate) const SWA_QUERY: Kernel = Kernel {
    op: "swa_query_attend",
    launches: |site, maxima, target| launches(site, maxima, target, &Place { sinks: 4, eps: Some(7), ..RAW }),
    cases: &[Case {
        header: "%x: f32[t, 120], %table: f32[t, 16], %ring: state ring/8 f32[40], %row: f32[t, 40], @sinks: f32[3], %pos: i32[t]",
        node: "swa_query_attend %x, %table, %ring, %row, @sinks, %pos, parts=3, eps=1e-6 : f32[t, 3, 40]",
        steps: &[0..1, 1..3, 3..10, 10..26],
    }],
    tolerance: 5e-6,
};

pub(crate) const CSA_QUERY: Kernel = Kernel {
    op: "csa_query_attend",
    launches: |site, maxima, target| {
        launches(
            site,
            maxima,
            target,
            &Place { entries: Some(4), idx: Some(5), sinks: 6, eps: Some(9), ..RAW },
        )
    },
    cases: &[Case {
        header: "%x: f32[t, 144], %table: f32[t, 16], %ring: state ring/8 kv8r16[48], %row: kv8r16[t, 48], %entries: state entries/4 kv8r16[48], %idx: i32[t, 5], @sinks: f32[3], %pos: i32[t]",
        node: "csa_query_attend %x, %table, %ring, %row, %entries, %idx, @sinks, %pos, parts=3, eps=1e-6 : f32[t, 3, 48]",
        steps: &[0..1, 1..8, 8..10, 10..28],
    }],
    tolerance: 5e-6,
};

pub(crate) const HCA_QUERY: Kernel = Kernel {
    op: "hca_query_attend",
    launches: |site, maxima, target| {
        launches(site, maxima, target, &Place { entries: Some(4), sinks: 5, eps: Some(8), ..RAW })
    },
    cases: &[Case {
        header: "%x: f32[t, 160], %table: f32[t, 8], %ring: state ring/128 f32[80], %row: f32[t, 80], %entries: state entries/8 f32[80], @sinks: f32[2], %pos: i32[t]",
        node: "hca_query_attend %x, %table, %ring, %row, %entries, @sinks, %pos, parts=2, eps=1e-6 : f32[t, 2, 80]",
        steps: &[0..7, 7..9, 9..30],
    }],
    tolerance: 5e-6,
};
