//! The artifact: a compiled model in one file, drawn byte by byte in `docs/formats.md`.
//!
//! A file is proven whole by checksums before any of its content is looked at, and nothing is
//! allocated from a length before that lies inside the file. Weights stay in their own files.
mod binding;
mod dto;
mod kernels;

pub use binding::{Binding, Buffer};
use kernels::Part;
pub use kernels::{Constant, KernelLaunch, KernelText, Kernels};

use crate::tune::Record;
use crate::{Error, Result};
use ds4_ir::plan::Plan;
use ds4_ir::{Module, WeightTable, parse_module, verify_module};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// First bytes of every artifact: a name, and line endings that a text transfer would spoil.
const MAGIC: [u8; 8] = *b"DS4ART\r\n";
/// Version of the format, and of the op table that the module's text speaks in.
pub const VERSION: u32 = 2;
/// Alignment of sections in bytes.
const ALIGN: usize = 64;
/// Bytes of a section's entry in the header.
const ENTRY: usize = 8 + 8 + 8 + 32;
/// Bytes before the first section entry: magic, version, number of sections.
const START: usize = 8 + 4 + 4;
/// Most sections a file may have.
const SECTIONS_MAX: usize = 16;
/// Longest artifact in bytes. Pro's weight table, the largest known content, takes 60 MB.
const FILE_MAX: u64 = 1 << 30;

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What it was made from.
    pub meta: Meta,
    /// The program.
    pub module: Module,
    /// Its memory and launches.
    pub plan: Plan,
    /// Where its weights lie.
    pub table: WeightTable,
    /// `tokenizer.json`, absent for a model that runs on token ids only.
    pub tokenizer: Option<Vec<u8>>,
    /// What a GPU launches, absent for the CPU.
    pub kernels: Option<Kernels>,
    /// What a run must give, absent where compiling was to be quick.
    pub selftest: Option<SelfTest>,
    /// Weights that are read repacked, absent where all are read as stored.
    pub layouts: Option<Layouts>,
    /// Which kernels were the fastest where it was compiled, absent where nothing was measured.
    pub tuning: Option<Record>,
}

/// Weights that are read from a layout file instead of the published one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layouts {
    /// Hex of the blake3 of the layout file's header; empty until the file is built.
    pub header: String,
    /// The layout file as it was built; `None` until then.
    pub mark: Option<FileMark>,
    /// One file, the layout file, and an entry per repacked weight: its packing, and where in the file
    /// its matrices lie.
    pub table: WeightTable,
}

/// What the model answers to a few tokens, so that an artifact can be verified where it runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SelfTest {
    /// Who computed it: `interpreter f64` or `engine exact`.
    pub made_by: String,
    /// The tokens, from the first on.
    pub ids: Vec<u32>,
    /// Per position the largest logits with their token ids, largest first.
    pub top: Vec<Vec<(u32, f32)>>,
    /// Hex of the blake3 of each weight file, in the table's order; empty where not computed.
    pub hashes: Vec<String>,
}

/// What an artifact was made from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// Program and version that made it.
    pub compiler: String,
    /// Name of the model.
    pub model: String,
    /// Model identity: hex of a blake3 over configuration, tokenizer and samples of all weights.
    pub identity: String,
    /// Token that opens every prompt.
    pub bos: u32,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// The weight files as they were, in the table's order.
    pub files: Vec<FileMark>,
    /// Per weight of the module, in its order: hex of the blake3 of its samples.
    pub samples: Vec<String>,
}

/// A weight file as it was when it was compiled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileMark {
    /// Length in bytes.
    pub bytes: u64,
    /// Time of the last change in nanoseconds since 1970.
    pub modified_ns: u128,
}

