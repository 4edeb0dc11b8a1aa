//! Tuning: which of several product kernels is the fastest on this machine, found by measuring them.
//!
//! A kernel is measured only if it has answered bit for bit what the scalar twin of its types answers,
//! here and now. What was measured is a [`Record`]: the winners, every sample, and the machine. On
//! another machine, or for types that no record knows, the static order of the kernels decides.
mod choices;
mod machine;
mod measure;
#[cfg(test)]
mod tests;
mod trial;

use crate::cpu::product::{Isa, Packing, ProductKernel, isas, kernels};
use crate::weights::Weights;
use crate::{Artifact, Error, Result, layout};
use ds4_ir::view::Matrix;
use ds4_ir::{Scalar, WeightSource};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use choices::Choices;
pub use choices::Tuned;
pub use machine::MachineId;

/// What measuring kernels on a machine has found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Where.
    pub machine: MachineId,
    /// Threads that ran at once.
    pub threads: usize,
    /// Per kind of launch.
    pub sites: Vec<SiteRecord>,
}

/// What was measured for one kind of launch.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SiteRecord {
    /// Weight, packing, input, width and columns.
    #[serde(flatten)]
    pub site: SiteKey,
    /// The kernel to use, as [`kernel_name`] spells it.
    pub winner: String,
    /// Every kernel that this machine could run, the default first.
    pub kernels: Vec<Samples>,
}

/// A kind of launch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SiteKey {
    /// Element type of the weight.
    pub weight: String,
    /// Name of its packing.
    pub packing: String,
    /// Element type of the input rows.
    pub input: String,
    /// Elements of a row.
    pub width: usize,
    /// Input rows: 1 for decoding, more for prompts.
    pub columns: usize,
}

/// How a kernel fared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Samples {
    /// Its name.
    pub kernel: String,
    /// Femtoseconds per weight and column, sample by sample.
    pub femtoseconds: Vec<u64>,
    /// Why it may not be used, if so; then it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Input rows that are measured: a decoded token, the rows of an expert in a prompt, a prompt.
const COLUMNS: [usize; 3] = [1, 8, 64];

/// The entry of [`COLUMNS`] that stands for so many rows.
fn class_of(columns: usize) -> usize {
    match columns {
        0 | 1 => 1,
        2..=16 => 8,
        _ => 64,
    }
}

/// Instruction set and name of a kernel, which tell it from all others of its types and packing.
fn kernel_name(k: &ProductKernel) -> String {
    format!("{}/{}", format!("{:?}", k.isa).to_lowercase(), k.name)
}

/// The input format that the kernels of class `fast` read beside weights of this type; the same rule
/// as the model's builders have.
pub(crate) fn fast_input(weight: Scalar) -> Scalar {
    match weight {
        Scalar::Q8_0 | Scalar::Mxfp4 | Scalar::Fp4 => Scalar::Q8_0,
        Scalar::Q4K | Scalar::Q2K | Scalar::Iq2Xxs => Scalar::Q8K,
        _ => Scalar::F32,
    }
}

/// A kind of launch with weights of the model to measure it on.
struct Site {
    weight: Scalar,
    packing: Packing,
    input: Scalar,
    width: usize,
    columns: usize,
    /// Weights of this kind, by index of the module's list.
    weights: Vec<usize>,
}

impl Site {
    fn key(&self) -> SiteKey {
        SiteKey {
            weight: self.weight.to_string(),
            packing: self.packing.name().to_string(),
            input: self.input.to_string(),
            width: self.width,
            columns: self.columns,
        }
    }

    /// The kernels that this machine can run, the default first.
    fn variants(&self) -> Vec<&'static ProductKernel> {
        let fits = |k: &&ProductKernel| {
            (k.weight, k.packing, k.input) == (self.weight, self.packing, self.input)
                && isas().contains(&k.isa)
        };
        kernels().filter(fits).collect()
    }
}

/// The scalar kernel that defines what products of these types are.
fn twin(weight: Scalar, input: Scalar) -> &'static ProductKernel {
    let is_twin = |k: &&ProductKernel| {
        (k.weight, k.packing, k.input, k.isa) == (weight, Packing::Stored, input, Isa::Scalar)
    };
    kernels().find(is_twin).expect("every pair of types has a scalar kernel")
}

/// The kinds of launches of a model for which there are several kernels here.
fn sites(artifact: &Artifact, weights: &Weights) -> Vec<Site> {
    let mut found: BTreeMap<(String, usize), Site> = BTreeMap::new();
    for i in layout::products(artifact) {
        let m = weights.weight(i).matrix(0);
        let (packing, input) = (weights.packing(i), fast_input(m.scalar));
        let key = (format!("{} {}", m.scalar, packing.name()), m.width);
        let site = || Site { weight: m.scalar, packing, input, width: m.width, columns: 1, weights: vec![] };
        found.entry(key).or_insert_with(site).weights.push(i);
    }
    let several = found.into_values().filter(|site| site.variants().len() > 1);
    several
        .flat_map(|site| COLUMNS.map(|columns| Site { columns, weights: site.weights.clone(), ..site }))
        .collect()
}

