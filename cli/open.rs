//! From what a person calls MODEL to an artifact, compiling on demand into the cache.
use crate::compile::{Request, compile};
use crate::target::DeviceArgs;
use crate::{demo, progress};
use anyhow::{Context, Result, bail};
use ds4_ir::Class;
use ds4_models::Checkpoint;
use ds4_models::tokenizer::Tokenizer;
use ds4_runtime::tune::Tuned;
use ds4_runtime::{Artifact, Engine, artifact, mark};
use std::path::{Path, PathBuf};

/// Numeric class if none is asked for.
pub const CLASS_DEFAULT: Class = Class::Fast;

/// How to open a model.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Numeric class; `None` takes the artifact's, or the default.
    pub class: Option<Class>,
    /// Longest context in tokens; `None` takes the artifact's, or the default.
    pub ctx: Option<u32>,
    /// What runs it.
    pub device: DeviceArgs,
}

/// A compiled model and the folder from which its relative paths count.
pub struct Opened {
    /// The artifact.
    pub artifact: Artifact,
    /// Folder of the artifact.
    pub folder: PathBuf,
    /// Whether it is the bundled demo.
    pub is_demo: bool,
    /// What runs it.
    pub device: DeviceArgs,
}

impl Opened {
    /// The tokenizer.
    ///
    /// # Errors
    /// The model has none, or it is damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let Some(json) = &self.artifact.tokenizer else {
            bail!(
                "{}: the model has no tokenizer; only commands on token ids work",
                self.artifact.meta.model
            );
        };
        let tokenizer = Tokenizer::from_json(json).context("tokenizer of the artifact")?;
        let meta = &self.artifact.meta;
        Ok(tokenizer.with_bos_eos(Some(meta.bos), meta.eos.first().copied())?)
    }

    /// An engine: on `threads` threads, 0 for one per core, or on the device that was asked for.
    ///
    /// # Errors
    /// Weights that are missing or changed; no such device.
    pub fn engine(&self, threads: usize) -> Result<Engine> {
        let engine = engine(self.artifact.clone(), &self.folder, threads, &self.device)?;
        if let Tuned::Elsewhere(machine) = engine.tuned() {
            eprintln!(
                "note: tuned on another machine ({machine}) or by another build: the static order of kernels is used"
            );
        }
        Ok(engine)
    }
}

/// An engine of an artifact that lies in `folder`, on what was asked for.
///
/// # Errors
/// The artifact is for something else; weights that are missing or changed; no such device.
pub fn engine(artifact: Artifact, folder: &Path, threads: usize, on: &DeviceArgs) -> Result<Engine> {
    on.check(artifact.kernels.as_ref().map(|k| &*k.target))?;
    #[cfg(feature = "gpu")]
    if artifact.kernels.is_some() {
        let emulator = if on.device.as_deref() == Some("emulate") { Some(cache()?) } else { None };
        let number = on.device.as_ref().and_then(|d| d.parse().ok());
        let choice = ds4_runtime::device::Choice { number, emulator };
        let engine = Engine::on_device(artifact, folder, &choice)?;
        if let Some(info) = engine.device() {
            eprintln!("running on {info}");
        }
        return Ok(engine);
    }
    Ok(Engine::new(artifact, folder, threads)?)
}