impl Artifact {
    /// Writes the artifact to `path` as [`write_whole`] does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.to_bytes())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let json = |x: serde_json::Result<Vec<u8>>| x.expect("plain data serialise");
        let mut sections: Vec<([u8; 8], Vec<u8>)> = vec![
            (*b"meta    ", json(serde_json::to_vec(&self.meta))),
            (*b"module  ", self.module.to_string().into_bytes()),
            (*b"plan    ", json(serde_json::to_vec(&dto::Plan::from(&self.plan)))),
            (*b"weights ", json(serde_json::to_vec(&dto::Table::from(&self.table)))),
        ];
        sections.extend(self.tokenizer.clone().map(|t| (*b"words   ", t)));
        sections.extend(self.selftest.as_ref().map(|t| (*b"selftest", json(serde_json::to_vec(t)))));
        if let Some(kernels) = &self.kernels {
            sections.push((*b"kernels ", json(serde_json::to_vec(kernels))));
            sections.push((*b"binaries", kernels.part(Part::Binary)));
            if kernels.texts.iter().any(|text| !text.portable.is_empty()) {
                sections.push((*b"portable", kernels.part(Part::Portable)));
            }
        }
        let layouts = self.layouts.as_ref().map(dto::Layouts::from);
        sections.extend(layouts.map(|l| (*b"layouts ", json(serde_json::to_vec(&l)))));
        sections.extend(self.tuning.as_ref().map(|t| (*b"tuning  ", json(serde_json::to_vec(t)))));
        let mut header = Vec::from(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend(u32::try_from(sections.len()).expect("few sections").to_le_bytes());
        let mut at = (START + sections.len() * ENTRY + 32).next_multiple_of(ALIGN);
        let mut body = Vec::new();
        for (name, bytes) in &sections {
            header.extend(name);
            header.extend((at as u64).to_le_bytes());
            header.extend((bytes.len() as u64).to_le_bytes());
            header.extend(blake3::hash(bytes).as_bytes());
            body.extend(bytes);
            body.resize(body.len().next_multiple_of(ALIGN), 0);
            at = (at + bytes.len()).next_multiple_of(ALIGN);
        }
        header.extend(*blake3::hash(&header).as_bytes());
        header.resize(header.len().next_multiple_of(ALIGN), 0);
        header.extend(body);
        header
    }

    /// Reads the artifact at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is no artifact, is of another version, or is damaged.
    pub fn read(path: &Path) -> Result<Artifact> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > FILE_MAX {
            return Err(Error::malformed(path, format!("expected at most {FILE_MAX} bytes, got {length}")));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        Artifact::from_bytes(&bytes).map_err(|why| Error::malformed(path, why))
    }

    /// Whether the file starts as an artifact does.
    pub fn is_artifact(path: &Path) -> bool {
        use std::io::Read;
        let mut magic = [0; MAGIC.len()];
        File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == MAGIC
    }

    /// Reads an artifact from its bytes.
    ///
    /// # Errors
    /// The part, expected and got.
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Artifact, String> {
        let sections = Sections::read(bytes)?;
        let meta: Meta = dto::from_json("meta", sections.get("meta")?)?;
        let text = std::str::from_utf8(sections.get("module")?).map_err(|e| format!("module: {e}"))?;
        let module = parse_module(text).map_err(|e| format!("module: {e}"))?;
        verify_module(&module).map_err(|errors| format!("module: {}", errors[0]))?;
        let plan: dto::Plan = dto::from_json("plan", sections.get("plan")?)?;
        let table: dto::Table = dto::from_json("weights", sections.get("weights")?)?;
        let table = table.into_table()?;
        let plan = plan.into_plan(&module)?;
        let tokenizer = sections.get("words").ok().map(<[u8]>::to_vec);
        let kernels = sections.get("kernels").ok().map(|section| -> std::result::Result<Kernels, String> {
            let mut kernels: Kernels = dto::from_json("kernels", section)?;
            let mut set = |name: &str, part: Part, bytes: &[u8]| {
                kernels.set_part(part, bytes).map_err(|why| format!("section {name}: {why}"))
            };
            set("binaries", Part::Binary, sections.get("binaries")?)?;
            if let Ok(bytes) = sections.get("portable") {
                set("portable", Part::Portable, bytes)?;
            }
            kernels.check(&module, &plan).map_err(|e| format!("section kernels: {e}"))?;
            Ok(kernels)
        });
        let kernels = kernels.transpose()?;
        let selftest = sections.get("selftest").ok().map(|b| dto::from_json("selftest", b)).transpose()?;
        let layouts = sections.get("layouts").ok().map(|b| dto::from_json::<dto::Layouts>("layouts", b));
        let layouts = layouts.transpose()?.map(dto::Layouts::into_layouts).transpose()?;
        let tuning = sections.get("tuning").ok().map(|b| dto::from_json("tuning", b)).transpose()?;
        Ok(Artifact { meta, module, plan, table, tokenizer, kernels, selftest, layouts, tuning })
    }
}

