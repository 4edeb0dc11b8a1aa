//! Which weights are packed, and how.
use super::{Layouts, Summary, lay_out, summary};
use crate::cpu::product::{Packing, find, isas, kernels};
use crate::engine::tables;
use crate::tune::fast_input;
use crate::weights::packed_sizes;
use crate::{Artifact, process};
use ds4_ir::plan::state_bytes;
use ds4_ir::{Class, Scalar, TensorType};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How much larger than the source a packing may be and still count as of source size, in percent.
const GROWTH_MAX: u64 = 7;
/// Share of the machine's memory that weights, states and the arena may take, in percent.
const MEMORY_SHARE: u64 = 90;

/// What layouts weights are to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// As published: no second copy of any weight.
    #[default]
    Stored,
    /// Packed for the kernels of this machine, none more than 7 % larger than published.
    Packed,
    /// Packed for speed, whatever it takes.
    Expanded,
    /// The fastest of these that fits the memory of this machine and the disk of the artifact.
    Auto,
}

/// The layouts of an artifact that will lie in `folder`, its layout file being `file`; `None` if every
/// weight is read as stored.
pub fn choose(artifact: &Artifact, choice: Choice, folder: &Path, file: &str) -> Option<Layouts> {
    match choice {
        Choice::Stored => None,
        Choice::Packed => of(artifact, false, &|_, _| true, file),
        Choice::Expanded => of(artifact, true, &|_, _| true, file),
        Choice::Auto => {
            let fits = |l: &Layouts| fits(artifact, &summary(l), folder);
            let layouts = |expanded| of(artifact, expanded, &pays, file).filter(fits);
            layouts(true).or_else(|| layouts(false))
        }
    }
}

/// Whether reading weights of this type so is faster here than as stored: where its kernel is written for as
/// good an instruction set as that of stored rows.
fn pays(scalar: Scalar, packing: Packing) -> bool {
    let isa = |packing| {
        let kernel = find(scalar, packing, fast_input(scalar));
        kernel.and_then(|k| isas().iter().position(|isa| *isa == k.isa))
    };
    isa(packing).is_some_and(|packed| isa(Packing::Stored).is_none_or(|stored| packed <= stored))
}

fn of(
    artifact: &Artifact,
    expanded: bool,
    wanted: &dyn Fn(Scalar, Packing) -> bool,
    file: &str,
) -> Option<Layouts> {
    // Only the kernels of class `fast` read packed weights: the others decode every row.
    if artifact.module.class != Class::Fast {
        return None;
    }
    let products = products(artifact).into_iter().map(|i| &artifact.module.weights[i]);
    let packings: BTreeMap<&str, Packing> =
        products.filter_map(|w| Some((w.name.as_str(), best(&w.ty, expanded, wanted)?))).collect();
    (!packings.is_empty()).then(|| lay_out(&artifact.table, &packings, file.to_string()))
}

/// The matrices that graph `main` multiplies with, by index of the module's list: weights that it does
/// not index by token id.
pub(crate) fn products(artifact: &Artifact) -> BTreeSet<usize> {
    let module = &artifact.module;
    let mut found = BTreeSet::new();
    for call in module.graph("main").iter().flat_map(|g| &g.calls) {
        let func = &module.funcs[call.func];
        let indexed: BTreeSet<usize> = func
            .nodes()
            .flat_map(|(_, node)| tables(func, node).unwrap_or_default())
            .map(|(w, _)| w.index())
            .collect();
        let read = call.weights.iter().enumerate().filter(|(i, _)| !indexed.contains(i));
        found.extend(read.map(|(_, w)| *w).filter(|w| module.weights[*w].ty.dims.len() > 1));
    }
    found
}

/// The packing of a weight that this machine's kernels prefer, `None` if they prefer it as stored.
fn best(ty: &TensorType, expanded: bool, wanted: &dyn Fn(Scalar, Packing) -> bool) -> Option<Packing> {
    let input = fast_input(ty.scalar);
    let stored = packed_sizes(Packing::Stored, ty)?.1 + scale_bytes(ty);
    let usable = kernels().filter(|k| {
        (k.weight, k.input) == (ty.scalar, input) && k.packing != Packing::Stored && isas().contains(&k.isa)
    });
    let sized = |packing: Packing| packed_sizes(packing, ty).map(|(_, bytes)| bytes);
    let (large, same): (Vec<_>, Vec<_>) = usable
        .filter(|k| wanted(ty.scalar, k.packing))
        .filter_map(|k| Some((k.packing, sized(k.packing)?)))
        .partition(|(_, bytes)| *bytes * 100 > stored * (100 + GROWTH_MAX));
    let first = |list: Vec<(Packing, u64)>| list.first().map(|(packing, _)| *packing);
    if expanded { first(large).or(first(same)) } else { first(same) }
}

fn scale_bytes(ty: &TensorType) -> u64 {
    crate::weights::item_sizes(ty).map_or(0, |(_, _, scales)| scales)
}

/// Whether memory and disk have room: for what is read, not for what lies in the published file only.
fn fits(artifact: &Artifact, summary: &Summary, folder: &Path) -> bool {
    let module = &artifact.module;
    let stored: u64 = artifact.meta.files.iter().map(|f| f.bytes).sum();
    let replaced: u64 = summary.packings.values().map(|(_, _, bytes)| bytes).sum();
    let states: u64 = module.states.iter().map(|s| state_bytes(&s.ty, module.ctx)).sum();
    let arena = artifact.plan.buckets.iter().map(|b| b.arena_bytes).max().unwrap_or(0);
    let needed = stored.saturating_sub(replaced) + summary.file_bytes + states + arena;
    let memory = process::memory_bytes().is_some_and(|all| needed <= all / 100 * MEMORY_SHARE);
    let disk = process::free_disk_bytes(folder).is_some_and(|free| summary.file_bytes <= free);
    memory && disk
}

#[cfg(test)]
mod tests {
    use super::pays;
    use crate::cpu::product::{Isa, Packing, isas};
    use ds4_ir::Scalar;

    #[test]
    fn sign_planes_pay_where_stored_rows_have_no_better_kernel() {
        assert_eq!(pays(Scalar::Iq2Xxs, Packing::SignPlanes), isas()[0] == Isa::Avx2);
        assert!(!pays(Scalar::Q8_0, Packing::SignPlanes), "no such kernel");
    }
}
