//! The ops that are paths of a row.
//!
//! ```text
//! kv_row               (to_row (rope (rms_norm ?x ?w ?eps) ?table) ?fmt ?dims)
//! head_rope            (rope (head_norm (split ?x ?parts) ?eps) ?table)
//! index_query          (to_index (rope (split ?x ?parts) ?table) ?fmt)
//! compress_row         (to_row (rope (rms_norm (compress_pool …) ?w ?eps) ?table) ?fmt ?dims)
//! compress_index_row   (to_index (rope (rms_norm (compress_pool …) ?w ?eps) ?table) ?fmt)
//! compress_append, compress_index_append      the same, appended to entries
//! ```
use super::{Path, Pool, Rope, Rows, Slots};
use crate::kernels::common::Number;
use crate::{Case, Kernel, Launch, Target};
use ds4_ir::Scalar;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;

type Launches = Option<Vec<Launch>>;

/// Rounding to codes goes by values in single precision, those of the reference by double: where a
/// value lies between two codes the results differ by a step of the format.
const E4M3_STEP: f64 = 0.07;
const E2M1_STEP: f64 = 0.34;

pub(crate) const ROUND_ACT: Kernel = Kernel {
    op: "round_act",
    launches: |site, maxima, target| plain(site, target)?.launch(maxima),
    cases: &[
        case("%x: f32[t, 72]", "round_act %x, fmt=q8_0 : q8_0[t, 72]"),
        case("%x: f32[t, 3, 512]", "round_act %x, fmt=q8_k : q8_k[t, 3, 512]"),
        case("%x: f32[t, 264]", "round_act %x, fmt=q8_k : q8_k[t, 264]"),
        case("%x: f32[t, 300]", "round_act %x, fmt=e4m3x128 : e4m3x128[t, 300]"),
        case("%x: f32[t, 40]", "round_act %x, fmt=f16 : f16[t, 40]"),
        case("%x: f32[t, 40]", "round_act %x, fmt=bf16 : bf16[t, 40]"),
    ],
    tolerance: 0.0,
};

pub(crate) const TO_ROW: Kernel = Kernel {
    op: "to_row",
    launches: |site, maxima, target| plain(site, target)?.launch(maxima),
    cases: &[case("%x: f32[t, 144]", "to_row %x, fmt=kv8, dims=16 : kv8r16[t, 144]")],
    tolerance: 0.0,
};

pub(crate) const TO_INDEX: Kernel = Kernel {
    op: "to_index",
    launches: |site, maxima, target| turned(plain(site, target)?).launch(maxima),
    cases: &[case("%x: f32[t, 3, 64]", "to_index %x, fmt=idx4 : idx4[t, 3, 64]")],
    tolerance: E2M1_STEP,
};

pub(crate) const HEAD_NORM: Kernel = Kernel {
    op: "head_norm",
    launches: |site, maxima, target| normed(plain(site, target)?, site, None, 1)?.launch(maxima),
    cases: &[case("%x: f32[t, 3, 40]", "head_norm %x, eps=1e-6 : f32[t, 3, 40]")],
    tolerance: 1e-6,
};

pub(crate) const ROPE: Kernel = Kernel {
    op: "rope",
    launches: |site, maxima, target| roped(plain(site, target)?, site, 1, false)?.launch(maxima),
    cases: &[
        case("%x: f32[t, 3, 40], %table: f32[t, 16]", "rope %x, %table : f32[t, 3, 40]"),
        case("%x: f32[t, 40], %table: f32[t, 8]", "rope %x, %table : f32[t, 40]"),
    ],
    tolerance: 1e-6,
};

pub(crate) const UNROPE: Kernel = Kernel {
    op: "unrope",
    launches: |site, maxima, target| roped(plain(site, target)?, site, 1, true)?.launch(maxima),
    cases: &[case("%x: f32[t, 3, 40], %table: f32[t, 16]", "unrope %x, %table : f32[t, 3, 40]")],
    tolerance: 1e-6,
};

