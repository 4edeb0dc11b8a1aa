//! Weight types without weights: what a model of a configuration has in a published kind of files.
use super::{GraphError, WeightTypes};
use crate::{Config, Mix, mtp_tensors, tensors};
use ds4_ir::TensorType;
use std::collections::BTreeMap;

/// The types of all weights of a configuration in one mix, MTP blocks included.
pub struct Builtin {
    types: BTreeMap<String, TensorType>,
}

impl Builtin {
    /// The types of `config` in `mix`.
    pub fn new(config: &Config, mix: Mix) -> Builtin {
        let mtp = (0..config.num_nextn_predict_layers).flat_map(|j| mtp_tensors(config, j));
        let all = tensors(config).into_iter().chain(mtp);
        let types = all.map(|t| (t.name.clone(), TensorType::fixed(mix.scalar(&t), &t.shape)));
        Builtin { types: types.collect() }
    }
}

impl WeightTypes for Builtin {
    fn weight_type(&self, name: &str) -> Result<TensorType, GraphError> {
        let ty = self.types.get(name).cloned();
        ty.ok_or_else(|| GraphError::Shape { message: format!("{name}: the model has no such weight") })
    }
}
