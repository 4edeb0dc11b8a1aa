//! The tensors of a model: the project's names, their shapes, and how files spell them.
//!
//! One table per part of the model lists every tensor once (spec 4.1). Which of them a layer has
//! follows from the configuration: its compression ratio and whether it is hash-routed.
//!
//! The project's name is the GGUF name without `.weight` or `.bias`; the tables are in the order
//! of DwarfStar's files.
mod mix;
mod rows;

use crate::Config;
pub use mix::Mix;
use rows::Row;
use rows::{BLOCK, MTP, TOP, When};

/// What a tensor holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// A matrix `[out, in]`.
    Matrix,
    /// One matrix per routed expert, `[E, out, in]`.
    Experts,
    /// A vector of plain numbers.
    Vector,
    /// Expert indices per token id, `[V, k]`.
    Ids,
}

/// Where in the model a tensor belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// Embedding and output.
    Top,
    /// A layer of the main stack.
    Layer(u32),
    /// An MTP block.
    Mtp(u32),
}

/// Two ways of naming the tensors of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Container {
    /// Official names and those of transformers.
    Safetensors,
    /// Names of DwarfStar and of llama.cpp.
    Gguf,
}

/// A tensor that a model of some configuration has.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The project's name, such as `blk.4.attn_q_a` or `mtp.0.e_proj`.
    pub name: String,
    /// Logical extents, outermost first.
    pub shape: Vec<u32>,
    /// Where it belongs.
    pub place: Place,
    row: &'static Row,
    /// Layers of the main stack: llama.cpp counts MTP blocks on from there.
    layers: u32,
}

/// All tensors of the main stack: embedding and output, then the layers in order.
pub fn tensors(config: &Config) -> Vec<Tensor> {
    let mut all = top_tensors(config);
    for layer in 0..config.num_hidden_layers {
        all.extend(layer_tensors(config, layer));
    }
    all
}

/// The tensors outside the layers.
pub fn top_tensors(config: &Config) -> Vec<Tensor> {
    TOP.iter().map(|row| tensor(config, row, Place::Top, 0)).collect()
}

/// The tensors of one layer of the main stack.
///
/// # Panics
/// If there is no such layer.
pub fn layer_tensors(config: &Config, layer: u32) -> Vec<Tensor> {
    assert!(layer < config.num_hidden_layers, "layer {layer} of {}", config.num_hidden_layers);
    block_tensors(config, Place::Layer(layer), layer)
}

/// The tensors of MTP block `block`: those of a layer and its own (spec 2.9).
///
/// # Panics
/// If the configuration has no such block.
pub fn mtp_tensors(config: &Config, block: u32) -> Vec<Tensor> {
    assert!(block < config.num_nextn_predict_layers, "block {block}");
    let place = Place::Mtp(block);
    let mut all = block_tensors(config, place, config.num_hidden_layers + block);
    all.extend(MTP.iter().map(|row| tensor(config, row, place, 0)));
    all
}

/// The rows of [`BLOCK`] that apply to a layer index; MTP blocks count on after the layers.
fn block_tensors(config: &Config, place: Place, layer: u32) -> Vec<Tensor> {
    let (ratio, hashed) = (config.ratio(layer), config.is_hash_routed(layer));
    let applies = |row: &&Row| match row.when {
        When::Always => true,
        When::Compressed => ratio != 0,
        When::Indexed => ratio == 4,
        When::HashRouted => hashed,
        When::ScoreRouted => !hashed,
    };
    BLOCK.iter().filter(applies).map(|row| tensor(config, row, place, ratio)).collect()
}

fn tensor(config: &Config, row: &'static Row, place: Place, ratio: u32) -> Tensor {
    let name = match place {
        Place::Top => row.name.to_owned(),
        Place::Layer(i) => format!("blk.{i}.{}", row.name),
        Place::Mtp(j) => format!("mtp.{j}.{}", row.name),
    };
    let shape = (row.shape)(config, ratio);
    Tensor { name, shape, place, row, layers: config.num_hidden_layers }
}

impl Tensor {
    /// What the tensor holds.
    pub fn content(&self) -> Content {
        self.row.content
    }

    /// Names of the whole tensor in a file, the usual one first.
    ///
    /// For [`Content::Experts`] in safetensors there is none: see [`Tensor::expert_spellings`] and
    /// [`Tensor::fused_spellings`].
    pub fn spellings(&self, container: Container) -> Vec<String> {
        match container {
            Container::Gguf => self.gguf_spellings(),
            Container::Safetensors if self.row.content == Content::Experts => Vec::new(),
            Container::Safetensors => self.safetensors_spellings(self.row.official),
        }
    }

    /// Names of one expert's matrix, the usual one first; only for [`Content::Experts`].
    pub fn expert_spellings(&self, expert: u32) -> Vec<String> {
        assert_eq!(self.row.content, Content::Experts, "{}", self.name);
        self.safetensors_spellings(&self.row.official.replace("{e}", &expert.to_string()))
    }

    /// Names of a safetensors tensor `[E, n·out, in]` that holds this one at row `i·out` of each
    /// expert, with `i` and `n`.
    pub fn fused_spellings(&self) -> Option<(Vec<String>, u32, u32)> {
        let (name, index, count) = self.row.fused?;
        Some((self.transformers_spellings(name), index, count))
    }

    /// Names of a GGUF matrix `[out, n·in]` that holds this one at column `i·in` of each row.
    pub(crate) fn side_by_side(&self) -> Option<String> {
        let Place::Mtp(j) = self.place else { return None };
        let name = self.row.side_by_side?;
        Some(format!("blk.{}.{name}", self.layers + j))
    }

    fn gguf_spellings(&self) -> Vec<String> {
        let suffixed = |prefix: &str, name: &str| {
            // Both endings are accepted, the usual one first.
            let other = if self.row.ending == "bias" { "weight" } else { "bias" };
            [self.row.ending, other].map(|ending| format!("{prefix}{name}.{ending}"))
        };
        let mut names = Vec::from(suffixed("", &self.name));
        if let Place::Mtp(j) = self.place {
            let prefix = format!("blk.{}.", self.layers + j);
            names.extend(suffixed(&prefix, self.row.llama.unwrap_or(self.row.name)));
        }
        names
    }

    fn safetensors_spellings(&self, official: &str) -> Vec<String> {
        let prefix = match self.place {
            Place::Top => String::new(),
            Place::Layer(i) => format!("layers.{i}."),
            Place::Mtp(j) => format!("mtp.{j}."),
        };
        let mut names = vec![format!("{prefix}{official}"), format!("model.{prefix}{official}")];
        for alias in self.row.aliases {
            names.extend(self.transformers_spellings(alias));
        }
        names
    }

    fn transformers_spellings(&self, name: &str) -> Vec<String> {
        match self.place {
            Place::Top => vec![format!("model.{name}"), name.to_owned()],
            Place::Layer(i) => vec![format!("model.layers.{i}.{name}"), format!("layers.{i}.{name}")],
            Place::Mtp(_) => Vec::new(),
        }
    }
}