pub(crate) const HEAD_ROPE: Kernel = Kernel {
    op: "head_rope",
    launches: |site, maxima, target| {
        let path = Path::of(&site.ty.tensor()?.dims, 0, Scalar::F32, target)?;
        roped(normed(path, site, None, 3)?, site, 1, false)?.launch(maxima)
    },
    cases: &[case(
        "%x: f32[t, 120], %table: f32[t, 16]",
        "head_rope %x, %table, parts=3, eps=1e-6 : f32[t, 3, 40]",
    )],
    tolerance: 2e-6,
};

pub(crate) const INDEX_QUERY: Kernel = Kernel {
    op: "index_query",
    launches: |site, maxima, target| {
        let out = site.ty.tensor()?;
        turned(roped(Path::of(&out.dims, 0, out.scalar, target)?, site, 1, false)?).launch(maxima)
    },
    cases: &[
        case(
            "%x: f32[t, 192], %table: f32[t, 16]",
            "index_query %x, %table, parts=3, fmt=idx4 : idx4[t, 3, 64]",
        ),
        case(
            "%x: f32[t, 192], %table: f32[t, 16]",
            "index_query %x, %table, parts=3, fmt=f32 : f32[t, 3, 64]",
        ),
    ],
    tolerance: E2M1_STEP,
};

pub(crate) const KV_ROW: Kernel = Kernel {
    op: "kv_row",
    launches: |site, maxima, target| {
        roped(normed(plain(site, target)?, site, Some(1), 3)?, site, 2, false)?.launch(maxima)
    },
    cases: &[
        case(
            "%x: f32[t, 144], @w: f32[144], %table: f32[t, 16]",
            "kv_row %x, @w, %table, eps=1e-6, fmt=kv8, dims=16 : kv8r16[t, 144]",
        ),
        case(
            "%x: f32[t, 40], @w: bf16[40], %table: f32[t, 16]",
            "kv_row %x, @w, %table, eps=1e-6, fmt=f32, dims=16 : f32[t, 40]",
        ),
    ],
    tolerance: E4M3_STEP,
};

pub(crate) const COMPRESS_ROW: Kernel = Kernel {
    op: "compress_row",
    launches: |site, maxima, target| entry(site, maxima, target, 0, false),
    cases: &[Case {
        header: "%tail: state tail/4 f32[320], %k: f32[t, 160], %gate: f32[t, 160], @ape: f32[4, 160], %pos: i32[t], @w: f32[80], %table: f32[m4, 16]",
        node: "compress_row %tail, %k, %gate, @ape, %pos, @w, %table, eps=1e-6, fmt=kv8, dims=16 : kv8r16[m4, 80]",
        steps: &[0..3, 3..4, 4..16],
    }],
    tolerance: E4M3_STEP,
};

pub(crate) const COMPRESS_INDEX_ROW: Kernel = Kernel {
    op: "compress_index_row",
    launches: |site, maxima, target| entry(site, maxima, target, 0, true),
    cases: &[Case {
        header: "%tail: state tail/4 f32[256], %k: f32[t, 128], %gate: f32[t, 128], @ape: f32[4, 128], %pos: i32[t], @w: f32[64], %table: f32[m4, 16]",
        node: "compress_index_row %tail, %k, %gate, @ape, %pos, @w, %table, eps=1e-6, fmt=idx4 : idx4[m4, 64]",
        steps: &[0..3, 3..4, 4..16],
    }],
    tolerance: E2M1_STEP,
};