/// The folder for compiled and unpacked models.
///
/// # Errors
/// The platform names none, or it cannot be made.
pub fn cache() -> Result<PathBuf> {
    let base = dirs::cache_dir().context("no cache folder: set XDG_CACHE_HOME or HOME")?;
    let folder = base.join("ds4");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Where `ds4c probe --save` keeps the profile of this machine.
///
/// # Errors
/// See [`cache`].
pub fn machine_file() -> Result<PathBuf> {
    Ok(cache()?.join("machine.json"))
}

/// Longest context that a model may be asked for: an artifact's own, or what the configuration says.
///
/// # Errors
/// A model that cannot be read.
pub fn context_max(model: Option<&Path>) -> Result<u32> {
    let path = path_of(model)?;
    if Artifact::is_artifact(&path) {
        return Ok(Artifact::read(&path)?.module.ctx);
    }
    Ok(Checkpoint::open(&path)?.config().max_position_embeddings)
}

fn is_demo(model: Option<&Path>) -> bool {
    model.is_none_or(|m| m == Path::new(demo::NAME) && !m.exists())
}

/// Where the model lies; the demo is unpacked.
fn path_of(model: Option<&Path>) -> Result<PathBuf> {
    match model {
        Some(path) if !is_demo(model) => Ok(path.to_path_buf()),
        _ => demo::unpack(&cache()?),
    }
}

/// Opens `model`: an artifact, a checkpoint, `demo`, or `None` for the demo too.
///
/// # Errors
/// A model that cannot be read or compiled, or an artifact that is not what was wished for.
pub fn open(model: Option<&Path>, wish: &Wish) -> Result<Opened> {
    let (is_demo, path) = (is_demo(model), path_of(model)?);
    if Artifact::is_artifact(&path) {
        return given(&path, wish);
    }
    let (target, why) = wish.device.choose()?;
    let request = Request { class: wish.class.unwrap_or(CLASS_DEFAULT), ctx: wish.ctx, target };
    let folder = cache()?.join("artifacts");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let (key, program) = (key(&path, request)?, program()?);
    let cached = folder.join(format!("{key}-{program}.ds4"));
    // A build that knows no GPUs has nothing to choose.
    if wish.device.asked().is_none() && cfg!(feature = "gpu") {
        eprintln!("target {target} ({why})");
    }
    // A cached artifact that cannot be read is made again: it holds nothing that is not in the model.
    if let Ok(artifact) = Artifact::read(&cached) {
        return Ok(Opened { artifact, folder, is_demo, device: wish.device.clone() });
    }
    let spinner = progress::spinner(&format!("compiling {}", path.display()));
    let artifact = compile(&path, &folder, request)?;
    artifact.write(&cached)?;
    forget_others(&folder, &key, &cached);
    spinner.finish_and_clear();
    Ok(Opened { artifact, folder, is_demo, device: wish.device.clone() })
}

fn given(path: &Path, wish: &Wish) -> Result<Opened> {
    let artifact = Artifact::read(path)?;
    let module = &artifact.module;
    if let Some(class) = wish.class.filter(|c| *c != module.class) {
        bail!("{}: expected class {class}, got an artifact of class {}", path.display(), module.class);
    }
    if let Some(ctx) = wish.ctx.filter(|c| *c > module.ctx) {
        bail!("{}: expected a context of {ctx} tokens, got an artifact for {}", path.display(), module.ctx);
    }
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    wish.device.check(artifact.kernels.as_ref().map(|k| &*k.target))?;
    Ok(Opened { artifact, folder, is_demo: false, device: wish.device.clone() })
}

/// What a cached artifact depends on besides the program: the model's files as they are, the request.
fn key(model: &Path, request: Request) -> Result<String> {
    let absolute = model.canonicalize().with_context(|| model.display().to_string())?;
    let mut files = vec![absolute.clone()];
    if absolute.is_dir() {
        let entries = std::fs::read_dir(&absolute).with_context(|| model.display().to_string())?;
        files.extend(entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()));
        files.sort();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{request:?}\n").as_bytes());
    for file in files {
        hasher.update(format!("{} {:?}\n", file.display(), mark(&file)?).as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..32].to_string())
}

/// Tells builds of this program apart: those of one version may still plan in different ways.
fn program() -> Result<String> {
    let file = std::env::current_exe().context("the file of this program")?;
    let build = format!("{} {} {:?}", env!("CARGO_PKG_VERSION"), artifact::VERSION, mark(&file)?);
    Ok(blake3::hash(build.as_bytes()).to_hex()[..8].to_string())
}

/// Removes what other builds of this program made of the same request.
fn forget_others(folder: &Path, key: &str, kept: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let same = |name: &str| name.starts_with(key) && name.ends_with(".ds4");
    for path in entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p != kept) {
        if path.file_name().is_some_and(|name| same(&name.to_string_lossy())) {
            // One that cannot be removed costs room, no more: its name keeps it apart.
            drop(std::fs::remove_file(path));
        }
    }
}
