//! `embed_rows @table ids`: the table's row of each token id.
//!
//! One thread per unit of a row.
use super::common::Rows;
use super::formats::RowFormat;
use crate::{Binding, Case, Kernel, Launch, Target, Text};
use ds4_ir::Role;
use ds4_ir::cost::Site;
use ds4_ir::plan::Maxima;
use std::sync::Arc;

#[cfg(feature = "gpu")]
use {
    super::common::rows,
    super::formats::{Place, decode},
    crate::emit,
    cubecl::prelude::*,
};

const THREADS: u32 = 64;

pub(crate) const KERNEL: Kernel = Kernel {
    op: "embed_rows",
    launches,
    cases: &[
        Case {
            header: "@table: f32[16, 40], %ids: i32[t]",
            node: "embed_rows @table, %ids : f32[t, 40]",
            steps: &[0..1, 1..8],
        },
        Case {
            header: "@table: bf16[16, 130], %ids: i32[t]",
            node: "embed_rows @table, %ids : f32[t, 130]",
            steps: &[0..3],
        },
        Case {
            header: "@table: f16[16, 64], %ids: i32[t]",
            node: "embed_rows @table, %ids : f32[t, 64]",
            steps: &[0..2],
        },
        Case {
            header: "@table: q8_0[16, 72], %ids: i32[t]",
            node: "embed_rows @table, %ids : f32[t, 72]",
            steps: &[0..2],
        },
        Case {
            header: "@table: q4_k[16, 512], %ids: i32[t]",
            node: "embed_rows @table, %ids : f32[t, 512]",
            steps: &[0..2],
        },
        Case {
            header: "@table: fp8[130, 256], %ids: i32[t]",
            node: "embed_rows @table, %ids : f32[t, 256]",
            steps: &[0..2],
        },
    ],
    tolerance: 1e-6,
};

#[derive(Debug)]
struct Spec {
    rows: Rows,
    table: RowFormat,
}

fn launches(site: &Site<'_>, maxima: &Maxima, _: &Target) -> Option<Vec<Launch>> {
    let weight = site.weight(0);
    let table = RowFormat::of(weight.scalar, weight.dims[1].constant()?)?;
    let spec = Spec { rows: Rows::of(&site.ty.tensor()?.dims[..1]), table };
    let scales = if weight.scalar.scale_shape(1, 1).is_some() { Role::Scales } else { Role::Codes };
    let constant = table.constant().map_or(Binding::Step, Binding::Constant);
    let grid = [spec.rows.max(maxima), table.units().div_ceil(THREADS), 1];
    let bindings = vec![
        Binding::Step,
        Binding::Weight(0, Role::Codes),
        Binding::Weight(0, scales),
        constant,
        Binding::Value(1),
        Binding::Out,
    ];
    Some(vec![Launch { text: Arc::new(spec), block: [THREADS, 1, 1], grid, bindings }])
}

impl Text for Spec {
    fn name(&self) -> &'static str {
        "embed_rows"
    }

    #[cfg(feature = "gpu")]
    fn define(&self, at: &emit::Build) -> KernelDefinition {
        let [b0, b1, b2, b3, b4, b5] = emit::buffers();
        // A table of a large vocabulary has more than 2^32 bytes.
        let (set, dev, lang) = at.wide_parts();
        CubeKernel::define(&embed_rows::EmbedRows::new(
            set, dev, lang, b0, b1, b2, b3, b4, b5, self.rows, self.table,
        ))
    }
}

#[cfg(feature = "gpu")]
#[cube(launch_unchecked, create_dummy_kernel)]
fn embed_rows(
    step: &[i32],
    codes: &[u32],
    scales: &[u32],
    constant: &[u32],
    ids: &[i32],
    out: &mut [f32],
    #[comptime] n_rows: Rows,
    #[comptime] table: RowFormat,
) {
    let row = CUBE_POS_X as usize;
    let unit = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    if row < rows(step, n_rows) && unit < comptime!(table.units() as usize) {
        let (size, width) = comptime!((table.unit() as usize, table.width as usize));
        let id = ids[row] as usize;
        let place = Place {
            codes: id * comptime!(table.row_bytes() as usize),
            scales: id / comptime!(table.rows_per_scale_row() as usize)
                * comptime!(table.scale_row_bytes() as usize),
        };
        let mut values = Array::<f32>::new(size);
        decode(codes, scales, constant, &place, unit, &mut values, table);
        #[unroll]
        for j in 0..size {
            let column = unit * size + j;
            if column < width {
                out[row * width + column] = values[j];
            }
        }
    }
}