pub(crate) const COMPRESS_APPEND: Kernel = Kernel {
    op: "compress_append",
    launches: |site, maxima, target| entry(site, maxima, target, 1, false),
    cases: &[
        Case {
            header: "%e: state entries/8 f32[40], %tail: state tail/8 f32[80], %k: f32[t, 40], %gate: f32[t, 40], @ape: f16[8, 40], %pos: i32[t], @w: f32[40], %table: f32[m8, 16]",
            node: "compress_append %e, %tail, %k, %gate, @ape, %pos, @w, %table, eps=1e-6, fmt=f32, dims=16 : state entries/8 f32[40]",
            steps: &[0..7, 7..8, 8..25],
        },
        Case {
            header: "%e: state entries/4 kv8r16[80], %tail: state tail/4 f32[320], %k: f32[t, 160], %gate: f32[t, 160], @ape: f32[4, 160], %pos: i32[t], @w: f32[80], %table: f32[m4, 16]",
            node: "compress_append %e, %tail, %k, %gate, @ape, %pos, @w, %table, eps=1e-6, fmt=kv8, dims=16 : state entries/4 kv8r16[80]",
            steps: &[0..3, 3..4, 4..16],
        },
    ],
    tolerance: E4M3_STEP,
};

pub(crate) const COMPRESS_INDEX_APPEND: Kernel = Kernel {
    op: "compress_index_append",
    launches: |site, maxima, target| entry(site, maxima, target, 1, true),
    cases: &[Case {
        header: "%e: state entries/4 idx4[64], %tail: state tail/4 f32[256], %k: f32[t, 128], %gate: f32[t, 128], @ape: f32[4, 128], %pos: i32[t], @w: f32[64], %table: f32[m4, 16]",
        node: "compress_index_append %e, %tail, %k, %gate, @ape, %pos, @w, %table, eps=1e-6, fmt=idx4 : state entries/4 idx4[64]",
        steps: &[0..3, 3..4, 4..16],
    }],
    tolerance: E2M1_STEP,
};

/// A node run on one token, then on seven.
const fn case(header: &'static str, node: &'static str) -> Case {
    Case { header, node, steps: &[0..1, 1..8] }
}

/// Rows of operand 0 in the element type of the result.
fn plain(site: &Site<'_>, target: &Target) -> Option<Path> {
    Path::of(&site.value(0).dims, 0, site.ty.tensor()?.scalar, target)
}

/// Packed index rows are transformed, others not.
fn turned(mut path: Path) -> Path {
    path.row.hadamard = path.row.to == Scalar::Idx4;
    path
}

fn normed(mut path: Path, site: &Site<'_>, weight: Option<usize>, eps: usize) -> Option<Path> {
    let number = match weight {
        Some(i) => Some(Number::of(site.weight(i).scalar)?),
        None => None,
    };
    path.row.norm = Some(((site.real(eps) as f32).to_bits(), number));
    path.weight = weight;
    Some(path)
}

fn roped(mut path: Path, site: &Site<'_>, table: usize, back: bool) -> Option<Path> {
    let angles = site.value(table);
    let each = path.row.rows.each / Rows::of(&angles.dims[..1]).each;
    path.row.rope = Some(Rope { dims: angles.dims[1].constant()?, each, back });
    path.table = Some(table);
    Some(path)
}

/// `tail k gate @ape pos @w table eps= fmt= …` from operand `at` on: an entry, into the state that is
/// operand 0 where there is one.
fn entry(site: &Site<'_>, maxima: &Maxima, target: &Target, at: usize, index: bool) -> Launches {
    let pool = Pool::of(site, at, maxima)?;
    let rows = Rows::of(&site.value(at + 6).dims[..1]);
    let to = if at > 0 { site.state(0).scalar } else { site.ty.tensor()?.scalar };
    let path = Path::new(rows, pool.width, at, to, target)?;
    let mut path = roped(normed(path, site, Some(at + 5), at + 7)?, site, at + 6, false)?;
    path.row.pool = Some(pool);
    path.row.slots = (at > 0).then(|| Slots::of(site.state(0).kind, maxima));
    if index { turned(path) } else { path }.launch(maxima)
}