/// Measures the kernels of every kind of launch of an artifact that lies in `folder`, for about
/// `budget` in all, on `threads` threads. `progress` is told the kinds done and all.
///
/// # Errors
/// Weights that cannot be read, and [`Error::Cancelled`].
pub fn tune(
    artifact: &Artifact,
    folder: &Path,
    threads: usize,
    budget: Duration,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Record> {
    let mut weights = Weights::open(&artifact.module, &artifact.table, folder)?;
    layout::open(artifact, &mut weights, folder)?;
    let sites = sites(artifact, &weights);
    let share = budget / u32::try_from(sites.len().max(1)).expect("few kinds of launches");
    let mut record = Record { machine: MachineId::here(), threads, sites: Vec::new() };
    for (i, site) in sites.iter().enumerate() {
        progress(i, sites.len());
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let stored = stored_rows(&weights, site);
        let pool = measure::pool(&weights, site);
        record.sites.push(decide(site, &site.variants(), &stored, &pool, threads, share));
    }
    progress(sites.len(), sites.len());
    Ok(record)
}

/// What a record of this machine knows of the launches of an artifact that lies in `folder`: those that
/// were measured with the kernels of this build. `None` if it knows nothing.
///
/// # Errors
/// Weights that cannot be read.
pub fn reuse(artifact: &Artifact, folder: &Path, known: &Record) -> Result<Option<Record>> {
    if known.machine != MachineId::here() {
        return Ok(None);
    }
    let mut weights = Weights::open(&artifact.module, &artifact.table, folder)?;
    layout::open(artifact, &mut weights, folder)?;
    let same = |site: &Site| {
        let record = known.sites.iter().find(|r| r.site == site.key())?;
        let names = site.variants().into_iter().map(kernel_name);
        record.kernels.iter().map(|s| s.kernel.clone()).eq(names).then(|| record.clone())
    };
    let sites: Vec<SiteRecord> = sites(artifact, &weights).iter().filter_map(same).collect();
    Ok((!sites.is_empty()).then(|| Record { sites, ..known.clone() }))
}

/// Adds to `record` what `other` of the same machine knows of other launches.
pub fn merge(record: &mut Record, other: Record) {
    if record.machine == other.machine {
        let new = other.sites.into_iter().filter(|o| record.sites.iter().all(|s| s.site != o.site));
        let new: Vec<SiteRecord> = new.collect();
        record.sites.extend(new);
    }
}

/// How much faster than the default a kernel must be to replace it, in percent: less is noise.
const MARGIN: u64 = 2;

/// Tries and measures `variants`, the default first; keeps the fastest of those that answered right.
fn decide(
    site: &Site,
    variants: &[&'static ProductKernel],
    stored: &[Matrix<'_>],
    pool: &[Matrix<'_>],
    threads: usize,
    budget: Duration,
) -> SiteRecord {
    let twin = twin(site.weight, site.input);
    let verdicts = variants.iter().map(|k| trial::passes(k, twin, stored).err());
    let mut all: Vec<Samples> = variants
        .iter()
        .zip(verdicts)
        .map(|(k, refused)| Samples { kernel: kernel_name(k), femtoseconds: vec![], refused })
        .collect();
    let right: Vec<usize> = (0..variants.len()).filter(|i| all[*i].refused.is_none()).collect();
    let runners: Vec<&ProductKernel> = right.iter().map(|i| variants[*i]).collect();
    for (i, samples) in right.iter().zip(measure::measure(&runners, site.columns, pool, threads, budget)) {
        all[*i].femtoseconds = samples;
    }
    // Where not even the default answers right, the definition itself is used.
    let winner = winner(&all).unwrap_or_else(|| kernel_name(twin));
    SiteRecord { site: site.key(), winner, kernels: all }
}

/// The fastest kernel if it is faster than the default by more than noise, else the default; `None` if
/// all were refused.
fn winner(all: &[Samples]) -> Option<String> {
    let best = |s: &Samples| s.femtoseconds.iter().min().copied().unwrap_or(u64::MAX);
    let mut usable = all.iter().filter(|s| s.refused.is_none());
    let default = usable.next()?;
    let fastest = usable.min_by_key(|s| best(s)).filter(|s| best(s) < best(default) / 100 * (100 - MARGIN));
    Some(fastest.unwrap_or(default).kernel.clone())
}

/// Rows that kernels are tried on, of the first weights of a site.
fn stored_rows<'a>(weights: &'a Weights, site: &Site) -> Vec<Matrix<'a>> {
    let first = |i: &usize| {
        let m = weights.weight(*i).matrix(0);
        trial::first_rows(&m, trial::ROWS.next_multiple_of(site.packing.granule()))
    };
    site.weights.iter().take(2).map(first).collect()
}
