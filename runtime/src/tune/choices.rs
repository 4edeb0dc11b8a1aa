//! Which kernel an engine runs: the winners of a record of this machine, else the static order.
use super::{MachineId, Record, SiteKey, class_of, kernel_name};
use crate::cpu::product::{Packing, ProductKernel, find, isas, kernels};
use ds4_ir::Scalar;
use std::collections::BTreeMap;

/// What an engine knows of its machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tuned {
    /// Nothing was measured: the static order of kernels decides.
    Never,
    /// Measured here; so many kinds of launches have a winner.
    Here(usize),
    /// Measured on another machine, or with other kernels: the static order decides.
    Elsewhere(String),
}

/// The kernels of an engine.
pub(crate) struct Choices {
    winners: BTreeMap<SiteKey, &'static ProductKernel>,
    tuned: Tuned,
}

impl Choices {
    /// From the record that an artifact carries.
    pub(crate) fn of(record: Option<&Record>) -> Choices {
        let Some(record) = record else { return Choices { winners: BTreeMap::new(), tuned: Tuned::Never } };
        if record.machine != MachineId::here() {
            let tuned = Tuned::Elsewhere(record.machine.processor.clone());
            return Choices { winners: BTreeMap::new(), tuned };
        }
        let winner = |site: &super::SiteRecord| {
            let fits = |k: &&ProductKernel| {
                let key = (k.weight.to_string(), k.packing.name(), k.input.to_string());
                key == (site.site.weight.clone(), site.site.packing.as_str(), site.site.input.clone())
                    && kernel_name(k) == site.winner
                    && isas().contains(&k.isa)
            };
            // A file may name anything: what is no kernel of this machine is no winner.
            Some((site.site.clone(), kernels().find(fits)?))
        };
        let winners: BTreeMap<_, _> = record.sites.iter().filter_map(winner).collect();
        let tuned = Tuned::Here(winners.len());
        Choices { winners, tuned }
    }

    /// What is known.
    pub(crate) fn tuned(&self) -> &Tuned {
        &self.tuned
    }

    /// The kernel for a weight of so many elements per row and about so many input rows; `None` where
    /// this machine has none for the packing.
    pub(crate) fn kernel(
        &self,
        weight: Scalar,
        packing: Packing,
        input: Scalar,
        width: usize,
        columns: usize,
    ) -> Option<&'static ProductKernel> {
        if self.winners.is_empty() {
            return find(weight, packing, input);
        }
        let site = SiteKey {
            weight: weight.to_string(),
            packing: packing.name().to_string(),
            input: input.to_string(),
            width,
            columns: class_of(columns),
        };
        self.winners.get(&site).copied().or_else(|| find(weight, packing, input))
    }
}