/// A hidden name beside `path` that no other call returns, in this process or another that runs.
#[must_use]
pub fn aside(path: &Path) -> PathBuf {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}-{number}.tmp", std::process::id()))
}

/// Writes a file that is there whole or not at all: a temporary one beside it, made durable, then
/// renamed.
///
/// # Errors
/// The file cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = aside(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temp, path)
    };
    write().map_err(|source| {
        // Nothing to tell if there is no temporary file to remove.
        let _ = std::fs::remove_file(&temp);
        Error::Io { path: path.to_path_buf(), source }
    })
}

/// The sections of a file whose checksums hold.
struct Sections<'a> {
    parts: Vec<(String, &'a [u8])>,
}

impl<'a> Sections<'a> {
    fn read(bytes: &'a [u8]) -> std::result::Result<Sections<'a>, String> {
        let field = |at: usize, len: usize| {
            let end = at.checked_add(len).filter(|end| *end <= bytes.len());
            end.map(|end| &bytes[at..end])
                .ok_or_else(|| format!("expected at least {} bytes, got {}", at + len, bytes.len()))
        };
        let number = |at: usize| -> std::result::Result<u32, String> {
            Ok(u32::from_le_bytes(field(at, 4)?.try_into().expect("4 bytes")))
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(format!("expected an artifact of ds4c, got {} other bytes", bytes.len()));
        }
        let version = number(8)?;
        if version != VERSION {
            return Err(format!("version: expected {VERSION}, got {version}; compile the model again"));
        }
        let count = number(12)? as usize;
        if count > SECTIONS_MAX {
            return Err(format!("sections: expected at most {SECTIONS_MAX}, got {count}"));
        }
        let end = START + count * ENTRY;
        if blake3::hash(field(0, end)?).as_bytes()[..] != *field(end, 32)? {
            return Err("header: the checksum does not match".to_string());
        }
        let mut parts = Vec::new();
        for entry in field(START, count * ENTRY)?.chunks_exact(ENTRY) {
            let name = String::from_utf8_lossy(&entry[..8]).trim_end().to_string();
            let long = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
            let at = usize::try_from(long(8)).ok().zip(usize::try_from(long(16)).ok());
            let range =
                at.and_then(|(at, len)| Some(at..at.checked_add(len)?)).filter(|r| r.end <= bytes.len());
            let range = range
                .ok_or_else(|| format!("section {name}: lies outside the file of {} bytes", bytes.len()))?;
            if blake3::hash(&bytes[range.clone()]).as_bytes()[..] != entry[24..] {
                return Err(format!("section {name}: the checksum does not match"));
            }
            parts.push((name, &bytes[range]));
        }
        Ok(Sections { parts })
    }

    fn get(&self, name: &str) -> std::result::Result<&'a [u8], String> {
        let found = self.parts.iter().find(|(n, _)| n == name);
        found.map(|(_, bytes)| *bytes).ok_or_else(|| format!("section {name}: expected one, got none"))
    }
}
